//! Every scenario against the real broker, through `compare`, as a stranger would run it: the binary that CORELANE_BINARY names (scripts/test sets it). Without one there is nothing to show.

use std::process::Command;

use serde_json::Value;

const SUITE: &str = r#"
name = "every scenario"
description = "Briefly, on Corelane alone."
leaves_out = ["everything but that it works"]
rounds = 1
repeats = 0
systems = ["corelane"]
idle_seconds = 0.1
warm_up_seconds = 0.2
duration_seconds = 1.0

[[case]]
name = "produce"
workload = "five-in-flight"
class = "b"

[[case]]
name = "most"
workload = "saturation"
class = "a"

[[case]]
name = "half"
workload = "share"
class = "a"
share_of = "most"

[[case]]
name = "compressed"
workload = "keyed"
change = { compression = "lz4", batch_records = 10 }

[[case]]
name = "e2e"
workload = "ten-tail-consumers"
class = "b"

[[case]]
name = "consume"
workload = "catch-up"
change = { backlog_mib = 16, consumers = 2 }

[[case]]
name = "mixed"
workload = "catch-up-beside-live"
change = { backlog_mib = 16 }

[[case]]
name = "fanout"
workload = "fanout"
class = "b"
change = { partitions = 50 }

[[case]]
name = "connections"
workload = "churning-connections"

[[case]]
name = "groups"
workload = "groups"

[[case]]
name = "rebalances"
workload = "groups"
change = { rebalances = true }

[[case]]
name = "rebalances by the consumer protocol"
workload = "groups"
change = { rebalances = true, group_protocol = "consumer", assignment_interval_ms = 0 }

[[case]]
name = "transactions"
workload = "transactions"

[[case]]
name = "rdkafka"
workload = "end-to-end"
change = { client = "rdkafka" }

[[target]]
row = "it starts"
case = "produce"
metric = "start.first_ack_ms"
at_most = 60000
"#;

#[test]
fn every_scenario_runs_and_every_record_is_read_back() {
    let Some(broker) = std::env::var_os("CORELANE_BINARY") else {
        eprintln!("skipped: CORELANE_BINARY names no broker");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("suite.toml"), SUITE).expect("written");
    let mut command = Command::new(std::env::var("CARGO_BIN_EXE_corelane-bench").expect("cargo runs the tests"));
    command.arg("compare").arg("--suite").arg(path("suite.toml")).arg("--corelane").arg(broker).arg("--directory").arg(path("data"));
    command.arg("--json").arg(path("all.json")).arg("--html").arg(path("all.html"));
    let output = command.output().expect("the binary runs");
    let (tables, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // 10: a busy machine; its figures are of no interest here.
    assert!(matches!(output.status.code(), Some(0 | 10)), "{said}");
    let all: Value = serde_json::from_slice(&std::fs::read(path("all.json")).expect("kept")).expect("valid");
    let cases = all["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), SUITE.matches("[[case]]").count(), "{said}");
    for case in cases {
        let outcome = &case["rounds"][0]["outcome"];
        assert_eq!(outcome["partial"], false, "{}: {outcome}", case["case"]);
        if case["case"].as_str().is_some_and(|name| name.starts_with("rebalances")) {
            assert!(outcome["more"]["rebalances"].as_f64() > Some(0.0), "{}: {outcome}", case["case"]);
            continue;
        }
        let verdict = &outcome["verdict"];
        let faults = ["missing", "twice", "out_of_order", "changed", "misplaced"];
        assert!(
            verdict["acknowledged"].as_u64() > Some(0) && faults.iter().all(|fault| verdict[fault] == 0),
            "{}: {outcome}",
            case["case"]
        );
    }
    assert_eq!(all["targets"][0]["judgement"], "met");
    assert!(all["maxima"]["most"].as_f64() > Some(0.0));
    assert!(tables.contains("| it starts |") && tables.contains("### class (b)"), "{tables}");
    let page = std::fs::read_to_string(path("all.html")).expect("kept");
    assert!(page.contains("\"transactions\"") && !page.contains("\"DATA\""));
    assert!(std::fs::read_dir(path("data")).expect("the folder").next().is_none(), "data is removed");
}
