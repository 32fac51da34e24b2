//! The table for people: the reference of all settings, and the settings that a start would use.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::broker::Config;
use super::sources::Origin;
use super::table::{self, Change, Effect, Initial, Rule, Scope, Setting, Size};

/// Width of the reference's lines.
const WIDTH: usize = 100;

/// Every setting with type, default, rule, meaning, and how it can be changed; what has no effect yet says so.
pub fn reference() -> String {
    let mut text = String::from(
        "Settings of Corelane. A broker's come, strongest first, from --set key=value, the environment (CORELANE_LOG_DIRS or KAFKA_LOG_DIRS \
         for log.dirs), and the file of --config; tools alter them while it runs where that is said.\n",
    );
    for (scope, heading) in
        [(Scope::Broker, "BROKER"), (Scope::Topic, "TOPIC"), (Scope::Group, "GROUP"), (Scope::ClientMetrics, "CLIENT METRICS SUBSCRIPTION")]
    {
        for section in table::sections(scope) {
            let _ = write!(text, "\n{heading}: {}\n", section.title);
            section.settings.iter().for_each(|setting| describe(setting, &mut text));
        }
    }
    text
}

/// Of each broker setting the value that a start would use, in the form of a file: a comment says who gave what follows, strongest first.
pub fn effective(config: &Config) -> String {
    let mut by_origin: BTreeMap<(usize, String), Vec<String>> = BTreeMap::new();
    for effective in config.effective().filter(|effective| !effective.setting.internal || effective.origin.is_some()) {
        let Some(value) = effective.value.text() else { continue };
        let value = if effective.setting.sensitive() { "[hidden]".to_owned() } else { value };
        by_origin.entry(heading(effective.origin)).or_default().push(format!("{}={value}", effective.setting.name));
    }
    let paragraph = |((_, heading), mut lines): ((usize, String), Vec<String>)| {
        lines.sort();
        format!("# {heading}\n{}\n", lines.join("\n"))
    };
    by_origin.into_iter().map(paragraph).collect::<Vec<_>>().join("\n")
}

/// How strong a source is, the strongest first, and what it is called.
fn heading(origin: Option<&Origin>) -> (usize, String) {
    match origin {
        Some(origin @ Origin::Argument) => (0, origin.to_string()),
        Some(Origin::Environment { .. }) => (1, "environment".to_owned()),
        Some(Origin::File { name, .. }) => (2, name.clone()),
        Some(origin @ Origin::Follows { .. }) => (3, origin.to_string()),
        Some(origin @ Origin::Start) => (4, origin.to_string()),
        None => (5, "default".to_owned()),
    }
}

fn describe(setting: &Setting, text: &mut String) {
    let default = match setting.default {
        Initial::Required => "required".to_owned(),
        Initial::Null => "no default".to_owned(),
        Initial::Text("") => "default empty".to_owned(),
        Initial::Text(text) => format!("default {text}"),
    };
    let mut facts = vec![setting.kind.name().to_lowercase(), default];
    facts.extend(rule(setting.rule));
    facts.push(change(setting.change));
    facts.extend(effect(setting.effect));
    let _ = write!(text, "\n{}\n", setting.name);
    wrap(&facts.join("; "), text);
    wrap(setting.documentation(), text);
}

fn rule(rule: Rule) -> Option<String> {
    Some(match rule {
        Rule::Any | Rule::Items(Size::MayBeEmpty) => return None,
        Rule::AtLeast(least) => format!("at least {least}"),
        Rule::Between(least, most) => format!("{least} to {most}"),
        Rule::BetweenDecimals(least, most) => format!("{least} to {most}"),
        Rule::MinusOneOr(least, most) => format!("-1, or {least} to {most}"),
        Rule::NonEmpty | Rule::Items(Size::NotEmpty) => "not empty".to_owned(),
        Rule::OneOf(known) => format!("one of {}", known.join(", ")),
        Rule::OneOfAnyCase(known) => format!("one of {}", known.join(", ").to_lowercase()),
        Rule::ItemsOf(known, Size::MayBeEmpty) => format!("some of {}", known.join(", ")),
        Rule::ItemsOf(known, Size::NotEmpty) => format!("at least one of {}", known.join(", ")),
        Rule::ThrottledReplicas => "* or partition:broker, ...".to_owned(),
        Rule::Voters => "id@host:port, ...".to_owned(),
        Rule::BootstrapServers => "host:port, ...".to_owned(),
        Rule::OffsetReset => "latest, earliest or by_duration:PnDTnHnMn.nS".to_owned(),
    })
}

fn change(change: Change) -> String {
    match change {
        Change::ReadOnly => "read at the start".to_owned(),
        Change::PerBroker => "can be altered on one broker".to_owned(),
        Change::Cluster => "can be altered on one broker or on all".to_owned(),
        Change::Overrides(name) => format!("in place of the broker's {name}"),
        Change::Alone => "no broker setting stands in".to_owned(),
    }
}

fn effect(effect: Effect) -> Option<String> {
    match effect {
        Effect::Works => None,
        Effect::Later => Some("NO EFFECT YET".to_owned()),
        Effect::Ignored => Some("NO EFFECT HERE".to_owned()),
        Effect::Refused => Some("ONLY ITS DEFAULT CAN BE SERVED".to_owned()),
    }
}

/// Words, broken into lines that stand four spaces in.
fn wrap(words: &str, text: &mut String) {
    let mut width = WIDTH;
    for word in words.split_whitespace() {
        let starts_line = width + 1 + word.len() > WIDTH;
        if starts_line && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(if starts_line { "    " } else { " " });
        text.push_str(word);
        width = if starts_line { 4 + word.len() } else { width + 1 + word.len() };
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_names_every_setting_and_marks_what_has_no_effect() {
        let text = reference();
        for scope in [Scope::Broker, Scope::Topic, Scope::Group, Scope::ClientMetrics] {
            for setting in table::settings(scope) {
                assert!(text.contains(&format!("\n{}\n    {}", setting.name, setting.kind.name().to_lowercase())), "{}", setting.name);
            }
        }
        assert!(text.contains(
            "\nlog.flush.interval.messages\n    long; default 1; at least 1; can be altered on one broker or on all\n    Records after which"
        ));
        assert!(text.contains(
            "\nnum.recovery.threads.per.data.dir\n    int; default 2; at least 1; can be altered on one broker or on all; NO EFFECT HERE\n"
        ));
        assert!(text.lines().skip(1).all(|line| line.len() <= WIDTH || line.split_whitespace().count() <= 2), "lines are wrapped");
    }

    #[test]
    fn effective_settings_say_who_gave_them_and_hide_passwords() {
        let arguments = [("ssl.key.password", "secret"), ("num.partitions", "3")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let sources = crate::config::Sources { arguments: arguments.to_vec(), ..Default::default() };
        let text = effective(&Config::load(&sources).unwrap().config);
        for line in [
            "# command line\nnum.partitions=3\nssl.key.password=[hidden]\n\n",
            "# from node.id\nbroker.id=1\n\n# single-node start\nlisteners=PLAINTEXT://127.0.0.1:9092\n",
            "\n\n# default\nadd.partitions.to.txn.retry.backoff.max.ms=100\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
    }
}
