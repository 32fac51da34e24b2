//! What a run is made of: read from a TOML file, from flags, or from both (flags win), and printed with every result.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::payload::HEAD_BYTES;
use crate::schedule::Schedule;
use crate::verify::Expected;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Acknowledged latency; the records are read back after the window.
    #[default]
    Produce,
    /// Acknowledged and end-to-end latency, with consumers at the tail.
    E2e,
    /// How fast consumers read a backlog.
    Consume,
    /// Consumers reading a backlog again and again, beside producers and tail consumers.
    Mixed,
    /// One request holds records for every partition.
    Fanout,
    /// Many connections, idle or coming and going, beside a light load.
    Connections,
    /// Many members of many groups, which commit offsets.
    Groups,
    /// One transaction after another from each producer.
    Transactions,
    /// Offsets of many groups, loaded by a broker that starts again.
    Offsets,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Produce => "produce",
            Scenario::E2e => "e2e",
            Scenario::Consume => "consume",
            Scenario::Mixed => "mixed",
            Scenario::Fanout => "fanout",
            Scenario::Connections => "connections",
            Scenario::Groups => "groups",
            Scenario::Transactions => "transactions",
            Scenario::Offsets => "offsets",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ClientKind {
    /// Our own: one thread that spins, nothing allocated per record.
    #[default]
    Raw,
    /// librdkafka, as users run it.
    Rdkafka,
}

/// How members of a group speak with its coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    #[default]
    Classic,
    /// KIP-848: the coordinator assigns.
    Consumer,
}

/// How acknowledgements are bought: table names carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Page cache or memory: `flush.messages` out of reach.
    A,
    /// On stable storage before the acknowledgement: `flush.messages=1`.
    B,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Class::A => "a",
            Class::B => "b",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Class::A => "class (a): acknowledged from page cache or memory",
            Class::B => "class (b): on stable storage before the acknowledgement",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Records a second; of `fanout` requests, of `groups` commits, of `transactions` transactions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "toml::Value", into = "String")]
pub enum Rate {
    /// Open loop.
    PerSecond(u64),
    /// As fast as acknowledgements come: closed loop, and labelled so.
    Max,
    /// Of the maximum: of the slower system's in `compare`, of the system's own elsewhere.
    ShareOfMax(u8),
}

impl std::str::FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        let wanted =
            || format!("rate {text:?}: a number of records a second above 0, \"max\", or a share of the maximum like \"50%\" is wanted");
        if text == "max" {
            return Ok(Rate::Max);
        }
        if let Some(share) = text.strip_suffix('%') {
            return share.parse().ok().filter(|share| (1..=99).contains(share)).map(Rate::ShareOfMax).ok_or_else(wanted);
        }
        text.replace('_', "").parse().ok().filter(|rate| *rate > 0).map(Rate::PerSecond).ok_or_else(wanted)
    }
}

impl TryFrom<toml::Value> for Rate {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Rate, String> {
        match value {
            toml::Value::Integer(rate) => rate.to_string().parse(),
            toml::Value::String(text) => text.parse(),
            other => other.to_string().parse(),
        }
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> String {
        match rate {
            Rate::PerSecond(rate) => rate.to_string(),
            Rate::Max => "max".to_string(),
            Rate::ShareOfMax(share) => format!("{share}%"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Workload {
    pub name: String,
    /// For people.
    pub description: String,
    pub scenario: Scenario,
    pub client: ClientKind,
    /// Sets `flush.messages` for the class, unless the topic's settings name it.
    pub class: Option<Class>,
    /// Made for the run under a name of its own if none is given.
    pub topic: Option<String>,
    pub partitions: i32,
    pub topic_settings: BTreeMap<String, String>,
    pub producers: usize,
    /// Each reads every record.
    pub subscriptions: usize,
    /// Of one subscription, which share its partitions.
    pub consumers: usize,
    pub rate: Rate,
    /// Of a record's value.
    pub record_bytes: usize,
    /// Distinct keys, put where Kafka's default partitioner puts them; 0 sends no keys.
    pub keys: u32,
    pub compression: Codec,
    /// Records of a request at most.
    pub batch_records: usize,
    /// How long the first record of a request waits for others; without it until the request is full.
    pub linger_ms: Option<f64>,
    /// Requests of one producer without an answer, at most.
    pub in_flight: usize,
    /// -1 or 1: without an acknowledgement there is nothing to measure.
    pub acks: i16,
    pub idempotent: bool,
    /// The client sleeps until something is due or has come: for where it shares its core with a part of the broker. Its wake-ups are in every figure.
    pub parks: bool,
    pub warm_up_seconds: f64,
    pub duration_seconds: f64,
    /// Of `consume` and `mixed`: what lies there before the readers start, in MiB of values.
    pub backlog_mib: u64,
    /// Of `mixed`: readers of the backlog.
    pub catch_up_readers: usize,
    /// Of `consume`: forget what the page cache holds before reading. Needs root.
    pub cold_cache: bool,
    pub fetch_max_bytes: i32,
    pub fetch_min_bytes: i32,
    pub fetch_max_wait_ms: i32,
    /// Of `connections`: how many are held.
    pub connections: usize,
    /// Of `connections`: how many more come and go each second, each asking once.
    pub connections_per_second: u64,
    /// Of `groups`: how many, and how many members each.
    pub groups: usize,
    pub members: usize,
    /// Of `groups`: instead of commits, all members of every group join anew, and again as soon as each has its assignment.
    pub rebalances: bool,
    /// Of `groups`: the consumer protocol only with `rebalances`; each is then that of a group which forms.
    pub group_protocol: GroupProtocol,
    /// Of `groups` by the consumer protocol: `consumer.assignment.interval.ms` of each group. Without it what the broker says.
    pub assignment_interval_ms: Option<u32>,
    /// Of `transactions`: how many partitions one transaction writes to; its records are spread evenly over them.
    pub transaction_partitions: usize,
}

impl Default for Workload {
    fn default() -> Workload {
        Workload {
            name: String::new(),
            description: String::new(),
            scenario: Scenario::Produce,
            client: ClientKind::Raw,
            class: None,
            topic: None,
            partitions: 1,
            topic_settings: BTreeMap::new(),
            producers: 1,
            subscriptions: 1,
            consumers: 1,
            rate: Rate::PerSecond(1_000),
            record_bytes: 1_024,
            keys: 0,
            compression: Codec::None,
            batch_records: 1,
            linger_ms: None,
            in_flight: 1_000,
            acks: -1,
            idempotent: false,
            parks: false,
            warm_up_seconds: 3.0,
            duration_seconds: 15.0,
            backlog_mib: 1_024,
            catch_up_readers: 1,
            cold_cache: false,
            fetch_max_bytes: 1024 * 1024,
            fetch_min_bytes: 1,
            fetch_max_wait_ms: 500,
            connections: 1_000,
            connections_per_second: 0,
            groups: 10,
            members: 10,
            rebalances: false,
            group_protocol: GroupProtocol::Classic,
            assignment_interval_ms: None,
            transaction_partitions: 1,
        }
    }
}

impl Workload {
    pub fn read(path: &Path) -> Result<Workload, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| Failure::Settings(format!("{}: {error}", path.display())))?;
        let mut workload = Workload::parse(&text).map_err(|why| Failure::Settings(format!("{}: {why}", path.display())))?;
        if workload.name.is_empty() {
            workload.name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        }
        Ok(workload)
    }

    pub fn parse(text: &str) -> Result<Workload, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))
    }

    /// Refuses what cannot be, naming the setting.
    pub fn check(&self) -> Result<(), Failure> {
        let counts = [
            ("partitions", self.partitions as i64),
            ("producers", self.producers as i64),
            ("batch_records", self.batch_records as i64),
            ("in_flight", self.in_flight as i64),
            ("consumers", self.consumers as i64),
            ("groups", self.groups as i64),
            ("members", self.members as i64),
            ("transaction_partitions", self.transaction_partitions as i64),
        ];
        if let Some((name, count)) = counts.into_iter().find(|(_, count)| *count < 1) {
            return Err(Failure::Settings(format!("{name} = {count}: at least 1 is wanted")));
        }
        let refused = [
            (
                self.record_bytes < HEAD_BYTES,
                format!("record_bytes = {}: at least {HEAD_BYTES}, for the id and the time", self.record_bytes),
            ),
            (
                !matches!(self.acks, -1 | 1),
                format!("acks = {}: -1 or 1; without an acknowledgement there is nothing to measure", self.acks),
            ),
            (
                self.duration_seconds <= 0.0 || self.duration_seconds > 86_400.0,
                "duration_seconds: more than 0 and at most a day".to_string(),
            ),
            (self.warm_up_seconds < 0.0, "warm_up_seconds: not below 0".to_string()),
            (self.producers > 10_000, "producers: at most 10,000".to_string()),
            (
                self.consumers > self.partitions as usize,
                format!("consumers = {}: a subscription with {} partitions has no work for so many", self.consumers, self.partitions),
            ),
            (
                self.idempotent && (self.in_flight > 5 || self.scenario == Scenario::Fanout),
                "idempotent: only with in_flight up to 5, and not with fanout".to_string(),
            ),
            (
                self.compression != Codec::None && matches!(self.scenario, Scenario::Fanout | Scenario::Transactions),
                format!("compression: {} sends its records as they are", self.scenario.name()),
            ),
            (
                self.parks && !matches!(self.scenario, Scenario::Produce | Scenario::E2e | Scenario::Fanout),
                format!("parks: {} goes on all the time", self.scenario.name()),
            ),
            (
                self.scenario == Scenario::Transactions
                    && (self.transaction_partitions > self.partitions as usize
                        || !self.batch_records.is_multiple_of(self.transaction_partitions)),
                format!(
                    "transaction_partitions = {}: at most the partitions, {}, and the {} records of a transaction go into them evenly",
                    self.transaction_partitions, self.partitions, self.batch_records
                ),
            ),
            (
                matches!(self.scenario, Scenario::Groups | Scenario::Offsets) && !matches!(self.rate, Rate::PerSecond(_)),
                format!("rate: {} commits on a schedule", self.scenario.name()),
            ),
            (
                self.group_protocol == GroupProtocol::Consumer && !self.rebalances,
                "group_protocol = consumer: members of the consumer protocol only rebalance here".to_string(),
            ),
            (
                self.scenario == Scenario::E2e && self.subscriptions == 0,
                "subscriptions = 0: e2e needs a reader; that is what produce is for".to_string(),
            ),
        ];
        match refused.into_iter().find(|(applies, _)| *applies) {
            Some((_, why)) => Err(Failure::Settings(why)),
            None => Ok(()),
        }
    }

    /// What the topic is made with: the class's setting, then those given.
    pub fn settings_of_topic(&self) -> BTreeMap<String, String> {
        let mut settings = BTreeMap::new();
        match self.class {
            Some(Class::B) => settings.insert("flush.messages".to_string(), "1".to_string()),
            Some(Class::A) => settings.insert("flush.messages".to_string(), i64::MAX.to_string()),
            None => None,
        };
        settings.extend(self.topic_settings.clone());
        settings
    }

    /// Partitions that one request holds records for.
    pub fn partitions_per_request(&self) -> usize {
        match self.scenario {
            Scenario::Fanout => self.partitions as usize,
            Scenario::Transactions => self.transaction_partitions,
            _ => 1,
        }
    }

    /// What a schedule will bring; nothing is known of a saturating run.
    pub fn expected(&self) -> Expected {
        let Some(schedule) = self.schedule(0) else { return Expected::default() };
        let Rate::PerSecond(rate) = self.rate else { return Expected::default() };
        let due = (rate as f64 * (self.warm_up_seconds + self.duration_seconds)) as usize;
        match self.scenario {
            Scenario::Fanout => {
                Expected { records: due * self.partitions as usize * self.batch_records, requests: due * self.partitions as usize }
            }
            _ => Expected { records: due, requests: due / schedule.records_per_request() },
        }
    }

    /// The schedule from `start_ns` on; none when saturating.
    pub fn schedule(&self, start_ns: u64) -> Option<Schedule> {
        let Rate::PerSecond(rate) = self.rate else { return None };
        let linger_ns = self.linger_ms.map(|linger_ms| (linger_ms * 1e6) as u64);
        let batch_records = if self.scenario == Scenario::Fanout { 1 } else { self.batch_records };
        Some(Schedule::new(start_ns, rate, self.producers, batch_records, linger_ns))
    }

    /// One line for tables: what is asked of the broker.
    pub fn describe(&self) -> String {
        let unit = match self.scenario {
            Scenario::Fanout => "requests/s",
            Scenario::Groups => "commits/s",
            Scenario::Transactions => "transactions/s",
            _ => "records/s",
        };
        let load = match self.rate {
            Rate::PerSecond(rate) => format!("{rate} {unit}, open loop"),
            Rate::Max if self.scenario == Scenario::Transactions => "saturating: closed loop".to_string(),
            Rate::Max => format!("saturating: closed loop, {} requests in flight", self.in_flight * self.producers),
            Rate::ShareOfMax(share) => format!("{share} % of the maximum, open loop"),
        };
        let load = match self.scenario {
            Scenario::Consume => {
                format!("{} MiB as fast as they come, {} x {} consumers", self.backlog_mib, self.subscriptions, self.consumers)
            }
            Scenario::Groups if self.rebalances => {
                let protocol = if self.group_protocol == GroupProtocol::Consumer { ", consumer protocol" } else { "" };
                format!("one rebalance after another of {} groups of {} members{protocol}", self.groups, self.members)
            }
            Scenario::Groups => format!("{load}, {} groups of {} members", self.groups, self.members),
            Scenario::Transactions => format!("{load}, {} partitions in each", self.transaction_partitions),
            Scenario::Offsets => format!("a restart with {} offsets committed by each of {} groups", self.partitions, self.groups),
            _ => load,
        };
        let settings: Vec<String> = self.settings_of_topic().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut line = format!(
            "{} {load}, {} B x {} a request, {} producers, {} partitions, acks {}",
            self.scenario.name(),
            self.record_bytes,
            self.batch_records,
            self.producers,
            self.partitions,
            self.acks
        );
        if matches!(self.scenario, Scenario::E2e | Scenario::Mixed) {
            line += &format!(", {} x {} tail consumers", self.subscriptions, self.consumers);
        }
        if self.keys > 0 {
            line += &format!(", {} keys", self.keys);
        }
        if self.compression != Codec::None {
            line += &format!(", {:?}", self.compression).to_lowercase();
        }
        line + &format!(", topic [{}]", settings.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_differs_from_the_defaults() {
        let workload =
            Workload::parse("scenario = 'e2e'\nrate = 5_000\nclass = 'b'\n[topic_settings]\n'retention.ms' = '1000'").expect("valid");
        assert_eq!((workload.scenario, workload.rate), (Scenario::E2e, Rate::PerSecond(5_000)));
        let settings = workload.settings_of_topic();
        assert_eq!(
            settings.into_iter().collect::<Vec<_>>(),
            [("flush.messages".into(), "1".into()), ("retention.ms".into(), "1000".into())]
        );
    }

    #[test]
    fn a_rate_is_a_number_a_share_or_the_maximum() {
        let rate = |text: &str| Workload::parse(&format!("rate = {text}")).map(|workload| workload.rate);
        assert_eq!(rate("1000"), Ok(Rate::PerSecond(1_000)));
        assert_eq!(rate("'max'"), Ok(Rate::Max));
        assert_eq!(rate("'75%'"), Ok(Rate::ShareOfMax(75)));
        for wrong in ["0", "-1", "'fast'", "'0%'", "'100%'", "1.5"] {
            assert!(rate(wrong).is_err_and(|why| why.contains("rate")), "{wrong}");
        }
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let why = Workload::parse("records_bytes = 100").expect_err("misspelt");
        assert!(why.contains("records_bytes") && !why.contains('\n'), "{why}");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refuse = |text: &str| Workload::parse(text).expect("valid TOML").check().expect_err(text).to_string();
        for (text, name) in [
            ("record_bytes = 8", "record_bytes"),
            ("acks = 0", "acks"),
            ("producers = 0", "producers"),
            ("consumers = 2", "consumers"),
            ("idempotent = true", "idempotent"),
            ("duration_seconds = 0", "duration_seconds"),
            ("scenario = 'mixed'\nparks = true", "parks"),
            ("scenario = 'e2e'\nsubscriptions = 0", "subscriptions"),
            ("scenario = 'groups'\ngroup_protocol = 'consumer'", "group_protocol"),
            ("scenario = 'transactions'\npartitions = 4\nbatch_records = 10\ntransaction_partitions = 5", "transaction_partitions"),
            ("scenario = 'transactions'\npartitions = 4\nbatch_records = 10\ntransaction_partitions = 4", "transaction_partitions"),
        ] {
            assert!(refuse(text).contains(name), "{text}");
        }
        assert!(Workload::default().check().is_ok());
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let workload = Workload { rate: Rate::ShareOfMax(25), linger_ms: Some(5.0), class: Some(Class::A), ..Workload::default() };
        let text = toml::to_string(&workload).expect("a workload is a table");
        assert_eq!(Workload::parse(&text), Ok(workload));
    }
}
