//! What a broker logs: one event a line, plain or JSON; a start line that says what was started, and one line when clients can be served.

use harness::broker::free_port;
use harness::own_broker_cases;
use harness::places;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;
use serde_json::Value;

use crate::process::{Process, corelane, is_ready_line, run};

pub const CASES: &[OwnBrokerCase] = own_broker_cases![json_lines_parse_and_tell_of_the_start, plain_lines_tell_of_the_start];

fn json_lines_parse_and_tell_of_the_start() {
    let (log, _) = log_of_a_life("json");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    for line in &lines {
        for field in ["timestamp", "level", "message", "target"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
    }
    let places = |message: &str| -> Vec<usize> {
        lines.iter().enumerate().filter(|(_, line)| line["message"] == message).map(|(place, _)| place).collect()
    };
    let (starting, ready) = (places("starting"), places("ready"));
    assert!(starting.len() == 1 && ready.len() == 1 && starting[0] < ready[0], "{log}");
    let start = &lines[starting[0]];
    assert_eq!(start["version"].as_str(), Some(version().as_str()));
    assert_eq!((start["shards"].as_u64(), start["node_id"].as_u64()), (Some(1), Some(1)));
    assert_eq!(start["data"], "one,two", "the data directories");
    assert!(start["cluster_id"].as_str().is_some_and(|id| id.len() == 22), "{start}");
    assert!(start["durability"].as_str().is_some_and(|class| class.contains("every acknowledgement is on stable storage")), "{start}");
    assert!(lines[ready[0]]["milliseconds"].is_u64(), "{}", lines[ready[0]]);
}

fn plain_lines_tell_of_the_start() {
    let (log, weaker) = log_of_a_life("plain");
    let start: Vec<&str> = log.lines().filter(|line| line.contains(": starting ")).collect();
    assert_eq!(start.len(), 1, "{log}");
    for field in [format!("version=\"{}\"", version()), "shards=1".into(), "data=one,two".into(), "durability=\"every acknow".into()] {
        assert!(start[0].contains(&field), "{field}: {}", start[0]);
    }
    assert_eq!(log.lines().filter(|line| is_ready_line(line)).count(), 1, "{log}");
    assert!(log.lines().all(|line| line.starts_with("20") && line.contains('Z')), "each line begins with its time: {log}");
    assert!(weaker.contains("topics are acknowledged when they survive the process and flushed later"), "{weaker}");
}

/// What a broker logs from its start to its clean stop, with a client in between; and what it logs when it starts again with a weaker class of durability.
fn log_of_a_life(format: &str) -> (String, String) {
    let folder = tempfile::tempdir_in(places::scratch()).expect("a folder");
    let port = free_port();
    let listeners = format!("listeners=PLAINTEXT://127.0.0.1:{port}");
    let arguments = ["--data-dir", "one,two", "--shards", "1", "--log-format", format, "--set", &listeners];
    let mut broker = Process::ready(corelane(folder.path(), &arguments));
    let mut connection = Connection::open(([127, 0, 0, 1], port).into()).expect("it serves");
    connection.create_topic("logged", 1);
    // Text with quotes and other marks from a client, in a line about its mistake.
    connection.send_bytes(b"\"\\\n\x00\xff garbage");
    connection.assert_closed("garbage");
    assert!(broker.terminate().success());
    let weaker =
        run(corelane(folder.path(), &[&arguments[..], &["--exit-when-ready", "--set", "log.flush.interval.messages=100"]].concat()));
    (broker.log(), weaker.said)
}

/// As `--version` tells it.
fn version() -> String {
    let ended = run(corelane(&places::scratch(), &["--version"]));
    ended.said.trim().strip_prefix("corelane ").unwrap_or_else(|| panic!("{}", ended.said)).to_string()
}
