//! Workloads and suites that come with the binary, so that `compare --quick` needs no file.

/// By file name without ending.
macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../", $folder, "/", $name, ".toml")))),+]
    };
}

pub const WORKLOADS: &[(&str, &str)] = files!("workloads":
    "idle-tick",
    "one-thousand",
    "five-thousand",
    "twenty-thousand",
    "saturation",
    "share",
    "small-records",
    "large-records",
    "ten-partitions",
    "thousand-partitions",
    "four-producers",
    "fifty-producers",
    "five-in-flight",
    "keyed",
    "ten-tail-consumers",
    "end-to-end",
    "catch-up",
    "catch-up-beside-live",
    "fanout",
    "many-connections",
    "churning-connections",
    "groups",
    "transactions",
    "offsets",
);

pub const SUITES: &[(&str, &str)] = files!("suites": "quick", "full", "targets", "groups", "transactions");

pub fn workload(name: &str) -> Option<&'static str> {
    find(WORKLOADS, name)
}

pub fn suite(name: &str) -> Option<&'static str> {
    find(SUITES, name)
}

fn find(files: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    files.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::suite::Suite;
    use crate::workload::Workload;

    #[test]
    fn every_file_is_valid_and_every_file_is_here() {
        for (name, text) in WORKLOADS {
            let workload = Workload::parse(text).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(!workload.description.is_empty() && workload.check().is_ok(), "{name}");
        }
        for (name, text) in SUITES {
            let suite = Suite::parse(text, None).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert!(!suite.cases.is_empty() && !suite.leaves_out.is_empty(), "{name}");
        }
        for (folder, known) in [("workloads", WORKLOADS), ("suites", SUITES)] {
            for file in std::fs::read_dir(folder).expect("tests run in the package's folder") {
                let name = file.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned();
                assert!(known.iter().any(|(known, _)| *known == name), "{folder}/{name}.toml is not in builtin.rs");
            }
        }
    }
}
