//! The log: one event a line, plain or as JSON, written by a thread of its own so that no shard ever waits for a terminal or a disk.
//!
//! Lines for which there is no room are dropped. Levels can be changed while the broker runs, for everything ("root") or for one room
//! (`corelane::net`), through the BROKER_LOGGER resource of the admin protocol (KIP-412).

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::Config;

/// The logger under which every other stands.
pub const ROOT: &str = "root";

/// The loggers that can have a level of their own: the rooms, under the names that their lines carry.
pub const LOGGERS: [&str; 14] = [
    "corelane",
    "corelane::api",
    "corelane::cluster",
    "corelane::config",
    "corelane::disk",
    "corelane::drive",
    "corelane::group",
    "corelane::log",
    "corelane::net",
    "corelane::partition",
    "corelane::rt",
    "corelane::shard",
    "corelane::txn",
    "corelane::wire",
];

/// Lines that may wait to be written.
const LINES_WAITING_MAX: usize = 16_384;

/// Writes what still waits when it is dropped; to be kept until the process ends.
#[must_use]
pub struct Logging {
    _writer: WorkerGuard,
}

/// The levels as they are set, and the way to set others.
struct Levels {
    root: LevelFilter,
    own: BTreeMap<&'static str, LevelFilter>,
    filter: reload::Handle<Targets, Registry>,
}

static LEVELS: OnceLock<Mutex<Levels>> = OnceLock::new();

/// Starts the log with `log.format` and `log.level`. To be called once, before any shard starts.
pub fn start(config: &Config) -> Logging {
    let root = LevelFilter::from_str(config.log_level()).expect("the rule of log.level knows these");
    let lines = NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING_MAX).lossy(true).thread_name("log");
    let (writer, guard) = lines.finish(io::stdout());
    let format = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(io::stdout().is_terminal());
    let format = match config.log_format() {
        "json" => format.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        _ => format.boxed(),
    };
    let (filter, handle) = reload::Layer::new(targets(root, &BTreeMap::new()));
    tracing_subscriber::registry().with(filter).with(format).init();
    LEVELS.get_or_init(|| Mutex::new(Levels { root, own: BTreeMap::new(), filter: handle }));
    Logging { _writer: guard }
}

/// Every logger with the level that counts for it, and whether it is its own. Nothing before the log is started.
pub fn levels() -> Vec<(&'static str, &'static str, bool)> {
    let Some(levels) = LEVELS.get() else { return Vec::new() };
    let levels = levels.lock().expect("nobody panics while holding the levels");
    let inherited = |logger: &str| {
        let above = levels.own.iter().filter(|(own, _)| logger.starts_with(**own));
        above.max_by_key(|(own, _)| own.len()).map_or(levels.root, |(_, level)| *level)
    };
    let own = |logger: &&'static str| (*logger, level_name(inherited(logger)), levels.own.contains_key(logger));
    std::iter::once((ROOT, level_name(levels.root), true)).chain(LOGGERS.iter().map(own)).collect()
}

/// The level of that name: Kafka's, of which FATAL and ERROR are one here.
pub fn level_of(name: &str) -> Option<Level> {
    match name.trim().to_uppercase().as_str() {
        "FATAL" | "ERROR" => Some(Level::ERROR),
        "WARN" => Some(Level::WARN),
        "INFO" => Some(Level::INFO),
        "DEBUG" => Some(Level::DEBUG),
        "TRACE" => Some(Level::TRACE),
        _ => None,
    }
}

/// Gives a logger a level, or takes its own away, so that it follows the one above it. The root keeps one always.
pub fn set_level(logger: &str, level: Option<Level>) {
    let Some(levels) = LEVELS.get() else { return };
    let mut levels = levels.lock().expect("nobody panics while holding the levels");
    let known = LOGGERS.iter().find(|known| **known == logger);
    match (known, level) {
        (Some(known), Some(level)) => drop(levels.own.insert(known, level.into())),
        (Some(known), None) => drop(levels.own.remove(known)),
        (None, Some(level)) if logger == ROOT => levels.root = level.into(),
        (None, _) => return,
    }
    let targets = targets(levels.root, &levels.own);
    levels.filter.reload(targets).expect("the log outlives everybody who logs");
}

fn targets(root: LevelFilter, own: &BTreeMap<&'static str, LevelFilter>) -> Targets {
    Targets::new().with_default(root).with_targets(own.iter().map(|(logger, level)| (*logger, *level)))
}

fn level_name(level: LevelFilter) -> &'static str {
    match level.into_level() {
        Some(Level::ERROR) => "ERROR",
        Some(Level::WARN) => "WARN",
        Some(Level::INFO) | None => "INFO",
        Some(Level::DEBUG) => "DEBUG",
        Some(Level::TRACE) => "TRACE",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test for the process-wide log: levels are inherited, set and taken back.
    #[test]
    fn levels_follow_the_nearest_logger_above() {
        let _logging = start(&Config::default());
        let level = |logger: &str| levels().into_iter().find(|(name, ..)| *name == logger).map(|(_, level, own)| (level, own));
        assert_eq!((level(ROOT), level("corelane::net")), (Some(("INFO", true)), Some(("INFO", false))));
        set_level("corelane", level_of("debug"));
        set_level("corelane::net", level_of("FATAL"));
        set_level(ROOT, level_of("WARN"));
        assert_eq!((level("corelane::disk"), level("corelane::net")), (Some(("DEBUG", false)), Some(("ERROR", true))));
        assert!(tracing::enabled!(target: "corelane::disk", Level::DEBUG) && !tracing::enabled!(target: "corelane::net", Level::WARN));
        set_level("corelane", None);
        set_level("corelane::net", None);
        assert_eq!((level("corelane::disk"), level("corelane::net")), (Some(("WARN", false)), Some(("WARN", false))));
        set_level(ROOT, level_of("INFO"));
        assert_eq!(level_of("LOUD"), None);
    }
}
