//! A suite: which cases are measured on which systems, and what is to come out.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::builtin;
use crate::failure::Failure;
use crate::workload::{Class, Rate, Workload};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SystemName {
    Corelane,
    /// Apache Kafka, free on all cores.
    Kafka,
    /// Apache Kafka on Corelane's core only.
    KafkaPinned,
    /// No broker: what the machine allows.
    Floor,
    /// One that is running already.
    Other,
}

impl SystemName {
    pub fn name(self) -> &'static str {
        match self {
            SystemName::Corelane => "corelane",
            SystemName::Kafka => "kafka",
            SystemName::KafkaPinned => "kafka-pinned",
            SystemName::Floor => "floor",
            SystemName::Other => "other",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Suite {
    pub name: String,
    pub description: String,
    /// What a reader must not conclude from it; printed with the result.
    pub leaves_out: Vec<String>,
    pub rounds: usize,
    /// When they are over, no round is begun and none run again.
    pub minutes: f64,
    /// A disturbed measurement is made again so often at most.
    pub repeats: usize,
    pub systems: Vec<SystemName>,
    pub jvm_warm_up_seconds: f64,
    /// How long a started system is left alone, and its idle CPU looked at.
    pub idle_seconds: f64,
    /// For all workloads that do not say otherwise in their case.
    pub warm_up_seconds: f64,
    pub duration_seconds: f64,
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
    #[serde(rename = "target")]
    pub targets: Vec<Target>,
}

impl Default for Suite {
    fn default() -> Suite {
        Suite {
            name: String::new(),
            description: String::new(),
            leaves_out: Vec::new(),
            rounds: 3,
            minutes: 60.0,
            repeats: 2,
            systems: vec![SystemName::Corelane, SystemName::Kafka, SystemName::Floor],
            jvm_warm_up_seconds: 6.0,
            idle_seconds: 2.0,
            warm_up_seconds: 2.0,
            duration_seconds: 10.0,
            cases: Vec::new(),
            targets: Vec::new(),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Case {
    pub name: String,
    /// A built-in one, or a file beside the suite.
    pub workload: String,
    pub class: Option<Class>,
    /// Without it the suite's.
    pub systems: Option<Vec<SystemName>>,
    /// Of Corelane; each on a core of its own.
    pub shards: Option<usize>,
    /// Corelane's own settings for this case.
    pub corelane: BTreeMap<String, String>,
    /// The saturating case whose slower system gives the maximum of a rate like "50%".
    pub share_of: Option<String>,
    /// Settings of the workload that are others here.
    pub change: toml::Table,
    /// What came out of the above.
    #[serde(skip)]
    pub settings: Workload,
}

/// One line of what is to come out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// In words.
    pub row: String,
    pub case: String,
    pub metric: String,
    /// Corelane if not said.
    pub system: Option<SystemName>,
    /// The figure is this system's times something.
    pub times: Option<SystemName>,
    /// The figure is what this case has more than that one.
    pub minus_case: Option<String>,
    pub at_most: Option<f64>,
    pub at_least: Option<f64>,
}

impl Suite {
    /// A built-in suite by name, or a file.
    pub fn load(name: &str) -> Result<Suite, Failure> {
        let explain = |why: String| Failure::Settings(format!("suite {name}: {why}"));
        if let Some(text) = builtin::suite(name) {
            return Suite::parse(text, None).map_err(explain);
        }
        let path = Path::new(name);
        let text = std::fs::read_to_string(path).map_err(|error| explain(error.to_string()))?;
        Suite::parse(&text, path.parent()).map_err(explain)
    }

    /// `folder` is where workloads are looked for that are not built in.
    pub fn parse(text: &str, folder: Option<&Path>) -> Result<Suite, String> {
        let mut suite: Suite = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        let defaults = suite.clone();
        for case in &mut suite.cases {
            case.settings = case.workload(&defaults, folder).map_err(|why| format!("case {}: {why}", case.name))?;
        }
        suite.check()?;
        Ok(suite)
    }

    fn check(&self) -> Result<(), String> {
        let case = |name: &str| self.cases.iter().find(|case| case.name == name);
        for (place, one) in self.cases.iter().enumerate() {
            if one.name.is_empty() || self.cases[..place].iter().any(|other| other.name == one.name) {
                return Err(format!("case {:?}: every case has a name of its own", one.name));
            }
            if let Rate::ShareOfMax(_) = one.settings.rate {
                let of = one.share_of.as_deref().and_then(case).filter(|of| of.settings.rate == Rate::Max);
                of.ok_or_else(|| format!("case {}: share_of names no saturating case", one.name))?;
            }
        }
        for target in &self.targets {
            let known = case(&target.case).is_some() && target.minus_case.as_deref().is_none_or(|name| case(name).is_some());
            if !known || (target.at_most.is_none() && target.at_least.is_none()) {
                return Err(format!("target {:?}: it needs a case of the suite, and at_most or at_least", target.row));
            }
        }
        if self.rounds == 0 || self.systems.is_empty() {
            return Err("rounds and systems: at least one".to_string());
        }
        Ok(())
    }

    pub fn systems_of<'a>(&'a self, case: &'a Case) -> &'a [SystemName] {
        case.systems.as_deref().unwrap_or(&self.systems)
    }

    /// Keeps only what these systems and this client can be asked.
    pub fn restrict(&mut self, systems: &[SystemName]) {
        self.systems.retain(|system| systems.contains(system));
        for case in &mut self.cases {
            if let Some(own) = &mut case.systems {
                own.retain(|system| systems.contains(system));
            }
        }
    }
}

impl Case {
    fn workload(&self, suite: &Suite, folder: Option<&Path>) -> Result<Workload, String> {
        let text = match (builtin::workload(&self.workload), folder) {
            (Some(text), _) => text.to_string(),
            (None, Some(folder)) => {
                std::fs::read_to_string(folder.join(&self.workload)).map_err(|error| format!("{}: {error}", self.workload))?
            }
            (None, None) => return Err(format!("there is no workload {:?}", self.workload)),
        };
        let mut table: toml::Table = toml::from_str(&text).map_err(|error| error.to_string())?;
        // A backlog's time is its size, so only those that a window bounds take the suite's.
        table.insert("warm_up_seconds".to_string(), suite.warm_up_seconds.into());
        table.insert("duration_seconds".to_string(), suite.duration_seconds.into());
        table.extend(self.change.clone());
        let mut workload: Workload = table.try_into().map_err(|error: toml::de::Error| error.to_string().trim().replace('\n', " "))?;
        workload.class = self.class.or(workload.class);
        workload.name = self.name.clone();
        workload.check().map_err(|failure| failure.to_string())?;
        Ok(workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUITE: &str = "
        duration_seconds = 4
        [[case]]
        name = 'most'
        workload = 'saturation'
        class = 'b'
        [[case]]
        name = 'half'
        workload = 'share'
        share_of = 'most'
        change = { rate = '50%', record_bytes = 100 }
        [[target]]
        row = 'fast'
        case = 'most'
        metric = 'rate'
        times = 'kafka'
        at_least = 6
    ";

    #[test]
    fn a_case_is_a_workload_with_changes() {
        let suite = Suite::parse(SUITE, None).expect("valid");
        assert_eq!((suite.cases[0].settings.rate, suite.cases[0].settings.class), (Rate::Max, Some(Class::B)));
        let half = &suite.cases[1].settings;
        assert_eq!((half.rate, half.record_bytes, half.duration_seconds), (Rate::ShareOfMax(50), 100, 4.0));
        assert_eq!(suite.systems_of(&suite.cases[0]).len(), 3);
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (from, to, named) in [
            ("share_of = 'most'", "share_of = 'half'", "share_of"),
            ("case = 'most'\n", "case = 'least'\n", "fast"),
            ("at_least = 6", "", "fast"),
            ("name = 'half'", "name = 'most'", "most"),
            ("record_bytes = 100", "record_bits = 100", "record_bits"),
            ("workload = 'share'", "workload = 'nothing'", "nothing"),
            ("duration_seconds = 4", "duration = 4", "duration"),
        ] {
            let why = Suite::parse(&SUITE.replace(from, to), None).expect_err(to);
            assert!(why.contains(named), "{to}: {why}");
        }
    }
}
