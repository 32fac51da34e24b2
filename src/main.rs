//! The command line: arguments, settings, preflight, shards, and the wait for a signal.

mod command;
mod log_dump;
mod log_import;
mod log_journal;
mod log_verify;
mod output;
#[cfg(feature = "profile")]
mod profile;
mod start;

use std::process::ExitCode;

use clap::Parser;
use corelane::logging;

use self::command::{Command, ConfigCommand, Corelane, LogCommand};

// glibc pays 1.1 us for a free on another core than that of the allocation; here every produce frees its buffers across shards.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Corelane::parse();
    let sources = match arguments.sources() {
        Ok(sources) => sources,
        Err(message) => return output::refuse(&message),
    };
    match &arguments.command {
        Some(Command::Config { command: ConfigCommand::Reference }) => output::print_reference(),
        Some(Command::Config { command: ConfigCommand::Effective { .. } }) => output::print_effective(&sources),
        Some(Command::Config { command: ConfigCommand::Check { .. } }) => output::check(&sources),
        Some(Command::Log { command: LogCommand::Dump(arguments) }) => log_dump::run(arguments),
        Some(Command::Log { command: LogCommand::Verify { directories, repair } }) => log_verify::run(directories, *repair),
        Some(Command::Log { command: LogCommand::Import { directories, .. } }) => log_import::run(directories),
        None => match output::load(&sources) {
            Ok(config) => {
                let _logging = logging::start(&config);
                #[cfg(feature = "profile")]
                let _profile = profile::Profile::start();
                start::run(config, arguments.exit_when_ready)
            }
            Err(exit) => exit,
        },
    }
}
