//! Fetch: what comes back, how much of it, when, and with which error; sessions.

use std::time::{Duration, Instant};

use corelane_wire::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use corelane_wire::messages::{FetchRequest, FetchResponse};
use corelane_wire::{ErrorCode, Str};
use harness::batch::{self, Batch, Codec, record};
use harness::broker::Broker;
use harness::cases;
use harness::raw::{Connection, code, fetch_request, partitions_of, records_of};
use harness::suite::Case;

pub const CASES: &[Case] = cases![
    every_version_returns_the_same_records,
    reply_begins_at_the_batch_that_holds_the_offset,
    fetch_at_the_end_waits_and_returns_nothing,
    fetch_returns_as_soon_as_records_arrive,
    min_bytes_are_awaited,
    offsets_outside_the_log_are_named,
    first_batch_comes_whole_however_small_the_limits,
    limits_cut_between_batches,
    partitions_share_the_total_in_their_order,
    unknown_topics_and_partitions_are_named_beside_good_ones,
    topic_ids_are_asked_from_version_13,
    leader_epochs_are_checked,
    diverging_epochs_are_told,
    followers_need_an_assignment,
    read_committed_reads_what_is_not_transactional,
    session_returns_only_what_changed,
    session_takes_new_partitions_and_forgets_old_ones,
    session_repeats_an_error_until_it_goes_away,
    session_ids_and_epochs_are_checked,
    session_ends_when_asked,
];

fn every_version_returns_the_same_records(broker: &Broker) {
    let topic = "fetch-versions";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let sent = vec![record("a", "1"), record("b", vec![3; 3000])];
    connection.append(topic, 0, sent.clone());
    connection.produce(topic, 0, &Batch::of(sent.clone()).codec(Codec::Zstd));
    let id = connection.topic_id(topic);
    for version in 4..=18 {
        let mut request = fetch_request(&[(topic, 0, 0)]);
        if version >= 13 {
            request.topics[0].topic_id = id;
        }
        let answer = connection.call(version, &request);
        let data = &answer.responses[0].partitions[0];
        assert_eq!(code(data.error_code), ErrorCode::None, "version {version}");
        assert_eq!((data.high_watermark, data.last_stable_offset), (4, 4), "version {version}");
        assert!(version < 5 || data.log_start_offset == 0, "version {version}");
        let read: Vec<_> = batch::read_records(&records_of(data)).into_iter().map(|(_, record)| record).collect();
        assert_eq!(read, [sent.clone(), sent.clone()].concat(), "version {version}");
    }
}

fn reply_begins_at_the_batch_that_holds_the_offset(broker: &Broker) {
    let topic = "fetch-inside";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for start in [0, 10, 20] {
        let answer = connection.produce(
            topic,
            0,
            &Batch::of((0..10).map(|index| record("k", format!("{}", start + index))).collect()).codec(Codec::Lz4),
        );
        assert_eq!(answer.base_offset, start);
    }
    for (asked, begins) in [(0, 0), (9, 0), (10, 10), (15, 10), (29, 20)] {
        let batches = batch::read_batches(&records_of(&connection.fetch(topic, 0, asked)));
        assert_eq!(batches[0].base_offset, begins, "fetch at {asked}");
        assert_eq!(batches.last().map(|batch| batch.last_offset()), Some(29), "fetch at {asked}");
    }
}

fn fetch_at_the_end_waits_and_returns_nothing(broker: &Broker) {
    let topic = "fetch-end";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let mut request = fetch_request(&[(topic, 0, 1)]);
    request.max_wait_ms = 400;
    let started = Instant::now();
    let answer = connection.call(11, &request);
    assert!(started.elapsed() >= Duration::from_millis(390), "{:?}", started.elapsed());
    let data = &answer.responses[0].partitions[0];
    assert_eq!((code(data.error_code), data.high_watermark, records_of(data).len()), (ErrorCode::None, 1, 0));
    request.max_wait_ms = 0;
    let started = Instant::now();
    connection.call(11, &request);
    assert!(started.elapsed() < Duration::from_millis(390), "without a wait: {:?}", started.elapsed());
}

fn fetch_returns_as_soon_as_records_arrive(broker: &Broker) {
    let topic = "fetch-tail";
    let (mut reader, mut writer) = (Connection::to(broker), Connection::to(broker));
    writer.create_topic(topic, 3);
    let mut request = fetch_request(&[(topic, 0, 0), (topic, 1, 0), (topic, 2, 0)]);
    request.max_wait_ms = 60_000;
    let started = Instant::now();
    let fetch = reader.send(11, &request).expect("the socket takes it");
    reader.assert_silent(Duration::from_millis(200));
    writer.append(topic, 1, vec![record("k", "v")]);
    let answer = reader.receive::<FetchRequest>(11, fetch).expect("an answer");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let with_records: Vec<i32> =
        partitions_of(&answer).into_iter().filter(|(_, data)| !records_of(data).is_empty()).map(|(_, data)| data.partition_index).collect();
    assert_eq!(with_records, [1]);
}

/// A small batch does not end the wait; with the one that fills the measure, both come.
fn min_bytes_are_awaited(broker: &Broker) {
    let topic = "fetch-min-bytes";
    let (mut reader, mut writer) = (Connection::to(broker), Connection::to(broker));
    writer.create_topic(topic, 1);
    let mut request = fetch_request(&[(topic, 0, 0)]);
    (request.max_wait_ms, request.min_bytes) = (60_000, 2_000);
    let fetch = reader.send(11, &request).expect("the socket takes it");
    writer.append(topic, 0, vec![record("small", "v")]);
    reader.assert_silent(Duration::from_millis(300));
    writer.append(topic, 0, vec![record("large", vec![1; 3000])]);
    let answer = reader.receive::<FetchRequest>(11, fetch).expect("an answer");
    assert_eq!(batch::read_records(&records_of(&answer.responses[0].partitions[0])).len(), 2);
}

fn offsets_outside_the_log_are_named(broker: &Broker) {
    let topic = "fetch-range";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    for offset in [-1, 2, 1_000] {
        let data = connection.fetch(topic, 0, offset);
        assert_eq!(code(data.error_code), ErrorCode::OffsetOutOfRange, "offset {offset}");
        assert_eq!((data.high_watermark, data.last_stable_offset, data.log_start_offset), (-1, -1, -1), "offset {offset}");
        assert!(records_of(&data).is_empty());
    }
}

/// Progress must be possible whatever the limits say.
fn first_batch_comes_whole_however_small_the_limits(broker: &Broker) {
    let topic = "fetch-first-batch";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 2);
    for partition in [0, 1] {
        connection.append(topic, partition, vec![record("k", vec![1; 20_000])]);
        connection.append(topic, partition, vec![record("k", vec![2; 20_000])]);
    }
    for (total, each) in [(1, 1), (1 << 20, 1), (1, 1 << 20)] {
        let mut request = fetch_request(&[(topic, 0, 0), (topic, 1, 0)]);
        request.max_bytes = total;
        request.topics.iter_mut().for_each(|topic| topic.partitions[0].partition_max_bytes = each);
        let answer = connection.call(11, &request);
        let read: Vec<usize> = partitions_of(&answer).into_iter().map(|(_, data)| batch::read_batches(&records_of(data)).len()).collect();
        assert_eq!(read, [1, 0], "max bytes {total}, of a partition {each}");
    }
}

fn limits_cut_between_batches(broker: &Broker) {
    let topic = "fetch-limits";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    for _ in 0..10 {
        connection.append(topic, 0, vec![record("k", vec![1; 10_000])]);
    }
    let mut request = fetch_request(&[(topic, 0, 0)]);
    request.topics[0].partitions[0].partition_max_bytes = 35_000;
    let answer = connection.call(11, &request);
    let records = records_of(&answer.responses[0].partitions[0]);
    assert!(records.len() <= 35_000, "{} bytes", records.len());
    assert_eq!(batch::read_batches(&records).len(), 3);
}

fn partitions_share_the_total_in_their_order(broker: &Broker) {
    let topic = "fetch-total";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 3);
    for partition in 0..3 {
        for _ in 0..5 {
            connection.append(topic, partition, vec![record("k", vec![1; 10_000])]);
        }
    }
    let mut request = fetch_request(&[(topic, 2, 0), (topic, 0, 0), (topic, 1, 0)]);
    request.max_bytes = 75_000;
    let answer = connection.call(11, &request);
    let read: Vec<(i32, usize)> =
        partitions_of(&answer).into_iter().map(|(_, data)| (data.partition_index, batch::read_batches(&records_of(data)).len())).collect();
    assert_eq!(read, [(2, 5), (0, 2), (1, 0)]);
}

fn unknown_topics_and_partitions_are_named_beside_good_ones(broker: &Broker) {
    let topic = "fetch-unknown";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let mut request = fetch_request(&[("fetch-no-such-topic", 0, 0), (topic, 5, 0), (topic, 0, 0)]);
    request.max_wait_ms = 60_000;
    let answer = connection.call(11, &request);
    let mut codes: Vec<_> =
        partitions_of(&answer).into_iter().map(|(topic, data)| (topic, data.partition_index, code(data.error_code))).collect();
    codes.sort_by_key(|(topic, partition, _)| (topic.clone(), *partition));
    let expected = [
        ("fetch-no-such-topic".to_string(), 0, ErrorCode::UnknownTopicOrPartition),
        (topic.to_string(), 0, ErrorCode::None),
        (topic.to_string(), 5, ErrorCode::UnknownTopicOrPartition),
    ];
    assert_eq!(codes, expected);
}

fn topic_ids_are_asked_from_version_13(broker: &Broker) {
    let topic = "fetch-topic-id";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let id = connection.topic_id(topic);
    let mut request = fetch_request(&[(topic, 0, 0)]);
    request.max_wait_ms = 0;
    for (topic_id, expected) in
        [(id, ErrorCode::None), (uuid::Uuid::from_u128(77), ErrorCode::UnknownTopicId), (uuid::Uuid::nil(), ErrorCode::UnknownTopicId)]
    {
        request.topics[0].topic_id = topic_id;
        let answer = connection.call(13, &request);
        assert_eq!(code(answer.error_code), ErrorCode::None);
        assert_eq!(answer.responses[0].topic_id, topic_id);
        assert_eq!(code(answer.responses[0].partitions[0].error_code), expected, "{topic_id}");
    }
}

fn leader_epochs_are_checked(broker: &Broker) {
    let topic = "fetch-epochs";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let current = connection.metadata(9, &[topic]).topics[0].partitions[0].leader_epoch;
    for (epoch, expected) in [(-1, ErrorCode::None), (current, ErrorCode::None), (current + 1, ErrorCode::UnknownLeaderEpoch)] {
        let mut request = fetch_request(&[(topic, 0, 0)]);
        request.max_wait_ms = 0;
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        assert_eq!(code(connection.call(11, &request).responses[0].partitions[0].error_code), expected, "epoch {epoch}, current {current}");
    }
}

/// Whoever claims records behind the end of their epoch is told where to cut (KIP-595); an epoch that the log never had has no end to tell.
fn diverging_epochs_are_told(broker: &Broker) {
    let topic = "fetch-diverging";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let epoch = batch::read_batches(&records_of(&connection.fetch(topic, 0, 0)))[0].leader_epoch;
    let mut ask = |fetch_offset, last_fetched_epoch| {
        let mut request = fetch_request(&[(topic, 0, fetch_offset)]);
        request.max_wait_ms = 0;
        request.topics[0].partitions[0].last_fetched_epoch = last_fetched_epoch;
        let data = connection.call(12, &request).responses.remove(0).partitions.remove(0);
        assert!(fetch_offset == 0 || records_of(&data).is_empty());
        (code(data.error_code), data.diverging_epoch.epoch, data.diverging_epoch.end_offset)
    };
    assert_eq!(ask(1, epoch), (ErrorCode::None, -1, -1));
    assert_eq!(ask(5, epoch), (ErrorCode::None, epoch, 1));
    assert_eq!(ask(1, epoch + 5), (ErrorCode::OffsetOutOfRange, -1, -1));
}

/// A replica that knows the leader's epoch and is not assigned is asked to wait for newer metadata; one that does not know it, to look for the leader.
fn followers_need_an_assignment(broker: &Broker) {
    let topic = "fetch-follower";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    let current = connection.metadata(9, &[topic]).topics[0].partitions[0].leader_epoch;
    for (epoch, expected) in [(current, ErrorCode::UnknownLeaderEpoch), (-1, ErrorCode::NotLeaderOrFollower)] {
        let mut request = fetch_request(&[(topic, 0, 0)]);
        request.replica_id = 55;
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let answer = connection.call(11, &request);
        assert_eq!(code(answer.responses[0].partitions[0].error_code), expected, "epoch {epoch}");
    }
}

fn read_committed_reads_what_is_not_transactional(broker: &Broker) {
    let topic = "fetch-committed";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 1);
    connection.append(topic, 0, vec![record("k", "v")]);
    let mut request = fetch_request(&[(topic, 0, 0)]);
    let uncommitted = connection.call(11, &request).responses.remove(0).partitions.remove(0);
    assert_eq!(uncommitted.aborted_transactions, None);
    request.isolation_level = 1;
    let committed = connection.call(11, &request).responses.remove(0).partitions.remove(0);
    assert_eq!(committed.aborted_transactions.map(|aborted| aborted.len()), Some(0));
    assert_eq!(
        (committed.last_stable_offset, batch::read_records(&committed.records.map(|records| records.to_bytes()).unwrap_or_default()).len()),
        (1, 1)
    );
}

fn session_returns_only_what_changed(broker: &Broker) {
    let mut test = Session::open(broker, "session-changes", 4);
    assert_eq!(test.partitions(&test.opened), [0, 1, 2, 3], "the first reply names every partition");
    assert_eq!(test.next(&[], &[]), Vec::<i32>::new(), "nothing changed");
    test.connection.append(&test.topic, 2, vec![record("k", "v")]);
    assert_eq!(test.next(&[], &[]), [2], "a partition with records");
    assert_eq!(test.next(&[], &[]), [2], "and again until the offset moves");
    assert_eq!(test.next(&[(2, 1)], &[]), Vec::<i32>::new(), "which the request tells");
}

fn session_takes_new_partitions_and_forgets_old_ones(broker: &Broker) {
    let mut test = Session::open(broker, "session-members", 2);
    assert_eq!(test.next(&[(1, 0)], &[0]), Vec::<i32>::new());
    test.connection.append(&test.topic, 0, vec![record("k", "v")]);
    test.connection.append(&test.topic, 1, vec![record("k", "v")]);
    assert_eq!(test.next(&[(1, 1)], &[]), [1], "the changed high watermark of the one that is left");
    assert_eq!(test.next(&[(0, 0)], &[]), [0], "and the other one when it comes back");
}

fn session_repeats_an_error_until_it_goes_away(broker: &Broker) {
    let mut test = Session::open(broker, "session-errors", 1);
    for _ in 0..2 {
        let (epoch, id) = (test.epoch, test.id);
        let answer = test.ask(id, epoch, &[(0, 99)], &[]);
        test.epoch += 1;
        assert_eq!(code(answer.responses[0].partitions[0].error_code), ErrorCode::OffsetOutOfRange);
    }
    assert_eq!(test.next(&[(0, 0)], &[]), [0], "the error is gone");
    assert_eq!(test.next(&[], &[]), Vec::<i32>::new());
}

fn session_ids_and_epochs_are_checked(broker: &Broker) {
    let mut test = Session::open(broker, "session-checks", 1);
    let id = test.id;
    let unknown = test.ask(id.wrapping_add(1).max(1), 1, &[], &[]);
    assert_eq!((code(unknown.error_code), unknown.responses.len()), (ErrorCode::FetchSessionIdNotFound, 0));
    for epoch in [2, 5] {
        let answer = test.ask(id, epoch, &[], &[]);
        assert_eq!(
            (code(answer.error_code), answer.responses.len()),
            (ErrorCode::InvalidFetchSessionEpoch, 0),
            "epoch {epoch} instead of 1"
        );
    }
    assert_eq!(test.next(&[], &[]), Vec::<i32>::new(), "the session lives on");
}

fn session_ends_when_asked(broker: &Broker) {
    let mut test = Session::open(broker, "session-ends", 1);
    let id = test.id;
    let last = test.ask(id, -1, &[(0, 0)], &[]);
    assert_eq!((code(last.error_code), last.session_id), (ErrorCode::None, 0));
    assert_eq!(code(test.ask(id, 1, &[], &[]).error_code), ErrorCode::FetchSessionIdNotFound);
}

/// An incremental fetch session (KIP-227) over the partitions of one topic.
struct Session {
    connection: Connection,
    topic: String,
    id: i32,
    epoch: i32,
    opened: FetchResponse,
}

impl Session {
    fn open(broker: &Broker, topic: &str, partitions: i32) -> Session {
        let mut connection = Connection::to(broker);
        connection.create_topic(topic, partitions);
        let mut session = Session { connection, topic: topic.to_string(), id: 0, epoch: 1, opened: FetchResponse::default() };
        let all: Vec<(i32, i64)> = (0..partitions).map(|partition| (partition, 0)).collect();
        session.opened = session.ask(0, 0, &all, &[]);
        assert_eq!(code(session.opened.error_code), ErrorCode::None);
        assert_ne!(session.opened.session_id, 0, "a session is made");
        session.id = session.opened.session_id;
        session
    }

    /// The next incremental request; which partitions its reply names.
    fn next(&mut self, places: &[(i32, i64)], forgotten: &[i32]) -> Vec<i32> {
        let answer = self.ask(self.id, self.epoch, places, forgotten);
        assert_eq!((code(answer.error_code), answer.session_id), (ErrorCode::None, self.id));
        self.epoch += 1;
        self.partitions(&answer)
    }

    fn partitions(&self, answer: &FetchResponse) -> Vec<i32> {
        let mut partitions: Vec<i32> = partitions_of(answer).into_iter().map(|(_, data)| data.partition_index).collect();
        partitions.sort_unstable();
        partitions
    }

    fn ask(&mut self, session_id: i32, session_epoch: i32, places: &[(i32, i64)], forgotten: &[i32]) -> FetchResponse {
        let one = |&(partition, fetch_offset): &(i32, i64)| FetchPartition {
            partition,
            fetch_offset,
            partition_max_bytes: 1 << 20,
            ..Default::default()
        };
        let topics = if places.is_empty() {
            Vec::new()
        } else {
            vec![FetchTopic { topic: Str::from(self.topic.as_str()), partitions: places.iter().map(one).collect(), ..Default::default() }]
        };
        let forgotten_topics_data = if forgotten.is_empty() {
            Vec::new()
        } else {
            vec![ForgottenTopic { topic: Str::from(self.topic.as_str()), partitions: forgotten.to_vec(), ..Default::default() }]
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: 100,
            min_bytes: 1,
            max_bytes: 50 << 20,
            session_id,
            session_epoch,
            topics,
            forgotten_topics_data,
            ..Default::default()
        };
        self.connection.call(11, &request)
    }
}
