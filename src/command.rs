//! The arguments of the command line, and the sources of settings that they name.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use corelane::config::{Sources, sources};
use corelane::log::dump::{Decoder, DumpOptions};
use corelane_wire::describe::Records;

/// A drop-in Apache Kafka broker: an acknowledgement means that the record is on stable storage.
///
/// Without arguments it keeps its data in ./corelane-data and listens on 127.0.0.1:9092.
#[derive(Parser)]
#[command(name = "corelane", version)]
pub struct Corelane {
    #[command(flatten)]
    pub settings: Settings,
    /// End as soon as clients could be served.
    #[arg(long)]
    pub exit_when_ready: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Where settings come from, strongest first: --set, the environment (CORELANE_..., KAFKA_...), the file.
#[derive(Args)]
pub struct Settings {
    /// A server.properties, as Kafka's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One setting; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where topics lie: log.dirs.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Shards, each with a core of its own.
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Form of the log lines.
    #[arg(long, value_parser = ["plain", "json"])]
    pub log_format: Option<String>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Settings: what there is, what counts, what is wrong.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Files of partitions: what they hold, and whether it is whole.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
}

#[derive(Subcommand)]
pub enum LogCommand {
    /// Print segments, indexes and snapshots, line by line as kafka-dump-log does, and journals.
    Dump(DumpArguments),
    /// Read everything in data directories, or in directories of single partitions, and name what is damaged. Changes nothing, unless asked to repair.
    Verify {
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        /// Make what is only a hint again: indexes of offsets, times and transactions, and producer snapshots. The broker must not run.
        #[arg(long)]
        repair: bool,
    },
    /// Say what would open of the data directories of an Apache Kafka node, and what does not carry over. Directories open in place: to import them, start on them.
    Import {
        #[arg(required = true, value_name = "DIR")]
        directories: Vec<PathBuf>,
        /// Look only. There is no other way: a start does the rest.
        #[arg(long, required = true)]
        dry_run: bool,
    },
}

/// The options are those of kafka-dump-log.
#[derive(Args)]
pub struct DumpArguments {
    /// Files with their full names: 00000000000000000000.log, .index, .timeindex, .txnindex, .snapshot, a metadata snapshot's .checkpoint, or a journal.
    #[arg(value_name = "FILE", required_unless_present = "files")]
    paths: Vec<PathBuf>,
    /// The same, as kafka-dump-log takes them.
    #[arg(long, value_name = "FILE,FILE", value_delimiter = ',')]
    files: Vec<PathBuf>,
    /// Print the records with their keys and values.
    #[arg(long)]
    print_data_log: bool,
    /// Print the records without their keys and values.
    #[arg(long)]
    deep_iteration: bool,
    /// Print keys and values only, and no control records.
    #[arg(long)]
    skip_record_metadata: bool,
    /// Records are those of __consumer_offsets.
    #[arg(long, group = "decoder")]
    offsets_decoder: bool,
    /// Records are those of __transaction_state.
    #[arg(long, group = "decoder")]
    transaction_log_decoder: bool,
    /// Records are those of __share_group_state.
    #[arg(long, group = "decoder")]
    share_group_state_decoder: bool,
    /// Records are those of __cluster_metadata.
    #[arg(long, group = "decoder")]
    cluster_metadata_decoder: bool,
    /// Stop with the batch that reaches so many bytes of a file.
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX, hide_default_value = true)]
    pub max_bytes: u64,
}

impl DumpArguments {
    pub fn paths(&self) -> Vec<PathBuf> {
        self.paths.iter().chain(&self.files).cloned().collect()
    }

    pub fn options(&self) -> DumpOptions {
        let decoder = match (self.offsets_decoder, self.transaction_log_decoder, self.share_group_state_decoder) {
            (true, _, _) => Some(Decoder::Coordinator(Records::Groups)),
            (_, true, _) => Some(Decoder::Coordinator(Records::Transactions)),
            (_, _, true) => Some(Decoder::Coordinator(Records::Shares)),
            _ => self.cluster_metadata_decoder.then_some(Decoder::ClusterMetadata),
        };
        let payload = self.print_data_log || decoder.is_some() || self.skip_record_metadata;
        DumpOptions { records: payload || self.deep_iteration, payload, skip_metadata: self.skip_record_metadata, decoder }
    }
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print every setting with its type, default, range and meaning.
    Reference,
    /// Print the settings that a start with the same arguments would use, with their sources.
    Effective {
        #[command(flatten)]
        settings: Settings,
    },
    /// Say what a start with this file would refuse or warn of.
    Check {
        /// A server.properties.
        file: PathBuf,
        #[command(flatten)]
        settings: Settings,
    },
}

impl Corelane {
    /// Reads the file if one is named, and puts the arguments over it.
    pub fn sources(&self) -> Result<Sources, String> {
        let file = self.file().map(read).transpose()?;
        Ok(Sources { file, environment: environment(), arguments: self.pairs()? })
    }

    fn file(&self) -> Option<&PathBuf> {
        match &self.command {
            Some(Command::Config { command: ConfigCommand::Check { file, .. } }) => Some(file),
            Some(Command::Config { command: ConfigCommand::Effective { settings } }) => {
                settings.config.as_ref().or(self.settings.config.as_ref())
            }
            _ => self.settings.config.as_ref(),
        }
    }

    /// What stands before the command, then what stands after it.
    fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let mut pairs = self.settings.pairs()?;
        if let Some(Command::Config { command: ConfigCommand::Check { settings, .. } | ConfigCommand::Effective { settings } }) =
            &self.command
        {
            pairs.extend(settings.pairs()?);
        }
        Ok(pairs)
    }
}

impl Settings {
    fn pairs(&self) -> Result<Vec<(String, String)>, String> {
        let mut pairs = Vec::new();
        for text in &self.set {
            let (key, value) = text.split_once('=').ok_or_else(|| format!("--set {text}: KEY=VALUE is wanted"))?;
            pairs.push((key.trim().to_string(), value.to_string()));
        }
        pairs.extend(self.data_dir.iter().map(|directory| ("log.dirs".to_string(), directory.clone())));
        pairs.extend(self.shards.iter().map(|shards| ("shards".to_string(), shards.to_string())));
        pairs.extend(self.log_format.iter().map(|format| ("log.format".to_string(), format.clone())));
        Ok(pairs)
    }
}

fn read(path: &PathBuf) -> Result<sources::File, String> {
    let content = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(sources::File { name: path.display().to_string(), content })
}

/// Variables that are no text cannot be settings.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_become_settings() {
        Corelane::command().debug_assert();
        let line = ["corelane", "--set", "a=b=c", "--data-dir", "/d", "config", "effective", "--shards", "2", "--set", " x = y"];
        let pairs = Corelane::try_parse_from(line).expect("a legal line").pairs().expect("pairs");
        let told: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(told, [("a", "b=c"), ("log.dirs", "/d"), ("x", " y"), ("shards", "2")]);
        let wrong = Corelane::try_parse_from(["corelane", "--set", "a"]).expect("clap cannot know").pairs();
        assert_eq!(wrong.unwrap_err(), "--set a: KEY=VALUE is wanted");
    }
}
