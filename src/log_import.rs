//! `corelane log import DIR --dry-run`: what would open here of a data directory that Apache Kafka has written, and what does not carry over. Nothing is changed.
//!
//! There is no other import: a directory opens in place, by starting on it. So this command looks at what a start looks at, and at what a start would do to what it finds.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use corelane::cluster::{Image, METADATA_VERSION_LATEST};
use corelane::disk::directories::{FoundPartition, find_partitions_blocking, read_meta_properties_blocking};
use corelane::drive::metadata_files::look_blocking;
use corelane::log::directory_files::encode_uuid;
use corelane::log::file_names::{CLEAN_SHUTDOWN, LogFileKind, future_of};

use crate::output;

const METADATA_DIRECTORY: &str = "__cluster_metadata-0";
/// Where a batch says its format.
const MAGIC_POSITION: usize = 16;
const MAGIC: u8 = 2;

/// Exit code 0 if the directories open, 1 if a start would refuse them.
pub fn run(directories: &[PathBuf]) -> ExitCode {
    match Import::look(directories) {
        Ok(import) => import.tell(),
        Err(message) => output::refuse(&message),
    }
}

#[derive(Default)]
struct Import {
    /// What opens, line by line.
    opens: Vec<String>,
    /// What a start would refuse.
    refusals: Vec<String>,
    /// What is there and does not work here, or changes.
    remarks: Vec<String>,
}

impl Import {
    fn look(directories: &[PathBuf]) -> Result<Import, String> {
        let mut import = Import::default();
        let (mut node_ids, mut clusters, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        for directory in directories {
            let told = read_meta_properties_blocking(directory).map_err(|error| error.to_string())?;
            let Some(properties) = told else {
                return Err(format!("{}: there is no meta.properties, so it is no data directory", directory.display()));
            };
            import.opens.push(format!(
                "{}: cluster {}, node {}, stopped {}",
                directory.display(),
                properties.cluster_id,
                properties.node_id,
                if directory.join(CLEAN_SHUTDOWN).exists() {
                    "cleanly"
                } else {
                    "without a clean stop: a start reads what was not flushed, batch by batch"
                },
            ));
            node_ids.push(properties.node_id);
            clusters.push(properties.cluster_id);
            ids.extend(properties.directory_id);
        }
        if node_ids.windows(2).any(|pair| pair[0] != pair[1]) || clusters.windows(2).any(|pair| pair[0] != pair[1]) {
            import.refusals.push("the directories are of different nodes or clusters".to_owned());
        }
        let image = import.metadata(directories, node_ids[0], &ids)?;
        let mut found = Vec::new();
        for directory in directories {
            found.extend(import.directory(directory).map_err(|error| format!("{}: {error}", directory.display()))?);
        }
        import.topics(&image, &found);
        import.kept(&image);
        Ok(import)
    }

    /// Features, voters, and the cluster's metadata.
    fn metadata(&mut self, directories: &[PathBuf], node_id: i32, ids: &[uuid::Uuid]) -> Result<Image, String> {
        let parent = directories.iter().find(|directory| directory.join(METADATA_DIRECTORY).is_dir());
        let Some(parent) = parent else {
            self.refusals.push(format!("none of the directories holds {METADATA_DIRECTORY}: a broker without its controller's metadata"));
            return Ok(Image::empty());
        };
        match look_blocking(parent, node_id, ids, directories) {
            Ok((image, reasons)) => {
                let features: Vec<String> = image.features().map(|(name, level)| format!("{name}={level}")).collect();
                self.opens.push(format!("finalised features: {}", features.join(", ")));
                self.refusals.extend(reasons);
                Ok(image)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// What a walk through a data directory finds.
    fn directory(&mut self, directory: &Path) -> io::Result<Vec<FoundPartition>> {
        let found = find_partitions_blocking(directory).map_err(|error| io::Error::other(error.to_string()))?;
        if !found.retired.is_empty() {
            self.remarks.push(format!("{}: {} directories of deleted partitions, which go", directory.display(), found.retired.len()));
        }
        for other in found.others {
            let name = other.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let fate =
                if future_of(&name).is_some() { "a replica on its way, whose copy is begun anew" } else { "no partition; left alone" };
            self.remarks.push(format!("{}: {fate}", other.display()));
        }
        Ok(found.partitions)
    }

    fn topics(&mut self, image: &Image, found: &[FoundPartition]) {
        let mut by_topic: BTreeMap<&str, Vec<&FoundPartition>> = BTreeMap::new();
        for partition in found.iter().filter(|partition| !partition.path.ends_with(METADATA_DIRECTORY)) {
            match image.topic(&partition.topic).filter(|topic| partition.topic_id.is_none_or(|id| id == topic.id)) {
                Some(_) => by_topic.entry(&partition.topic).or_default().push(partition),
                None => self.remarks.push(format!("{}: no topic of the metadata has it; it would be removed", partition.path.display())),
            }
        }
        for topic in image.topics() {
            let here = by_topic.remove(&*topic.name).unwrap_or_default();
            let mut extent = Extent::default();
            for partition in &here {
                match Extent::of(&partition.path) {
                    Ok(more) => extent.add(&more),
                    Err(error) => self.remarks.push(format!("{}: {error}", partition.path.display())),
                }
            }
            self.opens.push(format!(
                "topic {} ({}): {} of {} partitions here, {} segments, {} bytes",
                topic.name,
                encode_uuid(topic.id),
                here.len(),
                topic.partition_count(),
                extent.segments,
                extent.bytes
            ));
            let old = extent.old_segments.iter();
            self.refusals
                .extend(old.map(|path| format!("{}: record batches of a format before 2, which would be set aside", path.display())));
            if image.topic_overrides(&topic.name).any(|(key, value)| key == "remote.storage.enable" && value == "true") {
                self.remarks.push(format!("topic {}: what lies in remote storage is not read here", topic.name));
            }
        }
    }

    /// Records of the metadata that are kept as they are, and have no effect here.
    fn kept(&mut self, image: &Image) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in image.records(METADATA_VERSION_LATEST) {
            *counts.entry(record.name()).or_default() += 1;
        }
        for (name, what) in [
            ("AccessControlEntryRecord", "access control entries"),
            ("UserScramCredentialRecord", "SCRAM credentials"),
            ("DelegationTokenRecord", "delegation tokens"),
            ("ClientQuotaRecord", "client quotas"),
        ] {
            if let Some(count) = counts.get(name) {
                self.remarks.push(format!("{count} {what}: kept in the metadata, without effect here"));
            }
        }
        if image.topic("__share_group_state").is_some() {
            self.remarks.push("share groups: their state is kept as records, and none is served".to_owned());
        }
    }

    fn tell(&self) -> ExitCode {
        self.opens.iter().for_each(|line| println!("{line}"));
        self.remarks.iter().for_each(|line| println!("remark: {line}"));
        self.refusals.iter().for_each(|line| println!("refused: {line}"));
        if self.refusals.is_empty() {
            println!("It opens: name the directory in log.dirs and start. Nothing was changed.");
            ExitCode::SUCCESS
        } else {
            println!("It does not open. Nothing was changed.");
            ExitCode::FAILURE
        }
    }
}

/// What a partition's directory holds.
#[derive(Default)]
struct Extent {
    segments: usize,
    bytes: u64,
    /// Segments that begin with a batch of an older format.
    old_segments: Vec<PathBuf>,
}

impl Extent {
    fn of(directory: &Path) -> io::Result<Extent> {
        let mut extent = Extent::default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !matches!(LogFileKind::parse(&name), Some((LogFileKind::Log, _))) {
                continue;
            }
            extent.segments += 1;
            extent.bytes += fs::metadata(&path)?.len();
            if first_magic(&path)?.is_some_and(|magic| magic < MAGIC) {
                extent.old_segments.push(path);
            }
        }
        Ok(extent)
    }

    fn add(&mut self, other: &Extent) {
        self.segments += other.segments;
        self.bytes += other.bytes;
        self.old_segments.extend_from_slice(&other.old_segments);
    }
}

/// The format of the first batch; none in a segment without one. Zeros are prepared space.
fn first_magic(path: &Path) -> io::Result<Option<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(path)?.take(MAGIC_POSITION as u64 + 1).read_to_end(&mut head)?;
    let is_batch = head.len() > MAGIC_POSITION && head[8..12] != [0; 4];
    Ok(is_batch.then(|| head[MAGIC_POSITION]))
}
