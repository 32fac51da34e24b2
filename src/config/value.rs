//! Text to value and back, by the type and rule of a setting's row. What Kafka trims, forgives and refuses, and the words in which it
//! refuses, are Kafka's: tools and tests read them.

use super::InvalidConfig;
use super::table::{Kind, Rule, Setting, Size};

/// A value of a setting's type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int(i32),
    Short(i16),
    Long(i64),
    Double(f64),
    /// String, class or password.
    Text(String),
    List(Vec<String>),
}

/// `setting`'s value for `text`, checked by its type and its rule. Items that a list names twice are dropped (KIP-1161).
pub fn parse(setting: &Setting, text: &str) -> Result<Value, InvalidConfig> {
    let value = parse_type(setting, text.trim())?;
    check(setting, &value)?;
    Ok(value)
}

/// The value of a setting that nobody set; what must be set is null until somebody does.
pub fn default(setting: &Setting) -> Value {
    match setting.default_text() {
        Some(text) => parse(setting, text).expect("a test parses every default"),
        None => Value::Null,
    }
}

fn parse_type(setting: &Setting, text: &str) -> Result<Value, InvalidConfig> {
    let not_a_number = || invalid(setting, text, &format!("Not a number of type {}", setting.kind.name()));
    Ok(match setting.kind {
        Kind::Boolean if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
        Kind::Boolean if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
        Kind::Boolean => {
            return Err(invalid(setting, text, "Expected value to be either true or false"));
        }
        Kind::Int => Value::Int(text.parse().map_err(|_| not_a_number())?),
        Kind::Short => Value::Short(text.parse().map_err(|_| not_a_number())?),
        Kind::Long => Value::Long(text.parse().map_err(|_| not_a_number())?),
        Kind::Double => Value::Double(text.parse().map_err(|_| not_a_number())?),
        Kind::String | Kind::Class | Kind::Password => Value::Text(text.to_owned()),
        Kind::List => Value::List(items(text)),
    })
}

fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    if !text.is_empty() {
        for item in text.split(',').map(str::trim) {
            if !items.iter().any(|known| known == item) {
                items.push(item.to_owned());
            }
        }
    }
    items
}

fn check(setting: &Setting, value: &Value) -> Result<(), InvalidConfig> {
    let shown = || value.text().unwrap_or_default();
    let refuse = |why: String| Err(invalid(setting, &shown(), &why));
    match (setting.rule, value) {
        (Rule::Any, _) => Ok(()),
        (Rule::AtLeast(least), _) => check_range(setting, value, least as f64, f64::INFINITY),
        (Rule::Between(least, most), _) => check_range(setting, value, least as f64, most as f64),
        (Rule::BetweenDecimals(least, most), _) => check_range(setting, value, least, most),
        (Rule::MinusOneOr(least, most), Value::Int(number)) => {
            if *number == -1 || (least..=most).contains(&i64::from(*number)) {
                return Ok(());
            }
            refuse(format!("Value must be between {least} and {most} or equal to -1"))
        }
        (Rule::NonEmpty, Value::Text(text)) if text.is_empty() => refuse("String must be non-empty".into()),
        (Rule::OneOf(known), Value::Text(text)) if !known.contains(&text.as_str()) => {
            refuse(format!("String must be one of: {}", known.join(", ")))
        }
        (Rule::OneOfAnyCase(known), Value::Text(text)) if !known.iter().any(|one| one.eq_ignore_ascii_case(text)) => {
            refuse(format!("String must be one of (case insensitive): {}", known.join(", ")))
        }
        (Rule::Items(size), Value::List(items)) => check_items(setting, items, &[], size),
        (Rule::ItemsOf(known, size), Value::List(items)) => check_items(setting, items, known, size),
        (Rule::ThrottledReplicas, Value::List(items)) => check_throttled_replicas(setting, items),
        (Rule::Voters, Value::List(items)) => items.iter().try_for_each(|item| check_voter(setting, item)),
        (Rule::BootstrapServers, Value::List(items)) => items.iter().try_for_each(|item| check_server(setting, item)),
        (Rule::OffsetReset, Value::Text(text)) if !is_offset_reset(text) => refuse(format!(
            "Invalid value `{text}` for configuration {}. The value must be either 'earliest', 'latest' or of the format \
             'by_duration:<PnDTnHnMn.nS>'.",
            setting.name
        )),
        _ => Ok(()),
    }
}

/// Whole numbers up to 2^53 are exact in a double; the table's bounds stay below.
fn check_range(setting: &Setting, value: &Value, least: f64, most: f64) -> Result<(), InvalidConfig> {
    let number = match value {
        Value::Int(number) => f64::from(*number),
        Value::Short(number) => f64::from(*number),
        Value::Long(number) => *number as f64,
        Value::Double(number) => *number,
        _ => return Ok(()),
    };
    let shown = value.text().unwrap_or_default();
    if number < least {
        return Err(invalid(setting, &shown, &format!("Value must be at least {least}")));
    }
    if number > most {
        return Err(invalid(setting, &shown, &format!("Value must be no more than {most}")));
    }
    Ok(())
}

fn check_items(setting: &Setting, items: &[String], known: &[&str], size: Size) -> Result<(), InvalidConfig> {
    if items.is_empty() && size == Size::NotEmpty {
        let valid = match known {
            [] => "any non-empty value".to_owned(),
            known => format!("[{}]", known.join(", ")),
        };
        let message = format!("Configuration '{}' must not be empty. Valid values include: {valid}", setting.name);
        return Err(InvalidConfig { message });
    }
    for item in items {
        if item.is_empty() {
            let message = format!("Configuration '{}' values must not be empty.", setting.name);
            return Err(InvalidConfig { message });
        }
        if !known.is_empty() && !known.contains(&item.as_str()) {
            return Err(invalid(setting, item, &format!("String must be one of: {}", known.join(", "))));
        }
    }
    Ok(())
}

fn check_throttled_replicas(setting: &Setting, items: &[String]) -> Result<(), InvalidConfig> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let pair = |item: &String| item.split_once(':').is_some_and(|(partition, broker)| digits(partition) && digits(broker));
    if items == ["*"] || items.iter().all(pair) {
        return Ok(());
    }
    let why = format!(
        "{} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        setting.name
    );
    Err(invalid(setting, &format!("[{}]", items.join(", ")), &why))
}

fn check_voter(setting: &Setting, item: &str) -> Result<(), InvalidConfig> {
    let form = "Each entry should be in the form `{id}@{host}:{port}`.";
    let id = item.split_once('@').and_then(|(id, server)| Some((id.parse::<u32>().ok()?, server)));
    let message = match id {
        None => format!("Invalid configuration value for {}. {form}", setting.name),
        Some((_, server)) if host_and_port(server).is_none() => {
            format!("Failed to parse host name from entry {item} for the configuration {}. {form}", setting.name)
        }
        Some(_) => return Ok(()),
    };
    Err(InvalidConfig { message })
}

fn check_server(setting: &Setting, item: &str) -> Result<(), InvalidConfig> {
    if host_and_port(item).is_some() {
        return Ok(());
    }
    let message = format!(
        "Failed to parse host name from {item} for the configuration {}. Each entry should be in the form \"{{host}}:{{port}}\"",
        setting.name
    );
    Err(InvalidConfig { message })
}

/// `host:port`, the host perhaps an IPv6 address in brackets.
pub fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "-%._:".contains(letter);
    (!host.is_empty() && host.chars().all(legal)).then_some(())?;
    Some((host, port.parse().ok()?))
}

fn is_offset_reset(text: &str) -> bool {
    match text.strip_prefix("by_duration:") {
        Some(duration) => is_duration(duration),
        None => text == "latest" || text == "earliest",
    }
}

/// A duration of ISO 8601 that is not negative: `PnDTnHnMn.nS`, each part at most once and at least one of them.
fn is_duration(text: &str) -> bool {
    let Some(text) = text.strip_prefix('P') else { return false };
    let (days, time) = text.split_once('T').map_or((text, None), |(days, time)| (days, Some(time)));
    let days_fit = days.is_empty() || are_parts(days, "D");
    let time_fits = time.is_none_or(|time| are_parts(time, "HMS"));
    days_fit && time_fits && !(days.is_empty() && time.is_none())
}

/// Numbers, each followed by one of `units`, in that order; seconds may have decimals.
fn are_parts(mut text: &str, mut units: &str) -> bool {
    if text.is_empty() {
        return false;
    }
    while let Some(end) = text.find(|letter: char| letter.is_ascii_uppercase()) {
        let (number, unit) = (&text[..end], text.as_bytes()[end] as char);
        let Some(place) = units.find(unit) else { return false };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let fits = match number.split_once('.') {
            Some((whole, decimals)) => unit == 'S' && digits(whole) && digits(decimals),
            None => digits(number),
        };
        if !fits {
            return false;
        }
        units = &units[place + 1..];
        text = &text[end + 1..];
    }
    text.is_empty()
}

fn invalid(setting: &Setting, shown: &str, why: &str) -> InvalidConfig {
    let shown = if setting.sensitive() { "[hidden]" } else { shown };
    InvalidConfig { message: format!("Invalid value {shown} for configuration {}: {why}", setting.name) }
}

impl Value {
    /// As Kafka writes it in answers; none for null.
    pub fn text(&self) -> Option<String> {
        Some(match self {
            Value::Null => return None,
            Value::Boolean(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Short(value) => value.to_string(),
            Value::Long(value) => value.to_string(),
            Value::Double(value) => java_double(*value),
            Value::Text(value) => value.clone(),
            Value::List(items) => items.join(","),
        })
    }

    /// A whole number of any width.
    pub fn whole(&self) -> Option<i64> {
        match self {
            Value::Int(value) => Some(i64::from(*value)),
            Value::Short(value) => Some(i64::from(*value)),
            Value::Long(value) => Some(*value),
            _ => None,
        }
    }
}

/// A double as Java prints it: `0.5`, `1.0E7`.
fn java_double(value: f64) -> String {
    let plain = (1e-3..1e7).contains(&value.abs()) || value == 0.0 || !value.is_finite();
    if plain {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').expect("written with an exponent");
    let point = if mantissa.contains('.') { "" } else { ".0" };
    format!("{mantissa}{point}E{exponent}")
}

#[cfg(test)]
mod tests {
    use super::super::table::{Scope, find, settings};
    use super::*;

    /// Every default is a legal value of its own setting, and is written back as it stands in the table.
    #[test]
    fn defaults_obey_their_rules() {
        for scope in [Scope::Broker, Scope::Topic, Scope::Group, Scope::ClientMetrics] {
            for setting in settings(scope) {
                if let Some(text) = setting.default_text() {
                    let value = parse(setting, text).unwrap_or_else(|error| panic!("{error}"));
                    assert_eq!(value.text().as_deref(), Some(text), "{}", setting.name);
                }
            }
        }
    }

    /// What Apache Kafka 4.4.0 answered for the same topic values: the accepted value, or what its message ends in.
    #[test]
    fn topic_values_are_judged_as_kafka_judges_them() {
        for (name, text, expected) in [
            ("segment.bytes", " +1048577 ", Ok("1048577")),
            ("segment.bytes", "5", Err("Value must be at least 1048576")),
            ("segment.bytes", "99999999999", Err("Not a number of type INT")),
            ("segment.bytes", "", Err("Not a number of type INT")),
            ("retention.ms", "-1", Ok("-1")),
            ("retention.ms", "1.5", Err("Not a number of type LONG")),
            ("retention.ms", "9223372036854775807", Ok("9223372036854775807")),
            ("min.cleanable.dirty.ratio", "1", Ok("1.0")),
            ("min.cleanable.dirty.ratio", "1.5", Err("Value must be no more than 1")),
            ("min.cleanable.dirty.ratio", "-1.0", Err("Value must be at least 0")),
            ("preallocate", "TRUE", Ok("true")),
            ("preallocate", "yes", Err("Expected value to be either true or false")),
            ("cleanup.policy", "", Ok("")),
            ("cleanup.policy", "delete , compact,delete", Ok("delete,compact")),
            ("cleanup.policy", "Delete", Err("String must be one of: compact, delete")),
            ("compression.type", "none", Err("String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer")),
            ("compression.gzip.level", "0", Err("Value must be between 1 and 9 or equal to -1")),
            ("compression.gzip.level", "-1", Ok("-1")),
            ("compression.lz4.level", "18", Err("Value must be no more than 17")),
            ("compression.zstd.level", "-131072", Ok("-131072")),
            ("max.decompressed.message.bytes", "2147483647", Err("Value must be no more than 2147483639")),
            ("leader.replication.throttled.replicas", "0:1 , 1:2", Ok("0:1,1:2")),
            ("leader.replication.throttled.replicas", "*", Ok("*")),
        ] {
            let found = parse(find(Scope::Topic, name).unwrap(), text).map(|value| value.text().unwrap());
            let expected = expected.map(str::to_owned).map_err(|why| format!("Invalid value {text} for configuration {name}: {why}"));
            assert_eq!(found.map_err(|error| error.message), expected);
        }
        let name = "leader.replication.throttled.replicas";
        assert_eq!(
            parse(find(Scope::Topic, name).unwrap(), "0:1,*").unwrap_err().message,
            format!(
                "Invalid value [0:1, *] for configuration {name}: {name} must be the literal '*' or a list of replicas in the following \
                 format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            )
        );
    }

    #[test]
    fn broker_and_group_values_are_judged_as_kafka_judges_them() {
        let voters = "Each entry should be in the form `{id}@{host}:{port}`.";
        for (scope, name, text, expected) in [
            (Scope::Broker, "listeners", "a,,b", "Configuration 'listeners' values must not be empty."),
            (Scope::Broker, "listeners", "", "Configuration 'listeners' must not be empty. Valid values include: any non-empty value"),
            (
                Scope::Broker,
                "process.roles",
                "",
                "Configuration 'process.roles' must not be empty. Valid values include: [broker, controller]",
            ),
            (
                Scope::Broker,
                "offsets.topic.replication.factor",
                "40000",
                "Invalid value 40000 for configuration offsets.topic.replication.factor: Not a number of type SHORT",
            ),
            (
                Scope::Broker,
                "controller.quorum.voters",
                "x",
                &format!("Invalid configuration value for controller.quorum.voters. {voters}"),
            ),
            (
                Scope::Broker,
                "controller.quorum.voters",
                "1@a",
                &format!("Failed to parse host name from entry 1@a for the configuration controller.quorum.voters. {voters}"),
            ),
            (
                Scope::Group,
                "share.auto.offset.reset",
                "by_duration:-PT1H",
                "Invalid value by_duration:-PT1H for configuration share.auto.offset.reset: Invalid value `by_duration:-PT1H` for \
                 configuration share.auto.offset.reset. The value must be either 'earliest', 'latest' or of the format \
                 'by_duration:<PnDTnHnMn.nS>'.",
            ),
        ] {
            assert_eq!(parse(find(scope, name).unwrap(), text).unwrap_err().message, expected);
        }
        for (scope, name, text) in [
            (Scope::Broker, "controller.quorum.voters", "1@a:1,2@[::1]:2"),
            (Scope::Broker, "group.consumer.migration.policy", "Upgrade"),
            (Scope::Group, "share.auto.offset.reset", "by_duration:P1DT2H3.5S"),
        ] {
            assert_eq!(parse(find(scope, name).unwrap(), text).unwrap().text().unwrap(), text);
        }
    }

    #[test]
    fn doubles_are_written_as_java_writes_them() {
        for (value, text) in [(0.5, "0.5"), (1e7, "1.0E7"), (12345678.9, "1.23456789E7"), (1e-4, "1.0E-4"), (0.0, "0.0")] {
            assert_eq!(java_double(value), text);
        }
    }
}
