//! `compare`: systems side by side in the same minutes, on fresh data in the same directory, on the same cores, in rotated order.
//!
//! A [`suite`] names cases and targets; [`systems`] starts and ends the brokers; [`rounds`] measures, throwing away what a disturbed machine spoilt; [`judge`] takes medians, ratios and
//! verdicts; [`tables`] prints them.

pub mod judge;
pub mod locate;
pub mod rounds;
#[cfg(test)]
pub mod samples;
pub mod startup;
pub mod suite;
pub mod systems;
pub mod tables;
