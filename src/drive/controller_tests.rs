//! The controller on a shard of its own, over a log in memory and real small files.

use std::cell::{Cell, RefCell};
use std::fs;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::controller::{Append, AppendFailure, Controller, ControllerReply, ControllerRequest, Surroundings};
use super::metadata_files::{METADATA_DIRECTORY, MetadataFiles, StartRefused, inspect_blocking};
use crate::cluster::Image;
use crate::cluster::decide::start::Registration;
use crate::cluster::kraft::batches::{LogRecord, read_batch};
use crate::cluster::kraft::control::ControlRecord;
use crate::cluster::kraft::quorum_state::QuorumState;
use crate::cluster::kraft::replay::Replay;
use crate::config::{Config, Sources};
use crate::disk::directories::DataDirectory;
use crate::log::directory_files::decode_uuid;
use crate::rt;
use crate::wire::batch::BatchIterator;
use crate::wire::messages::create_topics_request::CreatableTopic;
use crate::wire::messages::{CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest};
use crate::wire::{ErrorCode, Str};

const DIRECTORY: Uuid = Uuid::from_u128(0xd1);

/// A metadata log in memory, and what the controller did around it.
#[derive(Clone, Default)]
struct World {
    log: Rc<RefCell<Vec<Bytes>>>,
    /// Batches in each append.
    appends: Rc<RefCell<Vec<usize>>>,
    published: Rc<RefCell<Vec<Arc<Image>>>>,
    is_broken: Rc<Cell<bool>>,
    has_no_room: Rc<Cell<bool>>,
    is_full: Rc<Cell<bool>>,
}

impl World {
    fn surroundings(&self) -> Surroundings {
        let (readers, writers, publishers, is_full) = (self.clone(), self.clone(), self.clone(), Rc::clone(&self.is_full));
        Surroundings {
            read: Box::new(move |from| {
                let batches = readers.from(from);
                Box::pin(async move { Ok(batches) })
            }),
            append: Box::new(move |append| {
                let world = writers.clone();
                Box::pin(async move { world.append(append).await })
            }),
            publish: Box::new(move |image| {
                publishers.published.borrow_mut().push(image);
                Box::pin(async {})
            }),
            has_room: Box::new(move || !is_full.get()),
        }
    }

    /// Up to three batches from the one that holds the offset on.
    fn from(&self, offset: i64) -> Bytes {
        let log = self.log.borrow();
        let batches =
            log.iter().filter(|batch| BatchIterator::new((*batch).clone()).all(|one| one.expect("a batch").0.last_offset() >= offset));
        Bytes::from(batches.take(3).cloned().collect::<Vec<_>>().concat())
    }

    async fn append(&self, append: Append) -> Result<(), AppendFailure> {
        rt::sleep(Duration::from_millis(1)).await;
        if self.is_broken.get() {
            return Err(AppendFailure::Failed("no more writes".into()));
        }
        if self.has_no_room.get() {
            return Err(AppendFailure::NoRoom);
        }
        let mut next_offset = append.base_offset;
        for batch in &append.batches {
            let (header, _) = BatchIterator::new(batch.clone()).next().expect("a batch").expect("a whole one");
            assert_eq!((header.base_offset, header.partition_leader_epoch), (next_offset, append.epoch));
            next_offset = header.last_offset() + 1;
        }
        self.appends.borrow_mut().push(append.batches.len());
        self.log.borrow_mut().extend(append.batches);
        Ok(())
    }

    async fn start(&self, parent: &Path) -> Rc<Controller> {
        self.try_start(parent, Config::default()).await.expect("starts")
    }

    async fn try_start(&self, parent: &Path, config: Config) -> Result<Rc<Controller>, StartRefused> {
        Controller::start(self.surroundings(), MetadataFiles::new(parent), Arc::new(config), &registration()).await
    }

    fn newest(&self) -> Arc<Image> {
        self.published.borrow().last().expect("published").clone()
    }
}

/// Runs a test on a shard, with an empty log and a directory for the small files.
fn with_world<T: Future<Output = ()>>(test: impl FnOnce(World, PathBuf) -> T + Send + 'static) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    rt::run(move || async move { test(World::default(), path).await });
}

/// The same with a controller that has started.
fn with_controller<T: Future<Output = ()>>(test: impl FnOnce(World, Rc<Controller>) -> T + Send + 'static) {
    with_world(|world, path| async move {
        let controller = world.start(&path).await;
        test(world, controller).await;
    });
}

fn registration() -> Registration {
    Registration {
        node_id: 1,
        incarnation_id: rt::random_uuid(),
        endpoints: Vec::new(),
        controller_endpoints: Vec::new(),
        rack: None,
        directories: vec![DIRECTORY],
    }
}

fn create(name: &str) -> ControllerRequest {
    let topic = CreatableTopic { name: Str::from(name), num_partitions: 2, replication_factor: 1, ..Default::default() };
    ControllerRequest::CreateTopics(CreateTopicsRequest { topics: vec![topic], ..Default::default() })
}

fn created(reply: ControllerReply) -> CreateTopicsResponse {
    match reply {
        ControllerReply::CreateTopics(response) => response,
        other => panic!("a creation is answered by a creation, not {other:?}"),
    }
}

fn quorum_state(parent: &Path) -> QuorumState {
    let text = fs::read_to_string(parent.join(METADATA_DIRECTORY).join("quorum-state")).expect("written");
    QuorumState::decode(&text).expect("readable")
}

/// Three lives over one log: each begins a new epoch with a leader change, finds what the one before left, and raises the leader epochs.
#[test]
fn lives_follow_one_another() {
    with_world(|world, path| async move {
        for life in 1..=3 {
            let controller = world.start(&path).await;
            assert_eq!(quorum_state(&path), QuorumState::leading_alone(1, life, 0));
            if life == 1 {
                assert_eq!(created(controller.handle(create("t")).await).topics[0].error_code, 0);
            }
            let partition = world.newest().topic("t").expect("there").partitions[1].clone();
            // A stop and a start raise the epoch by one each.
            assert_eq!((partition.leader, partition.leader_epoch), (1, 2 * (life - 1)));
            let broker_epoch = world.newest().broker(1).expect("registered").epoch;
            assert_eq!(controller.stop().await, Ok(broker_epoch));
            let refused = created(controller.handle(create("u")).await);
            assert_eq!(refused.topics[0].error_code, ErrorCode::BrokerNotAvailable.code());
        }
        let batches = world.log.borrow().concat();
        let changes = BatchIterator::new(Bytes::from(batches)).filter_map(|batch| {
            let (header, batch) = batch.expect("a batch");
            let first = read_batch(&header, &batch).expect("readable").swap_remove(0).1;
            matches!(first, LogRecord::Control(ControlRecord::LeaderChange { leader_id: 1, .. })).then_some(header.partition_leader_epoch)
        });
        assert_eq!(changes.collect::<Vec<_>>(), [1, 2, 3]);
    });
}

/// What waits together is written together, and answered only when it is durable and published.
#[test]
fn requests_share_a_commit() {
    with_controller(|world, controller| async move {
        let mut tasks = Vec::new();
        for number in 0..20 {
            let (controller, world) = (Rc::clone(&controller), world.clone());
            tasks.push(rt::spawn(async move {
                let name = format!("t{number}");
                let reply = created(controller.handle(create(&name)).await);
                assert_eq!(reply.topics[0].error_code, 0);
                assert!(world.newest().topic(&name).is_some(), "answered after it was published");
            }));
        }
        for task in tasks {
            task.await;
        }
        let appends = world.appends.borrow().clone();
        assert_eq!(appends[1..].iter().sum::<usize>(), 20);
        assert!(appends.len() <= 4, "twenty requests in few commits: {appends:?}");
        assert_eq!(world.newest().topic_count(), 20);
    });
}

/// A failed log: nothing of the request is seen, and nothing is taken any more.
#[test]
fn after_a_failure_nothing_is_taken() {
    with_controller(|world, controller| async move {
        world.is_broken.set(true);
        for _ in 0..2 {
            let refused = created(controller.handle(create("t")).await);
            assert_eq!(refused.topics[0].error_code, ErrorCode::KafkaStorageError.code());
            world.is_broken.set(false);
        }
        assert!(world.newest().topic("t").is_none());
        assert!(controller.stop().await.is_err());
    });
}

/// Without room in the journal a request is refused, nothing of it is seen, and the next one finds everything as it was.
#[test]
fn what_finds_no_room_is_refused_and_may_be_asked_again() {
    with_controller(|world, controller| async move {
        world.has_no_room.set(true);
        for _ in 0..2 {
            let refused = created(controller.handle(create("t")).await);
            assert_eq!(refused.topics[0].error_code, ErrorCode::KafkaStorageError.code());
        }
        world.has_no_room.set(false);
        assert_eq!(created(controller.handle(create("t")).await).topics[0].error_code, 0);
        assert!(world.newest().topic("t").is_some());
        assert!(controller.stop().await.is_ok());
    });
}

/// On a full disk topics are not made, but deleted; with room they are made again.
#[test]
fn a_full_disk_takes_no_new_topics() {
    with_controller(|world, controller| async move {
        created(controller.handle(create("old")).await);
        world.is_full.set(true);
        let refused = created(controller.handle(create("new")).await);
        assert_eq!(refused.topics[0].error_code, ErrorCode::KafkaStorageError.code());
        let request = DeleteTopicsRequest { topic_names: vec![Str::from("old")], ..Default::default() };
        let ControllerReply::DeleteTopics(deleted) = controller.handle(ControllerRequest::DeleteTopics { request, version: 5 }).await
        else {
            panic!("a deletion is answered by a deletion")
        };
        assert_eq!((deleted.responses[0].error_code, world.newest().topic_count()), (0, 0));
        world.is_full.set(false);
        assert_eq!(created(controller.handle(create("new")).await).topics[0].error_code, 0);
    });
}

/// A snapshot is taken at the threshold, stands for the log before it, and leaves only its predecessor.
#[test]
fn snapshots_stand_for_the_log() {
    with_world(|world, path| async move {
        let arguments = vec![("metadata.log.max.record.bytes.between.snapshots".to_owned(), "1".to_owned())];
        let config = Config::load(&Sources { arguments, ..Default::default() }).expect("a valid setting").config;
        let controller = world.try_start(&path, config).await.expect("starts");
        let snapshots = || -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(path.join(METADATA_DIRECTORY))
                .expect("made")
                .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
                .filter(|name| name.ends_with(".checkpoint"))
                .collect();
            names.sort();
            names
        };
        for number in 0..4 {
            created(controller.handle(create(&format!("t{number}"))).await);
            rt::sleep(Duration::from_millis(50)).await;
        }
        let kept = snapshots();
        assert_eq!(kept.len(), 2, "{kept:?}");
        // Without the log before the newest snapshot the picture is the same.
        let start = MetadataFiles::new(&path).read_start_blocking().expect("readable");
        let (id, content) = start.snapshot.expect("taken");
        assert_eq!(Some(&id.file_name()), kept.last());
        let mut replay = Replay::from_snapshot(id, content).expect("applied");
        replay.read(Bytes::from(world.log.borrow().concat())).expect("read");
        assert_eq!(replay.finish().expect("whole").image, *world.newest());
    });
}

/// Directories of Kafka: one that only needs what we serve is taken, one with more is refused, each reason named, and nothing is written.
#[test]
fn directories_are_looked_at_before_they_are_touched() {
    let standalone_log = include_bytes!("../cluster/kraft/testdata/standalone.log");
    let formatted = include_bytes!("../cluster/kraft/testdata/formatted.checkpoint");
    let directory = tempfile::tempdir().expect("a directory");
    let metadata = directory.path().join(METADATA_DIRECTORY);
    let data = |id| [DataDirectory { id, path: directory.path().to_owned() }];
    inspect_blocking(directory.path(), 1, &data(DIRECTORY)).expect("an empty directory is served");

    fs::create_dir(&metadata).expect("made");
    // Behind a live log's end lie zeros.
    fs::write(metadata.join("00000000000000000000.log"), [&standalone_log[..], &[0; 100]].concat()).expect("written");
    let voter = decode_uuid("Mtkv82QQT8COhVuR_d1LKg").expect("an id");
    inspect_blocking(directory.path(), 1, &data(voter)).expect("a standalone node of Kafka is served");
    let Err(StartRefused::Unservable(reasons)) = inspect_blocking(directory.path(), 2, &data(voter)) else { panic!("another node's") };
    assert_eq!(reasons.len(), 5, "four partitions and the voters: {reasons:?}");

    fs::remove_file(metadata.join("00000000000000000000.log")).expect("removed");
    fs::write(metadata.join("00000000000000000000-0000000000.checkpoint"), formatted).expect("written");
    inspect_blocking(directory.path(), 1, &data(DIRECTORY)).expect("share and streams groups may be allowed where there is none");
    assert_eq!(fs::read_dir(&metadata).expect("there").count(), 1, "nothing was written");
}
