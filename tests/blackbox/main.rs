//! What clients see of a broker, on one broker that all cases share.

mod clients;

use std::process::ExitCode;

use harness::broker::BrokerOptions;
use harness::suite::{self, SharedBroker};

fn main() -> ExitCode {
    let shared = SharedBroker::new(BrokerOptions::default());
    let mut trials = Vec::new();
    trials.extend(clients::trials(&shared));
    suite::main(trials, &shared)
}
