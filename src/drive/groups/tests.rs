//! A host over a log in memory that commits when the test says so.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use uuid::Uuid;

use super::host::Host;
use super::log::OffsetsLog;
use crate::cluster::Image;
use crate::drive::coordinators::Hosts;
use crate::group::{Call, Caller, GroupConfig, Now, Reply};
use crate::log::{ValidatedBatch, VerificationGuard};
use crate::rt::sync::Notify;
use crate::wire::batch::{BatchBuilder, BatchHeader, BatchOptions, Compression, set_base_offset};
use crate::wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::{HeartbeatRequest, OffsetCommitRequest};
use crate::wire::records::{OffsetCommitKey, OffsetCommitValue};
use crate::wire::{ErrorCode, Str};

#[derive(Default)]
struct Memory {
    batches: RefCell<Vec<Bytes>>,
    end_offset: Cell<i64>,
    committed: Cell<i64>,
    /// What the log answers instead of appending.
    refusal: Cell<Option<ErrorCode>>,
    /// What became of everything that is not committed.
    loss: Cell<Option<ErrorCode>>,
    changed: Notify,
    batch_bytes_max: Cell<usize>,
    reads: Cell<usize>,
}

impl Memory {
    fn new() -> Rc<Memory> {
        Rc::new(Memory { batch_bytes_max: Cell::new(1_000_000), ..Default::default() })
    }

    fn commit_all(&self) {
        self.committed.set(self.end_offset.get());
        self.changed.notify_all();
    }

    fn push(&self, batch: Bytes) -> i64 {
        let base_offset = self.end_offset.get();
        let mut batch = batch.to_vec();
        set_base_offset(&mut batch, base_offset);
        self.end_offset.set(BatchHeader::parse(&batch).unwrap().last_offset() + 1);
        self.batches.borrow_mut().push(Bytes::from(batch));
        base_offset
    }
}

impl OffsetsLog for Rc<Memory> {
    type Mark = i64;

    fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max.get()
    }

    async fn with_room<T>(&self, _bytes: usize, decide: impl FnOnce() -> T) -> T {
        decide()
    }

    fn append(&self, batch: Bytes) -> Result<(i64, i64), ErrorCode> {
        if let Some(error) = self.refusal.get() {
            return Err(error);
        }
        Ok((self.push(batch), self.end_offset.get()))
    }

    fn append_in_transaction(&self, batch: Bytes, _guard: Option<VerificationGuard>) -> Result<(i64, i64), ErrorCode> {
        self.append(batch)
    }

    fn append_marker(&self, marker: &ValidatedBatch, _transaction_version: i16) -> Result<i64, ErrorCode> {
        self.append(marker.bytes.clone()).map(|(_, mark)| mark)
    }

    async fn committed(&self, mark: i64) -> Result<(), ErrorCode> {
        loop {
            let changed = self.changed.notified();
            if mark <= self.committed.get() {
                return Ok(());
            }
            if let Some(error) = self.loss.get() {
                return Err(error);
            }
            changed.await;
        }
    }

    async fn read(&self, offset: i64) -> Result<Vec<Bytes>, ErrorCode> {
        self.reads.set(self.reads.get() + 1);
        let batches = self.batches.borrow();
        let committed = batches.iter().find(|batch| {
            let header = BatchHeader::parse(batch).unwrap();
            header.base_offset >= offset && header.last_offset() < self.committed.get()
        });
        Ok(committed.cloned().into_iter().collect())
    }
}

fn host(log: &Rc<Memory>) -> Host<Rc<Memory>> {
    Host::new(Rc::clone(log), Rc::new(|| Now { wall_ms: 1_000, steady_ms: 0 }))
}

fn loaded(log: &Rc<Memory>) -> Host<Rc<Memory>> {
    let host = host(log);
    now(load(&host));
    host
}

async fn load(host: &Host<Rc<Memory>>) {
    host.load(GroupConfig::default, || Arc::new(Image::empty()), async || {}).await.unwrap();
}

async fn call(host: &Host<Rc<Memory>>, caller: &Caller, call: &Call) -> Reply {
    host.call(caller, call, || {}).await
}

/// The result of a future that has no reason to wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    match poll(&mut pin!(future)) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

fn poll<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn caller() -> Caller {
    Caller { version: 9, client_id: Str::from("c"), client_host: Str::from("/127.0.0.1"), fresh_id: Uuid::from_u128(7) }
}

fn commit(offset: i64) -> Call {
    Call::CommitOffsets(OffsetCommitRequest {
        group_id: Str::from("g"),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("t"),
            partitions: vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn commit_error(reply: &Reply) -> ErrorCode {
    let Reply::CommitOffsets(response) = reply else { panic!("{reply:?}") };
    ErrorCode::try_from(response.topics[0].partitions[0].error_code).unwrap()
}

fn fetch() -> Call {
    let group = OffsetFetchRequestGroup { group_id: Str::from("g"), topics: None, ..Default::default() };
    Call::FetchOffsets { group, require_stable: false }
}

fn fetched(reply: &Reply) -> Option<i64> {
    let Reply::FetchOffsets(group) = reply else { panic!("{reply:?}") };
    assert_eq!(group.error_code, 0);
    group.topics.first().map(|topic| topic.partitions[0].committed_offset)
}

fn heartbeat() -> Call {
    Call::Heartbeat(HeartbeatRequest { group_id: Str::from("g"), ..Default::default() })
}

fn heartbeat_error(reply: &Reply) -> ErrorCode {
    let Reply::Heartbeat(response) = reply else { panic!("{reply:?}") };
    ErrorCode::try_from(response.error_code).unwrap()
}

#[test]
fn nothing_is_answered_before_it_is_committed_and_appends_do_not_wait_for_each_other() {
    let log = Memory::new();
    let host = loaded(&log);
    let (caller, one, two, read) = (caller(), commit(1), commit(2), fetch());
    let mut first = pin!(call(&host, &caller, &one));
    let mut second = pin!(call(&host, &caller, &two));
    let mut third = pin!(call(&host, &caller, &read));
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending() && poll(&mut third).is_pending());
    assert_eq!(log.batches.borrow().len(), 2);

    log.committed.set(1);
    log.changed.notify_all();
    assert!(matches!(poll(&mut first), Poll::Ready(reply) if commit_error(&reply) == ErrorCode::None));
    assert!(poll(&mut second).is_pending());
    assert!(poll(&mut third).is_pending(), "the read saw the second commit, so it waits for it");
    log.commit_all();
    assert!(matches!(poll(&mut second), Poll::Ready(_)));
    assert!(matches!(poll(&mut third), Poll::Ready(reply) if fetched(&reply) == Some(2)));
    assert_eq!(fetched(&now(call(&host, &caller, &read))), Some(2), "what is committed is read at once");
}

#[test]
fn a_coordinator_that_loads_says_so_but_takes_heartbeats() {
    let log = Memory::new();
    let host = host(&log);
    let caller = caller();
    assert_eq!(commit_error(&now(call(&host, &caller, &commit(1)))), ErrorCode::CoordinatorLoadInProgress);
    assert_eq!(heartbeat_error(&now(call(&host, &caller, &heartbeat()))), ErrorCode::None);
    now(load(&host));
    assert_eq!(heartbeat_error(&now(call(&host, &caller, &heartbeat()))), ErrorCode::UnknownMemberId);
}

#[test]
fn a_load_reads_back_what_was_committed_and_nothing_else() {
    let log = Memory::new();
    let host = loaded(&log);
    let (caller, one, two) = (caller(), commit(1), commit(2));
    let mut first = pin!(call(&host, &caller, &one));
    assert!(poll(&mut first).is_pending());
    log.commit_all();
    let mut second = pin!(call(&host, &caller, &two));
    assert!(poll(&mut second).is_pending());
    assert_eq!(fetched(&now(call(&loaded(&log), &caller, &fetch()))), Some(1));
}

#[test]
fn compressed_batches_and_transactions_are_loaded() {
    let log = Memory::new();
    let record = |offset: i64| crate::group::CoordinatorRecord::OffsetCommit {
        key: OffsetCommitKey { group: Str::from("g"), topic: Str::from("t"), ..Default::default() },
        value: Some(OffsetCommitValue { offset, ..Default::default() }),
    };
    let push = |options: BatchOptions, key: &[u8], value: Option<&[u8]>| {
        let mut builder = BatchBuilder::new(options);
        builder.push(Some(key), value, 0, &[]);
        log.push(builder.build().unwrap());
    };
    let push_commit = |options: BatchOptions, offset: i64| {
        let (key, value) = record(offset).encode();
        push(options, &key, value.as_deref());
    };
    push_commit(BatchOptions { compression: Compression::Zstd, ..Default::default() }, 1);
    // A record of a group type that is not served is left alone.
    push(BatchOptions::default(), b"\0\x03\0\x01x", Some(b"\0\0\0\0\0\x05\0"));
    let transaction = BatchOptions { producer_id: 5, producer_epoch: 0, base_sequence: 0, transactional: true, ..Default::default() };
    push_commit(transaction, 2);
    log.commit_all();
    assert_eq!(fetched(&now(call(&loaded(&log), &caller(), &fetch()))), Some(1));
    // The marker: a key of version 0 and type 1, commit.
    push(BatchOptions { control: true, ..transaction }, &[0, 0, 0, 1], Some(&[0, 0, 0, 0, 0, 0]));
    log.commit_all();
    assert_eq!(fetched(&now(call(&loaded(&log), &caller(), &fetch()))), Some(2));
}

#[test]
fn a_log_that_cannot_be_read_makes_no_coordinator() {
    let log = Memory::new();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(Some(b"\0\x01\0\x09g"), None, 0, &[]);
    log.push(builder.build().unwrap());
    log.commit_all();
    let host = host(&log);
    let error = now(host.load(GroupConfig::default, || Arc::new(Image::empty()), async || {})).unwrap_err();
    assert!(error.to_string().starts_with("offset 0: the key of a coordinator record cannot be read"), "{error}");
    assert_eq!(commit_error(&now(call(&host, &caller(), &commit(1)))), ErrorCode::NotCoordinator);
}

#[test]
fn a_refused_append_is_told_and_leaves_no_trace() {
    let log = Memory::new();
    let host = loaded(&log);
    log.refusal.set(Some(ErrorCode::NotEnoughReplicas));
    assert_eq!(commit_error(&now(call(&host, &caller(), &commit(1)))), ErrorCode::CoordinatorNotAvailable);
    log.refusal.set(None);
    assert_eq!(fetched(&now(call(&host, &caller(), &fetch()))), None);
    log.batch_bytes_max.set(80);
    assert_eq!(commit_error(&now(call(&host, &caller(), &commit(1)))), ErrorCode::UnknownServerError, "larger than a batch may be");
}

#[test]
fn a_lost_append_stops_the_coordinator_until_it_is_loaded_again() {
    let log = Memory::new();
    let host = loaded(&log);
    let (caller, one) = (caller(), commit(1));
    let mut first = pin!(call(&host, &caller, &one));
    let mut failed = pin!(host.failed());
    assert!(poll(&mut first).is_pending() && poll(&mut failed).is_pending());
    log.loss.set(Some(ErrorCode::KafkaStorageError));
    log.changed.notify_all();
    assert!(matches!(poll(&mut first), Poll::Ready(reply) if commit_error(&reply) == ErrorCode::NotCoordinator));
    assert!(poll(&mut failed).is_ready());
    assert_eq!(commit_error(&now(call(&host, &caller, &commit(2)))), ErrorCode::NotCoordinator);

    log.loss.set(None);
    now(load(&host));
    assert_eq!(fetched(&now(call(&host, &caller, &fetch()))), None, "what was not committed is not there");
}

#[test]
fn a_wait_for_replicas_that_takes_too_long_fails_the_call_alone() {
    let log = Memory::new();
    let host = loaded(&log);
    log.loss.set(Some(ErrorCode::RequestTimedOut));
    assert_eq!(commit_error(&now(call(&host, &caller(), &commit(1)))), ErrorCode::CoordinatorNotAvailable);
    log.commit_all();
    assert_eq!(fetched(&now(call(&host, &caller(), &fetch()))), Some(1));
}

#[test]
fn a_caller_that_gives_up_leaves_nothing_behind_and_a_dismissal_reaches_the_others() {
    let log = Memory::new();
    let host = loaded(&log);
    let join = Call::Join(crate::wire::messages::JoinGroupRequest {
        group_id: Str::from("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        protocol_type: Str::from("consumer"),
        protocols: vec![Default::default()],
        ..Default::default()
    });
    let one = Caller { version: 3, ..caller() };
    let two = Caller { fresh_id: Uuid::from_u128(8), ..one.clone() };
    {
        let mut gone = pin!(call(&host, &one, &join));
        assert!(poll(&mut gone).is_pending());
    }
    let mut waiting = pin!(call(&host, &two, &join));
    assert!(poll(&mut waiting).is_pending());
    assert_eq!(host.waiting_count(), 1);
    log.commit_all();
    host.dismiss();
    let Poll::Ready(Reply::Join(response)) = poll(&mut waiting) else { panic!() };
    assert_eq!(response.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(host.waiting_count(), 0);
}

#[test]
fn tombstones_are_spread_over_batches_of_the_size_that_the_topic_takes() {
    let log = Memory::new();
    let host = loaded(&log);
    let mut request = commit(1);
    let Call::CommitOffsets(commit) = &mut request else { unreachable!() };
    let partition = |index| OffsetCommitRequestPartition { partition_index: index, ..Default::default() };
    commit.topics[0].partitions = (0..200).map(partition).collect();
    commit.topics[0].topic_id = Uuid::from_u128(1);
    let caller = caller();
    let mut committing = pin!(call(&host, &caller, &request));
    assert!(poll(&mut committing).is_pending());
    log.commit_all();
    let before = log.batches.borrow().len();

    log.batch_bytes_max.set(2_000);
    host.on_topic_deleted("t", Uuid::from_u128(1));
    assert!(now(host.tick()));
    let written = log.batches.borrow().len() - before;
    assert!((3..10).contains(&written), "{written} batches");
    assert!(log.batches.borrow().iter().skip(before).all(|batch| batch.len() <= 2_000));
    log.commit_all();
    assert_eq!(fetched(&now(call(&loaded(&log), &caller, &fetch()))), None);
}
