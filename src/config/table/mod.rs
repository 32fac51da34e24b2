//! The one table of settings: every key of Kafka 4.4 and our own, once. Parser, defaults, DescribeConfigs, the printed reference and
//! the typed getters follow from these rows.
//!
//! A row reads: documentation, name, type, default, rule, how it may be changed (a broker's) or what it overrides (a topic's, a
//! group's), and whether it has an effect here yet. Names, types, defaults and rules are those of a running Kafka 4.4.0; the
//! sentences are ours.

/// Rows of a table: documentation, then `"name": Type = default, rule, change, effect;`.
macro_rules! settings {
    ($($rows:tt)*) => { rows!(false, $($rows)*) };
}

/// The same, for settings that DescribeConfigs does not list until somebody sets them.
macro_rules! internal_settings {
    ($($rows:tt)*) => { rows!(true, $($rows)*) };
}

macro_rules! rows {
    ($internal:literal, $(
        $(#[doc = $doc:literal])+
        $name:literal: $kind:ident = $default:tt, $rule:expr, $change:expr, $effect:ident;
    )*) => {
        &[$(Setting {
            name: $name,
            kind: Kind::$kind,
            default: initial!($default),
            rule: $rule,
            change: $change,
            effect: Effect::$effect,
            internal: $internal,
            documentation: concat!($($doc),+),
        }),*]
    };
}

macro_rules! initial {
    (required) => {
        Initial::Required
    };
    (null) => {
        Initial::Null
    };
    ($text:literal) => {
        Initial::Text($text)
    };
}

mod client_metrics;
mod corelane;
mod gone;
mod group;
mod group_override;
mod log;
mod metrics;
mod network;
mod quorum;
mod quota;
mod replication;
mod sasl;
mod security;
mod share;
mod streams;
mod tiered;
mod tls;
mod topic;
mod transaction;

use std::collections::HashMap;
use std::sync::LazyLock;

use Change::*;
use Rule::*;
use Size::*;

pub use gone::{Gone, gone};

/// One setting.
#[derive(Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    pub default: Initial,
    pub rule: Rule,
    pub change: Change,
    pub effect: Effect,
    /// Not listed by DescribeConfigs until somebody sets it.
    pub internal: bool,
    /// As written in the row, a space before each line.
    documentation: &'static str,
}

/// Kafka's type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

/// The value of a setting that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    Required,
    Null,
    Text(&'static str),
}

/// What a value must fulfil beyond its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    Any,
    AtLeast(i64),
    /// Both ends included, here and below.
    Between(i64, i64),
    BetweenDecimals(f64, f64),
    /// -1, or between the two.
    MinusOneOr(i64, i64),
    NonEmpty,
    OneOf(&'static [&'static str]),
    OneOfAnyCase(&'static [&'static str]),
    Items(Size),
    ItemsOf(&'static [&'static str], Size),
    /// `*` or `partition:broker` pairs.
    ThrottledReplicas,
    /// `id@host:port`.
    Voters,
    /// `host:port`.
    BootstrapServers,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
}

/// Whether a list may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    MayBeEmpty,
    NotEmpty,
}

/// How a value may be changed while the broker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A broker's: in the sources that are read at the start.
    ReadOnly,
    /// A broker's: for one named broker.
    PerBroker,
    /// A broker's: for one broker, or for all of them at once.
    Cluster,
    /// A topic's or group's, in place of this broker setting.
    Overrides(&'static str),
    /// A topic's, group's or subscription's own.
    Alone,
}

/// What a setting does in this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Works,
    /// Accepted and reported; it works once the part of the broker that it belongs to is built.
    Later,
    /// Accepted and reported; it belongs to the JVM or to a thread model that is not ours.
    Ignored,
    /// Any other value than the default is refused at the start: to ignore it would be dangerous.
    Refused,
}

/// What is configured: a broker, or a resource of the Kafka protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Broker,
    Topic,
    Group,
    ClientMetrics,
}

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;

/// Settings that belong together, under a title for people.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

const fn section(title: &'static str, settings: &'static [Setting]) -> Section {
    Section { title, settings }
}

const BROKER: &[Section] = &[
    section("Corelane's own", corelane::ROWS),
    section("Listeners, connections and requests", network::ROWS),
    section("Logs and their defaults", log::ROWS),
    section("Roles, quorum and metadata log", quorum::ROWS),
    section("Replication", replication::ROWS),
    section("Group coordinator and consumer groups", group::ROWS),
    section("Share groups", share::ROWS),
    section("Streams groups", streams::ROWS),
    section("Transactions and idempotent producers", transaction::ROWS),
    section("Quotas", quota::ROWS),
    section("Security", security::ROWS),
    section("TLS", tls::ROWS),
    section("SASL", sasl::ROWS),
    section("Tiered storage", tiered::ROWS),
    section("Metrics", metrics::ROWS),
    section("Internal: metadata", quorum::INTERNAL),
    section("Internal: requests", network::INTERNAL),
    section("Internal: logs", log::INTERNAL),
    section("Internal: replication", replication::INTERNAL),
    section("Internal: consumer groups", group::INTERNAL),
    section("Internal: share groups", share::INTERNAL),
    section("Internal: streams groups", streams::INTERNAL),
    section("Internal: producers", transaction::INTERNAL),
    section("Throttles, set while the broker runs", quota::INTERNAL),
    section("Internal: tiered storage", tiered::INTERNAL),
];
const TOPIC: &[Section] = &[section("Topics", topic::ROWS), section("Internal: topics", topic::INTERNAL)];
const GROUP: &[Section] = &[section("Groups", group_override::ROWS), section("Internal: groups", group_override::INTERNAL)];
const CLIENT_METRICS: &[Section] = &[section("Client metrics subscriptions", client_metrics::ROWS)];

/// How many settings a broker has.
pub const BROKER_COUNT: usize = count(BROKER);

/// Broker settings of which the first that is set counts, each with what one of its units is in the first one's.
pub const UNIT_SYNONYMS: [&[(&str, i64)]; 4] = [
    &[("log.roll.ms", 1), ("log.roll.hours", 3_600_000)],
    &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", 3_600_000)],
    &[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", 3_600_000)],
    &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
];

/// Settings that Kafka checks nothing of, because a plug-in reads them.
pub const PLUG_IN_PREFIXES: [&str; 2] = ["rsm.config.", "rlmm.config."];

/// All settings of a scope, in the order in which Kafka checks them.
pub fn settings(scope: Scope) -> impl Iterator<Item = &'static Setting> {
    sections(scope).iter().flat_map(|section| section.settings)
}

/// The same, by what belongs together.
pub const fn sections(scope: Scope) -> &'static [Section] {
    match scope {
        Scope::Broker => BROKER,
        Scope::Topic => TOPIC,
        Scope::Group => GROUP,
        Scope::ClientMetrics => CLIENT_METRICS,
    }
}

/// The setting of that name.
pub fn find(scope: Scope, name: &str) -> Option<&'static Setting> {
    by_name(scope, name).map(|(_, setting)| setting)
}

/// Where the setting of that name stands among those of its scope.
pub fn position(scope: Scope, name: &str) -> Option<usize> {
    by_name(scope, name).map(|(position, _)| position)
}

fn by_name(scope: Scope, name: &str) -> Option<(usize, &'static Setting)> {
    type Places = HashMap<(Scope, &'static str), (usize, &'static Setting)>;
    static PLACES: LazyLock<Places> = LazyLock::new(|| {
        let scopes = [Scope::Broker, Scope::Topic, Scope::Group, Scope::ClientMetrics];
        let places = |scope| settings(scope).enumerate().map(move |(position, row)| ((scope, row.name), (position, row)));
        scopes.into_iter().flat_map(places).collect()
    });
    PLACES.get(&(scope, name)).copied()
}

/// The broker setting behind `listener.name.<listener>.<setting>` or `listener.name.<listener>.<mechanism>.<setting>`.
pub fn find_behind_listener(name: &str) -> Option<&'static Setting> {
    let (_, rest) = name.strip_prefix("listener.name.")?.split_once('.')?;
    let behind_mechanism = || rest.split_once('.').and_then(|(_, rest)| find(Scope::Broker, rest));
    find(Scope::Broker, rest).or_else(behind_mechanism)
}

/// The known broker setting whose name is nearest to `name`, if it is near enough to be meant.
pub fn nearest(name: &str) -> Option<&'static str> {
    let distance = |row: &Setting| strsim::damerau_levenshtein(name, row.name);
    let (distance, nearest) = settings(Scope::Broker).map(|row| (distance(row), row.name)).min()?;
    (distance <= name.len() / 4).then_some(nearest)
}

/// Where a broker setting stands in the table. Evaluated by the compiler, a wrong name is a compile error.
pub const fn broker_position(name: &str) -> usize {
    let mut position = 0;
    let mut section = 0;
    while section < BROKER.len() {
        let rows = BROKER[section].settings;
        let mut row = 0;
        while row < rows.len() {
            if same(rows[row].name, name) {
                return position;
            }
            position += 1;
            row += 1;
        }
        section += 1;
    }
    panic!("no such broker setting");
}

const fn count(sections: &[Section]) -> usize {
    let mut count = 0;
    let mut section = 0;
    while section < sections.len() {
        count += sections[section].settings.len();
        section += 1;
    }
    count
}

const fn same(left: &str, right: &str) -> bool {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

impl Setting {
    /// What it does, in whole sentences.
    pub fn documentation(&self) -> &'static str {
        self.documentation.trim_start()
    }

    /// Passwords are never shown.
    pub fn sensitive(&self) -> bool {
        self.kind == Kind::Password
    }

    /// The default as text; none for null and for what must be set.
    pub fn default_text(&self) -> Option<&'static str> {
        match self.default {
            Initial::Text(text) => Some(text),
            Initial::Null | Initial::Required => None,
        }
    }
}

impl Kind {
    /// The type code of a DescribeConfigs answer.
    pub const fn code(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::String => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
            Kind::Class => 8,
            Kind::Password => 9,
        }
    }

    /// Kafka's name.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Boolean => "BOOLEAN",
            Kind::String => "STRING",
            Kind::Int => "INT",
            Kind::Short => "SHORT",
            Kind::Long => "LONG",
            Kind::Double => "DOUBLE",
            Kind::List => "LIST",
            Kind::Class => "CLASS",
            Kind::Password => "PASSWORD",
        }
    }
}
