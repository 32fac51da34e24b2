//! Settings of a client metrics subscription (KIP-714).

use super::*;

pub(super) const ROWS: &[Setting] = settings! {
    /// Beginnings of the names of the metrics that clients push; empty is none, `*` all.
    "metrics": List = "", Items(MayBeEmpty), Alone, Later;

    /// How often clients push, 100 ms to 1 hour.
    "interval.ms": Int = "300000", Any, Alone, Later;

    /// Which clients: `client_software_name=` and the like, each with a regular expression.
    "match": List = "", Items(MayBeEmpty), Alone, Later;
};
