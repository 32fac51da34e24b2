//! The small files that say whose a directory is: `meta.properties` of a data directory, `partition.metadata` of a partition, and `.kafka_cleanshutdown`, the note that all
//! is in order.

use std::collections::HashMap;
use std::fmt;

use uuid::Uuid;

/// Why such a file says nothing to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirectoryFileError {
    /// Not even of its format.
    Malformed(String),
    MissingKey(&'static str),
    InvalidValue {
        key: &'static str,
        value: String,
    },
    UnknownVersion(String),
}

impl fmt::Display for DirectoryFileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryFileError::Malformed(cause) => write!(formatter, "malformed: {cause}"),
            DirectoryFileError::MissingKey(key) => write!(formatter, "{key} is missing"),
            DirectoryFileError::InvalidValue { key, value } => write!(formatter, "{key} has the invalid value {value:?}"),
            DirectoryFileError::UnknownVersion(version) => write!(formatter, "version {version} is not known"),
        }
    }
}

impl std::error::Error for DirectoryFileError {}

/// `meta.properties`: which cluster, node and directory this is. Version 1 is KRaft's, 0 that of brokers with ZooKeeper (its node id is called broker.id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaProperties {
    pub cluster_id: String,
    pub node_id: i32,
    /// Absent in directories from before KIP-858.
    pub directory_id: Option<Uuid>,
}

impl MetaProperties {
    /// As Kafka's formatter writes it, without the comment that names the time.
    pub fn encode(&self) -> String {
        let mut text = format!("cluster.id={}\n", escaped(&self.cluster_id));
        if let Some(directory_id) = self.directory_id {
            text.push_str(&format!("directory.id={}\n", encode_uuid(directory_id)));
        }
        text.push_str(&format!("node.id={}\nversion=1\n", self.node_id));
        text
    }

    pub fn decode(text: &str) -> Result<Self, DirectoryFileError> {
        let properties: HashMap<String, String> =
            java_properties::read(text.as_bytes()).map_err(|error| DirectoryFileError::Malformed(error.to_string()))?;
        let required = |key: &'static str| properties.get(key).ok_or(DirectoryFileError::MissingKey(key));
        let version = properties.get("version").map_or("0", |version| version.trim());
        let node_id_key = match version {
            "0" => "broker.id",
            "1" => "node.id",
            _ => return Err(DirectoryFileError::UnknownVersion(version.to_owned())),
        };
        let node_id = required(node_id_key)?;
        let node_id = node_id.trim().parse().map_err(|_| DirectoryFileError::InvalidValue { key: node_id_key, value: node_id.clone() })?;
        let directory_id = match properties.get("directory.id") {
            None => None,
            Some(text) => Some(
                decode_uuid(text.trim()).ok_or_else(|| DirectoryFileError::InvalidValue { key: "directory.id", value: text.clone() })?,
            ),
        };
        Ok(Self { cluster_id: required("cluster.id")?.clone(), node_id, directory_id })
    }
}

/// In a properties file these begin a comment or end a key; Java puts a backslash before them in values too.
fn escaped(value: &str) -> String {
    value.chars().fold(String::new(), |mut text, character| {
        if matches!(character, '=' | ':' | '#' | '!' | '\\') {
            text.push('\\');
        }
        text.push(character);
        text
    })
}

/// `partition.metadata`: the id of the topic that a partition's directory belongs to.
pub fn encode_partition_metadata(topic_id: Uuid) -> String {
    format!("version: 0\ntopic_id: {}", encode_uuid(topic_id))
}

pub fn decode_partition_metadata(text: &str) -> Result<Uuid, DirectoryFileError> {
    let mut lines = text.lines();
    let mut value = |key: &'static str| {
        let line = lines.next().ok_or(DirectoryFileError::MissingKey(key))?;
        match line.split_once(':') {
            Some((name, value)) if name.trim() == key => Ok(value.trim()),
            _ => Err(DirectoryFileError::Malformed(line.to_owned())),
        }
    };
    let version = value("version")?;
    // Kafka reads later versions too, so that a downgrade works.
    if !version.parse::<i32>().is_ok_and(|version| version >= 0) {
        return Err(DirectoryFileError::UnknownVersion(version.to_owned()));
    }
    let topic_id = value("topic_id")?;
    let invalid = || DirectoryFileError::InvalidValue { key: "topic_id", value: topic_id.to_owned() };
    decode_uuid(topic_id).filter(|id| !id.is_nil()).ok_or_else(invalid)
}

/// `.kafka_cleanshutdown`: lies in a data directory from a clean stop until the next start. `broker_epoch` is -1 where there is none.
pub fn encode_clean_shutdown(broker_epoch: i64) -> String {
    format!("{{\"version\":0,\"brokerEpoch\":{broker_epoch}}}")
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka's text form of an id: 22 characters of base64 for URLs, without padding.
pub fn encode_uuid(id: Uuid) -> String {
    let number = id.as_u128();
    // 128 bits are 21 times 6 and 2 more; the last character carries those 2 and four zero bits.
    let leading = (0..21).map(|index| (number >> (122 - 6 * index)) as usize & 63);
    let last = (number as usize & 3) << 4;
    leading.chain([last]).map(|value| char::from(BASE64_URL[value])).collect()
}

/// The inverse of `encode_uuid`; takes padding, as Java's decoder does.
pub fn decode_uuid(text: &str) -> Option<Uuid> {
    let text = text.trim_end_matches('=');
    if text.len() != 22 {
        return None;
    }
    let mut number: u128 = 0;
    for (index, byte) in text.bytes().enumerate() {
        let value = BASE64_URL.iter().position(|&known| known == byte)? as u128;
        number = if index < 21 { number << 6 | value } else { number << 2 | value >> 4 };
    }
    Some(Uuid::from_u128(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_kafkas_text() {
        // Kafka's own reserved ids: ONE, METADATA_TOPIC_ID, and the example of its quick start.
        assert_eq!(encode_uuid(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(encode_uuid(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(decode_uuid("AAAAAAAAAAAAAAAAAAAAAQ=="), Some(Uuid::from_u128(1)));
        assert_eq!(decode_uuid("too short"), None);
        assert_eq!(decode_uuid("AAAAAAAAAAAAAAAAAAA*AQ"), None);
    }

    proptest! {
        #[test]
        fn ids_read_back(number in any::<u128>()) {
            let id = Uuid::from_u128(number);
            prop_assert_eq!(decode_uuid(&encode_uuid(id)), Some(id));
        }
    }

    #[test]
    fn meta_properties_of_kafka_are_read() {
        let kafka = "#\n#Sat Nov 21 12:00:00 UTC 2026\ncluster.id=AAAAAAAAAAAAAAAAAAAAAA\ndirectory.id=gwjCVMbcBWtpBRfmDXlPNQ\nnode.id=1\nversion=1\n";
        let properties = MetaProperties::decode(kafka).unwrap();
        assert_eq!((properties.node_id, properties.cluster_id.as_str()), (1, "AAAAAAAAAAAAAAAAAAAAAA"));
        assert_eq!(encode_uuid(properties.directory_id.unwrap()), "gwjCVMbcBWtpBRfmDXlPNQ");
        assert_eq!(MetaProperties::decode(&properties.encode()), Ok(properties));

        let old = "version=0\nbroker.id=3\ncluster.id=a\\=b\n";
        let properties = MetaProperties::decode(old).unwrap();
        assert_eq!(properties, MetaProperties { cluster_id: "a=b".into(), node_id: 3, directory_id: None });
        assert_eq!(MetaProperties::decode(&properties.encode()), Ok(properties));
        assert_eq!(MetaProperties::decode("version=1\nnode.id=1\n"), Err(DirectoryFileError::MissingKey("cluster.id")));
        assert!(matches!(MetaProperties::decode("version=9\n"), Err(DirectoryFileError::UnknownVersion(_))));
    }

    #[test]
    fn partition_metadata_is_kafkas_text() {
        let id = Uuid::from_u128(7);
        assert_eq!(encode_partition_metadata(id), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAABw");
        assert_eq!(decode_partition_metadata(&encode_partition_metadata(id)), Ok(id));
        assert!(decode_partition_metadata("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA").is_err(), "no topic has the zero id");
        assert!(decode_partition_metadata("").is_err());
    }
}
