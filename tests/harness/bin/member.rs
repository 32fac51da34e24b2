//! A member of a consumer group that can be killed: prints each record that it gets, and only then commits its position.
//!
//! Arguments: bootstrap, group, topic, and settings as `key=value`. A line `partition offset` for each record; a SIGTERM makes it leave its group and end. What it has printed may
//! come again to another member, what it has not printed must.

use std::io::{Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

/// Records between two commits: a member that is killed leaves some of them to be read again.
const RECORDS_PER_COMMIT: u64 = 20;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, group, topic, settings @ ..] = arguments.as_slice() else { panic!("bootstrap, group, topic, settings") };
    let is_leaving = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, Arc::clone(&is_leaving)).expect("a signal can be taken");

    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", group).set("auto.offset.reset", "earliest");
    config.set("enable.auto.commit", "false").set("reconnect.backoff.max.ms", "500");
    for (key, value) in settings.iter().filter_map(|setting| setting.split_once('=')) {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().expect("the settings are known");
    consumer.subscribe(&[topic]).expect("a topic can be subscribed to");
    let (mut output, mut uncommitted) = (stdout().lock(), 0);
    while !is_leaving.load(Ordering::Relaxed) {
        // Errors are of the moment: the broker is away, or the group moves.
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        // One write for each line: what is printed is whole, even if this process is killed now.
        let line = format!("{} {}\n", record.partition(), record.offset());
        output.write_all(line.as_bytes()).and_then(|()| output.flush()).expect("somebody reads this");
        uncommitted += 1;
        if uncommitted >= RECORDS_PER_COMMIT {
            uncommitted = 0;
            // A commit that fails is made good by the next; what it was about comes again.
            consumer.commit_consumer_state(CommitMode::Sync).ok();
        }
    }
    consumer.commit_consumer_state(CommitMode::Sync).ok();
}
