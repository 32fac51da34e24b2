//! What the command line tells a person, apart from the log: refusals, warnings, the reference, the effective settings.

use std::io::{self, Write};
use std::process::ExitCode;

use corelane::config::{Config, ConfigErrors, Loaded, Sources, print};

use super::start;

/// Says why there is no start.
pub fn refuse(message: &str) -> ExitCode {
    eprintln!("corelane: {message}");
    ExitCode::FAILURE
}

/// The checked settings of a start. What is doubtful is said; what is wrong ends it, every mistake named at once.
pub fn load(sources: &Sources) -> Result<Config, ExitCode> {
    match Config::load(sources) {
        Ok(Loaded { config, warnings }) => {
            warn(&warnings);
            Ok(config)
        }
        Err(ConfigErrors { errors, warnings }) => {
            warn(&warnings);
            errors.iter().for_each(|error| eprintln!("corelane: {error}"));
            Err(ExitCode::FAILURE)
        }
    }
}

/// `corelane config reference`.
pub fn print_reference() -> ExitCode {
    show(&print::reference())
}

/// `corelane config effective`.
pub fn print_effective(sources: &Sources) -> ExitCode {
    load(sources).map_or_else(|exit| exit, |config| show(&print::effective(&config)))
}

/// `corelane config check FILE`. Hosts of listeners are looked up as a start does; what the machine has to give beyond that only a start sees.
pub fn check(sources: &Sources) -> ExitCode {
    let name = sources.file.as_ref().map_or("the settings", |file| file.name.as_str());
    let config = match load(sources) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let unknown: Vec<_> = config.broker_listeners().filter_map(|listener| start::addresses(listener).err()).collect();
    unknown.iter().for_each(|refusal| eprintln!("corelane: {refusal}"));
    if unknown.is_empty() { show(&format!("{name}: a start with these settings would go on\n")) } else { ExitCode::FAILURE }
}

/// A reader that has seen enough (`| head`) is no failure.
fn show(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => refuse(&format!("cannot write: {error}")),
        _ => ExitCode::SUCCESS,
    }
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| eprintln!("corelane: warning: {warning}"));
}
