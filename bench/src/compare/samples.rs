//! What the tests of this room share: a suite of two cases, and measurements of them that nobody made.

use super::rounds::{Measured, Measurements};
use super::suite::{Suite, SystemName};
use super::systems::Place;
use crate::control::Quietness;
use crate::load::{ClientLag, Counts};
use crate::machine::Machine;
use crate::outcome::{ClientFacts, Outcome};
use crate::recorder::{LoopKind, Recorder, Window};
use crate::workload::Workload;

pub fn suite() -> Suite {
    let text = "[[case]]\nname = 'one'\nworkload = 'one-thousand'\n[[case]]\nname = 'most'\nworkload = 'saturation'";
    Suite::parse(text, None).expect("valid")
}

/// A round with this many records in a second, each answered after `us`.
pub fn measured(round: usize, records: u64, us: u64) -> Measured {
    let mut recorder = Recorder::new("acknowledged", LoopKind::Open, Window { start_ns: 0, end_ns: 1_000_000_000 });
    (0..records).for_each(|_| recorder.record(0, us * 1_000));
    let outcome = Outcome {
        workload: Workload::default(),
        client: ClientFacts::default(),
        seconds: 1.0,
        records,
        bytes: 0,
        counts: Counts::default(),
        client_lag: ClientLag::default(),
        latencies: vec![recorder.finish()],
        costs: Vec::new(),
        more: Default::default(),
        verdict: None,
        not_read_back: None,
        failure: None,
        partial: false,
    };
    Measured { round, outcome, quietness: Quietness::default(), repeats: 0 }
}

pub fn measurements() -> Measurements {
    let mut measurements = Measurements::default();
    let mut add = |case: &str, system, rounds: [(u64, u64); 3]| {
        let rounds = rounds.iter().enumerate().map(|(round, (records, us))| measured(round + 1, *records, *us));
        measurements.cases.insert((case.to_string(), system), rounds.collect());
    };
    add("one", SystemName::Corelane, [(20_000, 200), (20_000, 300), (20_000, 250)]);
    add("one", SystemName::Kafka, [(20_000, 1_000), (20_000, 900), (20_000, 1_500)]);
    add("one", SystemName::KafkaPinned, [(20_000, 2_000), (20_000, 2_000), (20_000, 2_000)]);
    add("most", SystemName::Kafka, [(10_000, 100), (11_000, 100), (12_000, 100)]);
    add("most", SystemName::KafkaPinned, [(20_000, 100), (21_000, 100), (22_000, 100)]);
    measurements
}

pub fn place() -> Place {
    Place {
        directory: "/data".into(),
        broker_core: 1,
        client_core: 0,
        corelane: None,
        corelane_settings: Default::default(),
        kafka: None,
        kafka_heap: "1g".to_string(),
        perf: None,
        other: None,
        other_pid: None,
        congestion_control: "cubic".to_string(),
        keep: None,
    }
}

pub fn machine() -> Machine {
    let missing = Some("there is none in a test".to_string());
    Machine { lines: vec!["kernel 6".to_string()], disk_probe: None, disk_probe_missing: missing, floor_check: None }
}
