//! The command line: arguments, settings, preflight, shards, and the wait for a signal.

fn main() {}
