//! The records of `__transaction_state`: a key with the transactional id, a value with everything that is known of it, or a tombstone (transaction-coordinator.txt).
//!
//! Value version 1 has tagged fields and is written from transaction.version 1 on (Kafka's `TransactionLog`), version 0 before.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{Producer, State, Transaction};
use crate::log::NO_PRODUCER_EPOCH;
use crate::wire::records::transaction_coordinator::transaction_log_value::PartitionsSchema;
use crate::wire::records::{TransactionLogKey, TransactionLogValue};
use crate::wire::{
    DecodeError, Decoder, Message, Record, Str, decode_versioned, encode_record_key, encode_versioned, read_record_key_type,
};

/// One change of a coordinator's durable state: what is known of an id from now on, None if it is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionRecord {
    pub transactional_id: Str,
    pub transaction: Option<Transaction>,
}

/// Why a record of `__transaction_state` could not be read.
#[derive(Debug)]
pub enum RecordError {
    /// A record without a key, which no coordinator writes.
    NoKey,
    Key(DecodeError),
    Value(DecodeError),
    /// A state that no log holds.
    UnknownState(i8),
}

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RecordError::NoKey => write!(f, "a transaction record has no key"),
            RecordError::Key(error) => write!(f, "the key of a transaction record cannot be read: {error}"),
            RecordError::Value(error) => write!(f, "a transaction record cannot be read: {error}"),
            RecordError::UnknownState(number) => write!(f, "a transaction record has the unknown state {number}"),
        }
    }
}

impl std::error::Error for RecordError {}

impl TransactionRecord {
    /// The key and the value as they go into a record batch. `server_version` is the finalised level of transaction.version.
    pub fn encode(&self, server_version: i16) -> (Bytes, Option<Bytes>) {
        const WHY: &str = "a transaction record holds nothing that its version lacks";
        let key = TransactionLogKey { transactional_id: self.transactional_id.clone(), ..Default::default() };
        let value_version = if server_version >= 1 { 1 } else { 0 };
        let value = self.transaction.as_ref().map(|transaction| encode_versioned(value_version, &value_of(transaction, value_version)));
        (encode_record_key(&key).expect(WHY), value.map(|value| value.expect(WHY)))
    }

    /// Reads one record; `Ok(None)` is a record of a type that this broker does not know, which is left alone.
    pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Option<TransactionRecord>, RecordError> {
        let mut key = Decoder::new(key.ok_or(RecordError::NoKey)?.clone());
        if read_record_key_type(&mut key).map_err(RecordError::Key)? != TransactionLogKey::TYPE {
            return Ok(None);
        }
        let key = TransactionLogKey::decode(&mut key, 0).map_err(RecordError::Key)?;
        let transaction = match value {
            None => None,
            Some(value) => Some(transaction_of(&decode_versioned(value.clone()).map_err(RecordError::Value)?)?),
        };
        Ok(Some(TransactionRecord { transactional_id: key.transactional_id.detached(), transaction }))
    }
}

fn value_of(transaction: &Transaction, value_version: i16) -> TransactionLogValue {
    let mut value = TransactionLogValue {
        producer_id: transaction.producer.id,
        producer_epoch: transaction.producer.epoch,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state as i8,
        transaction_partitions: (transaction.state != State::Empty).then(|| by_topic(transaction)),
        transaction_last_update_timestamp_ms: transaction.updated_ms,
        transaction_start_timestamp_ms: transaction.started_ms,
        ..Default::default()
    };
    if value_version >= 1 {
        value.previous_producer_id = transaction.previous_producer_id;
        value.next_producer_id = transaction.next_producer_id;
        value.client_transaction_version = transaction.client_version;
    }
    value
}

fn by_topic(transaction: &Transaction) -> Vec<PartitionsSchema> {
    let mut topics: Vec<PartitionsSchema> = Vec::new();
    for (topic, partition) in &transaction.partitions {
        match topics.last_mut() {
            Some(last) if last.topic == *topic => last.partition_ids.push(*partition),
            _ => topics.push(PartitionsSchema { topic: topic.clone(), partition_ids: vec![*partition], ..Default::default() }),
        }
    }
    topics
}

fn transaction_of(value: &TransactionLogValue) -> Result<Transaction, RecordError> {
    let state = State::from_number(value.transaction_status).ok_or(RecordError::UnknownState(value.transaction_status))?;
    let mut partitions = BTreeSet::new();
    for topic in value.transaction_partitions.iter().flatten() {
        let name = topic.topic.detached();
        partitions.extend(topic.partition_ids.iter().map(|partition| (name.clone(), *partition)));
    }
    Ok(Transaction {
        state,
        producer: Producer { id: value.producer_id, epoch: value.producer_epoch },
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        last_producer_epoch: NO_PRODUCER_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        partitions,
        started_ms: value.transaction_start_timestamp_ms,
        updated_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ongoing() -> TransactionRecord {
        let mut transaction = Transaction::new(7);
        transaction.state = State::Ongoing;
        transaction.producer.epoch = 3;
        transaction.timeout_ms = 60_000;
        transaction.partitions = [("a", 0), ("a", 2), ("b", 1)].map(|(topic, partition)| (Str::from(topic), partition)).into();
        (transaction.started_ms, transaction.updated_ms) = (1_000, 2_000);
        TransactionRecord { transactional_id: Str::from("t-1"), transaction: Some(transaction) }
    }

    #[test]
    fn records_and_tombstones_are_read_back_in_either_version() {
        let tombstone = TransactionRecord { transactional_id: Str::from("t-1"), transaction: None };
        for record in [ongoing(), tombstone] {
            for server_version in [0, 2] {
                let (key, value) = record.encode(server_version);
                assert_eq!(TransactionRecord::decode(Some(&key), value.as_ref()).unwrap(), Some(record.clone()));
            }
        }
    }

    /// Kafka's bytes for the same state: `00 00` the key type, `00 01` the value version, ids and epoch, timeout, state, partitions by topic, last update and start, no tags.
    #[test]
    fn an_ongoing_transaction_is_written_as_kafka_writes_it() {
        let (key, value) = ongoing().encode(2);
        assert_eq!(&key[..], b"\0\0\0\x03t-1");
        let expected = b"\0\x01\0\0\0\0\0\0\0\x07\0\x03\0\0\xea\x60\x01\x03\x02a\x03\0\0\0\0\0\0\0\x02\0\x02b\x02\0\0\0\x01\0\0\0\0\0\0\0\x07\xd0\0\0\0\0\0\0\x03\xe8\0";
        assert_eq!(&value.unwrap()[..], expected);
    }

    #[test]
    fn an_exhausted_epoch_leaves_both_ids_in_the_record() {
        let mut record = ongoing();
        let transaction = record.transaction.as_mut().unwrap();
        (transaction.previous_producer_id, transaction.next_producer_id, transaction.client_version) = (5, 9, 2);
        let (key, value) = record.encode(2);
        assert_eq!(TransactionRecord::decode(Some(&key), value.as_ref()).unwrap(), Some(record));
    }

    #[test]
    fn damage_and_foreign_types_are_told_apart() {
        assert!(matches!(TransactionRecord::decode(None, None), Err(RecordError::NoKey)));
        assert!(matches!(TransactionRecord::decode(Some(&Bytes::from_static(b"\0\x01\0\x01g")), None), Ok(None)));
        let key = Bytes::from_static(b"\0\0\0\x01g");
        let unknown =
            Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\x07\0\x03\0\0\xea\x60\x06\xff\xff\xff\xff\0\0\0\0\0\0\x07\xd0\0\0\0\0\0\0\x03\xe8");
        assert!(matches!(TransactionRecord::decode(Some(&key), Some(&unknown)), Err(RecordError::UnknownState(6))));
        assert!(matches!(TransactionRecord::decode(Some(&key), Some(&Bytes::from_static(b"\0\x09"))), Err(RecordError::Value(_))));
    }
}
