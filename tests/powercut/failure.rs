//! Why a life ends before its last cut, and how much that says: a promise that was not kept is what these tests look for, everything else is only in their way.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::history::Broken;

#[derive(Clone, Debug)]
pub enum Failure {
    /// Somebody was told something that is not so.
    Broken(Broken),
    /// The broker neither becomes ready nor ends.
    EndlessStart(String),
    /// The broker ends before it is ready; what it says.
    RefusedStart(String),
    /// The broker ended otherwise, or the rig did not hold: no promise was looked at.
    Other(String),
}

impl Failure {
    /// The same failure, told in other words.
    pub fn told(self, tell: impl FnOnce(String) -> String) -> Failure {
        match self {
            Failure::Broken(words) => Failure::Broken(tell(words)),
            Failure::EndlessStart(words) => Failure::EndlessStart(tell(words)),
            Failure::RefusedStart(words) => Failure::RefusedStart(tell(words)),
            Failure::Other(words) => Failure::Other(tell(words)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let (Failure::Broken(words) | Failure::EndlessStart(words) | Failure::RefusedStart(words) | Failure::Other(words)) = self;
        formatter.write_str(words)
    }
}

/// Compares. A comparison gives up by a panic where it cannot go on, as when a topic is not there any more or a batch's checksum is wrong: then its words.
pub fn comparing<T>(compare: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(compare)).map_err(|panic| match panic.downcast::<String>() {
        Ok(words) => *words,
        Err(panic) => panic.downcast_ref::<&str>().map_or_else(|| "a panic without words".into(), |words| words.to_string()),
    })
}
