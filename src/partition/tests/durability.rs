//! Classes of durability: when a record may be acknowledged and seen, and what a change of the class means for those under way.

use std::time::Duration;

use super::*;
use crate::disk::journal::shadow::{Shadow, make_shadow_blocking, shadow_path};

fn written() -> TopicSettings {
    TopicSettings { flush_messages: 1_000, ..TopicSettings::default() }
}

fn cached() -> TopicSettings {
    TopicSettings { write_caching: true, ..TopicSettings::default() }
}

#[test]
fn a_written_record_counts_before_it_is_flushed() {
    with_settings(written(), PartitionsOptions::default(), |place, partition| async move {
        // The partition's own first entry is durable, and with it whatever is in its group.
        place.place_everything().await;
        let appending = partition.append(&batch(2, 10), CLIENT).await.unwrap();
        assert_eq!((appending.counts, partition.high_watermark()), (Counts::Written, 0));
        partition.wait_acknowledged(&appending).await.unwrap();
        assert_eq!((partition.high_watermark(), place.journal.statistics().flushes), (2, 0));
        assert_eq!(offsets(&partition, 0, 100).await, [0]);
        // The stronger wait is there for those who need it.
        partition.wait_durable(appending.sequence).await.unwrap();
        assert_eq!(place.journal.statistics().flushes, 1);
        place.place_everything().await;
        assert_eq!(offsets(&partition, 0, 100).await, [0]);
    });
}

/// Where the journal has a shadow, nobody waits for the device.
#[test]
fn a_shadowed_record_counts_at_once() {
    with_settings(written(), PartitionsOptions::default(), |place, partition| async move {
        place.place_everything().await;
        let shadow_file = make_shadow_blocking(&shadow_path(place.directory.path(), 0)).unwrap();
        place.journal.shadow_in(Shadow::new(&shadow_file).unwrap());
        let before = place.journal.written_sequence();
        let appending = partition.try_append(&batch(2, 10), CLIENT).unwrap();
        assert_eq!((appending.counts, partition.high_watermark(), place.journal.written_sequence()), (Counts::InMemory, 2, before));
        partition.wait_acknowledged(&appending).await.unwrap();
        assert_eq!(offsets(&partition, 0, 100).await, [0]);
        partition.wait_durable(appending.sequence).await.unwrap();
        assert_eq!(place.journal.statistics().flushes, 1, "who needs stable storage still waits for it");
    });
}

#[test]
fn flushes_come_after_so_many_records_and_so_much_time() {
    let settings = TopicSettings { flush_messages: 10, flush_ms: 30, ..TopicSettings::default() };
    with_settings(settings, PartitionsOptions::default(), |place, partition| async move {
        for _ in 0..3 {
            let appending = partition.append(&batch(3, 10), CLIENT).await.unwrap();
            partition.wait_acknowledged(&appending).await.unwrap();
        }
        let appending = partition.append(&batch(1, 10), CLIENT).await.unwrap();
        partition.wait_acknowledged(&appending).await.unwrap();
        let flushed = async || {
            for _ in 0..300 {
                if place.journal.durable_sequence() >= place.journal.last_sequence() {
                    return;
                }
                rt::sleep(Duration::from_millis(5)).await;
            }
            panic!("nothing is flushed");
        };
        flushed().await;
        let flushes = place.journal.statistics().flushes;
        let appending = partition.append(&batch(1, 10), CLIENT).await.unwrap();
        partition.wait_acknowledged(&appending).await.unwrap();
        flushed().await;
        assert!(place.journal.statistics().flushes > flushes);
    });
}

#[test]
fn a_cached_record_counts_at_once() {
    with_settings(cached(), PartitionsOptions::default(), |place, partition| async move {
        let appending = partition.try_append(&batch(2, 10), CLIENT).unwrap();
        assert_eq!((appending.counts, partition.high_watermark()), (Counts::InMemory, 2));
        assert_eq!(place.journal.written_sequence(), GroupSequence(0), "no write has begun");
        partition.wait_acknowledged(&appending).await.unwrap();
        assert_eq!(offsets(&partition, 0, 100).await, [0]);
        place.place_everything().await;
        assert_eq!(partition.placed.get().end_offset, 2);
    });
}

/// The order of offsets is the order in which they are seen, whatever classes they were appended in.
#[test]
fn the_class_changes_while_records_are_under_way() {
    on_shard(|place, partition| async move {
        let strong = partition.try_append(&batch(1, 10), CLIENT).unwrap();
        partition.apply_settings(&cached());
        let cached = partition.try_append(&batch(1, 10), CLIENT).unwrap();
        assert_eq!((strong.counts, cached.counts, partition.high_watermark()), (Counts::Durable, Counts::InMemory, 0));
        partition.wait_acknowledged(&cached).await.unwrap();
        assert_eq!(partition.high_watermark(), 2, "what is acknowledged is seen, so the one before it is durable");
        partition.apply_settings(&written());
        let weak = partition.try_append(&batch(1, 10), CLIENT).unwrap();
        partition.apply_settings(&TopicSettings::default());
        let strong = partition.try_append(&batch(1, 10), CLIENT).unwrap();
        partition.wait_acknowledged(&strong).await.unwrap();
        assert_eq!((weak.counts, partition.high_watermark()), (Counts::Written, 4));
        assert!(place.journal.durable_sequence() >= strong.sequence, "the weaker one before it is durable too");
    });
}

#[test]
fn internal_topics_are_durable_in_any_class() {
    for topic in ["__consumer_offsets", "__transaction_state", "__cluster_metadata"] {
        assert_eq!(durability::DurabilityClass::new(&cached(), topic).counts, Counts::Durable);
    }
    assert_eq!(durability::DurabilityClass::new(&cached(), "orders").counts, Counts::InMemory);
    let both = TopicSettings { flush_messages: 5, ..cached() };
    assert_eq!(durability::DurabilityClass::new(&both, "orders").counts, Counts::InMemory);
}
