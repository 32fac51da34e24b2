//! A consumer of fixed partitions: one connection, one fetch under way, an incremental session as real consumers keep it.
//!
//! What an answer brings is worked off in pieces of one batch, so that a reader of a backlog never keeps the thread that also takes time stamps for long.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::Bytes;
use corelane_wire::batch::{BatchIterator, Compression, HEADER_BYTES, RecordIterator, decompress_all};
use corelane_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use corelane_wire::messages::{FetchRequest, FetchResponse};
use corelane_wire::{ApiKey, Decoder, ErrorCode, Message, Str, read_response_header};

use super::FETCH_VERSION;
use super::admin::error_name;
use super::connection::{Connection, frame_of, invalid};
use crate::workload::Workload;

/// The largest batch that is unpacked.
const UNPACKED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How fetches are asked for.
#[derive(Clone, Copy, Debug)]
pub struct FetchSettings {
    pub max_bytes: i32,
    pub min_bytes: i32,
    pub max_wait_ms: i32,
    /// Only what is not part of an open or an aborted transaction.
    pub committed_only: bool,
}

impl FetchSettings {
    pub fn of(workload: &Workload) -> FetchSettings {
        FetchSettings {
            max_bytes: workload.fetch_max_bytes,
            min_bytes: workload.fetch_min_bytes,
            max_wait_ms: workload.fetch_max_wait_ms,
            committed_only: false,
        }
    }
}

pub struct Consumer {
    connection: Connection,
    topic: Str,
    settings: FetchSettings,
    partitions: Vec<Position>,
    session: Session,
    under_way: Option<u64>,
    /// Batches that have arrived and are not looked at yet: their place in `partitions`, when they came.
    arrived: VecDeque<(usize, u64, BatchIterator)>,
}

struct Position {
    index: i32,
    offset: i64,
    /// The session knows another offset.
    moved: bool,
}

#[derive(Default)]
struct Session {
    id: i32,
    epoch: i32,
}

/// What one step has brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Step {
    /// A fetch that came back: from its sending to the arrival of its last byte, and the bytes of records in it.
    pub fetch: Option<(u64, u64)>,
    /// Whether anything happened at all.
    pub busy: bool,
}

impl Consumer {
    pub fn connect(
        address: SocketAddr,
        congestion_control: Option<&str>,
        topic: &str,
        positions: &[(i32, i64)],
        settings: FetchSettings,
    ) -> io::Result<Consumer> {
        let partitions = positions.iter().map(|(index, offset)| Position { index: *index, offset: *offset, moved: true }).collect();
        Ok(Consumer {
            connection: Connection::open(address, congestion_control)?,
            topic: Str::from(topic),
            settings,
            partitions,
            session: Session::default(),
            under_way: None,
            arrived: VecDeque::new(),
        })
    }

    /// The offset from which each partition is read next.
    pub fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        self.partitions.iter().map(|position| (position.index, position.offset))
    }

    /// Goes on: works off one batch if there is one, otherwise takes what has arrived, otherwise asks for more. `see` gets partition, offset, time of arrival and value of each
    /// record, and `None` where the bytes are no records.
    pub fn step(&mut self, now_ns: impl Fn() -> u64, mut see: impl FnMut(i32, i64, u64, Option<&[u8]>)) -> io::Result<Step> {
        if let Some((place, arrived_ns, batches)) = self.arrived.front_mut() {
            let (place, arrived_ns) = (*place, *arrived_ns);
            match batches.next() {
                Some(Ok((header, bytes))) => {
                    let position = &mut self.partitions[place];
                    see_batch(position, &header, bytes, |index, offset, value| see(index, offset, arrived_ns, value));
                }
                // The last batch of an answer may be cut: it comes again.
                Some(Err(_)) | None => drop(self.arrived.pop_front()),
            }
            return Ok(Step { fetch: None, busy: true });
        }
        if let Some(sent_ns) = self.under_way {
            self.connection.flush()?;
            if !self.connection.receive()? {
                return Ok(Step::default());
            }
            let arrived_ns = now_ns();
            let Some(frame) = self.connection.next_frame() else { return Ok(Step { fetch: None, busy: true }) };
            let frame = Bytes::copy_from_slice(frame);
            self.under_way = None;
            let bytes = self.take_answer(frame, arrived_ns)?;
            return Ok(Step { fetch: Some((arrived_ns - sent_ns, bytes)), busy: true });
        }
        let frame = self.next_request()?;
        self.under_way = Some(now_ns());
        self.connection.send(&frame)?;
        Ok(Step { fetch: None, busy: true })
    }

    fn next_request(&mut self) -> io::Result<Vec<u8>> {
        let whole = self.session.epoch == 0;
        let asked = self.partitions.iter_mut().filter(|position| whole || position.moved).map(|position| {
            position.moved = false;
            FetchPartition {
                partition: position.index,
                fetch_offset: position.offset,
                partition_max_bytes: self.settings.max_bytes,
                ..Default::default()
            }
        });
        let partitions: Vec<FetchPartition> = asked.collect();
        let topics = if partitions.is_empty() {
            Vec::new()
        } else {
            vec![FetchTopic { topic: self.topic.clone(), partitions, ..Default::default() }]
        };
        let request = FetchRequest {
            max_wait_ms: self.settings.max_wait_ms,
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.max_bytes,
            isolation_level: i8::from(self.settings.committed_only),
            session_id: self.session.id,
            session_epoch: self.session.epoch,
            topics,
            ..Default::default()
        };
        frame_of(FETCH_VERSION, 1, &request)
    }

    /// Keeps the answer's batches for later steps; gives the bytes of records in it.
    fn take_answer(&mut self, frame: Bytes, arrived_ns: u64) -> io::Result<u64> {
        let mut decoder = Decoder::new(frame);
        read_response_header(&mut decoder, ApiKey::Fetch, FETCH_VERSION).map_err(invalid)?;
        let response = FetchResponse::decode(&mut decoder, FETCH_VERSION).map_err(invalid)?;
        let lost = [ErrorCode::FetchSessionIdNotFound.code(), ErrorCode::InvalidFetchSessionEpoch.code()];
        if lost.contains(&response.error_code) {
            self.session = Session::default();
            return Ok(0);
        }
        if response.error_code != 0 {
            return Err(io::Error::other(format!("Fetch: {}", error_name(response.error_code))));
        }
        // A broker without room for a session answers 0: the next fetch is whole again.
        let epoch = if response.session_id == 0 { 0 } else { self.session.epoch + 1 };
        self.session = Session { id: response.session_id, epoch };
        let mut bytes = 0;
        for data in response.responses.iter().flat_map(|topic| &topic.partitions) {
            if data.error_code != 0 {
                return Err(io::Error::other(format!(
                    "Fetch from {}-{}: {}",
                    self.topic,
                    data.partition_index,
                    error_name(data.error_code)
                )));
            }
            let records = data.records.as_ref().map(|records| records.to_bytes()).unwrap_or_default();
            if let Some(place) =
                self.partitions.iter().position(|position| position.index == data.partition_index).filter(|_| !records.is_empty())
            {
                bytes += records.len() as u64;
                self.arrived.push_back((place, arrived_ns, BatchIterator::new(records)));
            }
        }
        Ok(bytes)
    }
}

fn see_batch(
    position: &mut Position,
    header: &corelane_wire::batch::BatchHeader,
    bytes: Bytes,
    mut see: impl FnMut(i32, i64, Option<&[u8]>),
) {
    let end = header.last_offset() + 1;
    let unpacked = match header.compression() {
        Ok(Compression::None) => Ok(bytes.slice(HEADER_BYTES..)),
        Ok(compression) => decompress_all(compression, bytes.slice(HEADER_BYTES..), UNPACKED_BYTES_MAX).map_err(invalid_debug),
        Err(error) => Err(invalid(error)),
    };
    let whole = header.check_crc(&bytes).is_ok();
    match unpacked {
        Ok(records) if whole && !header.attributes.is_control() => {
            for record in RecordIterator::new(&records, header.record_count) {
                let Ok(record) = record else {
                    see(position.index, end, None);
                    break;
                };
                let offset = header.base_offset + i64::from(record.offset_delta);
                // A fetch from inside a batch brings the whole batch.
                if offset >= position.offset {
                    see(position.index, offset, record.value);
                }
            }
        }
        Ok(_) if whole => (),
        _ => see(position.index, end, None),
    }
    if end > position.offset {
        position.offset = end;
        position.moved = true;
    }
}

fn invalid_debug(error: impl std::fmt::Debug) -> io::Error {
    invalid(format!("{error:?}"))
}

impl AsFd for Consumer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
