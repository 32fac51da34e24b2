//! The harness proves itself: a broker that leaves out one step on which durability rests is found out, each time by what a client misses after a power cut.

use std::panic::{AssertUnwindSafe, catch_unwind};

use libtest_mimic::Failed;

use crate::rounds::{CUTS_PER_LIFE, Manner, live};

/// Lives that a planted fault may survive.
const LIVES_MAX: u64 = 30;

/// A fault of the broker's build with the feature `trace` (`rt::plant`).
pub struct Plant {
    /// As CORELANE_PLANT names it.
    pub name: &'static str,
    /// It shows only when a ring has gone round.
    is_long: bool,
}

pub const ALL: &[Plant] = &[
    Plant { name: "no-flush", is_long: false },
    Plant { name: "early-duplicate", is_long: false },
    Plant { name: "no-directory-flush", is_long: false },
    Plant { name: "no-sequence", is_long: true },
    Plant { name: "no-cut", is_long: false },
    Plant { name: "early-roll", is_long: false },
    Plant { name: "early-release", is_long: true },
];

impl Plant {
    /// Leads lives with the fault until one of them finds it.
    pub fn find(&self) -> Result<(), Failed> {
        let manner = Manner { plant: Some(self.name), is_long: self.is_long, ..Manner::default() };
        for seed in 1..=LIVES_MAX {
            let life = catch_unwind(AssertUnwindSafe(|| live(seed, CUTS_PER_LIFE, &manner)));
            let broken = match life {
                Ok(Ok(_)) => continue,
                Ok(Err(broken)) => broken,
                // The comparison itself gave up, as it does when a topic is not there any more.
                Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_string()),
            };
            println!("{} is found: {}", self.name, broken.lines().next().unwrap_or_default());
            return Ok(());
        }
        Err(format!("{} was not found in {} cuts", self.name, LIVES_MAX * CUTS_PER_LIFE).into())
    }
}
