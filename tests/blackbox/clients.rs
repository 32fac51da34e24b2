//! Client libraries in other languages, each with the cases that it has calls for; the cases themselves stand in `tests/python`, `tests/node` and `tests/java`.

use std::process::Command;

use harness::places;
use harness::runner::Client;
use harness::suite::SharedBroker;
use libtest_mimic::Trial;

pub fn trials(shared: &SharedBroker) -> Vec<Trial> {
    CLIENTS.iter().flat_map(|client| client.trials(shared)).collect()
}

const CLIENTS: &[Client] = &[
    Client { name: "confluent_kafka", command: || python("confluent"), cases: PYTHON_CASES },
    Client { name: "kafka_python", command: || python("kafka_python"), cases: PYTHON_CASES },
    Client { name: "aiokafka", command: || python("aiokafka"), cases: AIOKAFKA_CASES },
];

const PYTHON_CASES: &[&str] = &[
    "codec_none",
    "codec_gzip",
    "codec_snappy",
    "codec_lz4",
    "codec_zstd",
    "tombstones_and_empty_values",
    "headers",
    "one_mib_records",
    "record_too_large",
    "acks_of_every_kind",
    "idempotent_producer",
    "topic_made_by_its_first_use",
    "reading_from_the_past",
    "timestamps_lookup",
    "group_of_three",
    "commit_and_resume",
    "admin_topics",
    "admin_configs",
    "admin_groups",
    "delete_records",
    "describe_cluster",
];

/// Without `admin_groups`: this client has no call to delete a group.
const AIOKAFKA_CASES: &[&str] = &[
    "codec_none",
    "codec_gzip",
    "codec_snappy",
    "codec_lz4",
    "codec_zstd",
    "tombstones_and_empty_values",
    "headers",
    "one_mib_records",
    "record_too_large",
    "acks_of_every_kind",
    "idempotent_producer",
    "topic_made_by_its_first_use",
    "reading_from_the_past",
    "timestamps_lookup",
    "group_of_three",
    "commit_and_resume",
    "admin_topics",
    "admin_configs",
    "delete_records",
    "describe_cluster",
];

fn python(client: &str) -> Command {
    let mut command = Command::new(places::tools().join("python/bin/python"));
    command.arg(places::project().join("tests/python/runner.py")).arg(client);
    command
}
