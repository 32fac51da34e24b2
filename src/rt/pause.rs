//! Turns for others within a loop over many things that take a fraction of a microsecond each.

use super::yield_now;

/// Steps between two turns where nobody says otherwise: some tens of microseconds.
const STEPS_AT_ONCE: usize = 256;

/// Counts the steps of a loop and lets the shard's other tasks run now and then.
pub struct Pause {
    steps: usize,
    steps_at_once: usize,
}

impl Default for Pause {
    fn default() -> Self {
        Self::every(STEPS_AT_ONCE)
    }
}

impl Pause {
    /// For steps that take longer, or less long.
    pub const fn every(steps_at_once: usize) -> Self {
        Self { steps: 0, steps_at_once }
    }

    /// Called once in each round of the loop.
    pub async fn step(&mut self) {
        self.steps += 1;
        if self.steps == self.steps_at_once {
            self.steps = 0;
            yield_now().await;
        }
    }
}
