//! A shard over data directories that several lives share: each life begins with recovery and ends by a clean stop, or as a killed process does.

use super::*;
use crate::disk::directories::DataDirectory;
use crate::disk::recovery::{RecoveryOptions, data_directory, mark_clean_blocking, recover_blocking};

/// Segments of a few batches.
pub fn settings() -> TopicSettings {
    TopicSettings { internal_segment_bytes: Some(20_000), index_interval_bytes: 700, ..TopicSettings::default() }
}

/// What a life has to work with.
pub struct Home {
    pub directories: Vec<DataDirectory>,
    pub placement: Rc<Placement>,
    pub partitions: Rc<Partitions>,
}

impl Home {
    /// A partition of the topic `orders`; made in the first directory if it does not exist.
    pub async fn create(&self, id: TopicIdPartition) -> Rc<Partition> {
        let DataDirectory { path, id: directory_id, .. } = &self.directories[0];
        let new = NewPartition { id, topic: Arc::from("orders"), data_directory: path.clone(), directory_id: *directory_id };
        self.partitions.create(new, &settings()).await.unwrap()
    }
}

/// One life over `data`, folders of `parent`. Where it is clean, `body` ends with `Partitions::shut_down`.
pub fn live_in<T: Send + 'static, F: Future<Output = T>>(
    parent: &Path,
    data: &[&str],
    journal_bytes: u64,
    is_clean: bool,
    options: PartitionsOptions,
    body: impl FnOnce(Rc<Home>) -> F + Send + 'static,
) -> T {
    let paths: Vec<_> = data.iter().map(|name| parent.join(name)).collect();
    let (_, directories) = data_directory::open_blocking(&paths, 1, None).unwrap();
    let journal_directory = parent.join("journal");
    let recovered = recover_blocking(&RecoveryOptions {
        data_directories: &directories,
        journal_directory: &journal_directory,
        journal_bytes,
        shards: 1,
        owner: &|_| 0,
        direct: true,
        now_ms: rt::wall_clock_ms(),
    });
    let mut recovered = recovered.unwrap_or_else(|error| panic!("{error}"));
    let start = recovered.shards.remove(0);
    let (known, deleted) = (directories.clone(), recovered.report.deleted);
    let outcome = rt::run(move || async move {
        let (journal, placement) = start.begin();
        let options = PartitionsOptions { files_are_whole: start.files_are_whole, ..options };
        let partitions = Partitions::new(journal, placement.clone(), options);
        partitions.remove_directories(deleted);
        for recovered in start.partitions {
            partitions.open(recovered, Arc::from("orders"), &settings());
        }
        body(Rc::new(Home { directories: known, placement, partitions })).await
    });
    if is_clean {
        mark_clean_blocking(&journal_directory, &directories, 1).unwrap();
    }
    outcome
}
