//! The `rskafka` crate, a client without librdkafka and without groups.

use std::collections::BTreeMap;

use chrono::DateTime;
use harness::batch::{self, now_ms};
use harness::broker::Broker;
use harness::cases;
use harness::samples::{self, assert_same};
use harness::suite::Case;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rskafka::record::Record;

pub const CASES: &[Case] = cases![
    codec_none,
    codec_gzip,
    codec_snappy,
    codec_lz4,
    codec_zstd,
    tombstones_and_empty_values,
    one_mib_records,
    reading_from_the_past,
    timestamps_lookup,
    admin_topics,
    delete_records
];

fn codec_none(broker: &Broker) {
    block_on(round_trip(broker, "codec-none", Compression::NoCompression));
}

fn codec_gzip(broker: &Broker) {
    block_on(round_trip(broker, "codec-gzip", Compression::Gzip));
}

fn codec_snappy(broker: &Broker) {
    block_on(round_trip(broker, "codec-snappy", Compression::Snappy));
}

fn codec_lz4(broker: &Broker) {
    block_on(round_trip(broker, "codec-lz4", Compression::Lz4));
}

fn codec_zstd(broker: &Broker) {
    block_on(round_trip(broker, "codec-zstd", Compression::Zstd));
}

async fn round_trip(broker: &Broker, name: &str, compression: Compression) {
    let topic = fresh(broker, name, &[]).await;
    let sent = samples::records(60);
    let offsets = topic.produce(sent.iter().map(to_client).collect(), compression).await.expect("taken");
    assert_eq!(offsets, (0..60).collect::<Vec<_>>());
    assert_same(&read(&topic, 0, 60).await, &sent);
}

fn tombstones_and_empty_values(broker: &Broker) {
    block_on(async {
        let topic = fresh(broker, "odd", &[]).await;
        let sent = samples::odd_records();
        topic.produce(sent.iter().map(to_client).collect(), Compression::NoCompression).await.expect("taken");
        assert_same(&read(&topic, 0, sent.len()).await, &sent);
    });
}

fn one_mib_records(broker: &Broker) {
    block_on(async {
        let topic = fresh(broker, "one-mib", &[("max.message.bytes", "4194304")]).await;
        let sent = vec![batch::Record { value: Some(samples::one_mib()), ..samples::odd_records().remove(1) }];
        for compression in [Compression::NoCompression, Compression::Lz4] {
            topic.produce(sent.iter().map(to_client).collect(), compression).await.expect("taken");
        }
        assert_same(&read(&topic, 0, 2).await, &[sent.clone(), sent].concat());
    });
}

fn reading_from_the_past(broker: &Broker) {
    block_on(async {
        let topic = fresh(broker, "past", &[]).await;
        let sent = samples::records(50);
        topic.produce(sent.iter().map(to_client).collect(), Compression::Zstd).await.expect("taken");
        for start in [1, 17, 49] {
            assert_same(&read(&topic, start, 50 - start as usize).await, &sent[start as usize..]);
        }
        assert_eq!(topic.get_offset(OffsetAt::Earliest).await.expect("an offset"), 0);
        assert_eq!(topic.get_offset(OffsetAt::Latest).await.expect("an offset"), 50);
    });
}

fn timestamps_lookup(broker: &Broker) {
    block_on(async {
        let topic = fresh(broker, "timestamps", &[]).await;
        let base = now_ms() - 100_000;
        let sent = (0..10)
            .map(|index| to_client(&batch::Record { timestamp: base + index * 1_000, ..samples::odd_records().remove(1) }))
            .collect();
        topic.produce(sent, Compression::Gzip).await.expect("taken");
        for (after, offset) in [(0, 0), (4_500, 5), (9_000, 9)] {
            let moment = DateTime::from_timestamp_millis(base + after).expect("a time");
            assert_eq!(topic.get_offset(OffsetAt::Timestamp(moment)).await.expect("an offset"), offset, "{after} ms");
        }
    });
}

fn admin_topics(broker: &Broker) {
    block_on(async {
        let client = connect(broker).await;
        let controller = client.controller_client().expect("a controller");
        controller.create_topic("rskafka-admin", 3, 1, 30_000).await.expect("created");
        assert!(controller.create_topic("rskafka-admin", 3, 1, 30_000).await.is_err(), "it exists");
        let listed = client.list_topics().await.expect("topics");
        assert_eq!(listed.into_iter().find(|topic| topic.name == "rskafka-admin").map(|topic| topic.partitions.len()), Some(3));
        controller.delete_topic("rskafka-admin", 30_000).await.expect("deleted");
    });
}

fn delete_records(broker: &Broker) {
    block_on(async {
        let topic = fresh(broker, "delete", &[]).await;
        topic.produce(samples::records(20).iter().map(to_client).collect(), Compression::NoCompression).await.expect("taken");
        topic.delete_records(8, 30_000).await.expect("deleted");
        assert_eq!(topic.get_offset(OffsetAt::Earliest).await.expect("an offset"), 8);
    });
}

async fn connect(broker: &Broker) -> Client {
    ClientBuilder::new(vec![broker.bootstrap()]).build().await.expect("a client")
}

/// A topic of one partition; made by hand, since this client cannot name settings.
async fn fresh(broker: &Broker, name: &str, configs: &[(&str, &str)]) -> PartitionClient {
    let topic = format!("rskafka-{name}");
    harness::raw::Connection::to(broker).create_topic_with(&topic, 1, configs);
    connect(broker).await.partition_client(topic, 0, UnknownTopicHandling::Retry).await.expect("a partition")
}

fn to_client(record: &batch::Record) -> Record {
    let headers: BTreeMap<String, Vec<u8>> =
        record.headers.iter().map(|(name, content)| (name.clone(), content.clone().unwrap_or_default())).collect();
    let timestamp = DateTime::from_timestamp_millis(record.timestamp.max(0)).expect("a time");
    Record { key: record.key.clone(), value: record.value.clone(), headers, timestamp }
}

async fn read(topic: &PartitionClient, start: i64, count: usize) -> Vec<batch::Record> {
    let mut got = Vec::new();
    let mut next = start;
    while got.len() < count {
        let (records, _) = topic.fetch_records(next, 1..5_000_000, 5_000).await.expect("records");
        for read in records {
            next = read.offset + 1;
            let headers = read.record.headers.into_iter().map(|(name, content)| (name, Some(content))).collect();
            got.push(batch::Record {
                key: read.record.key,
                value: read.record.value,
                headers,
                timestamp: read.record.timestamp.timestamp_millis(),
            });
        }
    }
    got
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime").block_on(future)
}
