//! How long the rebalances of a window took, and what they cost the broker.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Target;
use crate::cost::cpu_time;

#[derive(Default)]
pub struct Rebalances {
    /// The broker, if it is known.
    pid: Option<u32>,
    settled_ns: Vec<u64>,
    joined_ns: Vec<u64>,
    cpu_ns: Vec<u64>,
}

/// The broker's CPU time at some moment.
#[derive(Clone, Copy)]
pub struct Look(Option<Duration>);

impl Rebalances {
    pub fn watching(target: &Target) -> Rebalances {
        Rebalances { pid: target.watched.first().map(|watched| watched.pid), ..Rebalances::default() }
    }

    /// Right before a rebalance.
    pub fn look(&self) -> Look {
        Look(self.pid.and_then(|pid| cpu_time(pid).ok()))
    }

    /// Right after it: the time to the last assignment, and to the last answer about who is in.
    pub fn count(&mut self, before: Look, settled_ns: u64, joined_ns: u64) {
        self.settled_ns.push(settled_ns);
        self.joined_ns.push(joined_ns);
        if let (Look(Some(before)), Look(Some(after))) = (before, self.look()) {
            self.cpu_ns.push(after.saturating_sub(before).as_nanos() as u64);
        }
    }

    /// Medians.
    pub fn figures(&self) -> BTreeMap<String, f64> {
        let median_ms = |times: &[u64]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            times.get(times.len() / 2).map(|ns| *ns as f64 / 1e6)
        };
        let figures = [
            ("rebalance_settled_ms", median_ms(&self.settled_ns)),
            ("rebalance_joined_ms", median_ms(&self.joined_ns)),
            ("rebalance_cpu_ms", median_ms(&self.cpu_ns)),
            ("rebalances", Some(self.settled_ns.len() as f64).filter(|count| *count > 0.0)),
        ];
        figures.into_iter().filter_map(|(name, figure)| Some((name.to_string(), figure?))).collect()
    }
}
