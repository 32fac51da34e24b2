//! The socket's rules: frames, headers, ApiVersions, order, and what closes a connection.

use std::io::Write;
use std::time::Duration;

use corelane_wire::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, SaslHandshakeRequest};
use corelane_wire::{ApiKey, Decoder, ErrorCode, Message, Str};
use harness::batch::{Batch, record};
use harness::broker::Broker;
use harness::cases;
use harness::differences;
use harness::raw::{Connection, code, fetch_request, frame_of, produce_request};
use harness::suite::Case;

pub const CASES: &[Case] = cases![
    every_api_of_the_main_job_is_offered_in_full,
    api_versions_of_the_future_is_answered_in_version_0,
    api_versions_needs_a_proper_software_name,
    api_versions_tells_a_client_of_another_cluster_to_start_over,
    unknown_api_key_closes,
    unsupported_version_closes,
    undecodable_body_closes,
    sasl_without_sasl_is_refused,
    size_zero_negative_or_above_the_limit_closes,
    truncated_frame_hurts_nobody,
    frame_in_single_bytes_is_answered,
    requests_are_answered_in_their_order,
    produces_in_flight_are_answered_in_their_order,
    parked_fetch_blocks_only_its_own_connection,
    null_and_long_client_ids_are_taken,
];

/// The APIs by which a client does its main job, in the ranges of 4.4.0: what is offered less would make an ordinary client fall back or fail.
const OFFERED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 13),
    (ApiKey::Fetch, 4, 18),
    (ApiKey::ListOffsets, 1, 11),
    (ApiKey::Metadata, 0, 13),
    (ApiKey::OffsetCommit, 2, 10),
    (ApiKey::OffsetFetch, 1, 10),
    (ApiKey::FindCoordinator, 0, 6),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 6),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 5),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 5),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::DescribeLogDirs, 1, 5),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 3),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::DescribeCluster, 0, 2),
    (ApiKey::DescribeProducers, 0, 0),
    (ApiKey::ListConfigResources, 0, 1),
    (ApiKey::DescribeTopicPartitions, 0, 0),
];

fn every_api_of_the_main_job_is_offered_in_full(broker: &Broker) {
    let response = Connection::to(broker).call(4, &api_versions());
    assert_eq!(code(response.error_code), ErrorCode::None);
    for (key, min, max) in OFFERED {
        let min = &match key {
            ApiKey::ListOffsets | ApiKey::OffsetCommit => {
                min - differences::expected("older-offset-versions").parse::<i16>().expect("a number")
            }
            _ => *min,
        };
        let offered = response.api_keys.iter().find(|offered| offered.api_key == key.code());
        assert_eq!(offered.map(|offered| (offered.min_version, offered.max_version)), Some((*min, *max)), "{}", key.name());
    }
}

/// A client of the future asks in a version that nobody knows and learns, in version 0, what it may ask in.
fn api_versions_of_the_future_is_answered_in_version_0(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let mut frame = frame_of(3, 9, None, &api_versions());
    frame[6..8].copy_from_slice(&99i16.to_be_bytes());
    connection.send_bytes(&frame);
    let mut decoder = Decoder::new(connection.read_frame().expect("an answer"));
    assert_eq!(decoder.int32(), Ok(9), "the correlation id in a header of version 0");
    let response = ApiVersionsResponse::decode(&mut decoder, 0).expect("a body of version 0");
    assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
    let only: Vec<_> = response.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
    assert_eq!(only, [(18, 0, 5)]);
    assert_eq!(code(connection.call(3, &api_versions()).error_code), ErrorCode::None, "the connection goes on");
}

fn api_versions_needs_a_proper_software_name(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for (name, version) in [("", "1"), ("a b", "1"), ("-client", "1"), ("client", ""), ("client", "1?")] {
        let request =
            ApiVersionsRequest { client_software_name: Str::from(name), client_software_version: Str::from(version), ..Default::default() };
        assert_eq!(code(connection.call(3, &request).error_code), ErrorCode::InvalidRequest, "`{name}` `{version}`");
    }
}

fn api_versions_tells_a_client_of_another_cluster_to_start_over(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let own = connection.metadata(9, &[]).cluster_id;
    let ask = |cluster_id, node_id| ApiVersionsRequest { cluster_id, node_id, ..api_versions() };
    assert_eq!(code(connection.call(5, &ask(own.clone(), 1)).error_code), ErrorCode::None);
    assert_eq!(code(connection.call(5, &ask(Some(Str::from("another-cluster-id-xxx")), 1)).error_code), ErrorCode::RebootstrapRequired);
    assert_eq!(code(connection.call(5, &ask(own, 77)).error_code), ErrorCode::RebootstrapRequired);
}

fn unknown_api_key_closes(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let mut frame = frame_of(1, 1, None, &MetadataRequest::default());
    frame[4..6].copy_from_slice(&999i16.to_be_bytes());
    connection.send_bytes(&frame);
    connection.assert_closed("an unknown api key");
}

fn unsupported_version_closes(broker: &Broker) {
    for version in [-1i16, 14, 99] {
        let mut connection = Connection::to(broker);
        let mut frame = frame_of(1, 1, None, &MetadataRequest::default());
        frame[6..8].copy_from_slice(&version.to_be_bytes());
        connection.send_bytes(&frame);
        connection.assert_closed(&format!("Metadata version {version}"));
    }
    // Offered for old clients' sake, removed all the same: versions below 3 cannot be parsed.
    let mut connection = Connection::to(broker);
    let mut frame = frame_of(3, 1, None, &produce_request("any", 0, 1, Batch::of(vec![record("k", "v")]).encode()));
    frame[6..8].copy_from_slice(&2i16.to_be_bytes());
    connection.send_bytes(&frame);
    connection.assert_closed("Produce version 2");
}

/// A topic array that claims more entries than the frame has bytes, and a string that runs over the frame's end.
fn undecodable_body_closes(broker: &Broker) {
    let bodies: [&[u8]; 3] = [&[0x7f, 0xff, 0xff, 0xff], &[0, 0, 0, 1, 0x7f, 0xff], &[0, 0]];
    for body in bodies {
        let mut connection = Connection::to(broker);
        let mut frame = Vec::new();
        frame.extend_from_slice(&(10 + body.len() as i32).to_be_bytes());
        frame.extend_from_slice(&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff]);
        frame.extend_from_slice(body);
        connection.send_bytes(&frame);
        connection.assert_closed(&format!("the Metadata body {body:?}"));
    }
}

fn sasl_without_sasl_is_refused(broker: &Broker) {
    let response = Connection::to(broker).call(1, &SaslHandshakeRequest { mechanism: Str::from("PLAIN"), ..Default::default() });
    assert_eq!(code(response.error_code), ErrorCode::IllegalSaslState);
}

fn size_zero_negative_or_above_the_limit_closes(broker: &Broker) {
    for size in [-1i32, i32::MIN, i32::MAX, 104_857_601] {
        let mut connection = Connection::to(broker);
        connection.send_bytes(&size.to_be_bytes());
        connection.assert_closed(&format!("a frame of {size} bytes"));
    }
    let mut connection = Connection::to(broker);
    connection.send_bytes(&[0, 0, 0, 0]);
    connection.assert_closed("a frame without a header");
}

/// A client that goes away in the middle of a frame takes nobody with it.
fn truncated_frame_hurts_nobody(broker: &Broker) {
    let whole = frame_of(9, 1, None, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() });
    for length in 1..whole.len() {
        Connection::to(broker).send_bytes(&whole[..length]);
    }
    assert_eq!(Connection::to(broker).metadata(9, &[]).brokers.len(), 1);
}

fn frame_in_single_bytes_is_answered(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for byte in frame_of(4, 5, None, &api_versions()) {
        connection.stream().write_all(&[byte]).expect("the broker reads on");
    }
    let answer = connection.receive::<ApiVersionsRequest>(4, 5).expect("an answer");
    assert_eq!(code(answer.error_code), ErrorCode::None);
}

/// Two hundred requests of two kinds are sent before the first answer is read.
fn requests_are_answered_in_their_order(broker: &Broker) {
    let mut connection = Connection::to(broker);
    let sent: Vec<(bool, i32)> = (0..200)
        .map(|index| match index % 3 {
            0 => (true, connection.send(4, &api_versions()).expect("the socket takes it")),
            _ => (
                false,
                connection.send(9, &MetadataRequest { topics: Some(Vec::new()), ..Default::default() }).expect("the socket takes it"),
            ),
        })
        .collect();
    for (is_api_versions, correlation_id) in sent {
        match is_api_versions {
            true => drop(connection.receive::<ApiVersionsRequest>(4, correlation_id).expect("an answer")),
            false => drop(connection.receive::<MetadataRequest>(9, correlation_id).expect("an answer")),
        }
    }
}

/// Produce requests over several partitions, and requests of other kinds between them, are answered in order and see what was sent before them.
fn produces_in_flight_are_answered_in_their_order(broker: &Broker) {
    let topic = "connection-in-flight";
    let mut connection = Connection::to(broker);
    connection.create_topic(topic, 4);
    let sent: Vec<i32> = (0..60)
        .map(|index| {
            let batch = Batch::of(vec![record("k", format!("{index}"))]).encode();
            connection.send(9, &produce_request(topic, index % 4, -1, batch)).expect("the socket takes it")
        })
        .collect();
    let fetch = connection.send(11, &fetch_request(&[(topic, 3, 14)])).expect("the socket takes it");
    for (index, correlation_id) in sent.into_iter().enumerate() {
        let answer = connection.receive::<corelane_wire::messages::ProduceRequest>(9, correlation_id).expect("an answer");
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((code(partition.error_code), partition.base_offset), (ErrorCode::None, index as i64 / 4));
    }
    let fetched = connection.receive::<corelane_wire::messages::FetchRequest>(11, fetch).expect("an answer");
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 15, "a fetch sees what its own connection produced before it");
}

/// A fetch that waits for ten seconds does not hold up a second connection, nor is it answered early.
fn parked_fetch_blocks_only_its_own_connection(broker: &Broker) {
    let topic = "connection-parked";
    let (mut parked, mut other) = (Connection::to(broker), Connection::to(broker));
    other.create_topic(topic, 1);
    let mut request = fetch_request(&[(topic, 0, 0)]);
    request.max_wait_ms = 10_000;
    let fetch = parked.send(11, &request).expect("the socket takes it");
    parked.assert_silent(Duration::from_millis(300));
    assert_eq!(other.metadata(9, &[topic]).topics[0].partitions.len(), 1);
    other.append(topic, 0, vec![record("k", "v")]);
    let answer = parked.receive::<corelane_wire::messages::FetchRequest>(11, fetch).expect("an answer");
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 1);
}

fn null_and_long_client_ids_are_taken(broker: &Broker) {
    let mut connection = Connection::to(broker);
    for client_id in [None, Some(Str::from("")), Some(Str::from("x".repeat(30_000))), Some(Str::from("größe-λ"))] {
        connection.client_id = client_id;
        assert_eq!(connection.metadata(9, &[]).brokers.len(), 1);
    }
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: Str::from("black-box"), client_software_version: Str::from("1.0"), ..Default::default() }
}
