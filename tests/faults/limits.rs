//! The bounds of connections: how many there may be, how long one may be idle or leave a frame unfinished, how much it may have under way. Who meets one waits or goes; all others go on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use corelane_wire::ErrorCode;
use corelane_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelane_wire::messages::{ApiVersionsRequest, FetchRequest, IncrementalAlterConfigsRequest, ProduceRequest};
use harness::batch::{Batch, record};
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::own_broker_cases;
use harness::raw::{Connection, code, fetch_request, frame_of, produce_request};
use harness::suite::OwnBrokerCase;
use harness::wait;

use crate::process::Process;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    beyond_max_connections_clients_wait_for_their_turn,
    listeners_share_max_connections,
    a_listener_has_a_bound_of_its_own,
    idle_connections_are_closed,
    a_client_that_left_while_it_waited_gives_its_place_back,
    a_client_that_left_within_an_answer_gives_its_place_back,
    clients_that_do_not_read_hold_no_memory_of_others,
    clients_that_wait_for_others_do_not_keep_them_out,
    a_frame_that_is_not_completed_ends_its_connection,
    a_frame_that_waits_behind_another_is_not_late,
    bytes_under_way_are_bounded,
    requests_under_way_are_bounded,
    bytes_of_a_shard_are_bounded,
    bytes_of_all_shards_are_bounded,
    many_bad_clients_leave_few_lines,
];

/// A type of resource; without a name it is all brokers together.
const BROKER: i8 = 4;

/// Long enough to see that nothing happens.
const A_WHILE: Duration = Duration::from_millis(500);

fn beyond_max_connections_clients_wait_for_their_turn() {
    const MAX: usize = 3;
    let broker = Broker::start(BrokerOptions::default().set("max.connections", MAX));
    let mut served: Vec<Connection> = (0..MAX).map(|_| open_and_served(broker.address())).collect();
    let (mut late, asked) = ask(broker.address());
    late.assert_silent(A_WHILE);
    for connection in &mut served {
        connection.call(0, &ApiVersionsRequest::default());
    }
    drop(served.pop());
    late.receive::<ApiVersionsRequest>(0, asked).expect("an answer when there is room");
    let (mut later, asked) = ask(broker.address());
    later.assert_silent(A_WHILE);
    drop(late);
    later.receive::<ApiVersionsRequest>(0, asked).expect("an answer when there is room");
}

/// Two listeners wait for clients at the same time: the last place is given away once.
fn listeners_share_max_connections() {
    let [one, other] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let _broker = Process::with_settings(&[
        &format!("listeners=ONE://{one},OTHER://{other}"),
        "listener.security.protocol.map=ONE:PLAINTEXT,OTHER:PLAINTEXT",
        "inter.broker.listener.name=ONE",
        "max.connections=1",
    ]);
    let mut served = open_and_served(one);
    let (mut late, asked) = ask(other);
    late.assert_silent(A_WHILE);
    served.call(0, &ApiVersionsRequest::default());
    drop(served);
    late.receive::<ApiVersionsRequest>(0, asked).expect("an answer when there is room");
}

/// `listener.name.NAME.max.connections`: who is one too many for one listener waits there, and comes in when the bound is raised; another listener's clients are not concerned.
fn a_listener_has_a_bound_of_its_own() {
    let [one, other] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let _broker = Process::with_settings(&[
        &format!("listeners=ONE://{one},OTHER://{other}"),
        "listener.security.protocol.map=ONE:PLAINTEXT,OTHER:PLAINTEXT",
        "inter.broker.listener.name=ONE",
        "listener.name.other.max.connections=1",
    ]);
    let served = open_and_served(other);
    let (mut late, asked) = ask(other);
    late.assert_silent(A_WHILE);
    let mut elsewhere: Vec<Connection> = (0..3).map(|_| open_and_served(one)).collect();
    drop(served);
    late.receive::<ApiVersionsRequest>(0, asked).expect("an answer when there is room");

    let (mut later, asked) = ask(other);
    later.assert_silent(A_WHILE);
    let config = AlterableConfig { name: "listener.name.other.max.connections".into(), value: Some("2".into()), ..Default::default() };
    let everywhere = AlterConfigsResource { resource_type: BROKER, configs: vec![config], ..Default::default() };
    let request = IncrementalAlterConfigsRequest { resources: vec![everywhere], ..Default::default() };
    let answer = elsewhere[0].call(1, &request);
    assert_eq!(code(answer.responses[0].error_code), ErrorCode::None, "{answer:?}");
    later.receive::<ApiVersionsRequest>(0, asked).expect("an answer when there may be more");
}

/// Who says something now and then stays, and so does who waits for an answer.
fn idle_connections_are_closed() {
    const IDLE_MAX: Duration = Duration::from_millis(1500);
    let broker = Broker::start(BrokerOptions::default().set("connections.max.idle.ms", IDLE_MAX.as_millis()));
    let (mut idle, mut active, mut waiting) = (Connection::to(&broker), Connection::to(&broker), Connection::to(&broker));
    active.create_topic("idle", 1);
    idle.call(0, &ApiVersionsRequest::default());
    let begun = Instant::now();
    let mut parked = fetch_request(&[("idle", 0, 0)]);
    parked.max_wait_ms = 3 * IDLE_MAX.as_millis() as i32;
    let parked = waiting.send(11, &parked).expect("the connection lives");
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| {
            idle.assert_closed("idle for too long");
            begun.elapsed()
        });
        while !closing.is_finished() || begun.elapsed() < 2 * IDLE_MAX {
            active.call(0, &ApiVersionsRequest::default());
            std::thread::sleep(Duration::from_millis(100));
        }
        let idle_for = closing.join().expect("closed");
        assert!(idle_for >= IDLE_MAX, "closed after {idle_for:?}");
    });
    waiting.receive::<FetchRequest>(11, parked).expect("who waits for an answer is not idle");
}

/// Nobody reads the socket of a client that waits for records; that it has gone is noticed all the same.
fn a_client_that_left_while_it_waited_gives_its_place_back() {
    let broker = Broker::start(BrokerOptions::default().set("max.connections", 1));
    let mut waiting = Connection::to(&broker);
    waiting.create_topic("left", 1);
    let mut parked = fetch_request(&[("left", 0, 0)]);
    parked.max_wait_ms = i32::MAX;
    waiting.send(11, &parked).expect("the connection lives");
    waiting.assert_silent(A_WHILE);
    drop(waiting);
    let (mut next, asked) = ask(broker.address());
    next.receive::<ApiVersionsRequest>(0, asked).expect("an answer: the place is free");
}

/// Requests that wait for their turn behind an answer end with it, though it never arrived.
fn a_client_that_left_within_an_answer_gives_its_place_back() {
    let broker = Broker::start(BrokerOptions::default().set("max.connections", 2).set("connection.move.enable", false));
    let mut other = Connection::to(&broker);
    make_large_topic(&mut other);
    let (mut lazy, _) = lazy_client(&broker);
    let records = Batch::of(vec![record("key", "value")]).encode();
    let mut behind = frame_of(9, 1_001, None, &produce_request("queued", 0, -1, records));
    behind.extend(frame_of(0, 1_002, None, &ApiVersionsRequest::default()));
    lazy.send_bytes(&behind);
    wait::until("the first of them to be taken", wait::PATIENCE, || (other.end_offset("queued", 0) == 1).then_some(()));
    drop(lazy);
    let (mut next, asked) = ask(broker.address());
    next.receive::<ApiVersionsRequest>(0, asked).expect("an answer: the place is free");
}

/// Answers that nobody reads, with a produce request and the beginning of a large one behind each: what can be done is done, what waits for its turn waits without the memory that others
/// need, and in time the connections end.
fn clients_that_do_not_read_hold_no_memory_of_others() {
    const IDLE_MAX: Duration = Duration::from_millis(3000);
    const LARGE: usize = 3 << 20;
    let options = BrokerOptions { arguments: vec!["--shards".into(), "1".into()], ..BrokerOptions::default() };
    let options = options.set("shard.queued.bytes.max", 4 << 20).set("connections.max.idle.ms", IDLE_MAX.as_millis());
    let broker = Broker::start(options);
    let mut healthy = Connection::to(&broker);
    healthy.create_topic("unread", 1);
    for _ in 0..40 {
        healthy.append("unread", 0, vec![record("k", vec![b'v'; 900_000])]);
    }
    let mut wanted = fetch_request(&[("unread", 0, 0)]);
    wanted.max_bytes = i32::MAX;
    wanted.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    let mut deaf: Vec<Connection> = (0..6).map(|_| Connection::to(&broker)).collect();
    for connection in &mut deaf {
        connection.send(11, &wanted).expect("the connection lives");
        let records = Batch::of(vec![record("k", vec![b'v'; 900_000])]).encode();
        connection.send(9, &produce_request("unread", 0, -1, records)).expect("the connection lives");
        connection.send_bytes(&(LARGE as i32).to_be_bytes());
        connection.send_bytes(&[0, 3, 0, 9]);
    }
    let begun = Instant::now();
    while begun.elapsed() < 2 * IDLE_MAX {
        healthy.append("unread", 0, vec![record("k", vec![b'v'; 300_000])]);
        std::thread::sleep(Duration::from_millis(50));
    }
    for connection in &mut deaf {
        wait::until("an unread connection to end", wait::PATIENCE, || connection.send(11, &wanted).is_err().then_some(()));
    }
}

/// Parked requests, together larger than all that requests may hold: whoever could bring what they wait for still comes in.
fn clients_that_wait_for_others_do_not_keep_them_out() {
    let options = BrokerOptions { arguments: vec!["--shards".into(), "1".into()], ..BrokerOptions::default() };
    let broker = Broker::start(options.set("shard.queued.bytes.max", 1 << 20));
    let mut producing = Connection::to(&broker);
    producing.create_topic("waiting", 1);
    let parked = FetchRequest { max_wait_ms: i32::MAX, rack_id: "r".repeat(32_000).into(), ..fetch_request(&[("waiting", 0, 0)]) };
    let mut waiting: Vec<(Connection, i32)> = (0..40)
        .map(|_| {
            let mut connection = Connection::to(&broker);
            let asked = connection.send(11, &parked).expect("the connection lives");
            (connection, asked)
        })
        .collect();
    waiting[39].0.assert_silent(A_WHILE);
    producing.append("waiting", 0, vec![record("k", "v")]);
    for (connection, asked) in &mut waiting {
        connection.receive::<FetchRequest>(11, *asked).expect("an answer when there are records");
    }
}

/// Not even if a byte of it comes now and then.
fn a_frame_that_is_not_completed_ends_its_connection() {
    const FRAME_MAX: Duration = Duration::from_millis(1500);
    let broker = Broker::start(BrokerOptions::default().set("connection.frame.timeout.ms", FRAME_MAX.as_millis()));
    let (mut quiet, mut active) = (Connection::to(&broker), Connection::to(&broker));
    let frame = frame_of(0, 1, None, &ApiVersionsRequest::default());
    let (mut broken_off, mut size_only, mut dripping) = (Connection::to(&broker), Connection::to(&broker), Connection::to(&broker));
    let begun = Instant::now();
    broken_off.send_bytes(&frame[..frame.len() - 1]);
    size_only.send_bytes(&frame[..2]);
    dripping.send_bytes(&[0, 0, 1, 0]);
    std::thread::scope(|scope| {
        let closing = scope.spawn(|| {
            broken_off.assert_closed("a frame without its last byte");
            size_only.assert_closed("half a size");
            begun.elapsed()
        });
        while !closing.is_finished() || begun.elapsed() < 2 * FRAME_MAX {
            dripping.send_bytes(&[0]);
            active.call(0, &ApiVersionsRequest::default());
            std::thread::sleep(Duration::from_millis(100));
        }
        let open_for = closing.join().expect("closed");
        assert!(open_for >= FRAME_MAX, "closed after {open_for:?}");
    });
    dripping.assert_closed("a byte now and then");
    // Between two frames there is no frame to complete.
    quiet.call(0, &ApiVersionsRequest::default());
}

/// A client may send its next request while an earlier one waits for its answer, for longer than a frame may take: nobody reads it yet.
fn a_frame_that_waits_behind_another_is_not_late() {
    let broker = Broker::start(BrokerOptions::default().set("connection.frame.timeout.ms", 1_000));
    let mut connection = Connection::to(&broker);
    connection.create_topic("behind", 1);
    let mut parked = fetch_request(&[("behind", 0, 0)]);
    parked.max_wait_ms = 4_000;
    let mut frames = frame_of(11, 1_001, None, &parked);
    frames.extend(frame_of(0, 1_002, None, &ApiVersionsRequest::default()));
    connection.send_bytes(&frames);
    connection.receive::<FetchRequest>(11, 1_001).expect("the parked request is answered");
    connection.receive::<ApiVersionsRequest>(0, 1_002).expect("and so is the one behind it");
}

fn bytes_under_way_are_bounded() {
    let options = BrokerOptions::default().set("connection.queued.bytes.max", 65_536);
    // Two of 30,000 bytes fit beside the fetch, a third does not.
    only_so_many_are_taken(options, 30_000, 2);
}

fn requests_under_way_are_bounded() {
    let options = BrokerOptions::default().set("connection.produce.inflight.max", 5);
    // The fetch is the fifth.
    only_so_many_are_taken(options, 10, 4);
}

fn bytes_of_a_shard_are_bounded() {
    large_frames_wait_for_room_and_small_ones_do_not(BrokerOptions::default().set("shard.queued.bytes.max", 2 << 20));
}

fn bytes_of_all_shards_are_bounded() {
    let options = BrokerOptions::default().set("queued.max.request.bytes", 2 << 20).set("socket.request.max.bytes", 1_000_000);
    large_frames_wait_for_room_and_small_ones_do_not(options);
}

/// What is still arriving counts: with room for two MiB, half of it for that, a second large frame is not read beside the first, a small one is. With one shard, so that all share one bound.
fn large_frames_wait_for_room_and_small_ones_do_not(mut options: BrokerOptions) {
    const LARGE: usize = 700 << 10;
    options.arguments.extend(["--shards".to_string(), "1".to_string()]);
    let broker = Broker::start(options);
    let (mut slow, mut large, mut small) = (Connection::to(&broker), Connection::to(&broker), Connection::to(&broker));
    small.create_topic("large", 1);
    slow.send_bytes(&(LARGE as i32).to_be_bytes());
    slow.send_bytes(&vec![0; LARGE / 2]);
    // It has been seen when another connection is answered that comes after it.
    small.call(0, &ApiVersionsRequest::default());
    let records = Batch::of(vec![record("k", "v".repeat(LARGE))]).encode();
    let asked = large.send(9, &produce_request("large", 0, -1, records)).expect("the connection lives");
    for _ in 0..20 {
        small.append("large", 0, vec![record("k", "small")]);
    }
    large.assert_silent(A_WHILE);
    drop(slow);
    large.receive::<ProduceRequest>(9, asked).expect("an answer when there is room");
}

/// A client does not read the answer to a large fetch, so nothing that it sends behind it can be answered: `taken` produce requests of `value_bytes` each begin, the rest is not read. When it
/// reads again everything is answered, in order.
fn only_so_many_are_taken(options: BrokerOptions, value_bytes: usize, taken: i64) {
    const REQUESTS: usize = 6;
    let broker = Broker::start(options.set("socket.send.buffer.bytes", 65_536).set("connection.move.enable", false));
    let mut other = Connection::to(&broker);
    make_large_topic(&mut other);
    let (mut lazy, fetched) = lazy_client(&broker);
    let batch = Batch::of(vec![record("key", vec![1; value_bytes])]).encode();
    let sent: Vec<i32> =
        (0..REQUESTS).map(|_| lazy.send(9, &produce_request("queued", 0, -1, batch.clone())).expect("the socket takes it")).collect();

    wait::until("the first requests to be taken", wait::PATIENCE, || (other.end_offset("queued", 0) >= taken).then_some(()));
    let watched = Instant::now();
    while watched.elapsed() < A_WHILE {
        assert_eq!(other.end_offset("queued", 0), taken, "more requests were taken than the bound allows");
    }
    lazy.receive::<FetchRequest>(11, fetched).expect("the answer to the fetch");
    for (offset, correlation_id) in sent.into_iter().enumerate() {
        let answer = lazy.receive::<ProduceRequest>(9, correlation_id).expect("an answer in its turn");
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, offset as i64));
    }
}

/// A topic whose records no socket's buffers hold, and one to write to.
fn make_large_topic(connection: &mut Connection) {
    connection.create_topic("large", 1);
    connection.create_topic("queued", 1);
    for _ in 0..40 {
        connection.append("large", 0, vec![record("key", vec![7; 800_000])]);
    }
}

/// A client that has asked for all of it and does not read the answer; the question's correlation id.
fn lazy_client(broker: &Broker) -> (Connection, i32) {
    let mut lazy = Connection::to(broker);
    let mut fetch = fetch_request(&[("large", 0, 0)]);
    fetch.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    fetch.max_bytes = i32::MAX;
    let fetched = lazy.send(11, &fetch).expect("the connection lives");
    (lazy, fetched)
}

/// Each bad client is told of with its address or counted; the lines of a second are few.
fn many_bad_clients_leave_few_lines() {
    const CLIENTS: usize = 400;
    let broker = Broker::start(BrokerOptions::default());
    let mut good = Connection::to(&broker);
    let begun = Instant::now();
    let mut addresses = Vec::new();
    for number in 0..CLIENTS {
        let mut bad = Connection::to(&broker);
        addresses.push(bad.stream().local_addr().expect("a connected socket").to_string());
        // Garbage text, a negative size, an API that nobody knows.
        let garbage: &[u8] =
            [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 8], &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]][number % 3];
        bad.send_bytes(garbage);
        bad.assert_closed("garbage");
        good.call(0, &ApiVersionsRequest::default());
    }
    let number_behind = |line: &str| line.split("suppressed=").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let (told, lines) = wait::until("every bad client to be told of or counted", wait::PATIENCE, || {
        let log = broker.log();
        let told: Vec<String> = log.lines().filter(|line| line.contains(" closed: ")).map(str::to_owned).collect();
        let counts: Vec<usize> = log.lines().filter_map(number_behind).collect();
        (told.len() + counts.iter().sum::<usize>() == CLIENTS).then_some((told.clone(), told.len() + counts.len()))
    });
    // Five a second of each shard, and one that counts the rest.
    let seconds = begun.elapsed().as_secs() as usize + 2;
    let shards = std::thread::available_parallelism().map_or(1, usize::from);
    assert!(lines <= 6 * seconds * shards, "{lines} lines in {seconds} s of {shards} shards");
    for line in &told {
        assert!(addresses.iter().any(|address| line.contains(&format!("peer={address}"))), "no client's address: {line}");
    }
    println!("{CLIENTS} bad clients in {:?}: {lines} lines", begun.elapsed());
}

/// A connection that is served, once those before it have gone.
fn open_and_served(address: SocketAddr) -> Connection {
    let (mut connection, asked) = ask(address);
    connection.receive::<ApiVersionsRequest>(0, asked).expect("an answer");
    connection
}

/// A connection that has asked for something; the request's correlation id.
fn ask(address: SocketAddr) -> (Connection, i32) {
    let mut connection = Connection::open(address).expect("the kernel accepts");
    let asked = connection.send(0, &ApiVersionsRequest::default()).expect("the kernel takes it");
    (connection, asked)
}
