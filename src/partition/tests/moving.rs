//! Replicas that move between two data directories: beside traffic, cancelled, cut short at every step and taken up by the next life.

use std::path::PathBuf;
use std::time::Duration;

use super::files::check_files;
use super::home::{Home, live_in};
use super::*;

const ID: TopicIdPartition = TopicIdPartition::new(Uuid::from_u128(77), 0);
/// A segment of the tests is copied in about a second.
const SLOW: f64 = 20_000.0;

impl Home {
    /// The partition of the tests, made in the first directory if it does not exist.
    async fn partition(&self) -> Rc<Partition> {
        let partition = self.create(ID).await;
        partition.become_leader(partition.latest_epoch().max(0));
        partition
    }

    async fn fill(&self, partition: &Partition, batches: usize) {
        for _ in 0..batches {
            append_durably(partition, &batch(2, 800)).await;
        }
        self.placement.place_now().await.unwrap();
    }

    async fn arrives_in(&self, partition: &Partition, index: usize) {
        until("the replica has moved", || partition.home().directory_id == self.directories[index].id).await;
        until("the move is over", || partition.future_replica().is_none()).await;
    }
}

/// A life of the broker; unless it is clean it ends as a killed process does.
fn live<T: Send + 'static, F: Future<Output = T>>(
    parent: &Path,
    is_clean: bool,
    bytes_per_second: f64,
    body: impl FnOnce(Rc<Home>) -> F + Send + 'static,
) -> T {
    let options = PartitionsOptions { tail_bytes_max: 0, move_bytes_per_second: bytes_per_second, ..PartitionsOptions::default() };
    live_in(parent, &["a", "b"], 4 << 20, is_clean, options, move |home| async move {
        let outcome = body(home.clone()).await;
        if is_clean {
            home.partitions.shut_down().await.unwrap();
        }
        outcome
    })
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is_so() {
            return;
        }
        rt::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain: {what}");
}

/// Every record from the beginning to the end, in order.
async fn check_records(partition: &Partition, records: i64) {
    let mut next = partition.log_start_offset();
    while next < records {
        let batches = partition.read_batches(next, 50_000).await.unwrap();
        assert!(!batches.is_empty(), "nothing at {next} of {records}");
        for (info, bytes) in batches {
            assert!(info.base_offset <= next && info.is_intact(&bytes));
            next = info.last_offset() + 1;
        }
    }
    assert_eq!((next, partition.high_watermark()), (records, records));
}

/// Directories of partitions in the data directory, whatever they are called.
fn directories_in(parent: &Path, name: &str) -> Vec<String> {
    let names = std::fs::read_dir(parent.join(name)).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> =
        names.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_replica_moves_beside_traffic_and_stays_where_it_is() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().to_path_buf();
    live(parent.path(), true, 500_000.0, |home| async move {
        let partition = home.partition().await;
        home.fill(&partition, 100).await;
        home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
        let future = partition.future_replica().unwrap();
        assert_eq!((future.directory_id, future.offset_lag), (home.directories[1].id, 200));
        assert_eq!(home.partitions.move_replica(&ID, &home.directories[1]).await, Ok(()), "again is fine");
        let mut appended = 200;
        while partition.home().directory_id != home.directories[1].id {
            append_durably(&partition, &batch(2, 800)).await;
            appended += 2;
            check_records(&partition, appended).await;
            if appended % 50 == 0 {
                home.placement.place_now().await.unwrap();
            }
            rt::sleep(Duration::from_millis(5)).await;
        }
        assert!(appended > 220, "there was traffic: {appended}");
        assert!(partition.directory().starts_with(path.join("b")));
        check_records(&partition, appended).await;
        home.fill(&partition, 20).await;
        check_records(&partition, appended + 40).await;
        assert_eq!(home.partitions.move_replica(&ID, &home.directories[1]).await, Ok(()), "it is there");
        until("the old directory is put aside", || directories_in(&path, "a").iter().all(|name| name.ends_with("-delete"))).await;
        home.partitions.shut_down().await.unwrap();
        check_files(&partition);
        appended + 40
    });
}

/// The copy is under way when the process is killed, or stopped: the next life begins it anew.
#[test]
fn a_move_that_was_cut_short_is_taken_up_again() {
    for is_clean in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().to_path_buf();
        live(parent.path(), is_clean, SLOW, |home| async move {
            let partition = home.partition().await;
            home.fill(&partition, 60).await;
            home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
            until("a part is copied", || partition.future_replica().unwrap().size_bytes > 0).await;
        });
        let copies = directories_in(&path, "b");
        assert!(copies.len() == 1 && copies[0].ends_with("-future"), "{copies:?}");
        if is_clean {
            let left = std::fs::read_dir(path.join("b").join(&copies[0])).unwrap().count();
            assert_eq!(left, 1, "another broker finds an empty copy");
        }
        live(parent.path(), true, f64::MAX, |home| async move {
            let partition = home.partition().await;
            home.arrives_in(&partition, 1).await;
            check_records(&partition, 120).await;
        });
        assert_eq!(directories_in(&path, "b"), ["orders-0"], "after a stop that was clean: {is_clean}");
    }
}

/// The steps after the journal's entry, each of them not done: the entry says where the replica is, so the next life does them.
#[test]
fn a_move_that_counts_is_brought_to_its_end() {
    for is_named in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().to_path_buf();
        let copy: PathBuf = live(parent.path(), false, f64::MAX, |home| async move {
            let partition = home.partition().await;
            home.fill(&partition, 60).await;
            home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
            let copy = partition.moving.borrow().as_ref().unwrap().copy_path().to_path_buf();
            home.arrives_in(&partition, 1).await;
            // Not placed: redone by the next life, into the new place.
            append_durably(&partition, &batch(2, 800)).await;
            copy
        });
        let left = directories_in(&path, "a");
        assert!(left.len() == 1 && left[0].ends_with("-delete"), "{left:?}");
        std::fs::rename(path.join("a").join(&left[0]), path.join("a/orders-0")).unwrap();
        if !is_named {
            std::fs::rename(path.join("b/orders-0"), copy).unwrap();
        }
        live(parent.path(), true, f64::MAX, |home| async move {
            let partition = home.partition().await;
            assert_eq!(partition.home().directory_id, home.directories[1].id);
            check_records(&partition, 122).await;
            home.fill(&partition, 10).await;
            check_records(&partition, 142).await;
        });
        assert_eq!(directories_in(&path, "b"), ["orders-0"]);
        assert!(directories_in(&path, "a").iter().all(|name| name.ends_with("-delete")));
    }
}

#[test]
fn a_move_back_or_a_deletion_ends_a_move() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().to_path_buf();
    live(parent.path(), true, SLOW, |home| async move {
        let partition = home.partition().await;
        home.fill(&partition, 60).await;
        for is_deleted in [false, true] {
            home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
            until("a part is copied", || partition.future_replica().unwrap().size_bytes > 0).await;
            if is_deleted {
                home.partitions.delete(&ID).await.unwrap();
            } else {
                home.partitions.move_replica(&ID, &home.directories[0]).await.unwrap();
                check_records(&partition, 120).await;
            }
            assert_eq!(partition.future_replica(), None);
            until("the copy is gone", || directories_in(&path, "b").is_empty()).await;
        }
        assert_eq!(home.partitions.move_replica(&ID, &home.directories[1]).await, Err(MoveRefusal::NotHere));
    });
}

/// A move that is not wanted any more loses its directory before the request is answered, even if its turn has not come: a later life finds nothing to go on with.
#[test]
fn a_cancelled_move_does_not_come_back() {
    for is_deleted in [false, true] {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().to_path_buf();
        live(parent.path(), false, f64::MAX, move |home| async move {
            let partition = home.partition().await;
            home.fill(&partition, 20).await;
            let _turn = home.partitions.move_turn().acquire(1).await;
            home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
            assert!(directories_in(&path, "b")[0].ends_with("-future"));
            if is_deleted {
                home.partitions.delete(&ID).await.unwrap();
            } else {
                home.partitions.move_replica(&ID, &home.directories[0]).await.unwrap();
            }
            assert!(directories_in(&path, "b").iter().all(|name| name.ends_with("-delete")));
        });
        live(parent.path(), true, f64::MAX, move |home| async move {
            let partition = home.partitions.get(&ID);
            assert_eq!(partition.is_none(), is_deleted);
            if let Some(partition) = partition {
                assert_eq!((partition.future_replica(), partition.home().directory_id), (None, home.directories[0].id));
                check_records(&partition, 40).await;
            }
        });
    }
}

/// The copy cannot get its name when the journal's entry is durable: the replica is there all the same, its records stay readable, and the next life does what is left.
#[test]
fn a_move_that_counts_keeps_its_copy_whatever_fails() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().to_path_buf();
    live(parent.path(), false, f64::MAX, |home| async move {
        let partition = home.partition().await;
        home.fill(&partition, 60).await;
        home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
        let moving = partition.moving.borrow().clone().unwrap();
        while !moving.counts() {
            rt::yield_now().await;
        }
        let taken = home.directories[1].path.join("orders-0");
        std::fs::create_dir_all(taken.join("by-another")).unwrap();
        until("the move is over", || partition.future_replica().is_none()).await;
        assert_eq!(partition.home().directory_id, home.directories[1].id);
        assert_eq!(&*partition.directory(), moving.copy_path());
        assert!(!home.partitions.disk_of(home.directories[0].id, &taken).has_failed(), "the old disk is sound");
        check_records(&partition, 120).await;
        std::fs::remove_dir_all(taken).unwrap();
    });
    assert!(directories_in(&path, "b")[0].ends_with("-future"));
    live(parent.path(), true, f64::MAX, |home| async move {
        let partition = home.partition().await;
        assert_eq!(partition.home().directory_id, home.directories[1].id);
        check_records(&partition, 120).await;
        home.fill(&partition, 10).await;
        check_records(&partition, 140).await;
    });
    assert_eq!(directories_in(&path, "b"), ["orders-0"]);
}

/// What stands in its way ends a move, not the partition.
#[test]
fn a_replica_stays_where_its_place_is_taken() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().to_path_buf();
    live(parent.path(), true, f64::MAX, |home| async move {
        let partition = home.partition().await;
        home.fill(&partition, 60).await;
        std::fs::create_dir(path.join("b/orders-0")).unwrap();
        home.partitions.move_replica(&ID, &home.directories[1]).await.unwrap();
        until("the move is over", || partition.future_replica().is_none()).await;
        until("the copy is gone", || directories_in(&path, "b") == ["orders-0"]).await;
        assert_eq!(partition.home().directory_id, home.directories[0].id);
        home.fill(&partition, 10).await;
        check_records(&partition, 140).await;
    });
}
