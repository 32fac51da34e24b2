//! Long polls: who is woken, and by what.

use std::time::Duration;

use super::*;

#[test]
fn a_long_poll_sleeps_until_there_is_more() {
    on_shard(|place, partition| async move {
        let other = place.partition(1, &TopicSettings::default()).await;
        let waiter = FetchWaiter::new(1);
        partition.watch(&waiter, &partition.sees(false));
        other.watch(&waiter, &other.sees(false));
        assert!(rt::timeout(Duration::from_millis(20), waiter.fired()).await.is_err(), "nothing has happened");
        let appending = other.append(&batch(1, 10), CLIENT).await.unwrap();
        assert!(!waiter.has_fired(), "appended is not durable");
        waiter.fired().await;
        assert_eq!(other.high_watermark(), 1);
        other.wait_durable(appending.sequence).await.unwrap();
    });
}

#[test]
fn whoever_saw_less_than_there_is_does_not_wait() {
    on_shard(|_place, partition| async move {
        let seen = partition.sees(false);
        append_durably(&partition, &batch(1, 10)).await;
        let waiter = FetchWaiter::new(1_000_000);
        partition.watch(&waiter, &seen);
        assert!(waiter.has_fired());
    });
}

#[test]
fn a_move_of_the_start_or_of_the_epoch_ends_a_poll() {
    on_shard(|place, partition| async move {
        append_durably(&partition, &batch(3, 10)).await;
        let fires = async |change: &dyn AsyncChange| {
            let waiter = FetchWaiter::new(1_000_000);
            partition.watch(&waiter, &partition.sees(false));
            assert!(!waiter.has_fired());
            change.make(&place, &partition).await;
            waiter.has_fired()
        };
        assert!(fires(&DeleteRecords).await);
        assert!(fires(&NewEpoch).await);
        assert!(fires(&Delete).await);
        let waiter = FetchWaiter::new(1);
        partition.watch(&waiter, &partition.sees(false));
        assert!(waiter.has_fired(), "a partition that is gone makes nobody wait");
    });
}

/// What can happen to a partition besides appends.
trait AsyncChange {
    fn make<'a>(&'a self, place: &'a Place, partition: &'a Partition) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;
}

struct DeleteRecords;
struct NewEpoch;
struct Delete;

impl AsyncChange for DeleteRecords {
    fn make<'a>(&'a self, _: &'a Place, partition: &'a Partition) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move {
            partition.delete_records(1).await.unwrap();
        })
    }
}

impl AsyncChange for NewEpoch {
    fn make<'a>(&'a self, _: &'a Place, partition: &'a Partition) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move { partition.become_leader(6) })
    }
}

impl AsyncChange for Delete {
    fn make<'a>(&'a self, place: &'a Place, partition: &'a Partition) -> std::pin::Pin<Box<dyn Future<Output = ()> + 'a>> {
        Box::pin(async move { place.partitions.delete(&partition.id()).await.unwrap() })
    }
}
