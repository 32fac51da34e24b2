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
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::host::{Clock, Host};
use self::partition_log::PartitionLog;
use super::coordinators::{Hosting, LogLimits, supervise};
use crate::cluster::{Image, TopicIdPartition};
use crate::config::Config;
use crate::group::{Call, Caller, GroupConfig, MigrationPolicy, Now, OFFSETS_TOPIC};
use crate::log::ValidatedBatch;
use crate::partition::{GroupSequence, Partitions};
use crate::rt::sync::Notify;
use crate::rt::{self, Task};
use crate::wire::ErrorCode;

pub use super::coordinators::Coordinators;
pub use crate::group::Reply as GroupReply;

/// A call for the group coordinators of one shard.
#[derive(Debug)]
pub struct GroupRequest {
    pub to: Coordinators,
    pub caller: Caller,
    pub call: Call,
}

/// The group coordinators of this shard.
pub struct Groups {
    hosting: Hosting<Host<PartitionLog>>,
    config: RefCell<Arc<Config>>,
    clock: Clock,
    image: RefCell<Arc<Image>>,
    /// When the keeper of time looks next, on the steady clock.
    next_look_ms: Cell<i64>,
    look_earlier: Notify,
    keeper: RefCell<Option<Task<()>>>,
}

impl Groups {
    /// Without a coordinator; `image_changed` brings them.
    pub fn new(partitions: Rc<Partitions>, config: Arc<Config>) -> Rc<Groups> {
        let started = Instant::now();
        let clock: Clock = Rc::new(move || Now { wall_ms: rt::wall_clock_ms(), steady_ms: started.elapsed().as_millis() as i64 });
        let groups = Rc::new(Groups {
            hosting: Hosting::new(OFFSETS_TOPIC, partitions),
            config: RefCell::new(config),
            clock,
            image: RefCell::new(Arc::new(Image::empty())),
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
            Coordinators::Of(partition) => match self.hosting.host(&partition) {
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
        for host in self.hosting.hosts() {
            match self.call(&host, caller, call).await {
                GroupReply::ListGroups(Ok(groups)) => listed.extend(groups),
                GroupReply::ListGroups(Err(ErrorCode::NotCoordinator)) => {}
                refusal => return refusal,
            }
        }
        GroupReply::ListGroups(Ok(listed))
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
        match self.hosting.host(partition) {
            Some(host) => Some(host.end_transaction(marker, transaction_version).await),
            None => Some(Err(ErrorCode::NotCoordinator)),
        }
    }

    // Which coordinators there are

    /// The metadata has changed, and the partitions of this shard with it: coordinators come and go with theirs, and offsets go with their topics.
    pub fn image_changed(self: &Rc<Self>, former: &Image, image: &Arc<Image>) {
        self.image.replace(Arc::clone(image));
        let config = Arc::clone(&self.config.borrow());
        let limits = LogLimits {
            load_bytes: config.offsets_load_buffer_size(),
            commit_timeout: Duration::from_millis(config.offsets_commit_timeout_ms() as u64),
        };
        self.hosting.image_changed(&config, image, &limits, |index, log| self.start(index, log));
        for host in self.hosting.hosts() {
            host.on_image(image);
        }
        self.forget_deleted_topics(former, image);
    }

    /// Settings of the broker were altered.
    pub fn settings_changed(&self, config: &Arc<Config>) {
        self.config.replace(Arc::clone(config));
        for host in self.hosting.hosts() {
            host.on_config(group_config(config));
        }
    }

    fn start(self: &Rc<Self>, index: i32, log: PartitionLog) -> (Rc<Host<PartitionLog>>, Task<()>) {
        let host = Rc::new(Host::new(log, Rc::clone(&self.clock)));
        let groups = Rc::downgrade(self);
        let load = async move |host: &Host<PartitionLog>| {
            load(&*groups.upgrade()?, host, index).await;
            Some(())
        };
        (Rc::clone(&host), rt::spawn(supervise(host, load)))
    }

    fn forget_deleted_topics(&self, former: &Image, image: &Image) {
        let hosts = self.hosting.hosts();
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
        self.hosting.dismiss_all();
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
        for host in self.hosting.hosts() {
            while host.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= (self.clock)().steady_ms) && host.tick().await {
                rt::yield_now().await;
            }
        }
    }

    /// Sets when the keeper looks next, and says how long that is.
    fn until_next_look(&self) -> Option<Duration> {
        let next_ms = self.hosting.hosts().iter().filter_map(|host| host.next_deadline_ms()).min();
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

async fn load(groups: &Groups, host: &Host<PartitionLog>, index: i32) {
    let _turn = groups.hosting.turn_to_load().await;
    let began = Instant::now();
    let image = || Arc::clone(&*groups.image.borrow());
    match host.load(|| group_config(&groups.config.borrow()), image, async || rt::yield_now().await).await {
        Ok(group_count) => {
            tracing::debug!(partition = index, groups = group_count, ms = began.elapsed().as_millis() as u64, "loaded a group coordinator")
        }
        Err(error) => tracing::error!(partition = index, %error, "a group coordinator cannot be loaded; its groups are not served"),
    }
    groups.look_at(host);
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
