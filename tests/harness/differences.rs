//! Where Corelane may answer otherwise than Apache Kafka: `tests/differences.toml`, one entry with its reason for each.
//!
//! A black-box case never asks which broker it talks to. It asks for the value that an entry gives for the broker at hand, so that a difference nobody wrote down cannot hide in a test.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::places::{self, Target};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub kafka: String,
    pub corelane: String,
    /// Why ours is allowed, and where that was decided.
    pub reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// By the name that tests ask for.
    difference: BTreeMap<String, Difference>,
    /// Cases that one of the two brokers does not run, by `suite::case`, or all of a `suite`: `kafka` or `corelane`, and why.
    #[serde(default)]
    not_run: BTreeMap<String, NotRun>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotRun {
    pub against: String,
    pub reason: String,
}

/// What the broker at hand is expected to say where the two may differ.
pub fn expected(name: &str) -> &'static str {
    let difference = file().difference.get(name).unwrap_or_else(|| panic!("tests/differences.toml has no entry `{name}`"));
    match places::target() {
        Target::Kafka => &difference.kafka,
        Target::Corelane => &difference.corelane,
    }
}

/// All differences as one JSON object, for the clients in other languages: name to the value expected of the broker at hand.
pub fn expected_of_all() -> serde_json::Value {
    file().difference.keys().map(|name| (name.clone(), serde_json::Value::from(expected(name)))).collect::<serde_json::Map<_, _>>().into()
}

/// The reason why this case is not run against the broker at hand, if there is one.
pub fn not_run(case: &str) -> Option<&'static str> {
    let suite = case.rsplit_once("::").map_or(case, |(suite, _)| suite);
    let entry = file().not_run.get(case).or_else(|| file().not_run.get(suite))?;
    let concerned = match entry.against.as_str() {
        "kafka" => Target::Kafka,
        "corelane" => Target::Corelane,
        other => panic!("tests/differences.toml: `{case}` is not run against `{other}`, which is neither `kafka` nor `corelane`"),
    };
    (concerned == places::target()).then_some(entry.reason.as_str())
}

fn file() -> &'static File {
    static FILE: OnceLock<File> = OnceLock::new();
    FILE.get_or_init(|| {
        let path = places::project().join("tests/differences.toml");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    })
}
