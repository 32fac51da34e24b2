//! Faults that a test can give the broker (`CORELANE_PLANT`), to show that its harness finds them: what is left out here loses acknowledged records at the next power cut.
//!
//! Only the build with the feature `trace` has them; in any other each question is answered no at compile time. It stands in the lowest room because some of the steps do.

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The journal's groups are written without DSYNC, and its flushes do nothing.
    NoFlush,
    /// A duplicate is answered before its original is durable.
    EarlyDuplicate,
    /// Flushing a directory does nothing.
    NoDirectoryFlush,
    /// Replay takes a group for the next one whatever its sequence is.
    NoSequence,
    /// Recovery does not cut the journal at the first torn group, nor files at the log's end.
    NoCut,
    /// The append that begins a segment is acknowledged before it is durable.
    EarlyRoll,
    /// Placement does not flush what it has written before the ring's space is taken again.
    EarlyRelease,
}

#[cfg(not(feature = "trace"))]
pub const fn is_planted(_: Plant) -> bool {
    false
}

#[cfg(feature = "trace")]
pub fn is_planted(plant: Plant) -> bool {
    use std::sync::LazyLock;
    static PLANTED: LazyLock<Option<Plant>> = LazyLock::new(|| std::env::var("CORELANE_PLANT").ok().map(|name| named(&name)));
    *PLANTED == Some(plant)
}

#[cfg(feature = "trace")]
fn named(name: &str) -> Plant {
    match name {
        "no-flush" => Plant::NoFlush,
        "early-duplicate" => Plant::EarlyDuplicate,
        "no-directory-flush" => Plant::NoDirectoryFlush,
        "no-sequence" => Plant::NoSequence,
        "no-cut" => Plant::NoCut,
        "early-roll" => Plant::EarlyRoll,
        "early-release" => Plant::EarlyRelease,
        _ => panic!("CORELANE_PLANT={name}: there is no such fault"),
    }
}
