//! The `rdkafka` crate (librdkafka) in its main job.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harness::batch::{Record, now_ms};
use harness::broker::Broker;
use harness::samples::{assert_same, headers_of_every_kind, odd_records, one_mib, records};
use harness::suite::Case;
use harness::{cases, differences, wait};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;
use rdkafka::{Offset, TopicPartitionList};

pub const CASES: &[Case] = cases![
    codec_none,
    codec_gzip,
    codec_snappy,
    codec_lz4,
    codec_zstd,
    tombstones_and_empty_values,
    headers,
    one_mib_records,
    record_too_large,
    acks_of_every_kind,
    idempotent_producer,
    transactions,
    timestamps_lookup,
    group_of_three,
    commit_and_resume,
    admin_topics,
    admin_configs,
    delete_records,
];

const LIMIT: Duration = Duration::from_secs(60);

fn codec_none(broker: &Broker) {
    round_trip(broker, "none");
}

fn codec_gzip(broker: &Broker) {
    round_trip(broker, "gzip");
}

fn codec_snappy(broker: &Broker) {
    round_trip(broker, "snappy");
}

fn codec_lz4(broker: &Broker) {
    round_trip(broker, "lz4");
}

fn codec_zstd(broker: &Broker) {
    round_trip(broker, "zstd");
}

/// What is written over three partitions is read from each in order, with offsets that count from 0.
fn round_trip(broker: &Broker, codec: &str) {
    let client = Client::new(broker, &format!("codec-{codec}"));
    client.create(3, &[]);
    let sent = records(60);
    for partition in 0..3 {
        client.produce(partition, &sent, &[("compression.type", codec)]).expect("taken");
    }
    for partition in 0..3 {
        let got = client.consume(partition, 0, sent.len());
        assert_eq!(got.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..60).collect::<Vec<_>>());
        assert_same(&only_records(got), &sent);
    }
}

fn tombstones_and_empty_values(broker: &Broker) {
    let client = Client::new(broker, "odd");
    client.create(1, &[]);
    client.produce(0, &odd_records(), &[]).expect("taken");
    assert_same(&only_records(client.consume(0, 0, odd_records().len())), &odd_records());
}

fn headers(broker: &Broker) {
    let client = Client::new(broker, "headers");
    client.create(1, &[]);
    let sent = vec![Record { headers: headers_of_every_kind(), ..odd_records().remove(1) }, odd_records().remove(1)];
    client.produce(0, &sent, &[("compression.type", "zstd")]).expect("taken");
    assert_same(&only_records(client.consume(0, 0, 2)), &sent);
}

fn one_mib_records(broker: &Broker) {
    let client = Client::new(broker, "one-mib");
    client.create(1, &[("max.message.bytes", "4194304")]);
    let large = Record { value: Some(one_mib()), ..odd_records().remove(1) };
    let sent = vec![odd_records().remove(1), large.clone(), odd_records().remove(2), large];
    for codec in ["none", "snappy"] {
        client.produce(0, &sent, &[("compression.type", codec)]).expect("taken");
    }
    assert_same(&only_records(client.consume(0, 0, 8)), &[sent.clone(), sent].concat());
}

fn record_too_large(broker: &Broker) {
    let client = Client::new(broker, "too-large");
    client.create(1, &[("max.message.bytes", "1000")]);
    let large = Record { value: Some(vec![0; 5000]), ..Record::default() };
    let error = client.produce(0, &[large], &[]).expect_err("refused");
    assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(client.watermarks(0), (0, 0));
}

fn acks_of_every_kind(broker: &Broker) {
    let client = Client::new(broker, "acks");
    client.create(1, &[]);
    let sent = records(12);
    client.produce(0, &sent[..4], &[("acks", "0")]).expect("taken");
    wait::until("records sent with acks=0", LIMIT, || (client.watermarks(0).1 == 4).then_some(()));
    client.produce(0, &sent[4..8], &[("acks", "1")]).expect("taken");
    client.produce(0, &sent[8..], &[("acks", "all")]).expect("taken");
    assert_same(&only_records(client.consume(0, 0, 12)), &sent);
}

/// Five small batches in flight, many times over, arrive once and in order.
fn idempotent_producer(broker: &Broker) {
    let client = Client::new(broker, "idempotent");
    client.create(1, &[]);
    let sent = records(2_000);
    let settings = [("enable.idempotence", "true"), ("linger.ms", "0"), ("batch.num.messages", "10"), ("max.in.flight", "5")];
    client.produce(0, &sent, &settings).expect("taken");
    assert_same(&only_records(client.consume(0, 0, sent.len())), &sent);
}

/// Readers of committed records, which librdkafka's are by default, get what was committed and nothing of what was aborted.
fn transactions(broker: &Broker) {
    let client = Client::new(broker, "transactions");
    client.create(1, &[]);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &client.bootstrap).set("transactional.id", "rdkafka-transactions-id").set("linger.ms", "5");
    let producer: FutureProducer = config.create().expect("a producer");
    producer.init_transactions(Timeout::After(LIMIT)).expect("initialised");
    let mut committed = Vec::new();
    for (round, sent) in records(40).chunks(10).enumerate() {
        producer.begin_transaction().expect("begun");
        for record in sent {
            let _answer = producer.send_result(client.future_record(0, record)).map_err(|(error, _)| error).expect("taken");
        }
        producer.flush(Timeout::After(LIMIT)).expect("answered");
        if round % 2 == 0 {
            producer.commit_transaction(Timeout::After(LIMIT)).expect("committed");
            committed.extend_from_slice(sent);
        } else {
            producer.abort_transaction(Timeout::After(LIMIT)).expect("aborted");
        }
    }
    assert_same(&only_records(client.consume(0, 0, committed.len())), &committed);
}

fn timestamps_lookup(broker: &Broker) {
    let client = Client::new(broker, "timestamps");
    client.create(1, &[]);
    let base = now_ms() - 100_000;
    let sent: Vec<Record> = (0..20).map(|index| Record { timestamp: base + index * 1_000, ..odd_records().remove(1) }).collect();
    client.produce(0, &sent[..10], &[]).expect("taken");
    client.produce(0, &sent[10..], &[("compression.type", "lz4")]).expect("taken");
    let consumer = client.consumer(&[]);
    for (after, expected) in
        [(-1, Offset::Offset(0)), (1, Offset::Offset(1)), (12_500, Offset::Offset(13)), (19_000, Offset::Offset(19)), (19_001, Offset::End)]
    {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&client.topic, 0, Offset::Offset(base + after)).expect("a time is an offset here");
        let found = consumer.offsets_for_times(asked, LIMIT).expect("an answer");
        assert_eq!(found.elements()[0].offset(), expected, "{after} ms");
    }
}

/// Three members share six partitions; when one leaves the others take over; every record arrives.
fn group_of_three(broker: &Broker) {
    let client = Client::new(broker, "group-of-three");
    client.create(6, &[]);
    let mut members: Vec<Member> = (0..3).map(|_| Member::start(client.subscriber())).collect();
    let shares = |members: &[Member]| {
        let mut shares: Vec<usize> = members.iter().map(|member| member.seen.lock().expect("no member panics").assigned).collect();
        shares.sort_unstable();
        shares
    };
    let keys = |members: &[Member]| {
        members.iter().flat_map(|member| member.seen.lock().expect("no member panics").keys.clone()).collect::<BTreeSet<_>>()
    };
    wait::until("three members with two partitions each", LIMIT, || (shares(&members) == [2, 2, 2]).then_some(()));
    let first = client.produce_everywhere("first", 6);
    wait::until("the records of the first round", LIMIT, || keys(&members).is_superset(&first).then_some(()));
    members.remove(0).leave();
    wait::until("two members with three partitions each", LIMIT, || (shares(&members) == [3, 3]).then_some(()));
    let second = client.produce_everywhere("second", 6);
    wait::until("the records of the second round", LIMIT, || keys(&members).is_superset(&second).then_some(()));
    members.into_iter().for_each(Member::leave);
}

fn commit_and_resume(broker: &Broker) {
    let client = Client::new(broker, "commit");
    client.create(1, &[]);
    let sent = records(30);
    client.produce(0, &sent, &[]).expect("taken");
    let first = client.subscriber();
    assert_eq!(read(&first, 30).len(), 30);
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(&client.topic, 0, Offset::Offset(12)).expect("an offset");
    first.commit(&offsets, CommitMode::Sync).expect("committed");
    drop(first);
    let second = client.subscriber();
    let got = read(&second, 18);
    assert_eq!(got[0].0, 12);
    assert_same(&only_records(got), &sent[12..]);
}

fn admin_topics(broker: &Broker) {
    let client = Client::new(broker, "admin-topics");
    client.create(2, &[]);
    assert_eq!(client.create_as(&client.topic, 1, 1, &[]), Err(RDKafkaErrorCode::TopicAlreadyExists));
    assert_eq!(client.create_as("no spaces", 1, 1, &[]), Err(RDKafkaErrorCode::InvalidTopic));
    assert_eq!(client.create_as("rdkafka-replicas", 1, 3, &[]), Err(RDKafkaErrorCode::InvalidReplicationFactor));
    assert_eq!(client.create_as("rdkafka-config", 1, 1, &[("retention.ms", "soon")]), Err(RDKafkaErrorCode::InvalidConfig));
    let partitions = || {
        let metadata = client.admin.inner().fetch_metadata(Some(&client.topic), LIMIT).expect("metadata");
        metadata.topics()[0].partitions().len()
    };
    let enlarged =
        block_on(client.admin.create_partitions([&NewPartitions::new(&client.topic, 5)], &AdminOptions::new())).expect("an answer");
    assert_eq!(enlarged, [Ok(client.topic.clone())]);
    wait::until("five partitions", LIMIT, || (partitions() == 5).then_some(()));
    let deleted = block_on(client.admin.delete_topics(&[&client.topic, "rdkafka-no-such-topic"], &AdminOptions::new())).expect("an answer");
    assert_eq!(deleted, [Ok(client.topic.clone()), Err(("rdkafka-no-such-topic".to_string(), RDKafkaErrorCode::UnknownTopicOrPartition))]);
    wait::until("the topic to be gone", LIMIT, || {
        let all = client.admin.inner().fetch_metadata(None, LIMIT).expect("metadata");
        all.topics().iter().all(|topic| topic.name() != client.topic).then_some(())
    });
}

fn admin_configs(broker: &Broker) {
    let client = Client::new(broker, "admin-configs");
    client.create(1, &[("retention.ms", "86400000")]);
    let value = |key: &str| {
        let described =
            block_on(client.admin.describe_configs([&ResourceSpecifier::Topic(&client.topic)], &AdminOptions::new())).expect("an answer");
        let entry = described[0].as_ref().ok()?.get(key)?;
        Some((entry.value.clone().unwrap_or_default(), entry.is_default))
    };
    let told = |value: &str, is_default| Some((value.to_string(), is_default));
    wait::until("the new topic's settings", LIMIT, || (value("retention.ms") == told("86400000", false)).then_some(()));
    assert_eq!(value("flush.messages"), told(differences::expected("flush-messages-default"), true));
    let change = AlterConfig::new(ResourceSpecifier::Topic(&client.topic)).set("segment.bytes", "16777216");
    block_on(client.admin.alter_configs([&change], &AdminOptions::new())).expect("an answer")[0].as_ref().expect("altered");
    wait::until("the changed setting", LIMIT, || (value("segment.bytes") == told("16777216", false)).then_some(()));
}

fn delete_records(broker: &Broker) {
    let client = Client::new(broker, "delete-records");
    client.create(1, &[]);
    client.produce(0, &records(20), &[]).expect("taken");
    let mut upto = TopicPartitionList::new();
    upto.add_partition_offset(&client.topic, 0, Offset::Offset(8)).expect("an offset");
    block_on(client.admin.delete_records(&upto, &AdminOptions::new())).expect("deleted");
    assert_eq!(client.watermarks(0), (8, 20));
    assert_same(&only_records(client.consume(0, 8, 12)), &records(20)[8..]);
}

/// librdkafka on one topic of its own.
struct Client {
    bootstrap: String,
    topic: String,
    admin: AdminClient<DefaultClientContext>,
}

impl Client {
    fn new(broker: &Broker, name: &str) -> Client {
        let bootstrap = broker.bootstrap();
        let admin = ClientConfig::new().set("bootstrap.servers", &bootstrap).create().expect("an admin client");
        Client { bootstrap, topic: format!("rdkafka-{name}"), admin }
    }

    fn create(&self, partitions: i32, configs: &[(&str, &str)]) {
        self.create_as(&self.topic, partitions, 1, configs).expect("created");
    }

    fn create_as(&self, name: &str, partitions: i32, replicas: i32, configs: &[(&str, &str)]) -> Result<(), RDKafkaErrorCode> {
        let topic = NewTopic { name, num_partitions: partitions, replication: TopicReplication::Fixed(replicas), config: configs.to_vec() };
        let made = block_on(self.admin.create_topics([&topic], &AdminOptions::new())).expect("an answer").remove(0);
        made.map(|_| ()).map_err(|(_, code)| code)
    }

    fn produce(&self, partition: i32, records: &[Record], settings: &[(&str, &str)]) -> Result<(), KafkaError> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("linger.ms", "20")
            .set("message.max.bytes", "4000000")
            .set("queue.buffering.max.kbytes", "200000");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let producer: FutureProducer = config.create().expect("a producer");
        let sent: Vec<_> = records
            .iter()
            .map(|record| producer.send_result(self.future_record(partition, record)).map_err(|(error, _)| error))
            .collect::<Result<_, _>>()?;
        producer.flush(Timeout::After(LIMIT))?;
        for answer in sent {
            block_on(answer).expect("an answer").map_err(|(error, _)| error)?;
        }
        Ok(())
    }

    fn future_record<'a>(&'a self, partition: i32, record: &'a Record) -> FutureRecord<'a, [u8], [u8]> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut sent = FutureRecord::to(&self.topic).partition(partition).headers(headers);
        (sent.key, sent.payload) = (record.key.as_deref(), record.value.as_deref());
        sent.timestamp = (record.timestamp > 0).then_some(record.timestamp);
        sent
    }

    /// One record with a key of its own to each partition; the keys.
    fn produce_everywhere(&self, round: &str, partitions: i32) -> BTreeSet<Vec<u8>> {
        let one = |partition| {
            let record = Record { key: Some(format!("{round}-{partition}").into_bytes()), ..odd_records().remove(1) };
            self.produce(partition, std::slice::from_ref(&record), &[]).expect("taken");
            record.key.unwrap_or_default()
        };
        (0..partitions).map(one).collect()
    }

    fn consumer(&self, settings: &[(&str, &str)]) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("group.id", "unused").set("enable.auto.commit", "false");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        config.create().expect("a consumer")
    }

    fn subscriber(&self) -> BaseConsumer {
        let group = format!("{}-group", self.topic);
        let settings = [
            ("group.id", group.as_str()),
            ("auto.offset.reset", "earliest"),
            ("session.timeout.ms", "10000"),
            ("heartbeat.interval.ms", "500"),
        ];
        let consumer = self.consumer(&settings);
        consumer.subscribe(&[&self.topic]).expect("subscribed");
        consumer
    }

    fn consume(&self, partition: i32, start: i64, count: usize) -> Vec<(i64, Record)> {
        let consumer = self.consumer(&[]);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, partition, Offset::Offset(start)).expect("an offset");
        consumer.assign(&place).expect("assigned");
        read(&consumer, count)
    }

    fn watermarks(&self, partition: i32) -> (i64, i64) {
        self.consumer(&[]).fetch_watermarks(&self.topic, partition, LIMIT).expect("watermarks")
    }
}

fn read(consumer: &BaseConsumer, count: usize) -> Vec<(i64, Record)> {
    let mut got = Vec::new();
    // Polling returns without a message after a rebalance, however long it may wait.
    wait::until(&format!("{count} records"), LIMIT, || {
        while let Some(message) = consumer.poll(Duration::from_millis(500)) {
            let message = message.expect("a record");
            got.push((message.offset(), owned(&message)));
            if got.len() == count {
                return Some(());
            }
        }
        None
    });
    got
}

fn owned(message: &impl Message) -> Record {
    let headers =
        message.headers().map(|headers| headers.iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect());
    Record {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
    }
}

fn only_records(got: Vec<(i64, Record)>) -> Vec<Record> {
    got.into_iter().map(|(_, record)| record).collect()
}

#[derive(Default)]
struct Seen {
    keys: BTreeSet<Vec<u8>>,
    assigned: usize,
}

/// A member of a group in a thread of its own, as an application would run it.
struct Member {
    seen: Arc<Mutex<Seen>>,
    leaving: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Member {
    fn start(consumer: BaseConsumer) -> Member {
        let (seen, leaving) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (its_seen, its_leaving) = (seen.clone(), leaving.clone());
        let thread = thread::spawn(move || {
            while !its_leaving.load(Ordering::Relaxed) {
                let polled = consumer.poll(Duration::from_millis(200));
                let mut seen = its_seen.lock().expect("only this thread writes");
                if let Some(message) = polled {
                    seen.keys.insert(message.expect("a record").key().unwrap_or_default().to_vec());
                }
                seen.assigned = consumer.assignment().map(|assignment| assignment.count()).unwrap_or(0);
            }
        });
        Member { seen, leaving, thread }
    }

    fn leave(self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.thread.join().expect("the member does not panic");
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}
