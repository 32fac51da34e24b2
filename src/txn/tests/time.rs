//! Transactions that take too long, and ids that nobody uses.

use super::*;

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    for version in [TV1, TV2] {
        let (mut world, producer) = World::in_state(State::Ongoing, version);
        world.now_ms += 60_000;
        assert!(world.coordinator.timed_out(world.now_ms).is_empty());
        world.now_ms += 1;
        assert_eq!(world.coordinator.timed_out(world.now_ms), [Str::from("a")]);
        let aborted = world.coordinator.abort_timed_out(world.now_ms, TV2, None, &Str::from("a")).unwrap().unwrap();
        world.replay(aborted);
        assert!(world.coordinator.timed_out(world.now_ms).is_empty());
        assert!(world.coordinator.abort_timed_out(world.now_ms, TV2, None, &Str::from("a")).is_none());
        world.complete("a");
        // The late commit of the producer must not succeed, nor the late append.
        assert_eq!(world.end("a", producer, true, version), Err(ErrorCode::ProducerFenced));
        assert_eq!(world.add("a", producer, &[0], version), Err(ErrorCode::ProducerFenced));
        // A producer of version 2 that aborts hears that it is done, and goes on with the raised epoch.
        let aborted = world.end("a", producer, false, version);
        assert_eq!(aborted, if version == TV2 { Ok(next_epoch(producer)) } else { Err(ErrorCode::ProducerFenced) });
    }
}

#[test]
fn a_timeout_at_the_last_epoch_wants_a_new_id() {
    let (mut world, _) = World::in_state(State::Empty, TV2);
    let last = world.set_epoch(i16::MAX - 1);
    world.add("a", last, &[0], TV2).unwrap();
    world.now_ms += 60_001;
    let id = Str::from("a");
    assert!(matches!(world.coordinator.abort_timed_out(world.now_ms, TV2, None, &id), Some(Err(_))));
    let aborted = world.coordinator.abort_timed_out(world.now_ms, TV2, Some(77), &id).unwrap().unwrap();
    world.replay(aborted);
    world.complete("a");
    assert_eq!(world.coordinator.get("a").unwrap().producer, Producer { id: 77, epoch: 0 });
    assert_eq!(world.end("a", last, false, TV2), Ok(Producer { id: 77, epoch: 0 }), "the delayed abort is the retry of ours");
}

#[test]
fn idle_ids_expire_and_open_ones_do_not() {
    let mut world = World::new();
    for index in 0..10 {
        let id = format!("id-{index}");
        let producer = world.initialise(&id).unwrap();
        if index % 2 == 0 {
            world.add(&id, producer, &[0], TV1).unwrap();
        }
    }
    world.now_ms += config().id_expiration_ms - 1;
    assert_eq!(world.coordinator.expire(world.now_ms, None, 100), (Vec::new(), None));
    world.now_ms += 1;
    let (mut after, mut steps) = (None, 0);
    loop {
        let (records, next) = world.coordinator.expire(world.now_ms, after.as_ref(), 3);
        steps += 1;
        records.into_iter().for_each(|record| world.replay(record));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((world.coordinator.count(), steps), (5, 4));
    assert!(world.coordinator.get("id-1").is_none() && world.coordinator.get("id-2").is_some());
    let call = Call::Describe { transactional_id: Str::from("id-1") };
    let Reply::Described(described) = world.call(call) else { panic!() };
    assert_eq!(described.error_code, ErrorCode::TransactionalIdNotFound.code());
}
