//! Preflight: what the machine must give before any shard starts, looked at in one go. Any thread.
//!
//! First everything is looked at and nothing is changed; if anything is missing, one message names each cause with its remedy, and the caller exits with [`EXIT_CODE`]. Only then directories are
//! made and locked. Limits of this process are raised as far as the system allows on the way; that leaves no trace.

use std::fmt;
use std::path::{Path, PathBuf};

mod directory;
mod system;

pub use directory::{Directory, lock_if_there};

/// EX_CONFIG of sysexits.h: the machine or the settings have to change; starting again as it is will not help.
pub const EXIT_CODE: i32 = 78;

/// What the broker is going to need.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Data directories (`log.dirs`).
    pub data_directories: Vec<PathBuf>,
    /// Files that will be written in full, with their sizes: the journals. Their directories are examined and locked like data directories.
    pub reserved_files: Vec<(PathBuf, u64)>,
    /// Descriptors without which the broker can hardly work.
    pub descriptors_min: u64,
    /// Descriptors that 10,000 partitions need, connections included.
    pub descriptors_for_10_000_partitions: u64,
}

/// A machine that is fit, and its directories, locked for as long as this value lives.
#[derive(Debug)]
pub struct Passed {
    /// All directories of the plan, each once.
    pub directories: Vec<Directory>,
    /// What works but not well, a sentence or two each, for the log.
    pub warnings: Vec<String>,
}

impl Passed {
    /// Whether files in that directory of the plan are to be opened past the page cache.
    pub fn is_direct(&self, directory: &Path) -> bool {
        self.directories.iter().any(|known| known.path == directory && known.is_direct)
    }
}

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub cause: String,
    pub remedy: String,
}

/// All that is missing. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightError {
    pub problems: Vec<Problem>,
}

/// Looks at everything; then makes and locks the directories.
pub fn check(plan: &Plan) -> Result<Passed, PreflightError> {
    let mut findings = Findings::default();
    system::check(plan, &mut findings);
    let paths = directories_of(plan);
    let surveys: Vec<_> = paths.iter().map(|path| directory::survey(path, &mut findings)).collect();
    directory::check_room(&surveys, plan, &mut findings);
    let mut warnings = findings.into_result()?;
    warnings.extend(system::warnings(plan));
    warnings.extend(surveys.iter().flatten().filter_map(directory::Survey::warning));
    Ok(Passed { directories: take_possession(surveys.into_iter().flatten())?, warnings })
}

/// Everything was fit. What still fails from here on changed under our eyes, and what was made by then is taken back.
fn take_possession(surveys: impl Iterator<Item = directory::Survey>) -> Result<Vec<Directory>, PreflightError> {
    let mut directories = Vec::new();
    for survey in surveys {
        match survey.take_possession() {
            Ok(directory) => directories.push(directory),
            Err(problem) => {
                directories.into_iter().for_each(Directory::undo);
                return Err(PreflightError { problems: vec![problem] });
            }
        }
    }
    Ok(directories)
}

#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
    warnings: Vec<String>,
}

impl Findings {
    fn problem(&mut self, cause: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { cause: cause.into(), remedy: remedy.into() });
    }

    fn into_result(self) -> Result<Vec<String>, PreflightError> {
        if self.problems.is_empty() { Ok(self.warnings) } else { Err(PreflightError { problems: self.problems }) }
    }
}

fn directories_of(plan: &Plan) -> Vec<PathBuf> {
    let mut directories = plan.data_directories.clone();
    directories.extend(plan.reserved_files.iter().filter_map(|(path, _)| path.parent().map(Path::to_path_buf)));
    let mut seen = Vec::new();
    directories.retain(|directory| {
        !seen.contains(directory) && {
            seen.push(directory.clone());
            true
        }
    });
    directories
}

impl fmt::Display for PreflightError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("cannot start on this machine as it is; nothing was written.")?;
        for Problem { cause, remedy } in &self.problems {
            write!(formatter, "\n  cause:  {cause}\n  remedy: {remedy}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PreflightError {}

#[cfg(test)]
mod tests;
