//! The harness proves itself: a broker that leaves out one step on which durability rests is found out, each time by what a client misses after a power cut.
//!
//! Only a promise that was not kept counts; a rig that does not hold or a broker that does not start proves nothing, and whatever panics outside a comparison fails the test. The
//! same broker with nothing left out keeps every promise under the same conditions, which is looked at first.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::failure::Failure;
use crate::rounds::{CUTS_PER_LIFE, Manner, live};

/// Lives that a planted fault may survive, as long as they do not take too long together.
const LIVES_MAX: u64 = 30;
const SEARCH_LIMIT: Duration = Duration::from_secs(300);

/// A fault of the broker's build with the feature `trace` (`rt::plant`).
pub struct Plant {
    /// As CORELANE_PLANT names it.
    pub name: &'static str,
    /// It shows only when a ring has gone round.
    is_long: bool,
    also: Also,
}

/// As what a fault shows beside a broken promise, where that is its nature.
enum Also {
    Nothing,
    /// A ring that has gone round is replayed again and again.
    EndlessStart,
    /// What should have been cut off is read, and the broker says this of it.
    RefusedStart(&'static str),
}

pub const ALL: &[Plant] = &[
    Plant { name: "no-flush", is_long: false, also: Also::Nothing },
    Plant { name: "early-duplicate", is_long: false, also: Also::Nothing },
    Plant { name: "no-directory-flush", is_long: false, also: Also::Nothing },
    Plant { name: "no-sequence", is_long: true, also: Also::EndlessStart },
    Plant { name: "no-cut", is_long: false, also: Also::RefusedStart("holds an entry of another version") },
    Plant { name: "early-roll", is_long: false, also: Also::Nothing },
    Plant { name: "early-release", is_long: true, also: Also::Nothing },
];

/// Lives of the broker that can have faults and has none: one of short rounds, a shorter one of long rounds. They are led once, however many tests ask.
pub fn control(is_long: bool) -> Result<(), Failed> {
    static OUTCOMES: [OnceLock<Result<(), String>>; 2] = [const { OnceLock::new() }; 2];
    let outcome = OUTCOMES[usize::from(is_long)].get_or_init(|| {
        let manner = Manner { is_traced: true, is_long, ..Manner::default() };
        let cuts = if is_long { 2 } else { CUTS_PER_LIFE };
        live(1, cuts, &manner).map(drop).map_err(|failure| failure.to_string())
    });
    outcome.clone().map_err(|failure| format!("without any planted fault: {failure}").into())
}

impl Plant {
    /// Leads lives with the fault until one of them finds it.
    pub fn find(&self) -> Result<(), Failed> {
        control(self.is_long)?;
        let manner = Manner { is_traced: true, plant: Some(self.name), is_long: self.is_long, ..Manner::default() };
        let begun = Instant::now();
        let (mut lives, mut other) = (0, None);
        while lives < LIVES_MAX && begun.elapsed() < SEARCH_LIMIT {
            lives += 1;
            match live(lives, CUTS_PER_LIFE, &manner) {
                Ok(_) => {}
                Err(failure) if self.is_shown_by(&failure) => {
                    let words = failure.to_string();
                    println!("{} is found: {}", self.name, words.lines().next().unwrap_or_default());
                    return Ok(());
                }
                Err(failure) => {
                    println!("{} ends a life otherwise: {failure}", self.name);
                    other.get_or_insert(failure);
                }
            }
        }
        let other = other.map(|failure| format!("; a life ended otherwise: {failure}")).unwrap_or_default();
        Err(format!("{} was not found in {lives} lives within {:?}{other}", self.name, begun.elapsed()).into())
    }

    fn is_shown_by(&self, failure: &Failure) -> bool {
        match (failure, &self.also) {
            (Failure::Broken(_), _) | (Failure::EndlessStart(_), Also::EndlessStart) => true,
            (Failure::RefusedStart(words), Also::RefusedStart(reason)) => words.contains(reason),
            _ => false,
        }
    }
}
