//! A Produce request that is encoded once and then only written over: correlation id, partition, time, producer state, and of each record its key and value.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use corelane_wire::batch::{BatchBuilder, BatchOptions, Compression, HEADER_BYTES, LOG_OVERHEAD_BYTES, RecordIterator, crc32c, set_crc};
use corelane_wire::messages::ProduceRequest;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::{Records, Str};

use super::PRODUCE_VERSION;
use super::connection::{frame_of, invalid};
use crate::payload::KEY_BYTES;
use crate::workload::{Codec, Workload};

// Places in a batch, by its format.
const CRC_FROM: usize = 21;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;

const CORRELATION_ID: usize = 8;

/// An idempotent producer's mark on a batch.
#[derive(Clone, Copy, Debug)]
pub struct ProducerState {
    pub id: i64,
    pub epoch: i16,
    pub sequence: i32,
}

pub struct Template {
    topic: String,
    acks: i16,
    compression: Compression,
    keyed: bool,
    frame: Vec<u8>,
    /// Where each partition's batch lies in the frame.
    batches: Vec<Range<usize>>,
    /// Where each record's key and value lie in a batch.
    records: Vec<(Range<usize>, Range<usize>)>,
}

impl Template {
    /// `records` of each batch.
    pub fn new(workload: &Workload, topic: &str, records: usize) -> io::Result<Template> {
        Template::with(workload, topic, records, None)
    }

    /// For the records of a transaction: a batch for each of its partitions.
    pub fn transactional(workload: &Workload, topic: &str, transactional_id: &str) -> io::Result<Template> {
        Template::with(workload, topic, workload.batch_records / workload.transaction_partitions, Some(transactional_id))
    }

    fn with(workload: &Workload, topic: &str, records: usize, transactional_id: Option<&str>) -> io::Result<Template> {
        let compression = match workload.compression {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        };
        let keyed = workload.keys > 0;
        let (key, value) = (keyed.then_some(&[0; KEY_BYTES][..]), vec![0; workload.record_bytes]);
        let mut builder = BatchBuilder::new(BatchOptions { transactional: transactional_id.is_some(), ..BatchOptions::default() });
        (0..records).for_each(|_| builder.push(key, Some(&value), 0, &[]));
        let batch = builder.build().map_err(|error| invalid(format!("{error:?}")))?;
        let partitions = workload.partitions_per_request();
        let frame = produce_frame(topic, workload.acks, transactional_id, (0..partitions).map(|_| batch.clone()))?;
        let batches = batch_ranges(frame.len(), partitions, batch.len());
        Ok(Template { topic: topic.to_string(), acks: workload.acks, compression, keyed, frame, batches, records: record_ranges(&batch)? })
    }

    pub fn records_per_batch(&self) -> usize {
        self.records.len()
    }

    /// Writes the batch for `partition` at its place in the request; `fill` gets each record's number within the batch, its key and its value.
    pub fn fill_batch(
        &mut self,
        place: usize,
        partition: i32,
        timestamp_ms: i64,
        producer: Option<ProducerState>,
        mut fill: impl FnMut(usize, &mut [u8], &mut [u8]),
    ) {
        let range = self.batches[place].clone();
        let index = range.start - varint_bytes(range.len() + 1) - 4;
        self.frame[index..index + 4].copy_from_slice(&partition.to_be_bytes());
        let batch = &mut self.frame[range];
        batch[BASE_TIMESTAMP..BASE_TIMESTAMP + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
        batch[MAX_TIMESTAMP..MAX_TIMESTAMP + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
        if let Some(producer) = producer {
            batch[PRODUCER_ID..PRODUCER_ID + 8].copy_from_slice(&producer.id.to_be_bytes());
            batch[PRODUCER_EPOCH..PRODUCER_EPOCH + 2].copy_from_slice(&producer.epoch.to_be_bytes());
            batch[BASE_SEQUENCE..BASE_SEQUENCE + 4].copy_from_slice(&producer.sequence.to_be_bytes());
        }
        for (number, (key, value)) in self.records.iter().enumerate() {
            // The key lies before the value, so one cut parts them.
            let (before, from_value) = batch.split_at_mut(value.start);
            fill(number, &mut before[key.clone()], &mut from_value[..value.len()]);
        }
        let crc = crc32c(&batch[CRC_FROM..]);
        set_crc(batch, crc);
    }

    /// The frame to send, as filled.
    pub fn frame(&mut self, correlation_id: i32) -> io::Result<&[u8]> {
        if self.compression != Compression::None {
            return self.compressed(correlation_id);
        }
        self.frame[CORRELATION_ID..CORRELATION_ID + 4].copy_from_slice(&correlation_id.to_be_bytes());
        Ok(&self.frame)
    }

    /// Codecs give another length each time: built anew per request, out of the filled batch, as real clients do.
    fn compressed(&mut self, correlation_id: i32) -> io::Result<&[u8]> {
        let range = self.batches[0].clone();
        let index = range.start - varint_bytes(range.len() + 1) - 4;
        let partition = i32::from_be_bytes(self.frame[index..index + 4].try_into().expect("four bytes"));
        let batch = &self.frame[range];
        let number = |at: usize| i64::from_be_bytes(batch[at..at + 8].try_into().expect("eight bytes"));
        let options = BatchOptions {
            compression: self.compression,
            producer_id: number(PRODUCER_ID),
            producer_epoch: i16::from_be_bytes([batch[PRODUCER_EPOCH], batch[PRODUCER_EPOCH + 1]]),
            base_sequence: i32::from_be_bytes(batch[BASE_SEQUENCE..BASE_SEQUENCE + 4].try_into().expect("four bytes")),
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        for (key, value) in &self.records {
            builder.push(self.keyed.then_some(&batch[key.clone()]), Some(&batch[value.clone()]), number(BASE_TIMESTAMP), &[]);
        }
        let compressed = builder.build().map_err(|error| invalid(format!("{error:?}")))?;
        let data = PartitionProduceData { index: partition, records: Some(Records::from(compressed)), ..Default::default() };
        let request = request(&self.topic, self.acks, vec![data]);
        // The template stays as it is; only what is sent differs.
        self.sendable(frame_of(PRODUCE_VERSION, correlation_id, &request)?)
    }

    fn sendable(&mut self, frame: Vec<u8>) -> io::Result<&[u8]> {
        let plain = self.batches.last().expect("a request has a batch").end + 3;
        self.frame.truncate(plain);
        self.frame.extend_from_slice(&frame);
        Ok(&self.frame[plain..])
    }
}

fn produce_frame(topic: &str, acks: i16, transactional_id: Option<&str>, batches: impl Iterator<Item = Bytes>) -> io::Result<Vec<u8>> {
    let partitions = batches
        .enumerate()
        .map(|(index, batch)| PartitionProduceData { index: index as i32, records: Some(Records::from(batch)), ..Default::default() })
        .collect();
    let request = ProduceRequest { transactional_id: transactional_id.map(Str::from), ..request(topic, acks, partitions) };
    frame_of(PRODUCE_VERSION, 0, &request)
}

fn request(topic: &str, acks: i16, partition_data: Vec<PartitionProduceData>) -> ProduceRequest {
    let topic = TopicProduceData { name: Str::from(topic), partition_data, ..Default::default() };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

/// Partitions lie one behind another: index, length, batch, a byte of tags; then a byte of tags each of the topic and of the request end the frame.
fn batch_ranges(frame_bytes: usize, partitions: usize, batch_bytes: usize) -> Vec<Range<usize>> {
    let head_bytes = 4 + varint_bytes(batch_bytes + 1);
    let stride = head_bytes + batch_bytes + 1;
    let first = frame_bytes - 2 - partitions * stride;
    (0..partitions).map(|place| first + place * stride + head_bytes).map(|start| start..start + batch_bytes).collect()
}

fn record_ranges(batch: &[u8]) -> io::Result<Vec<(Range<usize>, Range<usize>)>> {
    let records = &batch[HEADER_BYTES..];
    let count = i32::from_be_bytes(batch[57..61].try_into().expect("four bytes"));
    let place = |slice: &[u8]| {
        let start = HEADER_BYTES + (slice.as_ptr() as usize - records.as_ptr() as usize);
        start..start + slice.len()
    };
    let ranges = RecordIterator::new(records, count).map(|record| {
        let record = record.map_err(|error| invalid(format!("{error:?}")))?;
        let value = place(record.value.expect("every record has a value"));
        Ok((record.key.map_or(value.start..value.start, place), value))
    });
    ranges.collect()
}

fn varint_bytes(value: usize) -> usize {
    (1..).find(|bytes| value < 1 << (7 * bytes)).expect("a length has few bytes")
}

const _: () = assert!(LOG_OVERHEAD_BYTES == 12 && HEADER_BYTES == 61);

#[cfg(test)]
mod tests {
    use corelane_wire::batch::{BatchIterator, decompress_all};
    use corelane_wire::{Decoder, Message, read_request_header};

    use super::*;
    use crate::workload::Scenario;

    fn decode(frame: &[u8]) -> ProduceRequest {
        assert_eq!(i32::from_be_bytes(frame[..4].try_into().expect("four")) as usize, frame.len() - 4);
        let mut decoder = Decoder::new(Bytes::copy_from_slice(&frame[4..]));
        let (_, header) = read_request_header(&mut decoder).expect("a header");
        assert_eq!(header.correlation_id, 99);
        ProduceRequest::decode(&mut decoder, PRODUCE_VERSION).expect("a request")
    }

    fn fill(template: &mut Template, place: usize, partition: i32) {
        let state = ProducerState { id: 7, epoch: 2, sequence: 40 };
        template.fill_batch(place, partition, 1_234, Some(state), |number, key, value| {
            key.fill(b'k');
            value.fill(number as u8 + partition as u8);
        });
    }

    #[test]
    fn a_template_written_over_is_the_request_meant() {
        for (keys, compression) in [(0, Codec::None), (5, Codec::None), (5, Codec::Lz4), (0, Codec::Zstd)] {
            let workload = Workload { keys, compression, record_bytes: 200, ..Workload::default() };
            let mut template = Template::new(&workload, "topic", 3).expect("a template");
            for partition in [4, 300] {
                fill(&mut template, 0, partition);
                let request = decode(template.frame(99).expect("a frame"));
                assert_eq!((request.acks, request.topic_data[0].name.as_str()), (-1, "topic"));
                let data = &request.topic_data[0].partition_data[0];
                assert_eq!(data.index, partition);
                let batch = BatchIterator::new(data.records.as_ref().expect("records").to_bytes()).next().expect("one").expect("valid");
                let (header, bytes) = batch;
                header.check_crc(&bytes).expect("the checksum fits");
                assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence, header.max_timestamp), (7, 2, 40, 1_234));
                let records = decompress_all(header.compression().expect("known"), bytes.slice(HEADER_BYTES..), 1 << 20).expect("records");
                for (number, record) in RecordIterator::new(&records, header.record_count).enumerate() {
                    let record = record.expect("valid");
                    assert_eq!(record.value, Some(&[number as u8 + partition as u8; 200][..]));
                    assert_eq!(record.key, (keys > 0).then_some(&[b'k'; 8][..]));
                }
            }
        }
    }

    #[test]
    fn a_fanout_holds_a_batch_for_every_partition() {
        let workload = Workload { scenario: Scenario::Fanout, partitions: 200, record_bytes: 100, ..Workload::default() };
        let mut template = Template::new(&workload, "topic", 1).expect("a template");
        (0..200).for_each(|partition| fill(&mut template, partition as usize, partition));
        let request = decode(template.frame(99).expect("a frame"));
        for (index, data) in request.topic_data[0].partition_data.iter().enumerate() {
            assert_eq!(data.index, index as i32);
            let batch = BatchIterator::new(data.records.as_ref().expect("records").to_bytes()).next().expect("one").expect("valid");
            batch.0.check_crc(&batch.1).expect("the checksum fits");
        }
    }
}
