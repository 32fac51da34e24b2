//! What clients see of a broker, on one broker that all cases share, and of one that tidies its logs all the time.

mod admin;
mod clients;
mod compaction;
mod connection;
mod consumer_groups;
mod fetch;
mod groups;
mod idempotence;
mod kcat;
mod metadata;
mod mixed_group;
mod offsets;
mod produce;
mod rdkafka_client;
mod retention;
mod rskafka_client;
mod streams;
mod transactions;

use std::process::ExitCode;

use harness::broker::BrokerOptions;
use harness::suite::{self, Case, SharedBroker};

fn main() -> ExitCode {
    // Late transactions are looked for so often that a test can wait for it.
    let options = BrokerOptions::default().set("transaction.abort.timed.out.transaction.cleanup.interval.ms", 1_000);
    let shared = SharedBroker::new(options);
    let mut trials = Vec::new();
    trials.extend(clients::trials(&shared));
    for (client, cases) in CLIENTS {
        trials.extend(suite::trials(&format!("clients::{client}"), cases, &shared));
    }
    for (module, cases) in PROTOCOL {
        trials.extend(suite::trials(&format!("protocol::{module}"), cases, &shared));
    }
    let tidy = SharedBroker::new(retention::options());
    trials.extend(suite::trials("storage::retention", retention::CASES, &tidy));
    trials.extend(suite::trials("storage::compaction", compaction::CASES, &tidy));
    let spread = SharedBroker::new(BrokerOptions { more_directories: 1, ..BrokerOptions::default() });
    trials.extend(clients::trials_of_two_directories(&spread));
    suite::main(trials, &[shared, tidy, spread])
}

/// Cases that speak the protocol by hand, by module.
const PROTOCOL: &[(&str, &[Case])] = &[
    ("connection", connection::CASES),
    ("produce", produce::CASES),
    ("idempotence", idempotence::CASES),
    ("fetch", fetch::CASES),
    ("offsets", offsets::CASES),
    ("metadata", metadata::CASES),
    ("groups", groups::CASES),
    ("consumer_groups", consumer_groups::CASES),
    ("admin", admin::CASES),
    ("transactions", transactions::course::CASES),
    ("transactions::refusals", transactions::refusals::CASES),
    ("transactions::offsets", transactions::offsets::CASES),
    ("transactions::operators", transactions::operators::CASES),
    ("transactions::hazards", transactions::hazards::CASES),
];

/// Clients that are driven from here, without a program of their own.
const CLIENTS: &[(&str, &[Case])] = &[
    ("rdkafka", rdkafka_client::CASES),
    ("rskafka", rskafka_client::CASES),
    ("kcat", kcat::CASES),
    ("mixed_group", mixed_group::CASES),
    ("streams", streams::CASES),
];
