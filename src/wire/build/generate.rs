//! Writes Rust for parsed messages. All encoding knowledge stands in the crate's `Wire` trait; what is generated only says which field is read or written in which version,
//! so that the text stays short and quick to compile.

use std::fmt::Write as _;

use crate::parse::{Field, Kind, Message, Structure, Type, Versions};

/// The module of one message: its structures, the message itself, and the re-export of the latter beside the module.
pub fn message_module(message: &Message) -> String {
    if message.versions.is_empty() {
        return String::new();
    }
    let mut text = String::new();
    let module = snake_case(&message.name);
    let _ = writeln!(text, "/// [`{0}`] and its structures.\npub mod {module} {{\nuse crate::generated::*;", message.name);
    let top = Structure { name: message.name.clone(), versions: message.versions, fields: message.fields.clone() };
    structure(&mut text, message, &top, &message_documentation(message));
    message_traits(&mut text, message);
    for nested in &message.structures {
        let documentation = format!("A structure of [`{}`].", message.name);
        structure(&mut text, message, nested, &documentation);
    }
    let _ = writeln!(text, "}}\npub use {module}::{};", message.name);
    text
}

/// The modules of one file of records, in a module of the file's name; every record is also known one level up.
pub fn record_room(file: &str, records: &[Message]) -> String {
    let room = file.replace('-', "_");
    let mut text = format!("/// The records of `schema/records/{file}.txt`.\npub mod {room} {{\n");
    for record in records {
        text += &message_module(record);
    }
    text += "}\n";
    for record in records {
        let _ = writeln!(text, "pub use {room}::{};", record.name);
    }
    text
}

/// `enum ApiKey` with its tables: one row per request, also for keys that are reserved and have no version.
pub fn api_keys(requests: &[&Message]) -> String {
    let mut requests = requests.to_vec();
    requests.sort_by_key(|request| request.api);
    let mut variants = String::new();
    let mut all = String::new();
    let mut try_from = String::new();
    let mut facts = String::new();
    for request in &requests {
        let name = request.name.strip_suffix("Request").expect("a request is named so");
        let key = request.api.expect("a request has a key");
        let _ = writeln!(variants, "{name} = {key},");
        let _ = write!(all, "ApiKey::{name}, ");
        let _ = writeln!(try_from, "{key} => ApiKey::{name},");
        let _ = writeln!(
            facts,
            "ApiKey::{name} => ApiFacts {{ name: \"{name}\", versions: ({}, {}), flexible_from: {}, latest_unstable: {}, on_broker: {}, on_controller: {} }},",
            request.versions.first,
            request.versions.last,
            if request.flexible.is_empty() { i16::MAX } else { request.flexible.first },
            request.latest_unstable,
            request.on_broker,
            request.on_controller,
        );
    }
    format!(
        "/// What a request asks for: the first field of every request header.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(i16)]\npub enum ApiKey {{\n{variants}}}\n\
         impl ApiKey {{\n/// Every key, in order.\npub const ALL: [ApiKey; {count}] = [{all}];\n\
         fn facts(self) -> ApiFacts {{\nmatch self {{\n{facts}}}\n}}\n}}\n\
         impl TryFrom<i16> for ApiKey {{\ntype Error = UnknownApiKey;\n\
         fn try_from(key: i16) -> Result<ApiKey, UnknownApiKey> {{\nOk(match key {{\n{try_from}other => return Err(UnknownApiKey(other)),\n}})\n}}\n}}\n",
        count = requests.len(),
    )
}

/// One row per message and record: what tests and fuzz targets need to walk over all of them.
pub fn catalogue(messages: &[Message], records: &[(&str, &Message)]) -> String {
    let mut rows = String::new();
    let messages = messages.iter().map(|message| ("messages", message));
    for (file, message) in messages.chain(records.iter().copied()) {
        if message.versions.is_empty() {
            continue;
        }
        let room = if file == "messages" { file.to_owned() } else { format!("records::{}", file.replace('-', "_")) };
        let api = message.api.map_or("None".to_owned(), |api| format!("Some({api})"));
        let _ = writeln!(
            rows,
            "Entry {{ name: \"{name}\", file: \"{file}\", kind: Kind::{kind:?}, api: {api}, versions: ({first}, {last}), decode: decode::<crate::{room}::{name}>, transcode: transcode::<crate::{room}::{name}>, \
             encode_default: encode_default::<crate::{room}::{name}> }},",
            name = message.name,
            kind = message.kind,
            first = message.versions.first,
            last = message.versions.last,
        );
    }
    format!("pub static ENTRIES: &[Entry] = &[\n{rows}];\n")
}

fn message_documentation(message: &Message) -> String {
    let flexible = match message.flexible {
        Versions::NONE => "never flexible".to_owned(),
        versions => format!("flexible from {}", versions.first),
    };
    let api = message.api.map_or(String::new(), |api| format!(", key {api}"));
    format!("`{}`: versions {} to {}, {flexible}{api}.", message.name, message.versions.first, message.versions.last)
}

fn message_traits(text: &mut String, message: &Message) {
    let name = &message.name;
    let flexible = match message.flexible {
        Versions::NONE => "false".to_owned(),
        versions => condition(versions, Versions { first: i16::MIN, last: i16::MAX }),
    };
    let _ = writeln!(
        text,
        "impl Message for {name} {{\nconst NAME: &'static str = \"{name}\";\nconst VERSIONS: RangeInclusive<i16> = {}..={};\n\
         fn is_flexible(version: i16) -> bool {{ let _ = version; {flexible} }}\n}}",
        message.versions.first, message.versions.last,
    );
    match message.kind {
        Kind::Request => {
            let api = name.strip_suffix("Request").expect("a request is named so");
            let _ = writeln!(
                text,
                "impl Request for {name} {{\nconst API_KEY: crate::ApiKey = crate::ApiKey::{api};\ntype Response = crate::messages::{api}Response;\n}}",
            );
        }
        Kind::Metadata | Kind::CoordinatorKey | Kind::CoordinatorValue => {
            let api = message.api.expect("a record has a type");
            let _ = writeln!(text, "impl Record for {name} {{\nconst TYPE: i16 = {api};\n}}");
        }
        Kind::Response | Kind::Header | Kind::Data => {}
    }
}

/// The struct, its default, its reader and its writer.
fn structure(text: &mut String, message: &Message, structure: &Structure, documentation: &str) {
    let versions = message.versions.intersect(structure.versions);
    let name = &structure.name;
    let _ = writeln!(text, "/// {documentation}\n#[derive(Clone, Debug, PartialEq)]\npub struct {name} {{");
    for field in &structure.fields {
        let _ = writeln!(text, "/// {}\npub {}: {},", field_documentation(field, versions), identifier(&field.name), field_type(field));
    }
    let _ = writeln!(
        text,
        "/// Tagged fields that the schema does not know, as they came.\npub unknown_tagged_fields: Vec<RawTaggedField>,\n}}"
    );
    default(text, structure);
    let _ = writeln!(text, "impl Wire for {name} {{\nconst ENCODED_BYTES_MIN: usize = {};", encoded_bytes_min(message, structure));
    reader(text, message, structure, versions);
    writer(text, message, structure, versions);
    let _ = writeln!(text, "}}");
}

fn field_documentation(field: &Field, versions: Versions) -> String {
    let exists = field.versions.intersect(versions);
    let mut text = match (exists.first == versions.first, exists.last == versions.last) {
        (true, true) => "In all versions".to_owned(),
        (false, true) => format!("From version {}", exists.first),
        (true, false) => format!("Up to version {}", exists.last),
        (false, false) => format!("In versions {} to {}", exists.first, exists.last),
    };
    if let Some((tag, _)) = field.tag {
        let _ = write!(text, ", tag {tag}");
    }
    if let Some(default) = &field.default {
        let _ = write!(text, ", default `{default}`");
    }
    let nullable = field.nullable.intersect(exists);
    if !nullable.is_empty() && nullable != exists {
        let _ = write!(text, ", may be null in versions {} to {}", nullable.first, nullable.last);
    }
    text + "."
}

fn default(text: &mut String, structure: &Structure) {
    let _ = writeln!(text, "impl Default for {0} {{\nfn default() -> {0} {{\n{0} {{", structure.name);
    for field in &structure.fields {
        let _ = writeln!(text, "{}: {},", identifier(&field.name), default_value(field));
    }
    let _ = writeln!(text, "unknown_tagged_fields: Vec::new(),\n}}\n}}\n}}");
}

fn reader(text: &mut String, message: &Message, structure: &Structure, versions: Versions) {
    let _ = writeln!(text, "fn read(decoder: &mut Decoder, version: i16, flexible: bool) -> Result<Self, DecodeError> {{");
    let _ = writeln!(text, "let _ = version;\nlet mut value = Self::default();");
    for field in structure.fields.iter().filter(|field| field.tag.is_none()) {
        let assignment = format!("value.{} = {}?;", identifier(&field.name), read_expression(field, versions, false));
        guarded(text, &condition(field.versions, versions), &assignment);
    }
    if !message.flexible.intersect(versions).is_empty() {
        let _ = writeln!(
            text,
            "if flexible {{\nlet mut tags = decoder.tags()?;\nwhile let Some(tag) = tags.next(decoder)? {{\nmatch tag.number {{"
        );
        for field in structure.fields.iter() {
            let Some((tag, tagged)) = field.tag else { continue };
            let condition = condition(tagged, versions);
            if condition != "true" {
                let _ = writeln!(text, "{tag} if !({condition}) => return Err(decoder.tag_not_in_version(tag.number, version)),");
            }
            let _ = writeln!(text, "{tag} => value.{} = {}?,", identifier(&field.name), read_expression(field, versions, true));
        }
        let _ = writeln!(
            text,
            "_ => value.unknown_tagged_fields.push(decoder.raw_tagged_field(&tag)?),\n}}\ntags.end(&tag, decoder)?;\n}}\n}}"
        );
    }
    let _ = writeln!(text, "Ok(value)\n}}");
}

fn writer(text: &mut String, message: &Message, structure: &Structure, versions: Versions) {
    let _ = writeln!(
        text,
        "fn write(&self, encoder: &mut Encoder, version: i16, flexible: bool) -> Result<(), EncodeError> {{\nlet _ = version;"
    );
    let flexible_exists = !message.flexible.intersect(versions).is_empty();
    let has_tags = structure.fields.iter().any(|field| field.tag.is_some());
    if has_tags {
        let _ = writeln!(text, "let mut tags = TagBuffer::default();");
    }
    for field in &structure.fields {
        let present = condition(field.versions, versions);
        match field.tag {
            None => guarded(text, &present, &format!("{}?;", write_expression(field, versions, false, "encoder"))),
            Some((tag, _)) => {
                let write = write_expression(field, versions, true, "encoder");
                let write = format!("if {} {{ tags.push({tag}, |encoder| {write})?; }}", differs_from_default(field));
                guarded(text, &present, &write);
            }
        }
        if present != "true" && !field.ignorable {
            let refused = format!("{}.{}", structure.name, field.name);
            let _ = writeln!(
                text,
                "if !({present}) && {} {{ encoder.field_not_in_version(\"{refused}\", version)?; }}",
                differs_from_default(field),
            );
        }
    }
    match (flexible_exists, has_tags) {
        (true, true) => text.push_str("if flexible { return tags.write(encoder, &self.unknown_tagged_fields); }\n"),
        (true, false) => text.push_str("if flexible { return encoder.unknown_tagged_fields(&self.unknown_tagged_fields); }\n"),
        (false, _) => {}
    }
    let _ = writeln!(text, "encoder.no_tagged_fields(\"{}\", version, &self.unknown_tagged_fields)\n}}", structure.name);
}

fn guarded(text: &mut String, condition: &str, statement: &str) {
    let _ = match condition {
        "true" => writeln!(text, "{statement}"),
        "false" => Ok(()),
        _ => writeln!(text, "if {condition} {{ {statement} }}"),
    };
}

/// When `wanted` holds, given that the version is one of `known`: a Rust expression over `version`, or plainly `true` or `false`.
fn condition(wanted: Versions, known: Versions) -> String {
    let common = wanted.intersect(known);
    if common.is_empty() {
        return "false".to_owned();
    }
    match (common.first == known.first, common.last == known.last) {
        (true, true) => "true".to_owned(),
        (false, true) => format!("version >= {}", common.first),
        (true, false) => format!("version <= {}", common.last),
        (false, false) if common.first == common.last => format!("version == {}", common.first),
        (false, false) => format!("({}..={}).contains(&version)", common.first, common.last),
    }
}

fn read_expression(field: &Field, versions: Versions, tagged: bool) -> String {
    let flexible = if field.never_compact { "false" } else { "flexible" };
    if field.nullable.is_empty() {
        return format!("Wire::read(decoder, version, {flexible})");
    }
    let allowed = condition(field.nullable, versions.intersect(field.versions));
    match (&field.kind, tagged) {
        (Type::Structure(_), true) => format!("read_nullable_tagged_structure(decoder, version, {flexible})"),
        (Type::Structure(_), false) => format!("read_nullable_structure(decoder, version, {flexible}, {allowed})"),
        _ => format!("Nullable::read_nullable(decoder, version, {flexible}, {allowed})"),
    }
}

fn write_expression(field: &Field, versions: Versions, tagged: bool, encoder: &str) -> String {
    let name = identifier(&field.name);
    let flexible = if field.never_compact { "false" } else { "flexible" };
    if field.nullable.is_empty() {
        return format!("self.{name}.write({encoder}, version, {flexible})");
    }
    let allowed = condition(field.nullable, versions.intersect(field.versions));
    match (&field.kind, tagged) {
        (Type::Structure(_), true) => format!("write_nullable_tagged_structure(&self.{name}, {encoder}, version, {flexible})"),
        (Type::Structure(_), false) => format!("write_nullable_structure(&self.{name}, {encoder}, version, {flexible}, {allowed})"),
        _ => format!("Nullable::write_nullable(&self.{name}, {encoder}, version, {flexible}, {allowed})"),
    }
}

fn field_type(field: &Field) -> String {
    let plain = type_name(&field.kind);
    if field.nullable.is_empty() { plain } else { format!("Option<{plain}>") }
}

fn type_name(kind: &Type) -> String {
    match kind {
        Type::Bool => "bool".to_owned(),
        Type::Int8 => "i8".to_owned(),
        Type::Int16 => "i16".to_owned(),
        Type::Int32 => "i32".to_owned(),
        Type::Int64 => "i64".to_owned(),
        Type::Uint16 => "u16".to_owned(),
        Type::Uint32 => "u32".to_owned(),
        Type::Float64 => "f64".to_owned(),
        Type::Uuid => "Uuid".to_owned(),
        Type::String => "Str".to_owned(),
        Type::Bytes => "Bytes".to_owned(),
        Type::Records => "Records".to_owned(),
        Type::Structure(name) => name.clone(),
        Type::Array(element) => format!("Vec<{}>", type_name(element)),
    }
}

/// Kafka's default: what the schema says, else the empty value of the type. A nullable field without `default=null` starts out empty, not null; records start out null.
fn default_value(field: &Field) -> String {
    let nullable = !field.nullable.is_empty();
    let plain = match (&field.kind, field.default.as_deref()) {
        (Type::Records, _) if nullable => return "None".to_owned(),
        (_, Some("null")) => return "None".to_owned(),
        (Type::Bool, default) => default.unwrap_or("false").to_owned(),
        (Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64 | Type::Uint16 | Type::Uint32, default) => default.unwrap_or("0").to_owned(),
        (Type::Float64, _) => "0.0".to_owned(),
        (Type::Uuid, _) => "Uuid::nil()".to_owned(),
        (Type::Array(_), _) => "Vec::new()".to_owned(),
        (Type::Structure(name), _) => format!("{name}::default()"),
        (Type::String, _) => "Str::default()".to_owned(),
        (Type::Bytes, _) => "Bytes::new()".to_owned(),
        (Type::Records, _) => "Records::default()".to_owned(),
    };
    if nullable { format!("Some({plain})") } else { plain }
}

fn differs_from_default(field: &Field) -> String {
    let name = identifier(&field.name);
    match (&field.kind, default_value(field).as_str()) {
        (_, "None") => format!("self.{name}.is_some()"),
        (Type::Bool, "false") => format!("self.{name}"),
        (Type::Bool, _) => format!("!self.{name}"),
        (Type::String | Type::Bytes | Type::Array(_), default) if !default.starts_with("Some") => format!("!self.{name}.is_empty()"),
        (Type::String | Type::Bytes | Type::Array(_), _) => format!("self.{name}.as_ref().is_none_or(|value| !value.is_empty())"),
        (_, default) => format!("self.{name} != {default}"),
    }
}

/// A lower bound of the structure's encoded size over all versions; at least 1, so that a count can always be checked against the bytes that are left.
fn encoded_bytes_min(message: &Message, structure: &Structure) -> usize {
    let versions = message.versions.intersect(structure.versions);
    let fields: usize = structure
        .fields
        .iter()
        .filter(|field| field.tag.is_none() && field.versions.intersect(versions) == versions)
        .map(|field| match &field.kind {
            Type::Structure(_) if !field.nullable.is_empty() => 1,
            kind => type_bytes_min(message, kind),
        })
        .sum();
    let tag_buffer = usize::from(message.flexible.intersect(versions) == versions);
    (fields + tag_buffer).max(1)
}

fn type_bytes_min(message: &Message, kind: &Type) -> usize {
    match kind {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        Type::String | Type::Bytes | Type::Records | Type::Array(_) => 1,
        Type::Structure(name) => encoded_bytes_min(message, message.structure(name)),
    }
}

fn identifier(name: &str) -> String {
    let name = snake_case(name);
    if ["type", "match", "ref", "in", "use"].contains(&name.as_str()) { format!("r#{name}") } else { name }
}

/// `PartitionMaxBytes` -> `partition_max_bytes`, `KRaftVersion` -> `k_raft_version`, `Enable2Pc` -> `enable2_pc`.
fn snake_case(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut text = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let after_small = index > 0 && !letters[index - 1].is_ascii_uppercase();
        let before_small = index > 0 && letters.get(index + 1).is_some_and(|next| next.is_ascii_lowercase());
        if letter.is_ascii_uppercase() && (after_small || before_small) {
            text.push('_');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}
