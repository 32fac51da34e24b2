//! What goes wrong is said in one line, with an exit code of its own, and what was measured before is kept and marked. The binary runs against a responder that misbehaves on purpose.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::Duration;

use corelane_bench::responder::{Faults, Responder, Spoil};
use serde_json::Value;

/// KAFKA_STORAGE_ERROR: what a broker without room answers.
const STORAGE_ERROR: i16 = 56;

fn responder(faults: Faults) -> SocketAddr {
    let responder = Responder::bind(([127, 0, 0, 1], 0).into(), true, false, faults).expect("a free port");
    let address = responder.address().expect("bound");
    std::thread::spawn(move || responder.run());
    address
}

/// A short run; its exit code, its JSON if there is one, and its only line on stderr.
fn run(address: SocketAddr, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = output(address, arguments);
    let line = String::from_utf8_lossy(&output.stderr).trim().to_string();
    assert!(line.lines().count() <= 1, "one line is enough:\n{line}");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), line)
}

/// Cargo builds it before the tests and says where it is.
fn binary() -> String {
    std::env::var("CARGO_BIN_EXE_corelane-bench").expect("cargo runs the tests")
}

fn output(address: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--bootstrap", &address.to_string(), "--warm-up", "0.2", "--duration", "1", "--quiet", "--json"]);
    command.output().expect("the binary runs")
}

#[test]
fn a_whole_run_is_read_back() {
    // On a busy machine the client may be late, which is another exit code and no other result.
    for scenario in ["produce", "e2e", "fanout", "mixed", "consume", "connections"] {
        let arguments = [
            scenario,
            "--partitions",
            "2",
            "--rate",
            "500",
            "--backlog-mib",
            "12",
            "--connections",
            "20",
            "--connections-per-second",
            "20",
        ];
        let (code, json, line) = run(responder(Faults::default()), &arguments);
        assert!(matches!(code, Some(0 | 6)), "{scenario}: {line}");
        let verdict = &json["verdict"];
        assert!(
            verdict["acknowledged"].as_u64() > Some(100) && verdict["missing"] == 0 && verdict["changed"] == 0,
            "{scenario}: {verdict}"
        );
        assert_eq!(json["partial"], false, "{scenario}");
    }
}

#[test]
fn a_client_that_sleeps_between_looks_measures_the_same() {
    let (code, json, line) = run(responder(Faults::default()), &["e2e", "--parks", "--rate", "500"]);
    assert!(matches!(code, Some(0 | 6)), "{line}");
    assert!(json["verdict"]["acknowledged"].as_u64() > Some(100) && json["verdict"]["missing"] == 0, "{}", json["verdict"]);
}

#[test]
fn nobody_at_the_address() {
    let (code, json, line) = run(([127, 0, 0, 1], 1).into(), &["produce"]);
    assert_eq!((code, json), (Some(4), Value::Null));
    assert!(line.starts_with("corelane-bench: broker unreachable: cannot connect to 127.0.0.1:1"), "{line}");
}

#[test]
fn a_topic_that_exists_with_other_settings() {
    let address = responder(Faults::default());
    let first = ["produce", "--topic", "mine", "--class", "b"];
    assert!(matches!(run(address, &first).0, Some(0 | 6)));
    let (code, _, line) = run(address, &["produce", "--topic", "mine", "--class", "b", "--partitions", "3"]);
    assert_eq!(code, Some(5));
    assert!(line.contains("mine has 1 partitions, the workload wants 3"), "{line}");
    let (code, _, line) = run(address, &["produce", "--topic", "mine", "--class", "a"]);
    assert_eq!(code, Some(5));
    assert!(line.contains("mine has flush.messages=1, the workload wants 9223372036854775807"), "{line}");
    assert!(matches!(run(address, &first).0, Some(0 | 6)), "the same settings are welcome");
}

#[test]
fn a_rate_that_the_client_cannot_keep() {
    let (code, json, line) =
        run(responder(Faults::default()), &["produce", "--rate", "20000000", "--in-flight", "1000000", "--record-bytes", "100"]);
    assert_eq!(code, Some(6), "{line}");
    assert!(line.contains("the client cannot keep this rate"), "{line}");
    assert!(json["counts"]["unfinished"].as_u64() > Some(0) && json["failure"].is_string());
}

#[test]
fn a_stall_is_charged_to_every_record_that_it_delayed() {
    // 400 ms in which 400 of the window's 1,000 records are due: a tenth of them wait for more than 300 ms. A closed loop would have seen one slow request.
    let faults = Faults { stall: Some((500, Duration::from_millis(400))), ..Faults::default() };
    let (_, json, line) = run(responder(faults), &["produce", "--rate", "1000"]);
    let acknowledged =
        json["latencies"].as_array().and_then(|all| all.iter().find(|latency| latency["name"] == "acknowledged")).expect("latencies");
    let p90 = acknowledged["p90"].as_f64().expect("1,000 samples");
    assert!(p90 >= 250_000.0 && acknowledged["samples"] == 1_000 && acknowledged["loop"] == "open", "{line} {acknowledged}");
    assert_eq!(json["verdict"]["missing"], 0);
}

#[test]
fn a_full_disk() {
    let faults = Faults { refuse: Some((700, STORAGE_ERROR)), ..Faults::default() };
    let (code, json, line) = run(responder(faults), &["produce"]);
    assert_eq!(code, Some(7), "{line}");
    assert!(line.contains("KAFKA_STORAGE_ERROR"), "{line}");
    assert_eq!(json["partial"], true);
    assert!(json["verdict"]["acknowledged"] == 699 && json["verdict"]["missing"] == 0, "{}", json["verdict"]);
}

#[test]
fn a_broker_that_dies_in_the_middle() {
    let folder = tempfile::tempdir().expect("a folder");
    let keep = folder.path().join("run");
    let faults = Faults { die: Some(700), ..Faults::default() };
    let (code, json, line) = run(responder(faults), &["produce", "--keep", keep.to_str().expect("UTF-8")]);
    assert_eq!(code, Some(8), "{line}");
    assert!(line.contains("the broker is gone"), "{line}");
    assert!(json["partial"] == true && json["not_read_back"].is_string() && json["records"].as_u64() > Some(0));
    assert!(folder.path().join("run-acknowledged.hlog").exists() && folder.path().join("run-acknowledged.hgrm").exists());
}

#[test]
fn records_that_are_not_read_back_as_sent_come_first() {
    let kinds = [(Spoil::Lose, "missing"), (Spoil::Twice, "twice"), (Spoil::Later, "out_of_order"), (Spoil::Change, "changed")];
    for (spoil, count) in kinds {
        let faults = Faults { spoil: Some((300, spoil)), ..Faults::default() };
        let (code, json, line) = run(responder(faults), &["produce"]);
        assert_eq!(code, Some(9), "{spoil:?}: {line}");
        assert!(line.contains("READ BACK FAILED") && json["verdict"][count].as_u64() >= Some(1), "{spoil:?}: {}", json["verdict"]);
    }
    // And without --json it is the first thing on the page.
    let address = responder(Faults { spoil: Some((300, Spoil::Lose)), ..Faults::default() });
    let mut command = Command::new(binary());
    let output = command.args(["produce", "--warm-up", "0.2", "--duration", "1", "--quiet", "--bootstrap", &address.to_string()]).output();
    assert!(output.expect("the binary runs").stdout.starts_with(b"READ BACK FAILED: "));
}

#[test]
fn settings_that_make_no_sense() {
    let address = ([127, 0, 0, 1], 1).into();
    for (arguments, named) in [
        (&["produce", "--acks", "0"][..], "acks"),
        (&["produce", "--rate", "50%"], "compare"),
        (&["e2e", "--consumers", "2"], "consumers"),
        (&["run"], "file"),
        (&["produce", "--topic-config", "flush.messages"], "KEY=VALUE"),
    ] {
        let (code, _, line) = run(address, arguments);
        assert!(code == Some(3) && line.contains(named), "{arguments:?}: {code:?} {line}");
    }
}
