//! `kill -9` in the middle of transactions: all of a committed one or none of it, offsets with their records, and nothing left open.
//!
//! Tellers (`teller`) write each transfer into several partitions and end it one way or the other; some use transaction version 1, some version 2. What each was told is kept. After
//! every restart readers of committed records get the whole history, and it is compared (`history`): a transfer whose commit was answered is there once in every partition, one that was
//! aborted or never ended is nowhere, and one whose answer was lost is there everywhere or nowhere. Transfers of one teller keep their order.

mod by_hand;
mod handed_over;
mod hanging;
pub mod history;
pub mod teller;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use corelane_wire::Str;
use corelane_wire::messages::DescribeTransactionsRequest;
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;
use harness::wait;

use self::handed_over::{every_state_of_apache_kafka_opens_in_place, every_state_opens_in_apache_kafka_after_a_clean_stop};
use self::hanging::a_hanging_transaction_is_found_and_ended_by_kafkas_tool;
use self::history::{check, committed, the_checker_sees_planted_anomalies};
use self::teller::{GROUP, PARTITIONS, TOPIC, Teller, check_positions, end_what_is_open};
use crate::rounds::Rounds;
use crate::writer::{Progress, StopAtEnd, mix};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    killed_in_the_middle_of_transactions,
    the_checker_sees_planted_anomalies,
    transactions_of_apache_kafka_open_in_place,
    transactions_open_in_apache_kafka_after_a_clean_stop,
    every_state_of_apache_kafka_opens_in_place,
    every_state_opens_in_apache_kafka_after_a_clean_stop,
    a_hanging_transaction_is_found_and_ended_by_kafkas_tool,
];

/// Rounds in the suite; `scripts/soak` asks for more with CORELANE_CRASH_ROUNDS.
const ROUNDS: u64 = 6;

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
        check(&tellers, |teller, number| teller.records_of(seed, number), &histories)
            .unwrap_or_else(|anomaly| panic!("round {round}: {anomaly}"));
        check_positions(&mut connection, &mut tellers);
        let counts = tellers.iter().map(|teller| teller.transfers.len()).sum::<usize>();
        println!("round {round}: killed after {enough} more transfers; {counts} transfers so far, all or nothing of each");
    }
}

/// Has tellers make some transactions, committed and aborted, and stops the broker cleanly.
pub fn some(broker: &mut Broker, enough: u64) {
    let mut connection = Connection::to(broker);
    connection.create_topic_with(TOPIC, PARTITIONS, &[("segment.bytes", "1048576")]);
    connection.wait_for_coordinator(GROUP);
    let mut tellers: Vec<Teller> = (0..4).map(Teller::new).collect();
    transfer_until(broker, &mut tellers, enough, 9, |broker| {
        broker.terminate(Duration::from_secs(60));
    });
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

/// Open, committed, aborted and decided transactions in a directory of the original, which was killed in the middle of them: they open here and come to their ends.
fn transactions_of_apache_kafka_open_in_place() {
    // As it is formatted by default, with share and streams groups allowed.
    let mut original = Broker::start(BrokerOptions::default().target(Target::Kafka));
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
    check(tellers, |teller, number| teller.records_of(seed, number), &histories).unwrap_or_else(|anomaly| panic!("{anomaly}"));
    check_positions(&mut connection, tellers);
    let ids: Vec<Str> = tellers.iter().map(|teller| Str::from(teller.id())).collect();
    let described = connection.call(0, &DescribeTransactionsRequest { transactional_ids: ids, ..Default::default() });
    let states: Vec<&str> = described.transaction_states.iter().map(|state| &*state.transaction_state).collect();
    assert_eq!(states, ["Empty"; 4]);
}
