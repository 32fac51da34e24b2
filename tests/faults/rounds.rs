//! How long a case goes on, and from which seed: a little in the suite, as long as `scripts/soak` says there, and from the same seed again to look into a failure.

use std::env;
use std::fmt::Display;
use std::str::FromStr;

pub struct Rounds {
    pub count: u64,
    pub seed: u64,
}

impl Rounds {
    /// So many as CORELANE_CRASH_ROUNDS asks for, else as the suite has time for.
    pub fn or(in_suite: u64) -> Rounds {
        let (count, seed) = (number("CORELANE_CRASH_ROUNDS").unwrap_or(in_suite), seed());
        println!("{count} rounds, CORELANE_CRASH_SEED={seed}");
        Rounds { count, seed }
    }
}

/// From CORELANE_CRASH_SEED, else another one each time.
pub fn seed() -> u64 {
    number("CORELANE_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()))
}

/// How long the cases of `soak` go on, if CORELANE_SOAK_MINUTES says so.
pub fn minutes() -> Option<u64> {
    number("CORELANE_SOAK_MINUTES")
}

/// How many producers write, if CORELANE_PRODUCERS says so.
pub fn producers() -> Option<u64> {
    number("CORELANE_PRODUCERS")
}

fn number<T: FromStr<Err: Display>>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable} is `{text}`: {error}")))
}
