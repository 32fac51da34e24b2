//! What DescribeConfigs answers: of each setting the value that counts, who set it, and every layer beneath with what it says.
//!
//! The order of the layers, which names count as synonyms, and which synonyms are left out, are Kafka's, its oddities included: a setting
//! in milliseconds that nobody set has no synonyms, even where the one in hours decides.

use super::broker::Config;
use super::sources::Given;
use super::table::{self, Change, Scope, Setting, UNIT_SYNONYMS};
use super::value::{self, Value};

/// One setting of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// None for null, and for what must not be shown.
    pub value: Option<String>,
    pub source: Source,
    pub sensitive: bool,
    pub read_only: bool,
    /// Strongest first; the first is what counts.
    pub synonyms: Vec<Synonym>,
    /// The type code of the answer, 0 for a setting that nobody knows.
    pub kind_code: i8,
    pub documentation: &'static str,
}

/// What one layer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: Source,
}

/// The layers, with the numbers of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum Source {
    Topic = 1,
    BrokerHere = 2,
    BrokerDefault = 3,
    Static = 4,
    Default = 5,
    ClientMetrics = 7,
    Group = 8,
}

/// What somebody altered on a resource.
pub trait Overrides {
    fn get(&self, name: &str) -> Option<&str>;
    fn names(&self) -> impl Iterator<Item = &str>;
}

impl<K: std::borrow::Borrow<str> + Ord, V: AsRef<str>> Overrides for std::collections::BTreeMap<K, V> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(AsRef::as_ref)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.keys().map(std::borrow::Borrow::borrow)
    }
}

/// All settings of this broker, and what somebody set that nobody knows.
pub fn broker(config: &Config) -> Vec<Entry> {
    let mut names: Vec<&str> = listed(Scope::Broker).collect();
    names.extend(config.given().keys().map(String::as_str));
    names.extend(config.altered_for_all().names());
    names.extend(config.altered_here().names());
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| broker_entry(config, name, broker_synonyms(config, name))).collect()
}

/// What is altered for all brokers.
pub fn cluster_default(config: &Config) -> Vec<Entry> {
    let layer = |name| broker_synonyms(config, name).into_iter().filter(|synonym| synonym.source == Source::BrokerDefault).collect();
    config
        .altered_for_all()
        .iter()
        .map(|(name, text)| {
            let mut entry = broker_entry(config, name, layer(name));
            entry.value = shown(broker_setting(name), Some(text));
            entry
        })
        .collect()
}

/// All settings of a topic with these overrides.
pub fn topic(config: &Config, overrides: &impl Overrides) -> Vec<Entry> {
    resource(Scope::Topic, Source::Topic, overrides, |setting| {
        let synonyms = match setting.change {
            Change::Overrides(broker_name) => broker_synonyms(config, broker_name),
            _ => Vec::new(),
        };
        (config.topic_default(setting), synonyms)
    })
}

/// All settings of a group with these overrides; the group need not exist.
pub fn group(config: &Config, overrides: &impl Overrides) -> Vec<Entry> {
    resource(Scope::Group, Source::Group, overrides, |setting| match setting.change {
        Change::Overrides(broker_name) => (config.group_default(setting), broker_synonyms(config, broker_name)),
        _ => (value::default(setting), vec![synonym(setting.name, setting.default_text(), Source::Default, false)]),
    })
}

/// All settings of a client metrics subscription with these overrides.
pub fn client_metrics(overrides: &impl Overrides) -> Vec<Entry> {
    resource(Scope::ClientMetrics, Source::ClientMetrics, overrides, |setting| (value::default(setting), Vec::new()))
}

/// The settings of a scope that are listed though nobody set them.
fn listed(scope: Scope) -> impl Iterator<Item = &'static str> {
    table::settings(scope).filter(|setting| !setting.internal).map(|setting| setting.name)
}

fn resource(
    scope: Scope,
    source: Source,
    overrides: &impl Overrides,
    default: impl Fn(&'static Setting) -> (Value, Vec<Synonym>),
) -> Vec<Entry> {
    let mut names: Vec<&str> = listed(scope).collect();
    names.extend(overrides.names().filter(|name| table::find(scope, name).is_some()));
    names.sort_unstable();
    names.dedup();
    let entry = |name: &str| {
        let setting = table::find(scope, name).expect("only known names are left");
        let (mut value, mut synonyms) = default(setting);
        // What is stored was checked when it was set; a value that an older version let through is shown as it stands.
        if let Some(text) = overrides.get(name) {
            value = value::parse(setting, text).unwrap_or_else(|_| Value::Text(text.to_owned()));
            synonyms.insert(0, synonym(name, value.text().as_deref(), source, setting.sensitive()));
        }
        Entry {
            name: name.to_owned(),
            value: shown(Some(setting), value.text().as_deref()),
            source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
            sensitive: setting.sensitive(),
            read_only: false,
            synonyms,
            kind_code: setting.kind.code(),
            documentation: setting.documentation(),
        }
    };
    names.into_iter().map(entry).collect()
}

fn broker_entry(config: &Config, name: &str, synonyms: Vec<Synonym>) -> Entry {
    let setting = broker_setting(name);
    let value = match table::find(Scope::Broker, name) {
        Some(_) => config.value(name).text(),
        None => config.text_set(name).map(str::to_owned),
    };
    let changeable = |setting: &Setting| setting.change != Change::ReadOnly;
    Entry {
        name: name.to_owned(),
        value: shown(setting, value.as_deref()),
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        sensitive: setting.is_none_or(Setting::sensitive),
        // Kafka looks the whole name up, so a setting for one listener reads as read-only though it can be altered.
        read_only: !table::find(Scope::Broker, name).is_some_and(changeable),
        synonyms,
        kind_code: setting.map_or(0, |setting| setting.kind.code()),
        documentation: setting.map_or("", Setting::documentation),
    }
}

/// What the layers say about a broker setting, down to the default. What stands above the first entry of the setting itself is left out:
/// it belongs to a synonym.
fn broker_synonyms(config: &Config, name: &str) -> Vec<Synonym> {
    let plain = [name];
    let names: Vec<&str> = match UNIT_SYNONYMS.iter().find(|synonyms| synonyms.iter().any(|(known, _)| *known == name)) {
        Some(synonyms) => synonyms.iter().map(|(known, _)| *known).collect(),
        None => match table::find_behind_listener(name) {
            Some(setting) => vec![name, setting.name],
            None => plain.to_vec(),
        },
    };
    let mut synonyms = Vec::new();
    let mut add = |source, text: &dyn Fn(&str) -> Option<String>| {
        for name in &names {
            if let Some(text) = text(name) {
                let sensitive = broker_setting(name).is_none_or(Setting::sensitive);
                synonyms.push(synonym(name, Some(&text), source, sensitive));
            }
        }
    };
    add(Source::BrokerHere, &|name| config.altered_here().get(name).cloned());
    add(Source::BrokerDefault, &|name| config.altered_for_all().get(name).cloned());
    add(Source::Static, &|name| config.given().get(name).map(|Given { value, .. }| value.clone()));
    add(Source::Default, &|name| table::find(Scope::Broker, name).and_then(Setting::default_text).map(str::to_owned));
    synonyms.into_iter().skip_while(|synonym| synonym.name != name).collect()
}

/// The row that decides how a broker setting is shown, also one for a single listener.
fn broker_setting(name: &str) -> Option<&'static Setting> {
    table::find(Scope::Broker, name).or_else(|| table::find_behind_listener(name))
}

fn synonym(name: &str, text: Option<&str>, source: Source, sensitive: bool) -> Synonym {
    Synonym { name: name.to_owned(), value: text.filter(|_| !sensitive).map(str::to_owned), source }
}

/// What nobody knows may be a secret.
fn shown(setting: Option<&Setting>, text: Option<&str>) -> Option<String> {
    let sensitive = setting.is_none_or(Setting::sensitive);
    text.filter(|_| !sensitive).map(str::to_owned)
}

impl Source {
    /// The number on the wire.
    pub fn code(self) -> i8 {
        self as i8
    }
}

#[cfg(test)]
mod tests;
