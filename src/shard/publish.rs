//! A new image reaches the shards: owners make what is new, everybody sees it, owners let go of what is gone.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::message::{PublishStep, Request};
use super::{Call, Shard};
use crate::cluster::{Image, METADATA_PARTITION, PartitionImage, TopicIdPartition, TopicImage};
use crate::config::TopicSettings;
use crate::disk::directories::DataDirectory;
use crate::partition::{CleanerOptions, NewPartition};
use crate::rt::{self, ShardId};

/// Partitions that are made at once: each mostly waits for helper threads and their disk.
const MAKE_AT_ONCE: usize = 8;

/// Partitions that are made or opened between two looks at what else the shard has to do.
const PARTITIONS_AT_ONCE: usize = 32;

impl Shard {
    /// Hands `image` to every shard. When this returns, every shard answers by it.
    pub async fn publish(self: &Rc<Shard>, image: Arc<Image>) {
        for step in [PublishStep::Prepare, PublishStep::Adopt] {
            let tell = |shard| self.call(ShardId(shard), Request::Image { image: Arc::clone(&image), step });
            let calls: Vec<Call> = (0..self.shards).map(tell).collect();
            for call in calls {
                call.await;
            }
        }
    }

    pub(super) async fn take_image(self: &Rc<Shard>, image: Arc<Image>, step: PublishStep) {
        match step {
            PublishStep::Prepare => self.prepare(&image).await,
            PublishStep::Adopt => self.adopt(image).await,
        }
    }

    /// Makes what `image` has and this shard has not, and takes over new leader epochs.
    async fn prepare(&self, image: &Image) {
        let former = self.image();
        for topic in image.topics() {
            if former.topic_by_id(&topic.id).is_some_and(|known| Arc::ptr_eq(known, topic)) {
                continue;
            }
            let settings = self.resolve_settings(image, topic);
            let waiting = RefCell::new(self.owned(topic));
            let lead_one_by_one = async || {
                for touched in 1.. {
                    let Some((key, partition)) = waiting.borrow_mut().next() else { return };
                    self.lead(key, topic, partition, &settings).await;
                    if touched % PARTITIONS_AT_ONCE == 0 {
                        rt::yield_now().await;
                    }
                }
            };
            rt::sync::join_all((0..MAKE_AT_ONCE).map(|_| lead_one_by_one())).await;
        }
    }

    async fn lead(&self, key: TopicIdPartition, topic: &TopicImage, image: &PartitionImage, settings: &TopicSettings) {
        if let Some(replica) = self.partitions.get(&key) {
            replica.become_leader(image.leader_epoch);
            return;
        }
        let recovered = self.recovered.borrow_mut().remove(&key);
        let replica = match recovered {
            Some(recovered) => Ok(self.partitions.open(recovered, Arc::clone(&topic.name), settings)),
            None => self.partitions.create(self.new_partition(key, topic, image), settings).await,
        };
        match replica {
            Ok(replica) => replica.become_leader(image.leader_epoch),
            // Requests for it answer NOT_LEADER_OR_FOLLOWER, which clients retry; a restart tries again.
            Err(error) => tracing::error!(topic = &*topic.name, partition = key.partition, %error, "cannot make a partition"),
        }
    }

    fn new_partition(&self, id: TopicIdPartition, topic: &TopicImage, image: &PartitionImage) -> NewPartition {
        let assigned = self.directories.iter().find(|directory| image.directories.contains(&directory.id));
        let directory = assigned.unwrap_or_else(|| self.emptiest_directory(&id));
        NewPartition { id, topic: Arc::clone(&topic.name), data_directory: directory.path.clone(), directory_id: directory.id }
    }

    /// Where the metadata leaves the choice to the broker: the directory with the fewest partitions of this shard, of those that take records where there are such. Of equal ones each
    /// partition of a topic begins with another, as several are made at once.
    fn emptiest_directory(&self, id: &TopicIdPartition) -> &DataDirectory {
        if let [only] = &self.directories[..] {
            return only;
        }
        let mut counts = vec![0usize; self.directories.len()];
        for partition in self.partitions.all() {
            if let Some(index) = self.directories.iter().position(|directory| directory.id == partition.directory_id()) {
                counts[index] += 1;
            }
        }
        let first = id.partition as usize % counts.len();
        let refuses = |index: usize| !self.partitions.takes_records_in(&self.directories[index]);
        let chosen = (0..counts.len()).map(|step| (first + step) % counts.len()).min_by_key(|index| (refuses(*index), counts[*index]));
        &self.directories[chosen.expect("a broker has a data directory")]
    }

    async fn adopt(&self, image: Arc<Image>) {
        let former = self.image.replace(Arc::clone(&image));
        self.topic_settings.borrow_mut().clear();
        if self.follow_settings(&image) {
            self.partitions.set_cleaner(CleanerOptions::new(&self.config(), self.shards));
            let bytes_per_second = self.config().replica_alter_log_dirs_io_max_bytes_per_second() as f64;
            self.partitions.set_move_rate(bytes_per_second / f64::from(self.shards));
            self.apply_settings(&image, |_| true);
        } else {
            self.apply_settings(&image, |topic| former.topic_overrides(&topic.name).ne(image.topic_overrides(&topic.name)));
        }
        self.groups.image_changed(&former, &image);
        self.transactions.image_changed(&image);
        self.image_changed.notify_all();
        let gone = former.topics().filter(|topic| image.topic_by_id(&topic.id).is_none());
        let mut keys: Vec<TopicIdPartition> = gone.flat_map(|topic| self.owned(topic)).map(|(key, _)| key).collect();
        keys.extend(self.open_strays());
        for key in keys {
            if let Err(error) = self.partitions.delete(&key).await {
                tracing::error!(partition = %key, %error, "cannot remove a deleted partition");
            }
        }
    }

    /// Partitions that recovery found and that no topic has: their deletion was decided, and cut short. They are opened to be deleted like any other.
    fn open_strays(&self) -> Vec<TopicIdPartition> {
        let strays = self.recovered.take();
        let mut keys = Vec::with_capacity(strays.len());
        for (key, recovered) in strays {
            if key == METADATA_PARTITION {
                continue;
            }
            let topic = recovered.facts.home.name.rsplit_once('-').map_or("", |(topic, _)| topic);
            tracing::info!(topic, partition = key.partition, "removing a partition whose topic is deleted");
            self.partitions.open(recovered.clone(), Arc::from(topic), self.config().topic_defaults());
            keys.push(key);
        }
        keys
    }

    /// Takes over what `image` alters of the broker's own settings; false where that is nothing.
    fn follow_settings(&self, image: &Image) -> bool {
        let Some((altered, rejected)) = self.config().following(image) else { return false };
        if self.id == ShardId(0) {
            rejected.iter().for_each(|reason| tracing::warn!(reason, "an altered setting does not count"));
        }
        let altered = Arc::new(altered);
        self.config.replace(Arc::clone(&altered));
        self.groups.settings_changed(&altered);
        if let Some(handler) = self.client_handler.get() {
            handler.settings_changed(&altered);
        }
        true
    }

    /// Hands their settings to the partitions of the topics that `is_changed` names.
    fn apply_settings(&self, image: &Image, is_changed: impl Fn(&TopicImage) -> bool) {
        for topic in image.topics().filter(|topic| is_changed(topic)) {
            let settings = self.resolve_settings(image, topic);
            for (key, _) in self.owned(topic) {
                if let Some(replica) = self.partitions.get(&key) {
                    replica.apply_settings(&settings);
                }
            }
        }
    }

    /// A topic's own settings over the broker's. The controller has checked them; one that a later version refuses does not count.
    pub(super) fn resolve_settings(&self, image: &Image, topic: &TopicImage) -> TopicSettings {
        TopicSettings::resolve(image.topic_overrides(&topic.name), &self.config()).unwrap_or_else(|error| {
            tracing::warn!(topic = &*topic.name, reason = error.message, "a topic's settings do not count");
            self.config().topic_defaults().clone()
        })
    }

    fn owned<'topic>(&self, topic: &'topic TopicImage) -> impl Iterator<Item = (TopicIdPartition, &'topic PartitionImage)> + use<'topic> {
        let (id, shards, topic_id) = (self.id, self.shards, topic.id);
        let keyed =
            topic.partitions.iter().enumerate().map(move |(index, partition)| (TopicIdPartition::new(topic_id, index as i32), partition));
        keyed.filter(move |(key, _)| super::owner(key, shards) == id)
    }
}
