//! The group coordinators of a shard: one for each partition of `__consumer_offsets` that it owns.
//!
//! A request finds its coordinator by the partition that the group's id hashes to; the caller has done the hashing and asked the owner's shard. Each coordinator is driven by a
//! `host` over its `log`; this file knows which there are, has them loaded, and keeps time for all of them.

mod host;
pub(in crate::drive) mod log;
pub(in crate::drive) mod partition_log;
#[cfg(test)]
mod shard_tests;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::host::{Clock, Host};
use self::partition_log::PartitionLog;
use crate::cluster::{Image, TopicIdPartition, TopicImage};
use crate::config::{Config, TopicSettings};
use crate::group::{Call, Caller, GroupConfig, MigrationPolicy, Now, OFFSETS_TOPIC};
use crate::log::ValidatedBatch;
use crate::partition::{GroupSequence, Partitions};
use crate::rt::sync::{Budget, Notify};
use crate::rt::{self, Task};
use crate::wire::ErrorCode;

pub use crate::group::Reply as GroupReply;

/// A call for the group coordinators of one shard.
#[derive(Debug)]
pub struct GroupRequest {
    pub to: Coordinators,
    pub caller: Caller,
    pub call: Call,
}

/// Which coordinators of the shard are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinators {
    /// That of one partition of `__consumer_offsets`, which this shard is believed to own.
    Of(TopicIdPartition),
    /// All of them; for ListGroups alone.
    All,
}

/// Coordinators of a shard that load at the same time: each holds a read's worth of memory meanwhile.
const LOADS_AT_ONCE: usize = 2;

/// The most that one read of a load may bring, whatever `offsets.load.buffer.size` says.
const LOAD_BYTES_MAX: usize = 1 << 20;

/// How long a coordinator whose log failed it rests before it is loaded again.
const RELOAD_PAUSE: Duration = Duration::from_secs(5);

/// The group coordinators of this shard.
pub struct Groups {
    partitions: Rc<Partitions>,
    config: RefCell<Arc<Config>>,
    clock: Clock,
    hosted: RefCell<BTreeMap<TopicIdPartition, Hosted>>,
    image: RefCell<Arc<Image>>,
    /// `max.message.bytes` of the offsets topic.
    batch_bytes_max: Rc<Cell<usize>>,
    loads: Budget,
    /// When the keeper of time looks next, on the steady clock.
    next_look_ms: Cell<i64>,
    look_earlier: Notify,
    keeper: RefCell<Option<Task<()>>>,
}

/// A coordinator, and the task that has it loaded; dropping it ends both.
struct Hosted {
    host: Rc<Host<PartitionLog>>,
    _supervisor: Task<()>,
}

impl Groups {
    /// Without a coordinator; `image_changed` brings them.
    pub fn new(partitions: Rc<Partitions>, config: Arc<Config>) -> Rc<Groups> {
        let started = Instant::now();
        let clock: Clock = Rc::new(move || Now { wall_ms: rt::wall_clock_ms(), steady_ms: started.elapsed().as_millis() as i64 });
        let groups = Rc::new(Groups {
            partitions,
            config: RefCell::new(config),
            clock,
            hosted: RefCell::default(),
            image: RefCell::new(Arc::new(Image::empty())),
            batch_bytes_max: Rc::default(),
            loads: Budget::new(LOADS_AT_ONCE),
            next_look_ms: Cell::new(i64::MAX),
            look_earlier: Notify::new(),
            keeper: RefCell::default(),
        });
        let keeper = rt::spawn(keep_time(Rc::downgrade(&groups)));
        groups.keeper.replace(Some(keeper));
        groups
    }

    // Calls

    /// Answers a call, when what the answer rests on is committed.
    pub async fn handle(&self, request: GroupRequest) -> GroupReply {
        let GroupRequest { to, caller, call } = request;
        match to {
            Coordinators::Of(partition) => match self.host(&partition) {
                Some(host) => self.call(&host, &caller, &call).await,
                None => call.refuse(ErrorCode::NotCoordinator),
            },
            Coordinators::All => self.list(&caller, &call).await,
        }
    }

    async fn call(&self, host: &Host<PartitionLog>, caller: &Caller, call: &Call) -> GroupReply {
        host.call(caller, call, || self.look_at(host)).await
    }

    /// The groups of all coordinators. One that is not up does not have its groups here; one that loads makes the list incomplete.
    async fn list(&self, caller: &Caller, call: &Call) -> GroupReply {
        assert!(matches!(call, Call::ListGroups { .. }), "only lists are asked of all coordinators");
        let mut listed = Vec::new();
        for host in self.hosts() {
            match self.call(&host, caller, call).await {
                GroupReply::ListGroups(Ok(groups)) => listed.extend(groups),
                GroupReply::ListGroups(Err(ErrorCode::NotCoordinator)) => {}
                refusal => return refusal,
            }
        }
        GroupReply::ListGroups(Ok(listed))
    }

    fn host(&self, partition: &TopicIdPartition) -> Option<Rc<Host<PartitionLog>>> {
        self.hosted.borrow().get(partition).map(|hosted| Rc::clone(&hosted.host))
    }

    fn hosts(&self) -> Vec<Rc<Host<PartitionLog>>> {
        self.hosted.borrow().values().map(|hosted| Rc::clone(&hosted.host)).collect()
    }

    /// Ends a producer's transaction in one partition of `__consumer_offsets`; None for a partition of another topic.
    pub async fn end_transaction(
        &self,
        partition: &TopicIdPartition,
        marker: &ValidatedBatch,
        transaction_version: i16,
    ) -> Option<Result<GroupSequence, ErrorCode>> {
        let offsets_topic = self.image.borrow().topic(OFFSETS_TOPIC).map(|topic| topic.id);
        if offsets_topic != Some(partition.topic_id) {
            return None;
        }
        match self.host(partition) {
            Some(host) => Some(host.end_transaction(marker, transaction_version).await),
            None => Some(Err(ErrorCode::NotCoordinator)),
        }
    }

    // Which coordinators there are

    /// The metadata has changed, and the partitions of this shard with it: coordinators come and go with theirs, and offsets go with their topics.
    pub fn image_changed(self: &Rc<Self>, former: &Image, image: &Arc<Image>) {
        self.image.replace(Arc::clone(image));
        let led = match image.topic(OFFSETS_TOPIC) {
            Some(topic) => {
                self.take_settings(image, topic);
                self.led_here(topic)
            }
            None => Vec::new(),
        };
        self.hosted.borrow_mut().retain(|partition, hosted| {
            let stays = led.contains(partition);
            if !stays {
                hosted.host.dismiss();
            }
            stays
        });
        for host in self.hosts() {
            host.on_image(image);
        }
        for partition in led {
            self.start_hosting(partition);
        }
        self.forget_deleted_topics(former, image);
    }

    /// Settings of the broker were altered.
    pub fn settings_changed(&self, config: &Arc<Config>) {
        self.config.replace(Arc::clone(config));
        for host in self.hosts() {
            host.on_config(group_config(config));
        }
    }

    fn take_settings(&self, image: &Image, topic: &TopicImage) {
        match TopicSettings::resolve(image.topic_overrides(&topic.name), &self.config.borrow()) {
            Ok(settings) => self.batch_bytes_max.set(settings.max_message_bytes as usize),
            Err(error) => {
                tracing::error!(topic = OFFSETS_TOPIC, %error, "a setting of the offsets topic is not valid; the one before stands")
            }
        }
    }

    fn led_here(&self, topic: &TopicImage) -> Vec<TopicIdPartition> {
        let keys = (0..topic.partition_count()).map(|index| TopicIdPartition { topic_id: topic.id, partition: index });
        let is_led = |key: &TopicIdPartition| {
            topic.partition(key.partition).is_some_and(|partition| partition.leader == self.config.borrow().node_id())
        };
        keys.filter(|key| is_led(key) && self.partitions.get(key).is_some()).collect()
    }

    fn start_hosting(self: &Rc<Self>, id: TopicIdPartition) {
        if self.hosted.borrow().contains_key(&id) {
            return;
        }
        let Some(partition) = self.partitions.get(&id) else { return };
        let log = PartitionLog {
            partition,
            journal: Rc::clone(self.partitions.journal()),
            batch_bytes_max: Rc::clone(&self.batch_bytes_max),
            read_bytes: (self.config.borrow().offsets_load_buffer_size() as usize).min(LOAD_BYTES_MAX),
            commit_timeout: Duration::from_millis(self.config.borrow().offsets_commit_timeout_ms() as u64),
        };
        let host = Rc::new(Host::new(log, Rc::clone(&self.clock)));
        let supervisor = rt::spawn(supervise(Rc::downgrade(self), Rc::clone(&host), id.partition));
        self.hosted.borrow_mut().insert(id, Hosted { host, _supervisor: supervisor });
    }

    fn forget_deleted_topics(&self, former: &Image, image: &Image) {
        let hosts = self.hosts();
        if hosts.is_empty() {
            return;
        }
        for topic in former.topics().filter(|topic| image.topic_by_id(&topic.id).is_none()) {
            for host in &hosts {
                host.on_topic_deleted(&topic.name, topic.id);
                self.look_at(host);
            }
        }
    }

    /// Everybody who waits is told to look elsewhere; nothing is served any more. What was answered is committed.
    pub async fn stop(&self) {
        self.keeper.replace(None);
        for hosted in std::mem::take(&mut *self.hosted.borrow_mut()).into_values() {
            hosted.host.dismiss();
        }
    }

    // Time

    /// The host may have something to do before the keeper of time would look.
    fn look_at(&self, host: &Host<PartitionLog>) {
        let deadline_ms = host.next_deadline_ms().unwrap_or(i64::MAX);
        if deadline_ms < self.next_look_ms.get() {
            self.next_look_ms.set(deadline_ms);
            self.look_earlier.notify_all();
        }
    }

    async fn run_what_is_due(&self) {
        for host in self.hosts() {
            while host.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= (self.clock)().steady_ms) && host.tick().await {
                rt::yield_now().await;
            }
        }
    }

    /// Sets when the keeper looks next, and says how long that is.
    fn until_next_look(&self) -> Option<Duration> {
        let next_ms = self.hosts().iter().filter_map(|host| host.next_deadline_ms()).min();
        self.next_look_ms.set(next_ms.unwrap_or(i64::MAX));
        let now_ms = (self.clock)().steady_ms;
        next_ms.map(|next_ms| Duration::from_millis(next_ms.saturating_sub(now_ms).max(0) as u64))
    }
}

/// The limits of groups, as the broker's settings have them.
pub fn group_config(config: &Config) -> GroupConfig {
    GroupConfig {
        session_timeout_ms_min: config.group_min_session_timeout_ms(),
        session_timeout_ms_max: config.group_max_session_timeout_ms(),
        initial_rebalance_delay_ms: i64::from(config.group_initial_rebalance_delay_ms()),
        max_size: config.group_max_size() as usize,
        offset_metadata_units_max: config.offset_metadata_max_bytes() as usize,
        offsets_retention_ms: i64::from(config.offsets_retention_minutes()) * 60 * 1000,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms(),
        consumer_session_timeout_ms: config.group_consumer_session_timeout_ms(),
        consumer_heartbeat_interval_ms: config.group_consumer_heartbeat_interval_ms(),
        consumer_assignment_interval_ms: config.group_consumer_assignment_interval_ms(),
        consumer_max_size: config.group_consumer_max_size() as usize,
        consumer_assignors: config.group_consumer_assignors().iter().map(|name| assignor_name(name)).collect(),
        regex_refresh_interval_ms: i64::from(config.group_consumer_regex_refresh_interval_ms()),
        migration_policy: MigrationPolicy::named(config.group_consumer_migration_policy()).unwrap_or(MigrationPolicy::Bidirectional),
    }
}

/// Kafka takes the names of its own assignors, and the classes behind them.
fn assignor_name(text: &str) -> String {
    match text {
        "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => "uniform".to_string(),
        "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => "range".to_string(),
        name => name.to_string(),
    }
}

/// Has a coordinator loaded, and again whenever its log has failed it.
async fn supervise(groups: Weak<Groups>, host: Rc<Host<PartitionLog>>, index: i32) {
    loop {
        {
            let Some(groups) = groups.upgrade() else { return };
            let _permit = groups.loads.acquire(1).await;
            let began = Instant::now();
            let image = || Arc::clone(&*groups.image.borrow());
            match host.load(|| group_config(&groups.config.borrow()), image, async || rt::yield_now().await).await {
                Ok(group_count) => tracing::debug!(
                    partition = index,
                    groups = group_count,
                    ms = began.elapsed().as_millis() as u64,
                    "loaded a group coordinator"
                ),
                Err(error) => tracing::error!(partition = index, %error, "a group coordinator cannot be loaded; its groups are not served"),
            }
            groups.look_at(&host);
        }
        host.failed().await;
        rt::sleep(RELOAD_PAUSE).await;
    }
}

/// Lets every coordinator do what is due, when it is due.
async fn keep_time(groups: Weak<Groups>) {
    loop {
        let (earlier, wait) = {
            let Some(groups) = groups.upgrade() else { return };
            groups.run_what_is_due().await;
            (groups.look_earlier.notified(), groups.until_next_look())
        };
        match wait {
            Some(duration) => {
                let _either = rt::timeout(duration, earlier).await;
            }
            None => earlier.await,
        }
    }
}
