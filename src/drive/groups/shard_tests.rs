//! Coordinators on a real shard, with a journal and partitions in a temporary directory, as a broker has them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Coordinators, GroupReply, GroupRequest, Groups};
use crate::cluster::{Image, TopicIdPartition};
use crate::config::Config;
use crate::drive::testing::{self, Storage};
use crate::group::{Call, Caller, OFFSETS_TOPIC, partition_for};
use crate::rt;
use crate::wire::messages::join_group_request::JoinGroupRequestProtocol;
use crate::wire::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use crate::wire::messages::offset_fetch_request::OffsetFetchRequestGroup;
use crate::wire::messages::{HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest};
use crate::wire::records::RemoveTopicRecord;
use crate::wire::{ErrorCode, Str};

const OFFSETS_ID: Uuid = Uuid::from_u128(0x0ff);
const TOPIC_ID: Uuid = Uuid::from_u128(0x70);
const PARTITIONS: i32 = 3;

/// A shard's storage, the coordinators over it, and what they know of the cluster.
struct Place {
    storage: Storage,
    image: Arc<Image>,
    config: Arc<Config>,
    groups: Rc<Groups>,
}

impl Place {
    async fn new() -> Place {
        let offsets = (OFFSETS_TOPIC, OFFSETS_ID, PARTITIONS);
        let storage = Storage::with(offsets, 0).await;
        let config = testing::config(&[("group.initial.rebalance.delay.ms", "20"), ("group.min.session.timeout.ms", "50")]);
        let image = Arc::new(testing::image(config.node_id(), &[offsets, ("t", TOPIC_ID, 1)]));
        let groups = groups(&storage, &config, &image);
        Place { storage, image, config, groups }
    }

    /// The coordinators end as at a kill, and others take over what is in the log.
    fn replace_coordinators(&mut self) {
        self.groups = groups(&self.storage, &self.config, &self.image);
    }

    async fn ask(&self, group: &str, call: Call) -> GroupReply {
        ask(&self.groups, group, call).await
    }

    /// Asks until the coordinator has been loaded.
    async fn ask_loaded(&self, group: &str, call: Call) -> GroupReply {
        loop {
            let reply = self.ask(group, call.clone()).await;
            let GroupReply::FetchOffsets(fetched) = &reply else { return reply };
            if fetched.error_code != ErrorCode::CoordinatorLoadInProgress.code() {
                return reply;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn fetched(&self, group: &str) -> Option<i64> {
        match self.ask_loaded(group, fetch(group)).await {
            GroupReply::FetchOffsets(group) => {
                assert_eq!(group.error_code, 0);
                group.topics.first().map(|topic| topic.partitions[0].committed_offset)
            }
            other => panic!("{other:?}"),
        }
    }
}

fn groups(storage: &Storage, config: &Arc<Config>, image: &Arc<Image>) -> Rc<Groups> {
    let groups = Groups::new(Rc::clone(&storage.partitions), Arc::clone(config));
    groups.image_changed(&Image::empty(), image);
    groups
}

async fn ask(groups: &Groups, group: &str, call: Call) -> GroupReply {
    let to = Coordinators::Of(key(partition_for(group, PARTITIONS)));
    groups.handle(GroupRequest { to, caller: caller(), call }).await
}

fn key(index: i32) -> TopicIdPartition {
    TopicIdPartition { topic_id: OFFSETS_ID, partition: index }
}

fn caller() -> Caller {
    Caller { version: 3, client_id: Str::from("c"), client_host: Str::from("/127.0.0.1"), fresh_id: rt::random_uuid() }
}

fn commit(group: &str, offset: i64) -> Call {
    Call::CommitOffsets(OffsetCommitRequest {
        group_id: Str::from(group),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from("t"),
            topic_id: TOPIC_ID,
            partitions: vec![OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn fetch(group: &str) -> Call {
    let group = OffsetFetchRequestGroup { group_id: Str::from(group), topics: None, ..Default::default() };
    Call::FetchOffsets { group, require_stable: false }
}

fn join(group: &str) -> Call {
    Call::Join(JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: 500,
        rebalance_timeout_ms: 500,
        protocol_type: Str::from("consumer"),
        protocols: vec![JoinGroupRequestProtocol { name: Str::from("range"), ..Default::default() }],
        ..Default::default()
    })
}

#[test]
fn offsets_survive_their_coordinators() {
    rt::run(|| async {
        let mut place = Place::new().await;
        let names: Vec<String> = (0..20).map(|index| format!("group-{index}")).collect();
        for (offset, name) in names.iter().enumerate() {
            assert_eq!(place.fetched(name).await, None);
            place.ask(name, commit(name, offset as i64)).await;
        }
        place.replace_coordinators();
        for (offset, name) in names.iter().enumerate() {
            assert_eq!(place.fetched(name).await, Some(offset as i64));
        }
        let list = Call::ListGroups { states: Vec::new(), types: Vec::new() };
        let request = GroupRequest { to: Coordinators::All, caller: caller(), call: list };
        let GroupReply::ListGroups(Ok(listed)) = place.groups.handle(request).await else { panic!() };
        assert_eq!(listed.len(), names.len());
    });
}

#[test]
fn phases_and_sessions_end_by_the_clock() {
    rt::run(|| async {
        let place = Place::new().await;
        place.fetched("g").await;
        // Parked until the initial delay is over.
        let GroupReply::Join(joined) = place.ask("g", join("g")).await else { panic!() };
        assert_eq!((joined.error_code, joined.generation_id), (0, 1));
        let heartbeat = Call::Heartbeat(HeartbeatRequest {
            group_id: Str::from("g"),
            member_id: joined.member_id.clone(),
            generation_id: 1,
            ..Default::default()
        });
        let sync = SyncGroupRequest { group_id: Str::from("g"), member_id: joined.member_id, generation_id: 1, ..Default::default() };
        let GroupReply::Sync(synced) = place.ask("g", Call::Sync(sync)).await else { panic!() };
        assert_eq!(synced.error_code, 0);
        let GroupReply::Heartbeat(alive) = place.ask("g", heartbeat.clone()).await else { panic!() };
        assert_eq!(alive.error_code, 0);
        rt::sleep(Duration::from_millis(1_200)).await;
        let GroupReply::Heartbeat(late) = place.ask("g", heartbeat).await else { panic!() };
        assert_eq!(late.error_code, ErrorCode::UnknownMemberId.code());
    });
}

#[test]
fn offsets_go_with_their_topic() {
    rt::run(|| async {
        let mut place = Place::new().await;
        place.fetched("g").await;
        place.ask("g", commit("g", 5)).await;
        let mut without = (*place.image).clone();
        without.apply(&RemoveTopicRecord { topic_id: TOPIC_ID, ..Default::default() }.into()).unwrap();
        place.groups.image_changed(&place.image, &Arc::new(without));
        while place.fetched("g").await.is_some() {
            rt::sleep(Duration::from_millis(1)).await;
        }
        place.replace_coordinators();
        assert_eq!(place.fetched("g").await, None);
    });
}

#[test]
fn a_stop_sends_those_who_wait_away_and_partitions_that_go_take_their_coordinators_along() {
    rt::run(|| async {
        let place = Place::new().await;
        place.fetched("g").await;
        let groups = Rc::clone(&place.groups);
        let waiting = rt::spawn(async move { ask(&groups, "g", join("g")).await });
        rt::sleep(Duration::from_millis(5)).await;
        place.groups.stop().await;
        let GroupReply::Join(dismissed) = waiting.await else { panic!() };
        assert_eq!(dismissed.error_code, ErrorCode::NotCoordinator.code());

        let other = groups_without_topic(&place);
        let GroupReply::FetchOffsets(group) = ask(&other, "g", fetch("g")).await else { panic!() };
        assert_eq!(group.error_code, ErrorCode::NotCoordinator.code());
    });
}

fn groups_without_topic(place: &Place) -> Rc<Groups> {
    let groups = groups(&place.storage, &place.config, &place.image);
    groups.image_changed(&place.image, &Arc::new(Image::empty()));
    groups
}
