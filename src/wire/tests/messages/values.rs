//! Random messages straight from the schema files: a second, independent encoder that knows nothing of the generated code. What it writes is what Kafka would write, so the
//! generated code must read it and give back the same bytes.

use std::fs;
use std::path::Path;

#[path = "../../build/parse.rs"]
#[allow(dead_code)]
pub mod parse;

use corelane_wire::catalogue::{ENTRIES, Entry};
use parse::{Field, Kind, Message, Structure, Type, Versions};

/// Every message of the catalogue with its schema, in the catalogue's order.
pub fn all_messages() -> Vec<(&'static Entry, Message)> {
    let mut schemas = Vec::new();
    for directory in ["messages", "records"] {
        let directory_path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(directory);
        for file in fs::read_dir(directory_path).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            schemas.extend(parse::parse(&path.display().to_string(), &text).unwrap_or_else(|error| panic!("{error}")));
        }
    }
    let schema_of = |entry: &Entry| schemas.iter().find(|schema| schema.name == entry.name).cloned().unwrap();
    let pairs: Vec<_> = ENTRIES.iter().map(|entry| (entry, schema_of(entry))).collect();
    let with_versions = schemas.iter().filter(|schema| !schema.versions.is_empty()).count();
    assert_eq!(pairs.len(), with_versions, "the catalogue holds every message");
    pairs
}

/// One line for an assertion that fails.
pub fn describe(entry: &Entry, version: i16, seed: u64) -> String {
    format!("{} version {version} seed {seed}", entry.name)
}

/// The first seed of a run: 1, or what the environment says, for long runs over other values.
pub fn first_seed() -> u64 {
    std::env::var("CORELANE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A message with random content in one version. The same seed gives the same bytes.
pub fn random_message(message: &Message, version: i16, seed: u64) -> Vec<u8> {
    let mut writer = Writer { message, version, random: Random::new(seed, version, &message.name), out: Vec::new() };
    writer.structure(&top(message), Content::Random);
    writer.out
}

/// The message with every field at its default.
pub fn default_message(message: &Message, version: i16) -> Vec<u8> {
    let mut writer = Writer { message, version, random: Random::new(0, 0, ""), out: Vec::new() };
    writer.structure(&top(message), Content::Default);
    writer.out
}

fn top(message: &Message) -> Structure {
    Structure { name: message.name.clone(), versions: message.versions, fields: message.fields.clone() }
}

#[derive(Clone, Copy, PartialEq)]
enum Content {
    Random,
    Default,
}

struct Writer<'a> {
    message: &'a Message,
    version: i16,
    random: Random,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn is_in(&self, versions: Versions) -> bool {
        versions.first <= self.version && self.version <= versions.last
    }

    fn structure(&mut self, structure: &Structure, content: Content) {
        for field in &structure.fields {
            if field.tag.is_none() && self.is_in(field.versions) {
                self.field(field, content, false);
            }
        }
        if self.is_in(self.message.flexible) {
            self.tag_buffer(structure, content);
        }
    }

    /// Known tags with a value that is not the default, then sometimes unknown ones.
    fn tag_buffer(&mut self, structure: &Structure, content: Content) {
        let mut tags: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in &structure.fields {
            let Some((tag, tagged)) = field.tag else { continue };
            if self.is_in(tagged) && content == Content::Random && self.random.chance(2) {
                let outer = std::mem::take(&mut self.out);
                self.field(field, Content::Default, true);
                let default = std::mem::take(&mut self.out);
                self.field(field, Content::Random, true);
                let value = std::mem::replace(&mut self.out, outer);
                if value != default {
                    tags.push((tag, value));
                }
            }
        }
        tags.sort();
        if content == Content::Random && self.random.chance(8) {
            let unknown = 1000 + self.random.below(100) as u32;
            tags.push((unknown, self.random.bytes(20)));
        }
        self.unsigned_varint(tags.len() as u64);
        for (tag, value) in tags {
            self.unsigned_varint(u64::from(tag));
            self.unsigned_varint(value.len() as u64);
            self.out.extend_from_slice(&value);
        }
    }

    fn field(&mut self, field: &Field, content: Content, tagged: bool) {
        let flexible = self.is_in(self.message.flexible) && !field.never_compact;
        let nullable = self.is_in(field.nullable);
        let default_is_null = field.default.as_deref() == Some("null") || field.kind == Type::Records;
        let null = match content {
            Content::Default => nullable && default_is_null,
            Content::Random => nullable && self.random.chance(4),
        };
        if let (Type::Structure(_), true) = (&field.kind, nullable) {
            match tagged {
                true => self.unsigned_varint(u64::from(!null)),
                false => self.out.push(if null { 0xff } else { 1 }),
            }
        }
        if null {
            return self.null(&field.kind, flexible);
        }
        match content {
            Content::Random => self.random_value(&field.kind, flexible),
            Content::Default => self.default_value(field, flexible),
        }
    }

    fn null(&mut self, kind: &Type, flexible: bool) {
        match kind {
            Type::Structure(_) => {}
            Type::String if !flexible => self.out.extend_from_slice(&[0xff; 2]),
            _ if !flexible => self.out.extend_from_slice(&[0xff; 4]),
            _ => self.out.push(0),
        }
    }

    fn default_value(&mut self, field: &Field, flexible: bool) {
        let number = || match field.default.as_deref() {
            None | Some("false") => 0,
            Some("true") => 1,
            Some(default) => match default.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16).unwrap(),
                None => default.parse().unwrap(),
            },
        };
        match &field.kind {
            Type::Bool | Type::Int8 => self.out.push(number() as u8),
            Type::Int16 | Type::Uint16 => self.out.extend_from_slice(&(number() as i16).to_be_bytes()),
            Type::Int32 | Type::Uint32 => self.out.extend_from_slice(&(number() as i32).to_be_bytes()),
            Type::Int64 | Type::Float64 => self.out.extend_from_slice(&number().to_be_bytes()),
            Type::Uuid => self.out.extend_from_slice(&[0; 16]),
            Type::String | Type::Bytes | Type::Records | Type::Array(_) => self.length(&field.kind, 0, flexible),
            Type::Structure(name) => self.structure(self.message.structure(name), Content::Default),
        }
    }

    fn random_value(&mut self, kind: &Type, flexible: bool) {
        match kind {
            Type::Bool => {
                let value = self.random.below(2) as u8;
                self.out.push(value);
            }
            Type::Int8 => self.integer(1),
            Type::Int16 | Type::Uint16 => self.integer(2),
            Type::Int32 | Type::Uint32 => self.integer(4),
            Type::Int64 => self.integer(8),
            Type::Float64 => {
                let value = self.random.below(1_000_000) as f64 / 7.0;
                self.out.extend_from_slice(&value.to_be_bytes());
            }
            Type::Uuid => self.integer(16),
            Type::String => {
                let text = self.random.text();
                self.length(kind, text.len(), flexible);
                self.out.extend_from_slice(text.as_bytes());
            }
            Type::Bytes | Type::Records => {
                let bytes_max = if self.random.chance(50) { 3000 } else { 30 };
                let bytes = self.random.bytes(bytes_max);
                self.length(kind, bytes.len(), flexible);
                self.out.extend_from_slice(&bytes);
            }
            Type::Structure(name) => self.structure(self.message.structure(name), Content::Random),
            Type::Array(element) => {
                let count = self.random.below(4);
                self.length(kind, count, flexible);
                for _ in 0..count {
                    self.random_value(element, flexible);
                }
            }
        }
    }

    fn integer(&mut self, bytes: usize) {
        // Small numbers, -1 and any number at all.
        let value: u128 = match self.random.below(3) {
            0 => self.random.below(100) as u128,
            1 => u128::MAX,
            _ => u128::from(self.random.next()) << 64 | u128::from(self.random.next()),
        };
        self.out.extend_from_slice(&value.to_be_bytes()[16 - bytes..]);
    }

    fn length(&mut self, kind: &Type, length: usize, flexible: bool) {
        match (flexible, kind) {
            (true, _) => self.unsigned_varint(length as u64 + 1),
            (false, Type::String) => self.out.extend_from_slice(&(length as i16).to_be_bytes()),
            (false, _) => self.out.extend_from_slice(&(length as i32).to_be_bytes()),
        }
    }

    fn unsigned_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }
}

/// SplitMix64: small, and the same on every machine.
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64, version: i16, name: &str) -> Random {
        let start = name.bytes().fold(seed ^ (version as u64) << 48, |state, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Random { state: start }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times`.
    pub fn chance(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn bytes(&mut self, length_max: usize) -> Vec<u8> {
        let length = self.below(length_max);
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn text(&mut self) -> String {
        let length = if self.chance(40) { 200 } else { self.below(10) };
        (0..length).map(|_| ['a', 'Z', '0', '.', '-', '\u{e9}', '\u{20ac}', '\u{1f980}'][self.below(8)]).collect()
    }
}

/// Whether an entry is a request or a response, which other implementations know by key.
pub fn is_response(message: &Message) -> Option<bool> {
    match message.kind {
        Kind::Request => Some(false),
        Kind::Response => Some(true),
        _ => None,
    }
}
