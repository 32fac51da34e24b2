//! Subscriptions by a regular expression, which the coordinator resolves (KIP-848): in RE2's syntax, in time linear to the names, a slice of the topics at a time.
//!
//! A regular expression is resolved when the first member brings it, then whenever topics have been made or the interval is over, but not within ten seconds of the last time; the
//! heartbeats of the group look after that. What comes out is recorded. Until then a member is subscribed to nothing by it.

use super::target::Change;
use super::topic_hash::metadata_hash;
use super::{ConsumerGroup, Member, Refusal, ResolvedRegex};
use crate::cluster::Image;
use crate::group::Now;
use crate::group::coordinator::Turn;
use crate::wire::{ErrorCode, Str};
use regex::{Regex, RegexBuilder};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Regular expressions of a group are not resolved more often than this.
const REFRESH_INTERVAL_MS_MIN: i64 = 10_000;

/// What one compiled expression may take. RE2 allows repetitions of up to 1,000, which nested ones multiply.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// How many names are held against how many expressions in one go, at most.
const MATCHES_PER_STEP: usize = 5_000;

/// What a heartbeat means for the group's regular expressions.
#[derive(Debug, Default)]
pub(super) struct RegexUpdate {
    /// The member subscribes by another one.
    pub(super) has_changed: bool,
    /// What it matches is known already, so the group can be assigned anew at once.
    pub(super) is_resolved_anew: bool,
    /// All that are to be resolved now.
    pub(super) to_resolve: Option<Vec<Str>>,
}

impl ConsumerGroup {
    pub(super) fn update_regex(&self, turn: &mut Turn<'_>, before: &Member, after: &Member) -> Result<RegexUpdate, Refusal> {
        let mut update = RegexUpdate { has_changed: before.topic_regex != after.topic_regex, ..Default::default() };
        let mut is_due = false;
        let subscribers = |regex: &Str| self.regex_subscribers.get(regex).copied().unwrap_or(0);
        if update.has_changed {
            if let Some(old) = before.regex().filter(|old| subscribers(old) == 1) {
                turn.step.records.push(self.regex_tombstone(old));
            }
            match after.regex() {
                Some(new) if subscribers(new) == 0 => {
                    compile(new)?;
                    is_due = true;
                }
                Some(new) => update.is_resolved_anew = self.regexes.contains_key(new),
                None => update.is_resolved_anew = before.regex().is_some(),
            }
        }
        if !is_due && self.regex_subscribers.is_empty() {
            return Ok(update);
        }
        let last = self.regexes.values().next();
        let rested_since_ms = last.map_or(i64::MIN, |last| last.resolved_at_ms);
        if turn.now.wall_ms <= rested_since_ms.saturating_add(REFRESH_INTERVAL_MS_MIN) {
            return Ok(update);
        }
        let wanted = self.regexes_after(before, after);
        is_due |= wanted.len() != self.regexes.len()
            || last.map_or(0, |last| last.version) < turn.newest_topics
            || turn.now.wall_ms > rested_since_ms.saturating_add(turn.config.regex_refresh_interval_ms);
        update.to_resolve = (is_due && !wanted.is_empty()).then(|| wanted.into_iter().collect());
        Ok(update)
    }

    fn regexes_after(&self, before: &Member, after: &Member) -> BTreeSet<Str> {
        let mut regexes = self.regex_subscribers.clone();
        let Change { before, after } = self.change(before, after);
        before.and_then(Member::regex).into_iter().for_each(|regex| super::discount(&mut regexes, regex));
        after.and_then(Member::regex).into_iter().for_each(|regex| super::count(&mut regexes, regex));
        regexes.into_keys().map(|regex| regex.detached()).collect()
    }

    /// Takes over what was resolved, for the expressions that members still subscribe by. A change of the topics calls for another assignment.
    pub(crate) fn resolved(&self, turn: &mut Turn<'_>, results: Vec<(Str, ResolvedRegex)>) {
        let results: Vec<(Str, ResolvedRegex)> =
            results.into_iter().filter(|(regex, _)| self.regex_subscribers.contains_key(regex)).collect();
        let mut rises = false;
        for (regex, result) in &results {
            rises |= self.regexes.get(regex).map_or(!result.topics.is_empty(), |before| before.topics != result.topics);
            turn.step.records.push(self.regex_record(regex, result));
        }
        let mut names: BTreeSet<Str> = self.named_topics.keys().cloned().collect();
        for (regex, before) in &self.regexes {
            let now = results.iter().find(|(resolved, _)| resolved == regex).map_or(before, |(_, result)| result);
            names.extend(now.topics.iter().cloned());
        }
        names.extend(results.iter().flat_map(|(_, result)| result.topics.iter().cloned()));
        let hash = metadata_hash(names.iter().map(|name| &**name), turn.image);
        if rises || hash != self.metadata_hash {
            turn.step.records.push(self.epoch_record(self.epoch + 1, hash));
        }
    }
}

/// Regular expressions of one group on their way through the topics.
#[derive(Debug)]
pub(crate) struct Resolving {
    pub(crate) group_id: Str,
    image: Arc<Image>,
    began_at_ms: i64,
    patterns: Vec<(Str, Option<Regex>)>,
    matched: Vec<BTreeSet<Str>>,
    /// The last name that was looked at.
    done_to: Option<Arc<str>>,
}

impl Resolving {
    pub(crate) fn new(now: Now, group_id: &Str, regexes: Vec<Str>, image: &Arc<Image>) -> Resolving {
        // Each was compiled when a member brought it. One that a broker with other limits took matches nothing here.
        let patterns: Vec<_> = regexes.into_iter().map(|text| (text.clone(), compile(&text).ok())).collect();
        let matched = vec![BTreeSet::new(); patterns.len()];
        Resolving { group_id: group_id.detached(), image: Arc::clone(image), began_at_ms: now.wall_ms, patterns, matched, done_to: None }
    }

    /// Goes on for a bounded number of topics. True when it has come to the end.
    pub(crate) fn go_on(&mut self) -> bool {
        let from = self.done_to.clone();
        let names_per_step = (MATCHES_PER_STEP / self.patterns.len().max(1)).max(1);
        let is_new = |name: &str| from.as_deref().is_none_or(|done_to| name > done_to);
        let topics = self.image.topics_from(from.as_deref().unwrap_or_default()).filter(|topic| is_new(&topic.name));
        let mut looked_at = 0;
        for topic in topics.take(names_per_step) {
            looked_at += 1;
            self.done_to = Some(Arc::clone(&topic.name));
            for ((_, pattern), matched) in self.patterns.iter().zip(&mut self.matched) {
                if pattern.as_ref().is_some_and(|pattern| pattern.is_match(&topic.name)) {
                    matched.insert(Str::from(&*topic.name));
                }
            }
        }
        looked_at < names_per_step
    }

    pub(crate) fn into_results(self) -> Vec<(Str, ResolvedRegex)> {
        let version = self.image.offset();
        let result = |topics| ResolvedRegex { topics, version, resolved_at_ms: self.began_at_ms };
        self.patterns.into_iter().zip(self.matched).map(|((regex, _), topics)| (regex, result(topics))).collect()
    }
}

/// The expression, matching whole names only.
fn compile(text: &str) -> Result<Regex, Refusal> {
    let whole = format!("^(?:{})$", translate(text));
    RegexBuilder::new(&whole).size_limit(COMPILED_BYTES_MAX).build().map_err(|error| {
        let why = error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_string();
        let message = format!("SubscribedTopicRegex `{text}` is not a valid regular expression: {why}.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    })
}

/// RE2's syntax in that of the `regex` crate, which grew out of it and took a few more meanings: quoted text, brackets and set operators within classes, braces that repeat nothing.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_class = false;
    while let Some(next) = rest.chars().next() {
        let taken = if let Some(quoted) = rest.strip_prefix("\\Q").filter(|_| !in_class) {
            let end = quoted.find("\\E");
            out.push_str(&regex::escape(&quoted[..end.unwrap_or(quoted.len())]));
            end.map_or(rest.len(), |end| end + 4)
        } else if next == '\\' {
            let escaped = rest.chars().nth(1);
            out.push('\\');
            out.extend(escaped);
            1 + escaped.map_or(0, char::len_utf8)
        } else if in_class {
            class_character(rest, &mut out, &mut in_class)
        } else if next == '[' {
            in_class = true;
            // A bracket that closes right at the beginning stands for itself.
            let opening = ["[^]", "[]", "[^", "["].into_iter().find(|opening| rest.starts_with(opening)).expect("it starts with a bracket");
            out.push_str(&opening.replace(']', "\\]"));
            opening.len()
        } else {
            if next == '{' && !is_repetition(rest) {
                out.push('\\');
            }
            out.push(next);
            next.len_utf8()
        };
        rest = &rest[taken..];
    }
    out
}

/// Copies what stands at the beginning of `rest`, within a class. Gives its length.
fn class_character(rest: &str, out: &mut String, in_class: &mut bool) -> usize {
    let next = rest.chars().next().expect("there is more");
    if rest.starts_with("[:")
        && let Some(end) = rest.find(":]")
    {
        out.push_str(&rest[..end + 2]);
        return end + 2;
    }
    *in_class = next != ']';
    let is_operator = ["&&", "~~", "--"].into_iter().any(|operator| rest.starts_with(operator));
    if is_operator {
        out.push(next);
        out.push('\\');
        out.push(next);
        return 2 * next.len_utf8();
    }
    if next == '[' {
        out.push('\\');
    }
    out.push(next);
    next.len_utf8()
}

fn is_repetition(text: &str) -> bool {
    let Some((inner, _)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) else { return false };
    let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    !least.is_empty() && is_number(least) && is_number(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, names: &[&str]) -> Vec<bool> {
        let compiled = compile(pattern).unwrap();
        names.iter().map(|name| compiled.is_match(name)).collect()
    }

    #[test]
    fn whole_names_are_matched() {
        assert_eq!(matches("foo.*|bar", &["foo", "foobar", "bar", "xbar", "barx"]), [true, true, true, false, false]);
        assert_eq!(matches("", &["", "a"]), [true, false]);
    }

    #[test]
    fn re2_has_its_own_way_with_quotes_classes_and_braces() {
        assert_eq!(matches("\\Qa.b\\E.", &["a.bc", "axbc"]), [true, false]);
        assert_eq!(matches("\\Qa.b", &["a.b", "axb"]), [true, false]);
        assert_eq!(matches("[a[]+", &["a[a", "b"]), [true, false]);
        assert_eq!(matches("[]a]", &["]", "a", "b"]), [true, true, false]);
        assert_eq!(matches("[^]a]", &["]", "a", "b"]), [false, false, true]);
        assert_eq!(matches("[[:alpha:]]+\\d{2}", &["ab12", "ab1"]), [true, false]);
        assert_eq!(matches("[a&&b]", &["&", "a", "b"]), [true, true, true]);
        assert_eq!(matches("a{,2}", &["a{,2}", "aa"]), [true, false]);
        assert_eq!(matches("a{2}", &["aa", "a"]), [true, false]);
        assert_eq!(matches("(?i)foo", &["FOO"]), [true]);
    }

    #[test]
    fn what_re2_does_not_know_is_refused() {
        for pattern in ["(", "a(?=b)", "(a)\\1", "[a", "*", "((a{1000}){1000}){1000}"] {
            let refusal = compile(pattern).unwrap_err();
            assert_eq!(refusal.error, ErrorCode::InvalidRegularExpression, "{pattern}");
        }
    }
}
