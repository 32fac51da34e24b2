//! What clients see of a broker, on one broker that all cases share.

mod admin;
mod clients;
mod connection;
mod fetch;
mod groups;
mod idempotence;
mod metadata;
mod offsets;
mod produce;

use std::process::ExitCode;

use harness::broker::BrokerOptions;
use harness::suite::{self, Case, SharedBroker};

fn main() -> ExitCode {
    let shared = SharedBroker::new(BrokerOptions::default());
    let mut trials = Vec::new();
    trials.extend(clients::trials(&shared));
    for (module, cases) in RAW {
        trials.extend(suite::trials(&format!("protocol::{module}"), cases, &shared));
    }
    suite::main(trials, &shared)
}

/// Cases that speak the protocol by hand, by module.
const RAW: &[(&str, &[Case])] = &[
    ("connection", connection::CASES),
    ("produce", produce::CASES),
    ("idempotence", idempotence::CASES),
    ("fetch", fetch::CASES),
    ("offsets", offsets::CASES),
    ("metadata", metadata::CASES),
    ("groups", groups::CASES),
    ("admin", admin::CASES),
];
