//! A transaction that nobody will end, because its coordinator does not know of it: readers of committed records wait for ever. Kafka's own tool finds it, and an operator ends it.

use corelane_wire::Str;
use corelane_wire::messages::FindCoordinatorRequest;
use harness::batch::{now_ms, record};
use harness::broker::{Broker, BrokerOptions, java_with};
use harness::raw::Connection;

use super::by_hand::{Producer, ends};

const TOPIC: &str = "hangs";
const HOUR_MS: i64 = 3_600_000;

pub fn a_hanging_transaction_is_found_and_ended_by_kafkas_tool() {
    // Without verification a late record opens a transaction that nobody ends: so it was before KIP-890.
    let broker = Broker::start(BrokerOptions::default().set("transaction.partition.verification.enable", false));
    let mut connection = Connection::to(&broker);
    connection.create_topic(TOPIC, 2);
    // The tool looks at what is older than it is told, by the records' own times.
    let old = || harness::batch::Record { timestamp: now_ms() - HOUR_MS, ..record("k", "v") };
    let mut known = Producer::new(&broker, "known");
    known.write(12, TOPIC, 0, old());
    connection.call(2, &FindCoordinatorRequest { key: Str::from("late"), key_type: 1, ..Default::default() });
    let producer_id = connection.producer_id();
    let mut late = Producer { connection: Connection::to(&broker), id: "late".to_string(), producer_id, epoch: 0 };
    late.write(11, TOPIC, 1, old());
    assert_eq!(ends(&mut connection, TOPIC, 1), (1, 0));

    let found = find_hanging(&broker, &["--broker-id", "1"]);
    let columns: Vec<&str> = found.first().expect("a line").split_whitespace().collect();
    assert_eq!(found.len(), 1, "of the other its coordinator knows: {found:?}");
    assert_eq!(columns[..6], [TOPIC, "1", &producer_id.to_string(), "0", "-1", "0"], "{found:?}");
    assert!((59..=70).contains(&columns[7].parse::<i64>().expect("minutes")), "{found:?}");
    assert_eq!(find_hanging(&broker, &["--topic", TOPIC, "--partition", "0"]), Vec::<String>::new());
    assert_eq!(find_hanging(&broker, &["--topic", TOPIC]), found);

    tool(&broker, &["abort", "--topic", TOPIC, "--partition", "1", "--start-offset", "0"]);
    assert_eq!(ends(&mut connection, TOPIC, 1), (2, 2), "nobody waits any more");
    assert_eq!(find_hanging(&broker, &["--broker-id", "1"]), Vec::<String>::new());
    known.end(true);
    assert_eq!(ends(&mut connection, TOPIC, 0), (2, 2));
}

/// The lines behind the head: topic, partition, producer, its epoch, the coordinator's, first offset, last time, minutes.
fn find_hanging(broker: &Broker, which: &[&str]) -> Vec<String> {
    let printed = tool(broker, &[&["find-hanging", "--max-transaction-timeout", "15"][..], which].concat());
    let lines = printed.lines().skip_while(|line| !line.starts_with("Topic")).skip(1);
    lines.map(str::trim).filter(|line| !line.is_empty()).map(str::to_string).collect()
}

fn tool(broker: &Broker, arguments: &[&str]) -> String {
    let mut command = java_with("tools");
    command.arg("org.apache.kafka.tools.TransactionsCommand").args(["--bootstrap-server", &broker.bootstrap()]).args(arguments);
    let output = command.output().expect("java");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {printed}{}", String::from_utf8_lossy(&output.stderr));
    printed
}
