//! Reads the schema notation: one structure after another, a line a field, two spaces a level. The files under `schema/` are the only description of Kafka's messages in
//! the project; everything that is wrong in one of them stops the build with file and line.

use std::collections::BTreeMap;
use std::fmt;

/// Versions from `first` to `last`, both included. `9+` has no last version of its own and is written as `i16::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub first: i16,
    pub last: i16,
}

impl Versions {
    /// No version at all: what `none` says.
    pub const NONE: Versions = Versions { first: 0, last: -1 };

    pub fn is_empty(self) -> bool {
        self.first > self.last
    }

    pub fn intersect(self, other: Versions) -> Versions {
        Versions { first: self.first.max(other.first), last: self.last.min(other.last) }
    }

    fn parse(text: &str) -> Result<Versions, String> {
        let number = |digits: &str| digits.parse::<i16>().map_err(|_| format!("not a version: {text}"));
        if text == "none" {
            return Ok(Versions::NONE);
        }
        if let Some(first) = text.strip_suffix('+') {
            return Ok(Versions { first: number(first)?, last: i16::MAX });
        }
        match text.split_once('-') {
            Some((first, last)) => Ok(Versions { first: number(first)?, last: number(last)? }),
            None => Ok(Versions { first: number(text)?, last: number(text)? }),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Header,
    Data,
    Metadata,
    CoordinatorKey,
    CoordinatorValue,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint16,
    Uint32,
    Float64,
    Uuid,
    String,
    Bytes,
    Records,
    Structure(String),
    Array(Box<Type>),
}

impl Type {
    fn parse(text: &str) -> Result<Type, String> {
        if let Some(element) = text.strip_prefix("[]") {
            return Ok(Type::Array(Box::new(Type::parse(element)?)));
        }
        Ok(match text {
            "bool" => Type::Bool,
            "int8" => Type::Int8,
            "int16" => Type::Int16,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "uint16" => Type::Uint16,
            "uint32" => Type::Uint32,
            "float64" => Type::Float64,
            "uuid" => Type::Uuid,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            "records" => Type::Records,
            name if name.starts_with(|first: char| first.is_ascii_uppercase()) => Type::Structure(name.to_owned()),
            other => return Err(format!("unknown type {other}")),
        })
    }

    /// The structure that a field of this type holds, alone or in an array.
    pub fn structure(&self) -> Option<&str> {
        match self {
            Type::Structure(name) => Some(name),
            Type::Array(element) => element.structure(),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub kind: Type,
    /// The versions in which the field exists.
    pub versions: Versions,
    pub nullable: Versions,
    /// As the schema writes it; the generator knows the type.
    pub default: Option<String>,
    pub ignorable: bool,
    /// Tag number and the versions in which the field stands in the tag buffer.
    pub tag: Option<(u32, Versions)>,
    /// `flexible=none`: never compact, also in flexible versions.
    pub never_compact: bool,
}

#[derive(Clone, Debug)]
pub struct Structure {
    pub name: String,
    pub versions: Versions,
    pub fields: Vec<Field>,
}

/// One message: its own fields and every structure named in it, in the order in which they appear.
#[derive(Clone, Debug)]
pub struct Message {
    pub kind: Kind,
    pub name: String,
    pub api: Option<i16>,
    pub versions: Versions,
    pub flexible: Versions,
    pub latest_unstable: bool,
    pub on_broker: bool,
    pub on_controller: bool,
    pub fields: Vec<Field>,
    pub structures: Vec<Structure>,
}

impl Message {
    pub fn structure(&self, name: &str) -> &Structure {
        self.structures.iter().find(|structure| structure.name == name).expect("checked when the message was read")
    }
}

#[derive(Debug)]
pub struct ParseError {
    pub file: String,
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.problem)
    }
}

/// All messages of one schema file.
pub fn parse(file: &str, text: &str) -> Result<Vec<Message>, ParseError> {
    let mut messages = Vec::new();
    let mut lines = Lines::new(text);
    while let Some(line) = lines.next_line() {
        let number = line.number;
        let failed = |problem| ParseError { file: file.to_owned(), line: number, problem };
        let mut message = parse_message_line(line).map_err(failed)?;
        let mut structures = Structures::default();
        message.fields =
            parse_fields(&mut lines, 1, &mut structures).map_err(|(line, problem)| ParseError { file: file.to_owned(), line, problem })?;
        message.structures = structures.in_order;
        check(&message).map_err(failed)?;
        messages.push(message);
    }
    Ok(messages)
}

/// One line that holds something: its depth (two spaces a level) and its words.
#[derive(Clone)]
struct Line<'a> {
    number: usize,
    depth: usize,
    words: Vec<&'a str>,
}

struct Lines<'a> {
    lines: Vec<Line<'a>>,
    next: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Lines<'a> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')).map(|(index, line)| {
            Line { number: index + 1, depth: (line.len() - line.trim_start().len()) / 2, words: line.split_whitespace().collect() }
        });
        Lines { lines: lines.collect(), next: 0 }
    }

    fn next_line(&mut self) -> Option<Line<'a>> {
        self.next_at_depth(0)
    }

    /// The next line if it stands at `depth`; a shallower one belongs to somebody further out.
    fn next_at_depth(&mut self, depth: usize) -> Option<Line<'a>> {
        let line = self.lines.get(self.next).filter(|line| line.depth == depth)?.clone();
        self.next += 1;
        Some(line)
    }

    fn next_depth(&self) -> Option<(usize, usize)> {
        self.lines.get(self.next).map(|line| (line.number, line.depth))
    }
}

#[derive(Default)]
struct Structures {
    in_order: Vec<Structure>,
    seen: BTreeMap<String, ()>,
}

impl Structures {
    fn add(&mut self, structure: Structure) -> Result<(), String> {
        if self.seen.insert(structure.name.clone(), ()).is_some() {
            return Err(format!("structure {} is defined twice", structure.name));
        }
        self.in_order.push(structure);
        Ok(())
    }
}

fn parse_message_line(line: Line<'_>) -> Result<Message, String> {
    let [kind, name, options @ ..] = line.words.as_slice() else {
        return Err("expected kind and name".to_owned());
    };
    let kind = match *kind {
        "request" => Kind::Request,
        "response" => Kind::Response,
        "header" => Kind::Header,
        "data" => Kind::Data,
        "metadata" => Kind::Metadata,
        "coordinator-key" => Kind::CoordinatorKey,
        "coordinator-value" => Kind::CoordinatorValue,
        other => return Err(format!("unknown kind {other}")),
    };
    let mut message = Message {
        kind,
        name: (*name).to_owned(),
        api: None,
        versions: Versions::NONE,
        flexible: Versions::NONE,
        latest_unstable: false,
        on_broker: false,
        on_controller: false,
        fields: Vec::new(),
        structures: Vec::new(),
    };
    for option in options {
        match option.split_once('=') {
            Some(("api", key)) => message.api = Some(key.parse().map_err(|_| format!("not an api key: {key}"))?),
            Some(("versions", versions)) => message.versions = Versions::parse(versions)?,
            Some(("flexible", versions)) => message.flexible = Versions::parse(versions)?,
            Some(("on", listeners)) => {
                message.on_broker = listeners.split(',').any(|listener| listener == "broker");
                message.on_controller = listeners.split(',').any(|listener| listener == "controller");
            }
            None if *option == "latest-unstable" => message.latest_unstable = true,
            _ => return Err(format!("unknown option {option}")),
        }
    }
    Ok(message)
}

/// The fields at `depth`, with what is indented below them. Structures, inline or named, are put aside in `structures`.
fn parse_fields(lines: &mut Lines<'_>, depth: usize, structures: &mut Structures) -> Result<Vec<Field>, (usize, String)> {
    let mut fields = Vec::new();
    while let Some(line) = lines.next_at_depth(depth) {
        let number = line.number;
        if line.words[0] == "struct" {
            let [_, name, versions] = line.words.as_slice() else {
                return Err((number, "expected: struct NAME VERSIONS".to_owned()));
            };
            let versions = Versions::parse(versions).map_err(|problem| (number, problem))?;
            let fields = parse_fields(lines, depth + 1, structures)?;
            structures.add(Structure { name: (*name).to_owned(), versions, fields }).map_err(|problem| (number, problem))?;
            continue;
        }
        let field = parse_field_line(&line).map_err(|problem| (number, problem))?;
        let nested = parse_fields(lines, depth + 1, structures)?;
        if !nested.is_empty() {
            let name = field.kind.structure().ok_or((number, "fields below a field that is no structure".to_owned()))?;
            let structure = Structure { name: name.to_owned(), versions: field.versions, fields: nested };
            structures.add(structure).map_err(|problem| (number, problem))?;
        }
        fields.push(field);
    }
    match lines.next_depth() {
        Some((number, next)) if next > depth => Err((number, "indented too far".to_owned())),
        _ => Ok(fields),
    }
}

fn parse_field_line(line: &Line<'_>) -> Result<Field, String> {
    let [name, kind, versions, options @ ..] = line.words.as_slice() else {
        return Err("expected name, type and versions".to_owned());
    };
    let mut field = Field {
        name: (*name).to_owned(),
        kind: Type::parse(kind)?,
        versions: Versions::parse(versions)?,
        nullable: Versions::NONE,
        default: None,
        ignorable: false,
        tag: None,
        never_compact: false,
    };
    let mut tag = None;
    let mut tagged = None;
    for option in options {
        match option.split_once('=') {
            Some(("nullable", versions)) => field.nullable = Versions::parse(versions)?,
            Some(("default", value)) => field.default = Some(value.to_owned()),
            Some(("tag", number)) => tag = Some(number.parse().map_err(|_| format!("not a tag: {number}"))?),
            Some(("tagged", versions)) => tagged = Some(Versions::parse(versions)?),
            Some(("flexible", "none")) => field.never_compact = true,
            Some(("entity", _)) => {}
            None if *option == "ignorable" => field.ignorable = true,
            None if *option == "key" || *option == "zerocopy" => {}
            _ => return Err(format!("unknown option {option}")),
        }
    }
    field.tag = match (tag, tagged) {
        (Some(tag), Some(tagged)) => Some((tag, tagged)),
        (None, None) => None,
        _ => return Err("tag and tagged come together".to_owned()),
    };
    Ok(field)
}

/// What the generator relies on: every structure is known, and a tagged field is tagged wherever it exists, in flexible versions only.
fn check(message: &Message) -> Result<(), String> {
    let all_fields = message.structures.iter().flat_map(|structure| &structure.fields).chain(&message.fields);
    for field in all_fields {
        if let Some(name) = field.kind.structure()
            && !message.structures.iter().any(|structure| structure.name == name)
        {
            return Err(format!("{}: no structure {name} in {}", field.name, message.name));
        }
        if let Some((_, tagged)) = field.tag {
            let exists = field.versions.intersect(message.versions);
            if tagged.intersect(message.versions) != exists {
                return Err(format!("{}: tagged in {tagged:?} but exists in {exists:?}", field.name));
            }
            if message.flexible.intersect(exists) != exists {
                return Err(format!("{}: tagged in versions that are not flexible", field.name));
            }
        }
    }
    Ok(())
}
