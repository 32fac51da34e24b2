//! The settings of this broker: what was given, what was altered since, and the value that counts for each.
//!
//! A `Config` never changes. An alteration at run time makes another one (`altered`), which shards take over as they take a new image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::check;
use super::listener::{self, Listener, Parts};
use super::sources::{Gathered, Given, Origin, Sources};
use super::table::{self, BROKER_COUNT, Change, Kind, Scope, Setting, UNIT_SYNONYMS};
use super::topic::TopicSettings;
use super::value::{self, Value};

/// All settings of a broker, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Given at the start, also what nobody knows.
    given: BTreeMap<String, Given>,
    /// Altered at run time for every broker.
    altered_for_all: BTreeMap<String, String>,
    /// Altered at run time for this broker.
    altered_here: BTreeMap<String, String>,
    /// The value that counts, by the position of the setting in the table.
    pub(super) values: Vec<Value>,
    listeners: Vec<Listener>,
    log_directories: Vec<PathBuf>,
    topic_defaults: TopicSettings,
}

/// Why a start cannot go on; each line names a setting, its value and the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    pub errors: Vec<String>,
    /// What else the person should hear.
    pub warnings: Vec<String>,
}

/// A checked configuration, and what the person should hear about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    pub warnings: Vec<String>,
}

impl Config {
    /// Takes all sources together, checks every value by its row and all of them against each other.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
        let Gathered { given, mut warnings, mut errors } = sources.gather();
        let texts = |name: &str| given.get(name).map(|given| given.value.as_str());
        let mut values = Vec::with_capacity(BROKER_COUNT);
        for setting in table::settings(Scope::Broker) {
            let value = match texts(setting.name) {
                Some(text) => value::parse(setting, text).unwrap_or_else(|error| {
                    errors.push(format!("{} ({})", error.message, given[setting.name].origin));
                    value::default(setting)
                }),
                None => value::default(setting),
            };
            values.push(value);
        }
        check_prefixed(&given, &mut errors);
        let mut config = Config {
            given,
            altered_for_all: BTreeMap::new(),
            altered_here: BTreeMap::new(),
            values,
            listeners: Vec::new(),
            log_directories: Vec::new(),
            topic_defaults: TopicSettings::default(),
        };
        match listener::listeners(&config.listener_parts()) {
            Ok(listeners) => config.listeners = listeners,
            Err(mut broken) => errors.append(&mut broken),
        }
        config.derive();
        check::check(&config, &mut errors, &mut warnings);
        if errors.is_empty() { Ok(Loaded { config, warnings }) } else { Err(ConfigErrors { errors, warnings }) }
    }

    /// This configuration with what the cluster's metadata holds for all brokers and for this one in place of what it held before. What
    /// may not be altered, or is not legal, is left out, and said.
    pub fn altered<'a>(
        &self,
        for_all: impl IntoIterator<Item = (&'a str, &'a str)>,
        here: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> (Config, Vec<String>) {
        let mut config = self.clone();
        let mut rejected = Vec::new();
        config.altered_for_all = legal(for_all, &[Change::Cluster], &mut rejected);
        config.altered_here = legal(here, &[Change::Cluster, Change::PerBroker], &mut rejected);
        for (position, setting) in table::settings(Scope::Broker).enumerate() {
            let text = config.text_set(setting.name);
            config.values[position] = match text {
                Some(text) => value::parse(setting, text).expect("checked when it was given or altered"),
                None => value::default(setting),
            };
        }
        config.derive();
        (config, rejected)
    }

    /// The text that counts of those that somebody set.
    pub(super) fn text_set(&self, name: &str) -> Option<&str> {
        let altered = self.altered_here.get(name).or_else(|| self.altered_for_all.get(name));
        altered.or_else(|| self.given.get(name).map(|given| &given.value)).map(String::as_str)
    }

    fn listener_parts(&self) -> Parts<'_> {
        Parts {
            listeners: self.bound_listeners(),
            advertised: self.is_set("advertised.listeners").then(|| self.advertised_listeners()),
            protocol_map: self.listener_security_protocol_map(),
            protocol_map_given: self.is_set("listener.security.protocol.map"),
            controller_names: self.controller_listener_names(),
        }
    }

    fn derive(&mut self) {
        let directories = if self.is_set("log.dirs") { self.list("log.dirs") } else { self.list("log.dir") };
        self.log_directories = directories.iter().map(PathBuf::from).collect();
        let mut topic_defaults = TopicSettings::default();
        for setting in table::settings(Scope::Topic) {
            topic_defaults.assign(setting.name, &self.topic_default(setting));
        }
        self.topic_defaults = topic_defaults;
    }

    /// Whether somebody set it, at the start or since.
    pub fn is_set(&self, name: &str) -> bool {
        self.text_set(name).is_some()
    }

    /// The value of a broker setting that counts; null if there is no such setting.
    pub fn value(&self, name: &str) -> &Value {
        table::position(Scope::Broker, name).map_or(&Value::Null, |position| &self.values[position])
    }

    /// What a topic has that does not override `setting`: the broker's value of its synonym, in the unit of the topic's setting.
    pub fn topic_default(&self, setting: &Setting) -> Value {
        let Change::Overrides(broker_name) = setting.change else { return value::default(setting) };
        match UNIT_SYNONYMS.iter().find(|synonyms| synonyms[0].0 == broker_name) {
            Some(synonyms) => self.first_set(synonyms),
            None => self.value(broker_name).clone(),
        }
    }

    /// What a group has that does not override `setting`. A group's assignor is the first of the broker's.
    pub fn group_default(&self, setting: &Setting) -> Value {
        let Change::Overrides(broker_name) = setting.change else { return value::default(setting) };
        match self.value(broker_name) {
            Value::List(items) if setting.kind == Kind::String => items.first().cloned().map_or(Value::Null, Value::Text),
            value => value.clone(),
        }
    }

    /// Time is unlimited in any unit that says -1.
    fn first_set(&self, synonyms: &[(&str, i64)]) -> Value {
        let first = synonyms.iter().find_map(|(name, unit_ms)| Some((self.value(name).whole()?, *unit_ms)));
        let (time, unit_ms) = first.expect("the last synonym has a default");
        Value::Long(if time < 0 { -1 } else { time.saturating_mul(unit_ms) })
    }

    /// The value of a broker setting that counts for one listener: what is said of that listener, else of all.
    pub fn listener_value(&self, listener: &Listener, name: &str) -> Value {
        let own = self.text_set(&format!("listener.name.{}.{name}", listener.name.to_lowercase()));
        let own = own.zip(table::find(Scope::Broker, name)).and_then(|(text, setting)| value::parse(setting, text).ok());
        own.unwrap_or_else(|| self.value(name).clone())
    }

    /// `max.connections` of one listener: its own, or the broker's.
    pub fn listener_connections_max(&self, listener: &Listener) -> i64 {
        self.listener_value(listener, "max.connections").whole().expect("a number by the table")
    }

    /// `max.connections.per.ip.overrides`: hosts, each with how many connections may come from it.
    pub fn connections_per_ip_exceptions(&self) -> impl Iterator<Item = (&str, i32)> {
        let text = match self.value("max.connections.per.ip.overrides") {
            Value::Text(text) => text.as_str(),
            _ => "",
        };
        text.split(',').filter_map(check::connection_exception)
    }

    fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// What a topic has that overrides nothing.
    pub fn topic_defaults(&self) -> &TopicSettings {
        &self.topic_defaults
    }

    /// All listeners, those of controllers too.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// The listeners that this node binds.
    pub fn broker_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter().filter(|listener| !listener.controller)
    }

    /// The data directories, at least one; topics lie directly in them.
    pub fn log_directories(&self) -> &[PathBuf] {
        &self.log_directories
    }

    /// Where the journals lie.
    pub fn journal_directory(&self) -> &Path {
        self.journal_dir().map_or(&self.log_directories[0], Path::new)
    }

    /// Where `__cluster_metadata-0` lies.
    pub fn metadata_log_directory(&self) -> &Path {
        self.metadata_log_dir().map_or(&self.log_directories[0], Path::new)
    }

    /// What was given at the start.
    pub fn given(&self) -> &BTreeMap<String, Given> {
        &self.given
    }

    /// What is altered for every broker.
    pub fn altered_for_all(&self) -> &BTreeMap<String, String> {
        &self.altered_for_all
    }

    /// What is altered for this broker.
    pub fn altered_here(&self) -> &BTreeMap<String, String> {
        &self.altered_here
    }

    /// Of every broker setting the value that counts and who said it, in the order of the table.
    pub fn effective(&self) -> impl Iterator<Item = Effective<'_>> {
        table::settings(Scope::Broker).zip(&self.values).map(|(setting, value)| Effective {
            setting,
            value,
            origin: self.given.get(setting.name).map(|given| &given.origin),
        })
    }
}

/// A setting and the value that counts.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'a> {
    pub setting: &'static Setting,
    pub value: &'a Value,
    /// Who gave it at the start; none is the default.
    pub origin: Option<&'a Origin>,
}

/// The configuration of a node that was told nothing.
impl Default for Config {
    fn default() -> Config {
        Config::load(&Sources::default()).expect("a test starts with nothing").config
    }
}

/// Settings for one listener obey the rule of the setting that they stand for.
fn check_prefixed(given: &BTreeMap<String, Given>, errors: &mut Vec<String>) {
    for (name, given) in given {
        let Some(setting) = table::find_behind_listener(name) else { continue };
        if let Err(error) = value::parse(setting, &given.value) {
            errors.push(format!("{} (as {name}, {})", error.message, given.origin));
        }
    }
}

fn legal<'a>(
    altered: impl IntoIterator<Item = (&'a str, &'a str)>,
    allowed: &[Change],
    rejected: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut legal = BTreeMap::new();
    for (name, text) in altered {
        match table::find(Scope::Broker, name) {
            Some(setting) if !allowed.contains(&setting.change) => {
                rejected.push(format!("{name} may not be altered at run time"));
            }
            Some(setting) => match value::parse(setting, text) {
                Ok(_) => drop(legal.insert(name.to_owned(), text.to_owned())),
                Err(error) => rejected.push(error.message),
            },
            // Kafka keeps what nobody knows, and what is meant for one listener.
            None => drop(legal.insert(name.to_owned(), text.to_owned())),
        }
    }
    legal
}
