//! Many producers: what each takes of the broker's memory, that writing them down makes nobody wait, and that they are forgotten.
//!
//! What bounds the memory: a partition remembers a producer for `producer.id.expiration.ms` after its last batch (a day), a coordinator a transactional id for
//! `transactional.id.expiration.ms` (a week); so it is the rate of new producers times that time. The suite has a few thousand, `scripts/soak producers` a million.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelane_wire::messages::describe_producers_request::TopicRequest;
use corelane_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use corelane_wire::messages::{DescribeProducersRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest};
use corelane_wire::{ErrorCode, Records, Str};
use harness::batch::{ATTRIBUTE_TRANSACTIONAL, Batch, record};
use harness::broker::{Broker, BrokerOptions};
use harness::own_broker_cases;
use harness::places::Target;
use harness::raw::{Connection, code, produce_request};
use harness::suite::OwnBrokerCase;
use harness::wait;
use hdrhistogram::Histogram;

use crate::rounds;
use crate::writer::StopAtEnd;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![many_producers_are_remembered_and_forgotten];

/// Producers that have written once, in the suite. One in a hundred more has a transaction open.
const PRODUCERS: u64 = 5_000;

/// The original tells nobody when it writes producers down: it is watched for so long.
const PROBE_TIME: Duration = Duration::from_secs(25);

/// What one producer may take, beside what any load leaves behind: that is more where a million have written.
const BYTES_PER_PRODUCER_MAX: u64 = 400;
const BYTES_ASIDE_MAX: u64 = 32 << 20;
const BYTES_ASIDE_LONG_MAX: u64 = 256 << 20;

/// For one write of a thousand: nobody waits until all producers are written down. Wide, because the machine may be busy with something else.
const LATENCY_MAX: Duration = Duration::from_secs(1);

/// For two checkpoints: with a million producers one takes a while.
const CHECKPOINTS_LIMIT: Duration = Duration::from_secs(120);

const IN_FLIGHT_MAX: usize = 200;
const SEEN: &str = "seen";
const OPEN: &str = "open";
const PROBE: &str = "probe";

fn many_producers_are_remembered_and_forgotten() {
    let count = rounds::producers().unwrap_or(PRODUCERS);
    let options = |expiration_ms: u64| {
        let often = BrokerOptions::default().set("producer.id.expiration.check.interval.ms", 1_000);
        // Everything on one core: who has to wait for it shows.
        let often = BrokerOptions { arguments: vec!["--set".to_string(), "shards=1".to_string()], ..often };
        often.set("producer.id.expiration.ms", expiration_ms).set("transaction.max.timeout.ms", 3_600_000)
    };
    let mut broker = Broker::start(options(86_400_000));
    let mut connection = Connection::to(&broker);
    [SEEN, OPEN, PROBE].iter().for_each(|topic| connection.create_topic(topic, 1));
    let before = broker.resident_bytes();

    let began = Instant::now();
    write_once_each(&mut connection, count);
    let seen = broker.resident_bytes();
    let grown = seen.saturating_sub(before);
    println!("{count} producers have written in {:?}: {} MiB more, {} bytes each", began.elapsed(), grown >> 20, grown / count);
    let aside = if count > PRODUCERS { BYTES_ASIDE_LONG_MAX } else { BYTES_ASIDE_MAX };
    assert!(grown <= count * BYTES_PER_PRODUCER_MAX + aside, "{grown} bytes for {count} producers");

    let latencies = probe_while_described(&broker, &mut connection, count);
    let at = |percentile: f64| latencies.value_at_percentile(percentile);
    println!(
        "{} writes meanwhile, microseconds: p50 {}, p99 {}, p99.9 {}, most {}",
        latencies.len(),
        at(50.0),
        at(99.0),
        at(99.9),
        latencies.max()
    );
    assert!(at(99.9) < LATENCY_MAX.as_micros() as u64, "writes waited");

    let open = (count / 100).max(10);
    open_transactions(&mut connection, open);
    let grown = broker.resident_bytes().saturating_sub(seen);
    println!("{open} transactions are open: {} MiB more, {} bytes each", grown >> 20, grown / open);

    broker.terminate(Duration::from_secs(120));
    let began = Instant::now();
    let broker = Broker::start_on(options(2_000), broker.data());
    let mut connection = Connection::to(&broker);
    connection.wait_for_leaders(SEEN, 1);
    println!("started again in {:?}", began.elapsed());
    wait::until("producers to be forgotten", wait::PATIENCE, || {
        thread::sleep(Duration::from_millis(500));
        (active_producers(&mut connection, SEEN) == 0).then_some(())
    });
    assert_eq!(active_producers(&mut connection, OPEN) as u64, open, "who has a transaction open is not forgotten");
    println!("forgotten {:?} after the start; {} MiB", began.elapsed(), broker.resident_bytes() >> 20);
}

/// One batch of one record by each of so many producers, many requests in flight.
fn write_once_each(connection: &mut Connection, count: u64) {
    let mut in_flight = VecDeque::new();
    for producer_id in 0..count {
        let batch = Batch::of(vec![record("k", "v")]).producer(1_000_000_000 + producer_id as i64, 0, 0);
        let request = produce_request(SEEN, 0, -1, batch.encode());
        in_flight.push_back(connection.send(9, &request).expect("the broker is there"));
        if in_flight.len() == IN_FLIGHT_MAX {
            take_answer(connection, &mut in_flight);
        }
    }
    while !in_flight.is_empty() {
        take_answer(connection, &mut in_flight);
    }
}

fn take_answer(connection: &mut Connection, in_flight: &mut VecDeque<i32>) {
    let oldest = in_flight.pop_front().expect("there is one");
    let answer = connection.receive::<ProduceRequest>(9, oldest).expect("the broker is there");
    assert_eq!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::None);
}

/// How long single writes take while all producers are written down, and another client asks for all of them again and again.
fn probe_while_described(broker: &Broker, connection: &mut Connection, count: u64) -> Histogram<u64> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ending = StopAtEnd(&is_over);
        scope.spawn(|| {
            let mut asking = Connection::to(broker);
            let mut times = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(active_producers(&mut asking, SEEN) as u64, count);
                times += 1;
            }
            println!("all producers were told {times} times meanwhile");
        });
        probe(broker, connection)
    })
}

/// How long single writes take, one after the other, from before a checkpoint is begun until after it.
fn probe(broker: &Broker, connection: &mut Connection) -> Histogram<u64> {
    let mut latencies = Histogram::new(3).expect("three digits");
    let (began, before) = (Instant::now(), checkpoint_number(broker));
    let is_over = || match broker.target() {
        // The first of the two may have been under way already.
        Target::Corelane => checkpoint_number(broker) >= before + 2,
        Target::Kafka => began.elapsed() > PROBE_TIME,
    };
    while !is_over() {
        assert!(began.elapsed() < CHECKPOINTS_LIMIT, "no two checkpoints in {CHECKPOINTS_LIMIT:?}");
        let asked = Instant::now();
        connection.append(PROBE, 0, vec![record("k", "v")]);
        latencies.record(asked.elapsed().as_micros() as u64).expect("no bound");
        thread::sleep(Duration::from_micros(500));
    }
    latencies
}

/// Of the last checkpoint that is complete: it stands in the head of the two files in turn, behind magic and version.
fn checkpoint_number(broker: &Broker) -> u64 {
    let number = |letter| {
        let mut head = [0; 16];
        let read =
            File::open(broker.data().join(format!("corelane-checkpoint-0-{letter}"))).and_then(|mut file| file.read_exact(&mut head));
        read.map_or(0, |()| u64::from_le_bytes(head[8..].try_into().expect("eight bytes")))
    };
    number('a').max(number('b'))
}

/// So many transactional ids, each with one record in a transaction that stays open.
fn open_transactions(connection: &mut Connection, count: u64) {
    for number in 0..count {
        let id = Str::from(format!("open-{number}"));
        let producer_id = wait::until("a producer id", wait::PATIENCE, || {
            connection.call(2, &FindCoordinatorRequest { key: id.clone(), key_type: 1, ..Default::default() });
            let request =
                InitProducerIdRequest { transactional_id: Some(id.clone()), transaction_timeout_ms: 3_600_000, ..Default::default() };
            let response = connection.call(4, &request);
            (response.error_code == 0).then_some(response.producer_id)
        });
        let batch = Batch { attributes: ATTRIBUTE_TRANSACTIONAL, ..Batch::of(vec![record("k", "v")]) }.producer(producer_id, 0, 0);
        let data = PartitionProduceData { index: 0, records: Some(Records::from(batch.encode())), ..Default::default() };
        let request = ProduceRequest {
            transactional_id: Some(id),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![TopicProduceData { name: Str::from(OPEN), partition_data: vec![data], ..Default::default() }],
            ..Default::default()
        };
        let answer = connection.call(12, &request);
        assert_eq!(code(answer.responses[0].partition_responses[0].error_code), ErrorCode::None);
    }
}

fn active_producers(connection: &mut Connection, topic: &str) -> usize {
    let topic = TopicRequest { name: Str::from(topic), partition_indexes: vec![0], ..Default::default() };
    let answer = connection.call(0, &DescribeProducersRequest { topics: vec![topic], ..Default::default() });
    let partition = &answer.topics[0].partitions[0];
    assert_eq!(code(partition.error_code), ErrorCode::None);
    partition.active_producers.len()
}
