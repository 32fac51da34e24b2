//! `with-broker [key=value].. -- COMMAND..`: runs a command beside a fresh broker, and ends the broker with it.
//!
//! The broker is the one at hand (CORELANE_TEST_AGAINST) with the settings of the black-box suite and those given. The command finds its address in the environment, under the
//! names that client libraries' own test suites look for: KAFKA_HOST, KAFKA_CONNECT and BOOTSTRAP_SERVERS. Its exit code is ours.

use std::process::{Command, ExitCode};

use harness::broker::{Broker, BrokerOptions};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut parts = arguments.splitn(2, |argument| argument == "--");
    let (settings, command) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some((program, arguments)) = command.split_first() else {
        eprintln!("usage: with-broker [key=value].. -- COMMAND..");
        return ExitCode::from(2);
    };
    let mut options = BrokerOptions::default();
    for setting in settings {
        let Some((key, value)) = setting.split_once('=') else {
            eprintln!("`{setting}` is not key=value");
            return ExitCode::from(2);
        };
        options = options.set(key, value);
    }
    let broker = Broker::start(options);
    let mut command = Command::new(program);
    command.args(arguments);
    for name in ["KAFKA_HOST", "KAFKA_CONNECT", "BOOTSTRAP_SERVERS"] {
        command.env(name, broker.bootstrap());
    }
    match command.status() {
        Ok(status) => ExitCode::from(status.code().unwrap_or(1) as u8),
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::from(127)
        }
    }
}
