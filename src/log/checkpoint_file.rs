//! Kafka's text checkpoints: a version line ("0"), a count, then one line for each entry, fields apart by one space.
//!
//! Two kinds: `leader-epoch-checkpoint` of a partition (epoch, start offset), and the four offset checkpoints of a data directory (topic, partition, offset): recovery point, log
//! start, high watermark (`replication-offset-checkpoint`) and cleaner. They are written whole into `<name>.tmp`, flushed and renamed.

use std::collections::BTreeMap;
use std::fmt;

use super::leader_epoch::{EpochEntry, LeaderEpochs};

/// The version that all of them have.
const VERSION: &str = "0";

/// A line that is not as it must be; `number` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MalformedLine {
    pub number: usize,
    pub text: String,
}

impl fmt::Display for MalformedLine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} is malformed: {:?}", self.number, self.text)
    }
}

impl std::error::Error for MalformedLine {}

/// Offsets by topic and partition, in the order of their names.
pub type OffsetCheckpoint = BTreeMap<(String, i32), i64>;

pub fn encode_leader_epochs(epochs: &LeaderEpochs) -> String {
    encode(epochs.entries().iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
}

pub fn decode_leader_epochs(text: &str) -> Result<LeaderEpochs, MalformedLine> {
    let entries = decode(text, |fields| match fields {
        [epoch, start_offset] => Some(EpochEntry { epoch: epoch.parse().ok()?, start_offset: start_offset.parse().ok()? }),
        _ => None,
    })?;
    Ok(LeaderEpochs::from_entries(entries))
}

pub fn encode_offsets<'a>(offsets: impl ExactSizeIterator<Item = (&'a str, i32, i64)>) -> String {
    encode(offsets.map(|(topic, partition, offset)| format!("{topic} {partition} {offset}")))
}

pub fn decode_offsets(text: &str) -> Result<OffsetCheckpoint, MalformedLine> {
    let entries = decode(text, |fields| match fields {
        [topic, partition, offset] => Some((((*topic).to_owned(), partition.parse().ok()?), offset.parse().ok()?)),
        _ => None,
    })?;
    Ok(entries.into_iter().collect())
}

fn encode(lines: impl ExactSizeIterator<Item = String>) -> String {
    let mut text = format!("{VERSION}\n{}\n", lines.len());
    for line in lines {
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// An empty file is an empty checkpoint: Kafka makes the file before it first writes it.
fn decode<T>(text: &str, parse: impl Fn(&[&str]) -> Option<T>) -> Result<Vec<T>, MalformedLine> {
    let malformed = |number: usize, text: &str| MalformedLine { number, text: text.to_owned() };
    let mut lines = text.lines();
    let Some(version) = lines.next() else { return Ok(Vec::new()) };
    if version != VERSION {
        return Err(malformed(1, version));
    }
    let Some(count_line) = lines.next() else { return Ok(Vec::new()) };
    let count: usize = count_line.parse().map_err(|_| malformed(2, count_line))?;
    let mut entries = Vec::new();
    for (index, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        entries.push(parse(&fields).ok_or_else(|| malformed(index + 3, line))?);
    }
    if entries.len() == count { Ok(entries) } else { Err(malformed(2, count_line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leader_epochs_are_kafkas_text() {
        let text = "0\n2\n0 0\n3 120\n";
        let epochs = decode_leader_epochs(text).unwrap();
        assert_eq!(epochs.latest(), Some(EpochEntry { epoch: 3, start_offset: 120 }));
        assert_eq!(encode_leader_epochs(&epochs), text);
        assert_eq!(decode_leader_epochs(""), Ok(LeaderEpochs::default()));
    }

    #[test]
    fn offsets_are_kafkas_text() {
        let text = "0\n2\na-b.c 0 7\norders 12 9223372036854775807\n";
        let offsets = decode_offsets(text).unwrap();
        assert_eq!(offsets[&("orders".to_owned(), 12)], i64::MAX);
        assert_eq!(encode_offsets(offsets.iter().map(|((topic, partition), &offset)| (topic.as_str(), *partition, offset))), text);
    }

    #[test]
    fn a_malformed_line_is_named() {
        assert_eq!(decode_offsets("1\n0\n").unwrap_err().number, 1);
        assert_eq!(decode_offsets("0\n2\norders 0 5\n").unwrap_err().number, 2, "fewer lines than it says");
        assert_eq!(decode_offsets("0\n1\norders 0\n").unwrap_err(), MalformedLine { number: 3, text: "orders 0".into() });
    }
}
