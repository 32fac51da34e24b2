//! What the command line tells a person, apart from the log: refusals, warnings, the reference, the effective settings.

use std::io::{self, Write};
use std::process::ExitCode;

use corelane::config::{Config, ConfigErrors, Loaded, Sources, print};

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

/// `corelane config check FILE`.
pub fn check(sources: &Sources) -> ExitCode {
    let name = sources.file.as_ref().map_or("the settings", |file| file.name.as_str());
    load(sources).map_or_else(|exit| exit, |_| show(&format!("{name}: a start with these settings would go on\n")))
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
