//! Runs the pure machines: controller, group coordinators, background upkeep.

pub mod groups;
