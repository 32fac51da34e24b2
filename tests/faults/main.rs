//! What happens when things go wrong: brokers killed, stopped, started twice, attacked. Each case starts brokers of its own, one case after the other.

mod crash;
mod crossing;
mod directories;
mod files;
mod full_disk;
mod groups;
mod hostile;
mod limits;
mod listeners;
mod output;
mod preflight;
mod process;
mod producers;
mod rounds;
mod settings;
mod soak;
mod sources;
mod start;
mod stop;
mod transactions;
mod writer;

use std::process::ExitCode;

use harness::suite::own_broker_trials;
use libtest_mimic::Trial;

fn main() -> ExitCode {
    let mut trials: Vec<Trial> = Vec::new();
    trials.extend(own_broker_trials("crash", crash::CASES));
    trials.extend(own_broker_trials("stop", stop::CASES));
    trials.extend(own_broker_trials("start", start::CASES));
    trials.extend(own_broker_trials("files", files::CASES));
    trials.extend(own_broker_trials("settings", settings::CASES));
    trials.extend(own_broker_trials("sources", sources::CASES));
    trials.extend(own_broker_trials("output", output::CASES));
    trials.extend(own_broker_trials("preflight", preflight::CASES));
    trials.extend(own_broker_trials("listeners", listeners::CASES));
    trials.extend(own_broker_trials("limits", limits::CASES));
    trials.extend(own_broker_trials("crossing", crossing::CASES));
    trials.extend(own_broker_trials("transactions", transactions::CASES));
    trials.extend(own_broker_trials("groups", groups::CASES));
    trials.extend(own_broker_trials("producers", producers::CASES));
    trials.extend(own_broker_trials("directories", directories::CASES));
    trials.extend(full_disk::trials());
    trials.extend(own_broker_trials("hostile", hostile::CASES));
    trials.extend(own_broker_trials("soak::groups", soak::GROUPS));
    trials.extend(own_broker_trials("soak::transactions", soak::TRANSACTIONS));
    harness::suite::main_one_by_one(trials)
}
