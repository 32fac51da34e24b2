//! DescribeConfigs against what Apache Kafka 4.4.0 printed for the same settings (`observed/`, by `kafka-configs --describe --all`).

use std::collections::BTreeMap;

use super::*;
use crate::config::Sources;

const BROKER: &str = include_str!("../observed/broker.txt");
const TOPIC: &str = include_str!("../observed/topic.txt");

/// The broker that was observed: the settings that it was started with are those that it reports as static.
fn observed_broker() -> Config {
    let statics = BROKER.match_indices("STATIC_BROKER_CONFIG:").map(|(start, mark)| {
        let rest = &BROKER[start + mark.len()..];
        let end = rest.find(", DEFAULT_CONFIG:").into_iter().chain(rest.find("}\n")).min().expect("a line ends so");
        let (name, text) = rest[..end].split_once('=').expect("a setting has a value");
        (name.to_owned(), text.to_owned())
    });
    let sources = Sources { arguments: statics.collect(), ..Sources::default() };
    let config = Config::load(&sources).unwrap_or_else(|errors| panic!("{errors:?}")).config;
    config.altered([("min.insync.replicas", "1")], []).0
}

/// An entry as Kafka's tool prints it.
fn line(entry: &Entry) -> String {
    let source = |source: Source| match source {
        Source::Topic => "DYNAMIC_TOPIC_CONFIG",
        Source::BrokerHere => "DYNAMIC_BROKER_CONFIG",
        Source::BrokerDefault => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        Source::Static => "STATIC_BROKER_CONFIG",
        Source::Default => "DEFAULT_CONFIG",
        Source::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
        Source::Group => "DYNAMIC_GROUP_CONFIG",
    };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".into());
    let synonym = |one: &Synonym| format!("{}:{}={}", source(one.source), one.name, text(&one.value));
    let synonyms: Vec<String> = entry.synonyms.iter().map(synonym).collect();
    format!("{}={} sensitive={} synonyms={{{}}}", entry.name, text(&entry.value), entry.sensitive, synonyms.join(", "))
}

/// Lines that differ, ours first; settings of ours are left out.
fn differences(entries: &[Entry], observed: &str) -> Vec<(String, String)> {
    let observed: Vec<&str> = observed.lines().skip(1).map(str::trim).collect();
    let known = |name: &str| observed.iter().find(|line| line.starts_with(&format!("{name}="))).copied();
    let ours: Vec<(String, &str)> = entries.iter().filter_map(|entry| known(&entry.name).map(|observed| (line(entry), observed))).collect();
    assert_eq!(ours.len(), observed.len(), "every observed setting is described");
    ours.into_iter().filter(|(ours, observed)| ours != observed).map(|(ours, observed)| (ours, observed.to_owned())).collect()
}

#[test]
fn broker_and_topic_are_described_as_kafka_describes_them() {
    let config = observed_broker();
    let differing = differences(&broker(&config), BROKER);
    let names: Vec<&str> = differing.iter().map(|(ours, _)| ours.split('=').next().unwrap()).collect();
    assert_eq!(names, ["log.flush.interval.messages"], "{differing:#?}");
    let overrides: BTreeMap<String, String> = BTreeMap::new();
    let differing = differences(&topic(&config, &overrides), TOPIC);
    assert_eq!(differing.len(), 1, "{differing:#?}");
    assert_eq!(differing[0].0, "flush.messages=1 sensitive=false synonyms={DEFAULT_CONFIG:log.flush.interval.messages=1}");
    assert!(topic(&config, &overrides).iter().any(|entry| entry.name == "write.caching"));
}

/// The cases were played to Apache Kafka 4.4.0: a broker whose file says 100 hours, then alterations for all brokers and for this one.
#[test]
fn layers_are_named_strongest_first() {
    let arguments = [("log.retention.hours", "100"), ("foo.bar", "x")].map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    let given = Config::load(&Sources { arguments, ..Sources::default() }).unwrap().config;
    let overrides = BTreeMap::from([("retention.ms".to_owned(), "604800000".to_owned())]);
    let find = |entries: Vec<Entry>, name: &str| line(entries.iter().find(|entry| entry.name == name).unwrap());
    let none: BTreeMap<String, String> = BTreeMap::new();
    assert_eq!(find(topic(&given, &none), "retention.ms"), "retention.ms=360000000 sensitive=false synonyms={}");
    assert_eq!(find(broker(&given), "foo.bar"), "foo.bar=null sensitive=true synonyms={STATIC_BROKER_CONFIG:foo.bar=null}");
    let (altered, rejected) = given.altered([("log.retention.ms", "1000")], [("log.retention.ms", "2000")]);
    assert!(rejected.is_empty());
    let chain = "DYNAMIC_BROKER_CONFIG:log.retention.ms=2000, DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=1000, \
                 STATIC_BROKER_CONFIG:log.retention.hours=100, DEFAULT_CONFIG:log.retention.hours=168";
    assert_eq!(find(broker(&altered), "log.retention.ms"), format!("log.retention.ms=2000 sensitive=false synonyms={{{chain}}}"));
    assert_eq!(
        find(broker(&altered), "log.retention.hours"),
        "log.retention.hours=100 sensitive=false synonyms={STATIC_BROKER_CONFIG:log.retention.hours=100, \
         DEFAULT_CONFIG:log.retention.hours=168}"
    );
    assert_eq!(
        find(topic(&altered, &overrides), "retention.ms"),
        format!("retention.ms=604800000 sensitive=false synonyms={{DYNAMIC_TOPIC_CONFIG:retention.ms=604800000, {chain}}}")
    );
    assert_eq!(find(topic(&altered, &none), "retention.ms"), format!("retention.ms=2000 sensitive=false synonyms={{{chain}}}"));
    assert_eq!(
        cluster_default(&altered).iter().map(line).collect::<Vec<_>>(),
        ["log.retention.ms=1000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=1000}"]
    );
}

/// Types, values in Java's notation, read-only marks, and settings that are listed only when set.
#[test]
fn entries_carry_what_tools_show() {
    let config = Config::default();
    let overrides = BTreeMap::from([("min.cleanable.dirty.ratio", "0.50"), ("internal.segment.bytes", "1000")]);
    let entries = topic(&config, &overrides);
    let find = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!((find("min.cleanable.dirty.ratio").value.as_deref(), find("min.cleanable.dirty.ratio").kind_code), (Some("0.5"), 6));
    assert_eq!(find("internal.segment.bytes").value.as_deref(), Some("1000"));
    assert_eq!(entries.len(), 39, "38 and an internal one");
    assert!(entries.iter().all(|entry| !entry.read_only && !entry.documentation.is_empty()));
    let entries = broker(&config);
    let read_only = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().read_only;
    assert_eq!((read_only("node.id"), read_only("message.max.bytes"), read_only("ssl.keystore.location")), (true, false, false));
}

/// Groups and subscriptions, as Apache Kafka 4.4.0 lists them.
#[test]
fn groups_fall_back_to_the_broker_and_subscriptions_to_nothing() {
    let config = Config::default();
    let overrides = BTreeMap::from([("consumer.session.timeout.ms", "50000"), ("consumer.assignor.offload.enable", "false")]);
    let lines: Vec<String> = group(&config, &overrides).iter().map(line).collect();
    assert_eq!(lines.len(), 22);
    for expected in [
        "consumer.session.timeout.ms=50000 sensitive=false synonyms={DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, \
         DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000}",
        "streams.assignor.name=sticky sensitive=false synonyms={DEFAULT_CONFIG:group.streams.assignors=sticky}",
        "share.isolation.level=read_uncommitted sensitive=false synonyms={DEFAULT_CONFIG:share.isolation.level=read_uncommitted}",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{lines:#?}");
    }
    let lines: Vec<String> = client_metrics(&BTreeMap::from([("interval.ms", "5000")])).iter().map(line).collect();
    assert_eq!(
        lines,
        [
            "interval.ms=5000 sensitive=false synonyms={DYNAMIC_CLIENT_METRICS_CONFIG:interval.ms=5000}",
            "match= sensitive=false synonyms={}",
            "metrics= sensitive=false synonyms={}"
        ]
    );
}
