//! Transaction coordinators on a real shard, with a journal and partitions in a temporary directory; the owners of other partitions are played by the tests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use uuid::Uuid;

use super::*;
use crate::drive::testing::{self, Storage};
use crate::txn::Producer;
use crate::wire::records::FeatureLevelRecord;

const TRANSACTIONS_ID: Uuid = Uuid::from_u128(0x7a);
const TOPIC_ID: Uuid = Uuid::from_u128(0x70);
const COORDINATOR: TopicIdPartition = TopicIdPartition::new(TRANSACTIONS_ID, 0);

/// What the played owners have been asked, and what they will answer.
#[derive(Default)]
struct Owners {
    asked: RefCell<Vec<Markers>>,
    /// Answers to come for each partition of a call; everything is taken when there are none left.
    answers: RefCell<VecDeque<ErrorCode>>,
    /// Nothing is answered while it is set.
    are_silent: Cell<bool>,
    /// What the coordinator's log had durable when markers were asked for.
    durable_then: Cell<i64>,
}

/// A shard's storage, the coordinator over it, and the owners around it.
struct Place {
    storage: Storage,
    config: Arc<Config>,
    image: Arc<Image>,
    owners: Rc<Owners>,
    transactions: Rc<Transactions>,
}

impl Place {
    async fn new(settings: &[(&str, &str)]) -> Place {
        let state = (TRANSACTIONS_TOPIC, TRANSACTIONS_ID, 1);
        let storage = Storage::with(state, 7).await;
        let config = testing::config(settings);
        let mut image = testing::image(config.node_id(), &[state, ("t", TOPIC_ID, 3)]);
        let feature = FeatureLevelRecord { name: Str::from(TRANSACTION_VERSION), feature_level: 2, ..Default::default() };
        image.apply(&feature.into()).unwrap();
        let (image, owners) = (Arc::new(image), Rc::new(Owners::default()));
        let transactions = transactions(&storage, &config, &image, &owners);
        Place { storage, config, image, owners, transactions }
    }

    /// The coordinator ends as at a kill, and another takes over what is in the log.
    fn replace_coordinator(&mut self) {
        self.transactions = transactions(&self.storage, &self.config, &self.image, &self.owners);
    }

    async fn ask(&self, call: Call, patience: Duration) -> Reply {
        loop {
            let request = TransactionRequest { to: Coordinators::Of(COORDINATOR), call: call.clone(), patience };
            let reply = self.transactions.handle(request).await;
            let is_loading = reply == call.refuse(ErrorCode::CoordinatorLoadInProgress);
            if !is_loading {
                return reply;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn initialise(&self) -> Producer {
        let call = Call::Initialise { transactional_id: id(), timeout_ms: 1_000, expected: None };
        match self.ask(call, Duration::ZERO).await {
            Reply::Producer(Ok(producer)) => producer,
            other => panic!("{other:?}"),
        }
    }

    async fn add(&self, producer: Producer, patience: Duration) -> Result<(), ErrorCode> {
        let partitions = (0..3).map(|partition| (Str::from("t"), partition)).collect();
        match self.ask(Call::AddPartitions { transactional_id: id(), producer, partitions, client_version: 2 }, patience).await {
            Reply::Added(added) => added,
            other => panic!("{other:?}"),
        }
    }

    async fn commit(&self, producer: Producer) -> Producer {
        match self.ask(Call::End { transactional_id: id(), producer, is_commit: true, client_version: 2 }, Duration::ZERO).await {
            Reply::Producer(Ok(producer)) => producer,
            other => panic!("{other:?}"),
        }
    }

    async fn state(&self) -> String {
        match self.ask(Call::Describe { transactional_id: id() }, Duration::ZERO).await {
            Reply::Described(described) => described.transaction_state.to_string(),
            other => panic!("{other:?}"),
        }
    }

    async fn wait_for(&self, state: &str) {
        for _ in 0..2_000 {
            if self.state().await == state {
                return;
            }
            rt::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} instead of {state}", self.state().await);
    }
}

fn id() -> Str {
    Str::from("teller")
}

fn transactions(storage: &Storage, config: &Arc<Config>, image: &Arc<Image>, owners: &Rc<Owners>) -> Rc<Transactions> {
    let transactions = Transactions::new(Rc::clone(&storage.partitions), Arc::clone(config));
    let next_id = Rc::new(Cell::new(100));
    let log = storage.partitions.get(&COORDINATOR).unwrap();
    let owners = Rc::clone(owners);
    transactions.set_surroundings(TransactionSurroundings {
        next_producer_id: Box::new(move || {
            let id = next_id.replace(next_id.get() + 1);
            Box::pin(async move { Ok(id) })
        }),
        write_markers: Box::new(move |markers| {
            owners.durable_then.set(log.high_watermark());
            let count = markers.partitions.len();
            owners.asked.borrow_mut().push(markers);
            let owners = Rc::clone(&owners);
            Box::pin(async move {
                while owners.are_silent.get() {
                    rt::sleep(Duration::from_millis(1)).await;
                }
                (0..count).map(|_| owners.answers.borrow_mut().pop_front().unwrap_or(ErrorCode::None)).collect()
            })
        }),
    });
    transactions.image_changed(image);
    transactions
}

#[test]
fn a_commit_is_durable_before_its_markers_and_recorded_after_them() {
    rt::run(|| async {
        let place = Place::new(&[]).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        place.owners.are_silent.set(true);
        let next = place.commit(producer).await;
        assert_eq!((next.id, next.epoch), (producer.id, producer.epoch + 1), "the answer does not wait for the markers");
        while place.owners.asked.borrow().is_empty() {
            rt::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(place.owners.durable_then.get(), 3, "initialised, grown, decided");
        assert_eq!(place.state().await, "PrepareCommit");
        place.owners.are_silent.set(false);
        place.wait_for("CompleteCommit").await;
        let expected = Markers {
            producer_id: producer.id,
            producer_epoch: next.epoch,
            is_commit: true,
            coordinator_epoch: 7,
            transaction_version: 2,
            partitions: (0..3).map(|partition| TopicIdPartition::new(TOPIC_ID, partition)).collect(),
        };
        assert_eq!(*place.owners.asked.borrow(), [expected], "all partitions in one call");
    });
}

#[test]
fn markers_that_are_not_taken_are_written_again() {
    rt::run(|| async {
        let place = Place::new(&[]).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        place.owners.answers.borrow_mut().extend([ErrorCode::None, ErrorCode::CoordinatorLoadInProgress, ErrorCode::NotLeaderOrFollower]);
        place.commit(producer).await;
        place.wait_for("CompleteCommit").await;
        let asked: Vec<usize> = place.owners.asked.borrow().iter().map(|markers| markers.partitions.len()).collect();
        assert_eq!(asked, [3, 2], "those that are written are not written again");
    });
}

#[test]
fn a_marker_refused_for_good_leaves_the_transaction_prepared() {
    rt::run(|| async {
        let place = Place::new(&[]).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        place.owners.answers.borrow_mut().push_back(ErrorCode::TransactionCoordinatorFenced);
        place.commit(producer).await;
        rt::sleep(Duration::from_millis(50)).await;
        assert_eq!((place.state().await.as_str(), place.owners.asked.borrow().len()), ("PrepareCommit", 1));
    });
}

#[test]
fn the_next_coordinator_brings_what_is_decided_to_its_end() {
    rt::run(|| async {
        let mut place = Place::new(&[]).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        place.owners.are_silent.set(true);
        let next = place.commit(producer).await;
        place.transactions.stop().await;
        place.owners.asked.borrow_mut().clear();
        place.owners.are_silent.set(false);
        place.replace_coordinator();
        place.wait_for("CompleteCommit").await;
        assert_eq!(place.owners.asked.borrow().len(), 1);
        assert!(place.owners.asked.borrow()[0].is_commit, "as it was decided");
        place.add(next, Duration::ZERO).await.unwrap();
    });
}

#[test]
fn the_next_transaction_waits_for_the_end_of_the_last_as_long_as_it_is_told() {
    rt::run(|| async {
        let place = Rc::new(Place::new(&[]).await);
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        place.owners.are_silent.set(true);
        let next = place.commit(producer).await;
        assert_eq!(place.add(next, Duration::ZERO).await, Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(place.add(next, Duration::from_millis(10)).await, Err(ErrorCode::ConcurrentTransactions));
        let waiting = {
            let place = Rc::clone(&place);
            rt::spawn(async move { place.add(next, Duration::from_secs(60)).await })
        };
        rt::sleep(Duration::from_millis(5)).await;
        place.owners.are_silent.set(false);
        assert_eq!(waiting.await, Ok(()));
    });
}

#[test]
fn late_transactions_are_aborted_and_idle_ids_forgotten_by_the_clock() {
    rt::run(|| async {
        let settings = [
            ("transaction.abort.timed.out.transaction.cleanup.interval.ms", "20"),
            ("transaction.remove.expired.transaction.cleanup.interval.ms", "30"),
            ("transactional.id.expiration.ms", "300"),
        ];
        let mut place = Place::new(&settings).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        rt::sleep(Duration::from_millis(500)).await;
        assert_eq!(place.state().await, "Ongoing", "an open transaction keeps its id");
        place.wait_for("CompleteAbort").await;
        assert!(!place.owners.asked.borrow()[0].is_commit);
        assert_eq!(place.add(producer, Duration::ZERO).await, Err(ErrorCode::ProducerFenced));
        rt::sleep(Duration::from_millis(600)).await;
        assert_eq!(place.state().await, "", "nothing is known of it");
        place.replace_coordinator();
        assert_eq!(place.state().await, "", "nor in the log");
        assert_ne!(place.initialise().await.id, -1);
    });
}

#[test]
fn partitions_of_deleted_topics_want_no_marker() {
    rt::run(|| async {
        let place = Place::new(&[]).await;
        let producer = place.initialise().await;
        place.add(producer, Duration::ZERO).await.unwrap();
        let mut without = (*place.image).clone();
        without.apply(&crate::wire::records::RemoveTopicRecord { topic_id: TOPIC_ID, ..Default::default() }.into()).unwrap();
        place.transactions.image_changed(&Arc::new(without));
        place.commit(producer).await;
        place.wait_for("CompleteCommit").await;
        assert!(place.owners.asked.borrow().is_empty());
    });
}
