//! Runs the pure machines: the controller, and the coordinators of groups and transactions; and lets producers expire.

pub mod controller;
#[cfg(test)]
mod controller_tests;
mod coordinators;
pub mod groups;
pub mod metadata_files;
pub mod producers;
#[cfg(test)]
mod testing;
pub mod transactions;
mod unserved_groups;
