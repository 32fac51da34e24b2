//! Client libraries in other languages, each with the cases that it has calls for; the cases themselves stand in `tests/python`, `tests/node`, `tests/go` and `tests/java`.

use std::path::PathBuf;
use std::process::Command;

use harness::broker::java_with_our_classes;
use harness::places;
use harness::runner::Client;
use harness::suite::SharedBroker;
use libtest_mimic::Trial;

pub fn trials(shared: &SharedBroker) -> Vec<Trial> {
    CLIENTS.iter().flat_map(|client| leave_out_if_missing(client, client.trials(shared))).collect()
}

/// Go is younger than what Debian brings, so scripts/test builds this client only where there is a Go that can; elsewhere its cases are listed as ignored.
fn leave_out_if_missing(client: &Client, trials: Vec<Trial>) -> Vec<Trial> {
    if client.name != FRANZ_GO || go_program().exists() {
        return trials;
    }
    println!(
        "clients::{FRANZ_GO} is not run: {} is missing; `scripts/test --install` builds it where there is a Go that can",
        go_program().display()
    );
    trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect()
}

/// Cases that need a broker with two data directories.
pub fn trials_of_two_directories(shared: &SharedBroker) -> Vec<Trial> {
    TWO_DIRECTORIES.trials(shared)
}

const TWO_DIRECTORIES: &Client = &Client { name: "java_directories", command: java, cases: &[&["replica_log_dirs"]] };

const FRANZ_GO: &str = "franz_go";

const CLIENTS: &[Client] = &[
    Client { name: "confluent_kafka", command: || python("confluent"), cases: &[MAIN_JOB, GROUP_ADMIN, TRANSACTIONS, CONFLUENT_ONLY] },
    Client { name: "kafka_python", command: || python("kafka_python"), cases: &[MAIN_JOB, GROUP_ADMIN] },
    // Has no call to delete a group.
    Client { name: "aiokafka", command: || python("aiokafka"), cases: &[MAIN_JOB] },
    Client { name: "kafkajs", command: node, cases: &[MAIN_JOB, GROUP_ADMIN, TRANSACTIONS] },
    Client { name: FRANZ_GO, command: || Command::new(go_program()), cases: &[GO_GROUPS, TRANSACTIONS] },
    Client {
        name: "java",
        command: java,
        cases: &[MAIN_JOB, GROUP_ADMIN, TRANSACTIONS, MONEY_TRANSFER, JAVA_ONLY, CONSUMER_PROTOCOL, TOOLS],
    },
    // Transactions by their first protocol.
    Client { name: "java_3_9", command: java_3_9, cases: &[TRANSACTIONS, MONEY_TRANSFER] },
];

/// What every client can do.
const MAIN_JOB: &[&str] = &[
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

const GROUP_ADMIN: &[&str] = &["admin_groups"];

const TRANSACTIONS: &[&str] = &["transactions", "a_second_instance_fences_the_first", "exactly_once_copy"];

const MONEY_TRANSFER: &[&str] = &["money_transfer"];

const JAVA_ONLY: &[&str] = &[
    "cooperative_group_of_three",
    "static_member",
    "member_that_stops_polling",
    "partitions_added_under_a_subscription",
    "topic_made_again_under_a_subscription",
];

const GO_GROUPS: &[&str] = &["group_of_three", "consumer_protocol_group_of_three", "commit_and_resume"];

const CONFLUENT_ONLY: &[&str] = &["consumer_protocol_group_of_three"];

/// Groups of the consumer protocol (KIP-848), alone and beside classic members.
const CONSUMER_PROTOCOL: &[&str] = &[
    "consumer_protocol_group_of_three",
    "consumer_protocol_regex",
    "consumer_protocol_static_member",
    "consumer_protocol_listeners",
    "consumer_protocol_member_that_stops_polling",
    "consumer_protocol_partitions_added",
    "consumer_protocol_topic_made_again",
    "group_of_two_protocols",
    "group_configs",
];

/// Kafka's command line tools, in the JVM of the Java cases.
const TOOLS: &[&str] = &[
    "tool_topics",
    "tool_configs",
    "tool_console",
    "tool_consumer_groups",
    "tool_reset_offsets",
    "tool_consumer_protocol_group",
    "tool_get_offsets",
    "tool_verifiable",
    "tool_delete_records",
    "tool_small_tools",
    "tool_performance",
    "tool_transactions",
];

fn python(client: &str) -> Command {
    let mut command = Command::new(places::tools().join("python/bin/python"));
    command.arg(places::project().join("tests/python/runner.py")).arg(client);
    command
}

fn go_program() -> PathBuf {
    places::tools().join("go/clients")
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", places::tools().join("node/node_modules")).env("KAFKAJS_NO_PARTITIONER_WARNING", "1");
    command.arg(places::project().join("tests/node/runner.js"));
    command
}

fn java() -> Command {
    let mut command = java_with_our_classes("lib");
    command.arg("Runner").arg(places::kafka().join("tools"));
    command
}

fn java_3_9() -> Command {
    let mut command = java_with_our_classes("clients-3.9");
    command.arg("Runner");
    command
}
