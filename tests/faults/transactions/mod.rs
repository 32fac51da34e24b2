//! `kill -9` in the middle of transactions: all of a committed one or none of it, offsets with their records, and nothing left open.
//!
//! Tellers write each transfer into several partitions and end it one way or the other; some use transaction version 1, some version 2. What each was told is kept. After every
//! restart readers of committed records get the whole history, and it is compared: a transfer whose commit was answered is there once in every partition, one that was aborted or
//! never ended is nowhere, and one whose answer was lost is there everywhere or nowhere. Transfers of one teller keep their order.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use corelane_wire::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use corelane_wire::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest,
    OffsetFetchRequest, ProduceRequest, TxnOffsetCommitRequest,
};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{self, ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::{Connection, code, fetch_request, records_of};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::rounds::Rounds;
use crate::writer::{Progress, StopAtEnd, mix};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    killed_in_the_middle_of_transactions,
    the_checker_sees_planted_anomalies,
    transactions_of_apache_kafka_open_in_place,
    transactions_open_in_apache_kafka_after_a_clean_stop,
];

const TOPIC: &str = "transfers";
const GROUP: &str = "tellers";
const PARTITIONS: i32 = 3;
/// Rounds in the suite; `scripts/soak` asks for more with CORELANE_CRASH_ROUNDS.
const ROUNDS: u64 = 6;

/// What a teller knows of one of its transfers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Committed,
    /// Aborted, or never ended by its teller.
    Aborted,
    /// The end was asked for and not answered.
    Unknown,
}

struct Teller {
    id: String,
    number: u64,
    /// By transaction version 2, or 1.
    is_version_2: bool,
    transfers: Vec<Told>,
    /// What the group's position was set to by the last transfer that was committed for sure, and the highest that may have been.
    position: (i64, i64),
}

/// One life of a teller's connection.
struct Session<'a> {
    teller: &'a mut Teller,
    connection: Connection,
    producer_id: i64,
    epoch: i16,
    sequences: HashMap<i32, i32>,
}

impl Teller {
    fn new(number: u64) -> Teller {
        Teller { id: format!("teller-{number}"), number, is_version_2: number.is_multiple_of(2), transfers: Vec::new(), position: (-1, -1) }
    }

    /// Transfers until the broker goes away or the test has seen enough.
    fn run(&mut self, address: SocketAddr, progress: &Progress, seed: u64) {
        let Ok(connection) = Connection::open(address) else { return };
        let mut session = Session { teller: self, connection, producer_id: -1, epoch: -1, sequences: HashMap::new() };
        let Ok(()) = session.initialise() else { return };
        while !progress.stop.load(Ordering::Relaxed) {
            let number = session.teller.transfers.len() as u64;
            let random = mix(seed ^ (session.teller.number << 32) ^ number);
            session.teller.transfers.push(Told::Aborted);
            let Ok(told) = session.transfer(number, random) else { return };
            *session.teller.transfers.last_mut().expect("just begun") = told;
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The broker has gone.
type Gone = std::io::Error;

impl Session<'_> {
    fn initialise(&mut self) -> Result<(), Gone> {
        let id = Str::from(self.teller.id.as_str());
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..Default::default()
        };
        loop {
            self.connection.try_call(2, &FindCoordinatorRequest { key: id.clone(), key_type: 1, ..Default::default() })?;
            let response = self.connection.try_call(4, &request)?;
            match code(response.error_code) {
                ErrorCode::None => {
                    (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
                    self.sequences.clear();
                    return Ok(());
                }
                error => pause(error),
            }
        }
    }

    fn transfer(&mut self, number: u64, random: u64) -> Result<Told, Gone> {
        let with_position = self.teller.is_version_2 && random.is_multiple_of(4);
        for partition in 0..PARTITIONS {
            if !self.teller.is_version_2 {
                self.join(partition)?;
            }
            for index in 0..1 + random % 3 {
                self.write(partition, number, index)?;
            }
        }
        if with_position {
            self.commit_position(number as i64)?;
        }
        match random % 10 {
            // Left open: the next transfer is by a new epoch, which aborts this one.
            0 => self.initialise().map(|()| Told::Aborted),
            1..=2 => self.end(false).map(|()| Told::Aborted),
            _ => {
                *self.teller.transfers.last_mut().expect("just begun") = Told::Unknown;
                let former = self.teller.position;
                if with_position {
                    self.teller.position.1 = number as i64;
                }
                self.end(true)?;
                if with_position {
                    self.teller.position = (number as i64, number as i64);
                } else {
                    self.teller.position = former;
                }
                Ok(Told::Committed)
            }
        }
    }

    fn join(&mut self, partition: i32) -> Result<(), Gone> {
        let topic = AddPartitionsToTxnTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: Str::from(self.teller.id.as_str()),
            v3_and_below_producer_id: self.producer_id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![topic],
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(3, &request)?;
            match code(response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn write(&mut self, partition: i32, number: u64, index: u64) -> Result<(), Gone> {
        let sequence = self.sequences.entry(partition).or_default();
        let value = record(&self.teller.id, format!("{number} {index}"));
        let batch =
            Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![value]) }.producer(self.producer_id, self.epoch, *sequence);
        *sequence += 1;
        let data = PartitionProduceData { index: partition, records: Some(Records::from(batch.encode())), ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(Str::from(self.teller.id.as_str())),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name: Str::from(TOPIC), partition_data: vec![data], ..Default::default() }],
            ..Default::default()
        };
        let version = if self.teller.is_version_2 { 12 } else { 11 };
        loop {
            let response = self.connection.try_call(version, &request)?;
            match code(response.responses[0].partition_responses[0].error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn commit_position(&mut self, position: i64) -> Result<(), Gone> {
        let partition = TxnOffsetCommitRequestPartition {
            partition_index: self.teller.number as i32 % PARTITIONS,
            committed_offset: position,
            ..Default::default()
        };
        let topic = TxnOffsetCommitRequestTopic { name: Str::from(TOPIC), partitions: vec![partition], ..Default::default() };
        let request = TxnOffsetCommitRequest {
            transactional_id: Str::from(self.teller.id.as_str()),
            group_id: Str::from(group_of(self.teller)),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            topics: vec![topic],
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(5, &request)?;
            match code(response.topics[0].partitions[0].error_code) {
                ErrorCode::None => return Ok(()),
                error => pause(error),
            }
        }
    }

    fn end(&mut self, is_commit: bool) -> Result<(), Gone> {
        let request = EndTxnRequest {
            transactional_id: Str::from(self.teller.id.as_str()),
            producer_id: self.producer_id,
            producer_epoch: self.epoch,
            committed: is_commit,
            ..Default::default()
        };
        loop {
            let response = self.connection.try_call(if self.teller.is_version_2 { 5 } else { 4 }, &request)?;
            match code(response.error_code) {
                ErrorCode::None => {
                    if self.teller.is_version_2 {
                        (self.producer_id, self.epoch) = (response.producer_id, response.producer_epoch);
                        self.sequences.clear();
                    }
                    return Ok(());
                }
                error => pause(error),
            }
        }
    }
}

fn group_of(teller: &Teller) -> String {
    format!("{GROUP}-{}", teller.number)
}

/// Errors that only ask for patience; any other is a failure of the test.
fn pause(error: ErrorCode) {
    use ErrorCode::*;
    let is_patience = matches!(
        error,
        ConcurrentTransactions
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | NotCoordinator
            | NotEnoughReplicas
            | NotLeaderOrFollower
    );
    assert!(is_patience, "{}", error.name());
    thread::sleep(Duration::from_millis(5));
}

/// The committed records of one partition in their order: teller, number of the transfer, index within it.
type History = Vec<(String, u64, u64)>;

/// How many records of each transfer a reader found in one partition.
type Found = BTreeMap<(String, u64), u64>;

/// The committed history of one partition, as consumers work it out: by the list of aborted transactions and the markers.
fn committed(connection: &mut Connection, partition: i32) -> History {
    let end = wait::until("everything to be decided", wait::PATIENCE, || {
        let data = read_committed(connection, partition, 0);
        (data.last_stable_offset == data.high_watermark).then_some(data.high_watermark)
    });
    let (mut next, mut history) = (0, Vec::new());
    while next < end {
        let data = read_committed(connection, partition, next);
        let mut aborted: Vec<(i64, i64)> =
            data.aborted_transactions.iter().flatten().map(|one| (one.first_offset, one.producer_id)).collect();
        aborted.sort_unstable_by(|left, right| right.cmp(left));
        let mut giving_up: Vec<i64> = Vec::new();
        for batch in batch::read_batches(&records_of(&data)) {
            while aborted.last().is_some_and(|(first, _)| *first <= batch.last_offset()) {
                giving_up.extend(aborted.pop().map(|(_, producer_id)| producer_id));
            }
            next = batch.last_offset() + 1;
            if batch.attributes & ATTRIBUTE_CONTROL != 0 {
                giving_up.retain(|producer_id| *producer_id != batch.producer_id);
            } else if !giving_up.contains(&batch.producer_id) {
                history.extend(batch.records.iter().map(|(_, record)| parse(record)));
            }
        }
    }
    history
}

fn read_committed(connection: &mut Connection, partition: i32, offset: i64) -> corelane_wire::messages::fetch_response::PartitionData {
    let request = FetchRequest { isolation_level: 1, max_wait_ms: 0, ..fetch_request(&[(TOPIC, partition, offset)]) };
    let data = connection.call(11, &request).responses.remove(0).partitions.remove(0);
    assert_eq!(code(data.error_code), ErrorCode::None);
    data
}

fn parse(record: &batch::Record) -> (String, u64, u64) {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().expect("there")).expect("text");
    let value = text(&record.value);
    let (number, index) = value.split_once(' ').expect("two numbers");
    (text(&record.key), number.parse().expect("a number"), index.parse().expect("a number"))
}

/// Compares the histories of all partitions with what the tellers were told; an error names the first anomaly.
fn check(tellers: &[Teller], seed_of: impl Fn(&Teller, u64) -> u64, histories: &[History]) -> Result<(), String> {
    for (partition, history) in histories.iter().enumerate() {
        let mut found = Found::new();
        let mut last: HashMap<&str, (u64, u64)> = HashMap::new();
        for (teller, number, index) in history {
            let here = (*number, *index);
            if let Some(before) = last.insert(teller, here)
                && before >= here
            {
                return Err(format!("partition {partition}: {teller} has {here:?} after {before:?}: a duplicate, or out of order"));
            }
            *found.entry((teller.clone(), *number)).or_default() += 1;
        }
        for teller in tellers {
            for (number, told) in teller.transfers.iter().enumerate() {
                let expected = 1 + seed_of(teller, number as u64) % 3;
                let count = found.remove(&(teller.id.clone(), number as u64)).unwrap_or(0);
                let is_right = match told {
                    Told::Committed => count == expected,
                    Told::Aborted => count == 0,
                    Told::Unknown => count == expected || count == 0,
                };
                if !is_right {
                    return Err(format!(
                        "partition {partition}: transfer {number} of {} is {told:?}, {count} of {expected} records",
                        teller.id
                    ));
                }
            }
        }
        if let Some(stray) = found.keys().next() {
            return Err(format!("partition {partition}: {stray:?} was never written"));
        }
    }
    // Whose answer was lost is in all partitions or in none.
    for teller in tellers {
        for (number, _) in teller.transfers.iter().enumerate().filter(|(_, told)| **told == Told::Unknown) {
            let is_in = |history: &History| history.iter().any(|(id, found, _)| *id == teller.id && *found == number as u64);
            let count = histories.iter().filter(|history| is_in(history)).count();
            if count != 0 && count != histories.len() {
                return Err(format!("transfer {number} of {} is in {count} of {} partitions", teller.id, histories.len()));
            }
        }
    }
    Ok(())
}

fn killed_in_the_middle_of_transactions() {
    let Rounds { count, seed } = Rounds::or(ROUNDS);
    let mut broker = Broker::start(BrokerOptions::default().set("log.flush.interval.messages", 1));
    let mut connection = Connection::to(&broker);
    connection.create_topic_with(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator(GROUP);
    let mut tellers: Vec<Teller> = (0..4).map(Teller::new).collect();
    for round in 0..count {
        let enough = 10 + mix(seed ^ round) % 100;
        transfer_until(&mut broker, &mut tellers, enough, seed, Broker::kill);
        broker.restart();
        let mut connection = Connection::to(&broker);
        connection.wait_for_leaders(TOPIC, PARTITIONS);
        end_what_is_open(&broker, &mut tellers);
        let histories: Vec<_> = (0..PARTITIONS).map(|partition| committed(&mut connection, partition)).collect();
        let random = |teller: &Teller, number: u64| mix(seed ^ (teller.number << 32) ^ number);
        check(&tellers, random, &histories).unwrap_or_else(|anomaly| panic!("round {round}: {anomaly}"));
        check_positions(&mut connection, &mut tellers);
        let counts = tellers.iter().map(|teller| teller.transfers.len()).sum::<usize>();
        println!("round {round}: killed after {enough} more transfers; {counts} transfers so far, all or nothing of each");
    }
}

/// Lets the tellers work until they have made so many transfers, and then ends the broker under them.
fn transfer_until(broker: &mut Broker, tellers: &mut [Teller], enough: u64, seed: u64, end: impl FnOnce(&mut Broker)) {
    let progress = Arc::new(Progress::default());
    let address = broker.address();
    thread::scope(|scope| {
        let _ending = StopAtEnd(&progress.stop);
        for teller in tellers.iter_mut() {
            scope.spawn(|| teller.run(address, &progress, seed));
        }
        wait::until("transfers", Duration::from_secs(120), || (progress.acknowledged.load(Ordering::Relaxed) >= enough).then_some(()));
        end(broker);
    });
}

/// A new instance of each teller: what was open is aborted, what was decided complete, before it may begin.
fn end_what_is_open(broker: &Broker, tellers: &mut [Teller]) {
    for teller in tellers {
        let connection = Connection::to(broker);
        Session { teller, connection, producer_id: -1, epoch: -1, sequences: HashMap::new() }.initialise().expect("the broker is there");
    }
}

fn check_positions(connection: &mut Connection, tellers: &mut [Teller]) {
    for teller in tellers.iter_mut().filter(|teller| teller.is_version_2) {
        let partition = teller.number as i32 % PARTITIONS;
        let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![partition], ..Default::default() };
        let request = OffsetFetchRequest {
            group_id: Str::from(group_of(teller)),
            topics: Some(vec![topic]),
            require_stable: true,
            ..Default::default()
        };
        let position = wait::until("a stable position", wait::PATIENCE, || {
            let response = connection.call(7, &request);
            let answer = response.topics.first()?.partitions.first()?;
            (response.error_code == 0 && answer.error_code == 0).then_some(answer.committed_offset)
        });
        let (sure, perhaps) = teller.position;
        assert!(position == sure || position == perhaps, "position of {}: {position}, committed {sure}, perhaps {perhaps}", teller.id);
        teller.position = (position, position);
    }
}

/// A checker that never objects proves nothing.
fn the_checker_sees_planted_anomalies() {
    let told = [Told::Committed, Told::Aborted, Told::Unknown, Told::Committed];
    let tellers = [Teller { transfers: told.to_vec(), ..Teller::new(0) }];
    let record = |number: u64| ("teller-0".to_string(), number, 0);
    let sound = vec![record(0), record(2), record(3)];
    // Each transfer has one record in each partition.
    let check = |histories: &[History]| check(&tellers, |_, _| 0, histories);
    assert_eq!(check(&[sound.clone(), sound.clone()]), Ok(()));
    let without = vec![record(0), record(3)];
    assert_eq!(check(&[without.clone(), without.clone()]), Ok(()));
    let anomalies: [(&str, History); 6] = [
        ("a lost write", vec![record(2), record(3)]),
        ("an aborted read", vec![record(0), record(1), record(2), record(3)]),
        ("a duplicate", vec![record(0), record(0), record(2), record(3)]),
        ("another order", vec![record(2), record(0), record(3)]),
        ("a stray", vec![record(0), record(2), record(3), record(9)]),
        ("half of a transfer", without),
    ];
    for (what, history) in anomalies {
        assert!(check(&[sound.clone(), history]).is_err(), "{what}");
    }
}

/// Open, committed, aborted and decided transactions in a directory of the original, which was killed in the middle of them: they open here and come to their ends.
fn transactions_of_apache_kafka_open_in_place() {
    let features = ["group.version", "share.version", "streams.version"];
    let mut original = Broker::start(BrokerOptions::default().target(Target::Kafka).without_features(&features));
    let mut connection = Connection::to(&original);
    connection.create_topic(TOPIC, PARTITIONS);
    connection.wait_for_coordinator(GROUP);
    let seed = 7;
    let mut tellers: Vec<Teller> = (0..4).map(Teller::new).collect();
    // Kafka does not flush what it acknowledges, but a killed process leaves its page cache behind.
    transfer_until(&mut original, &mut tellers, 60, seed, Broker::kill);
    let broker = Broker::start_on(BrokerOptions::default().target(Target::Corelane), original.data());
    check_in_place(&broker, &mut tellers, seed);
}

/// The same the other way round, after a clean stop: the original reads our transaction state, indexes and producer snapshots.
fn transactions_open_in_apache_kafka_after_a_clean_stop() {
    let mut ours = Broker::start(BrokerOptions::default().target(Target::Corelane));
    let mut connection = Connection::to(&ours);
    connection.create_topic_with(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator(GROUP);
    let seed = 9;
    let mut tellers: Vec<Teller> = (0..4).map(Teller::new).collect();
    transfer_until(&mut ours, &mut tellers, 60, seed, |broker| {
        broker.terminate(Duration::from_secs(60));
    });
    let original = Broker::start_on(BrokerOptions::default().target(Target::Kafka), ours.data());
    check_in_place(&original, &mut tellers, seed);
}

fn check_in_place(broker: &Broker, tellers: &mut [Teller], seed: u64) {
    let mut connection = Connection::to(broker);
    connection.wait_for_leaders(TOPIC, PARTITIONS);
    end_what_is_open(broker, tellers);
    let histories: Vec<_> = (0..PARTITIONS).map(|partition| committed(&mut connection, partition)).collect();
    let random = |teller: &Teller, number: u64| mix(seed ^ (teller.number << 32) ^ number);
    check(tellers, random, &histories).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    check_positions(&mut connection, tellers);
    let ids: Vec<Str> = tellers.iter().map(|teller| Str::from(teller.id.as_str())).collect();
    let described = connection.call(0, &DescribeTransactionsRequest { transactional_ids: ids, ..Default::default() });
    let states: Vec<&str> = described.transaction_states.iter().map(|state| &*state.transaction_state).collect();
    assert_eq!(states, ["Empty"; 4]);
}
