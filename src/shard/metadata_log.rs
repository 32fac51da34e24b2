//! The metadata log of shard 0 as the controller sees it: an ordinary partition that is no topic.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Shard;
use crate::cluster::{METADATA_PARTITION, METADATA_TOPIC};
use crate::config::{CleanupPolicy, TopicSettings};
use crate::drive::controller::{Append, AppendFailure, Surroundings};
use crate::log::{AppendError, Origin, ValidatedBatch};
use crate::partition::{NewPartition, Partition};
use crate::rt;

/// Bytes of the log that the controller reads at a time when it starts.
const READ_BYTES: usize = 1 << 20;

/// How long a change of the metadata waits for room in the journal, which is kept for such changes: on a disk that stays full even that may be used up.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

impl Shard {
    /// The metadata log as recovery left it, or a new one.
    pub async fn open_metadata_log(&self) -> Result<Rc<Partition>, String> {
        let settings = metadata_settings(self.config().metadata_log_segment_bytes(), self.config().metadata_log_segment_ms());
        let recovered = self.recovered.borrow_mut().remove(&METADATA_PARTITION);
        if let Some(recovered) = recovered {
            return Ok(self.partitions.open(recovered, Arc::from(METADATA_TOPIC), &settings));
        }
        let config = self.config();
        let wanted = config.metadata_log_directory();
        let directory = self.directories.iter().find(|directory| directory.path == wanted).unwrap_or(&self.directories[0]);
        let new = NewPartition {
            id: METADATA_PARTITION,
            topic: Arc::from(METADATA_TOPIC),
            data_directory: directory.path.clone(),
            directory_id: directory.id,
        };
        self.partitions.create(new, &settings).await.map_err(|error| error.to_string())
    }

    /// What the controller needs of this shard and the others.
    pub fn surroundings(self: &Rc<Shard>, log: Rc<Partition>) -> Surroundings {
        let (reading, appending, shard, making) = (Rc::clone(&log), Rc::clone(&log), Rc::downgrade(self), Rc::downgrade(self));
        Surroundings {
            read: Box::new(move |offset| {
                let log = Rc::clone(&reading);
                Box::pin(async move { read(&log, offset).await })
            }),
            append: Box::new(move |wanted| {
                let log = Rc::clone(&appending);
                Box::pin(async move { append(&log, wanted).await })
            }),
            publish: Box::new(move |image| {
                let shard = shard.upgrade();
                Box::pin(async move {
                    if let Some(shard) = shard {
                        shard.publish(image).await;
                    }
                })
            }),
            has_room: Box::new(move || {
                let takes_partitions =
                    |shard: Rc<Shard>| shard.directories.iter().any(|directory| shard.partitions.takes_records_in(directory));
                log.has_disk_room() && making.upgrade().is_some_and(takes_partitions)
            }),
        }
    }
}

/// A metadata log keeps its records until a snapshot covers them.
fn metadata_settings(segment_bytes: i32, segment_ms: i64) -> TopicSettings {
    TopicSettings {
        segment_bytes,
        segment_ms,
        retention_ms: -1,
        retention_bytes: -1,
        max_message_bytes: i32::MAX,
        cleanup_policy: CleanupPolicy { compact: false, delete: true },
        ..TopicSettings::default()
    }
}

async fn read(log: &Partition, offset: i64) -> Result<Bytes, String> {
    if offset >= log.high_watermark() {
        return Ok(Bytes::new());
    }
    log.read(offset, READ_BYTES).await.map_err(|refusal| {
        let directory = log.directory();
        format!("{} cannot be read from offset {offset} on ({refusal:?}); the lines before say why", directory.display())
    })
}

async fn append(log: &Partition, wanted: Append) -> Result<(), AppendFailure> {
    let failed = |error: AppendError| AppendFailure::Failed(error.to_string());
    log.become_leader(wanted.epoch);
    let mut next_offset = wanted.base_offset;
    let mut last = None;
    for batch in wanted.batches {
        let batch = ValidatedBatch::internal(batch);
        let appending = log.append(&batch, Origin::INTERNAL);
        // Behind the first batch the others follow, however long it takes.
        let appending = match last {
            None => rt::timeout(ROOM_PATIENCE, appending).await.map_err(|rt::Elapsed| AppendFailure::NoRoom)?,
            Some(_) => appending.await,
        };
        let appending = appending.map_err(failed)?;
        assert_eq!(appending.base_offset, next_offset, "the controller alone writes the metadata log");
        next_offset = appending.last_offset + 1;
        last = Some(appending.sequence);
    }
    match last {
        Some(sequence) => log.wait_durable(sequence).await.map_err(failed),
        None => Ok(()),
    }
}
