//! Records of Kafka's own topics as text, as its dump tool prints them: JSON with the schema's names, read by the schema itself instead of by generated code.
//!
//! For tools, not for the broker: slow, and complete. Being a second reader of the same notation it also tells, in tests, what the generated code has written.

#[path = "../build/parse.rs"]
#[allow(dead_code, reason = "the build script needs more of it")]
mod parse;

use std::fmt::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;

use self::parse::{Field, Kind, Message, Type, Versions};
use crate::decoder::{DecodeError, DecodeProblem, Decoder};
use crate::versioned::{read_metadata_frame, read_record_key_type};

/// Whose records these are: a file of `schema/records`, or the messages that control batches and group members carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// `__consumer_offsets`.
    Groups,
    /// `__transaction_state`.
    Transactions,
    /// `__share_group_state`.
    Shares,
}

struct Schemas {
    groups: Vec<Message>,
    transactions: Vec<Message>,
    shares: Vec<Message>,
    metadata: Vec<Message>,
    others: Vec<Message>,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let read = |text: &str| parse::parse("schema", text).expect("the build has read it too");
    let others = [
        include_str!("../schema/messages/consumer-protocol-assignment.txt"),
        include_str!("../schema/messages/consumer-protocol-subscription.txt"),
        include_str!("../schema/messages/k-raft-version-record.txt"),
        include_str!("../schema/messages/leader-change-message.txt"),
        include_str!("../schema/messages/snapshot-footer-record.txt"),
        include_str!("../schema/messages/snapshot-header-record.txt"),
        include_str!("../schema/messages/voters-record.txt"),
    ];
    Schemas {
        groups: read(include_str!("../schema/records/group-coordinator.txt")),
        transactions: read(include_str!("../schema/records/transaction-coordinator.txt")),
        shares: read(include_str!("../schema/records/share-coordinator.txt")),
        metadata: read(include_str!("../schema/records/metadata.txt")),
        others: others.iter().flat_map(|text| read(text)).collect(),
    }
});

impl Records {
    fn message(self, kind: Kind, record_type: i16) -> Option<&'static Message> {
        let messages = match self {
            Records::Groups => &SCHEMAS.groups,
            Records::Transactions => &SCHEMAS.transactions,
            Records::Shares => &SCHEMAS.shares,
        };
        messages.iter().find(|message| message.kind == kind && message.api == Some(record_type))
    }
}

/// Key and value of a coordinator's record; the value is `<DELETE>` for a tombstone. None where the record's type is not known.
pub fn coordinator_record(records: Records, key: Bytes, value: Option<Bytes>) -> Result<Option<(String, String)>, DecodeError> {
    let mut decoder = Decoder::new(key);
    let record_type = read_record_key_type(&mut decoder)?;
    let Some(message) = records.message(Kind::CoordinatorKey, record_type) else { return Ok(None) };
    let key = format!("{{\"type\":\"{record_type}\",\"data\":{}}}", structure_text(message, 0, &mut decoder)?);
    let Some(value) = value else { return Ok(Some((key, "<DELETE>".to_owned()))) };
    let Some(message) = records.message(Kind::CoordinatorValue, record_type) else { return Ok(None) };
    let mut decoder = Decoder::new(value);
    let version = decoder.int16()?;
    let value = format!("{{\"version\":\"{version}\",\"data\":{}}}", structure_text(message, version, &mut decoder)?);
    Ok(Some((key, value)))
}

/// A record of the metadata log.
pub fn metadata_record(value: Bytes) -> Result<String, DecodeError> {
    let mut decoder = Decoder::new(value);
    let frame = read_metadata_frame(&mut decoder)?;
    let known = SCHEMAS.metadata.iter().find(|message| message.api == Some(frame.record_type));
    let message = known.ok_or_else(|| decoder.error(DecodeProblem::UnsupportedVersion { version: frame.record_type }))?;
    let data = structure_text(message, frame.version, &mut decoder)?;
    Ok(format!("{{\"type\":\"{}\",\"version\":{},\"data\":{data}}}", upper_snake_case(&message.name), frame.version))
}

/// A message by its name, of a version that stands outside it: what control batches of the metadata log carry.
pub fn message(name: &str, version: i16, value: Bytes) -> Result<String, DecodeError> {
    structure_text(named(name), version, &mut Decoder::new(value))
}

fn named(name: &str) -> &'static Message {
    SCHEMAS.others.iter().find(|message| message.name == name).expect("asked for by names that are listed here")
}

fn structure_text(message: &Message, version: i16, decoder: &mut Decoder) -> Result<String, DecodeError> {
    if !contains(message.versions, version) {
        return Err(decoder.error(DecodeProblem::UnsupportedVersion { version }));
    }
    let mut reader = Reader { message, version, flexible: contains(message.flexible, version), text: String::new() };
    reader.structure(&message.fields, decoder)?;
    Ok(reader.text)
}

struct Reader<'a> {
    message: &'a Message,
    version: i16,
    flexible: bool,
    text: String,
}

impl Reader<'_> {
    fn structure(&mut self, fields: &[Field], decoder: &mut Decoder) -> Result<(), DecodeError> {
        self.text.push('{');
        let present = |field: &&Field| contains(field.versions, self.version) && field.tag.is_none();
        let plain: Vec<&Field> = fields.iter().filter(present).collect();
        for field in plain {
            self.field(field, decoder)?;
        }
        if self.flexible {
            self.tagged(fields, decoder)?;
        }
        if self.text.ends_with(',') {
            self.text.pop();
        }
        self.text.push('}');
        Ok(())
    }

    /// Tagged fields stand here where they differ from their defaults, as in Kafka's own text. One that the schema does not know is left out.
    fn tagged(&mut self, fields: &[Field], decoder: &mut Decoder) -> Result<(), DecodeError> {
        let count = decoder.unsigned_varint()?;
        for _ in 0..count {
            let number = decoder.unsigned_varint()?;
            let length = decoder.unsigned_varint()? as usize;
            let mut content = Decoder::new(decoder.slice(length)?);
            if let Some(field) = fields.iter().find(|field| field.tag.is_some_and(|(tag, _)| tag == number)) {
                self.field(field, &mut content)?;
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, decoder: &mut Decoder) -> Result<(), DecodeError> {
        let mut name = field.name.clone();
        name[..1].make_ascii_lowercase();
        let _ = write!(self.text, "\"{name}\":");
        if self.is_embedded_protocol(field) {
            self.embedded_protocol(field, decoder)?;
        } else {
            let flexible = self.flexible && !field.never_compact;
            self.value(&field.kind, contains(field.nullable, self.version), flexible, decoder)?;
        }
        self.text.push(',');
        Ok(())
    }

    fn value(&mut self, kind: &Type, is_nullable: bool, flexible: bool, decoder: &mut Decoder) -> Result<(), DecodeError> {
        let _ = match kind {
            Type::Bool => write!(self.text, "{}", decoder.int8()? != 0),
            Type::Int8 => write!(self.text, "{}", decoder.int8()?),
            Type::Int16 => write!(self.text, "{}", decoder.int16()?),
            Type::Int32 => write!(self.text, "{}", decoder.int32()?),
            Type::Int64 => write!(self.text, "{}", decoder.int64()?),
            Type::Uint16 => write!(self.text, "{}", decoder.uint16()?),
            Type::Uint32 => write!(self.text, "{}", decoder.uint32()?),
            Type::Float64 => write!(self.text, "{:?}", decoder.float64()?),
            Type::Uuid => write!(self.text, "\"{}\"", base64(decoder.uuid()?.as_bytes(), BASE64_URL, false)),
            Type::String => match length(decoder, flexible, 2)? {
                None => write!(self.text, "null"),
                Some(length) => {
                    let bytes = decoder.slice(length)?;
                    self.text.push_str(&quoted(&String::from_utf8_lossy(&bytes)));
                    Ok(())
                }
            },
            Type::Bytes | Type::Records => match length(decoder, flexible, 4)? {
                None => write!(self.text, "null"),
                Some(length) => write!(self.text, "\"{}\"", base64(&decoder.slice(length)?, BASE64, true)),
            },
            Type::Array(element) => match length(decoder, flexible, 4)? {
                None => write!(self.text, "null"),
                Some(count) => return self.array(element, count, flexible, decoder),
            },
            Type::Structure(name) => {
                if is_nullable && decoder.int8()? < 0 {
                    self.text.push_str("null");
                    return Ok(());
                }
                return self.structure(&self.message.structure(name).fields, decoder);
            }
        };
        Ok(())
    }

    fn array(&mut self, element: &Type, count: usize, flexible: bool, decoder: &mut Decoder) -> Result<(), DecodeError> {
        self.text.push('[');
        for index in 0..count {
            if index > 0 {
                self.text.push(',');
            }
            self.value(element, false, flexible, decoder)?;
        }
        self.text.push(']');
        Ok(())
    }

    /// What members of classic consumer groups tell each other stands in the group's record as bytes, and is printed as what it is.
    fn is_embedded_protocol(&self, field: &Field) -> bool {
        self.message.name == "GroupMetadataValue"
            && matches!(field.name.as_str(), "Subscription" | "Assignment")
            && self.text.starts_with("{\"protocolType\":\"consumer\"")
    }

    fn embedded_protocol(&mut self, field: &Field, decoder: &mut Decoder) -> Result<(), DecodeError> {
        let Some(length) = length(decoder, self.flexible, 4)? else {
            self.text.push_str("null");
            return Ok(());
        };
        let bytes = decoder.slice(length)?;
        let message = named(if field.name == "Subscription" { "ConsumerProtocolSubscription" } else { "ConsumerProtocolAssignment" });
        let mut embedded = Decoder::new(bytes.clone());
        let read = embedded.int16().and_then(|version| structure_text(message, version.min(message.versions.last), &mut embedded));
        // Other assignors put into these bytes what they like.
        let text = read.unwrap_or_else(|_| format!("\"{}\"", base64(&bytes, BASE64, true)));
        self.text.push_str(&text);
        Ok(())
    }
}

/// A length in either form: compact (0 is null), or a number of so many bytes (-1 is null).
fn length(decoder: &mut Decoder, flexible: bool, size_bytes: usize) -> Result<Option<usize>, DecodeError> {
    let length = match (flexible, size_bytes) {
        (true, _) => i64::from(decoder.unsigned_varint()?) - 1,
        (false, 2) => i64::from(decoder.int16()?),
        (false, _) => i64::from(decoder.int32()?),
    };
    Ok(usize::try_from(length).ok())
}

fn contains(versions: Versions, version: i16) -> bool {
    (versions.first..=versions.last).contains(&version)
}

/// `PartitionChangeRecord` -> `PARTITION_CHANGE_RECORD`.
fn upper_snake_case(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

/// Text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        let _ = match letter {
            '"' => write!(out, "\\\""),
            '\\' => write!(out, "\\\\"),
            '\n' => write!(out, "\\n"),
            '\r' => write!(out, "\\r"),
            '\t' => write!(out, "\\t"),
            control if control.is_control() => write!(out, "\\u{:04X}", control as u32),
            other => write!(out, "{other}"),
        };
    }
    out + "\""
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn base64(bytes: &[u8], alphabet: &[u8; 64], is_padded: bool) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().chain([&0, &0]).take(3).fold(0u32, |group, byte| group << 8 | u32::from(*byte));
        for index in 0..4 {
            if index <= chunk.len() {
                text.push(char::from(alphabet[(group >> (18 - 6 * index)) as usize & 63]));
            } else if is_padded {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{OffsetCommitKey, OffsetCommitValue, PartitionChangeRecord, TransactionLogKey, TransactionLogValue};
    use crate::string::Str;
    use crate::versioned::{encode_metadata_record, encode_record_key, encode_versioned};

    /// The texts are those that Kafka's kafka-dump-log prints for the same records.
    #[test]
    fn coordinator_records_are_kafkas_text() {
        let key = OffsetCommitKey { group: Str::from("g1"), topic: Str::from("plain"), ..Default::default() };
        let value = OffsetCommitValue { offset: 7, leader_epoch: 0, commit_timestamp: 1795279010274, ..Default::default() };
        let (key, value) = (encode_record_key(&key).unwrap(), encode_versioned(3, &value).unwrap());
        let told = coordinator_record(Records::Groups, key.clone(), Some(value)).unwrap().unwrap();
        assert_eq!(told.0, r#"{"type":"1","data":{"group":"g1","topic":"plain","partition":0}}"#);
        assert_eq!(told.1, r#"{"version":"3","data":{"offset":7,"leaderEpoch":0,"metadata":"","commitTimestamp":1795279010274}}"#);
        assert_eq!(coordinator_record(Records::Groups, key, None).unwrap().unwrap().1, "<DELETE>");
        assert_eq!(coordinator_record(Records::Groups, Bytes::from_static(&[0, 99]), None), Ok(None));
    }

    #[test]
    fn tagged_fields_stand_where_they_were_written() {
        let key = encode_record_key(&TransactionLogKey { transactional_id: Str::from("tx-1"), ..Default::default() }).unwrap();
        let value =
            TransactionLogValue { producer_id: 1, transaction_partitions: None, client_transaction_version: 2, ..Default::default() };
        let told = coordinator_record(Records::Transactions, key, Some(encode_versioned(1, &value).unwrap())).unwrap().unwrap();
        assert_eq!(told.0, r#"{"type":"0","data":{"transactionalId":"tx-1"}}"#);
        assert_eq!(
            told.1,
            r#"{"version":"1","data":{"producerId":1,"producerEpoch":0,"transactionTimeoutMs":0,"transactionStatus":0,"transactionPartitions":null,"transactionLastUpdateTimestampMs":0,"transactionStartTimestampMs":0,"clientTransactionVersion":2}}"#
        );
    }

    #[test]
    fn metadata_records_are_kafkas_text() {
        let topic_id =
            uuid::Uuid::from_bytes([0x55, 0xee, 0x6b, 0xd8, 0xbb, 0x88, 0x48, 0x4f, 0x93, 0xf9, 0x4e, 0x6b, 0xca, 0xd6, 0xc5, 0x44]);
        let record = PartitionChangeRecord {
            partition_id: 0,
            topic_id,
            isr: Some(Vec::new()),
            leader: -1,
            last_known_elr: Some(vec![1]),
            ..Default::default()
        };
        let text = metadata_record(encode_metadata_record(2, &record).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"type":"PARTITION_CHANGE_RECORD","version":2,"data":{"partitionId":0,"topicId":"Ve5r2LuISE-T-U5rytbFRA","isr":[],"leader":-1,"lastKnownElr":[1]}}"#
        );
        assert!(metadata_record(Bytes::from_static(&[1, 99, 0])).is_err());
    }

    #[test]
    fn text_is_quoted_and_bytes_are_base64() {
        assert_eq!(quoted("a\"b\\c\n\u{1}"), "\"a\\\"b\\\\c\\n\\u0001\"");
        assert_eq!(
            (base64(b"a", BASE64, true), base64(b"ab", BASE64, true), base64(b"abc", BASE64, true)),
            ("YQ==".into(), "YWI=".into(), "YWJj".into())
        );
    }
}
