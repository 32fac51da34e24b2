//! ApiVersions: what this broker serves, in one table that dispatch reads too, and which features the cluster has finalised.
//!
//! It is the one request that is answered in a version that nobody knows: a client of the future learns in version 0 what it may ask in (KIP-511).

use std::ops::RangeInclusive;

use super::{Answer, CloseReason, Request, RequestContext, Response, older_versions};
use crate::cluster::Image;
use crate::cluster::features::{is_served, served_features};
use crate::wire::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use crate::wire::messages::{ApiVersionsRequest, ApiVersionsResponse};
use crate::wire::{ApiKey, ErrorCode, Message, Str};

/// A request that is served, in these versions. What is not complete has no row.
struct Served {
    api_key: ApiKey,
    /// The lowest version that clients are told.
    told_min: i16,
    min: i16,
    max: i16,
}

const fn row(api_key: ApiKey, min: i16, max: i16) -> Served {
    Served { api_key, told_min: min, min, max }
}

/// Every request that is served, in the order of the keys, in the ranges of Kafka 4.4.
const SERVED: [Served; 44] = [
    // librdkafka before 2.12 compresses only where versions from 0 on are told (KAFKA-18659); below 3 nothing is served, as in Kafka.
    Served { api_key: ApiKey::Produce, told_min: 0, min: 3, max: 13 },
    row(ApiKey::Fetch, 4, 18),
    // Below Kafka 4's lowest, for clients that are older than it: `older_versions`.
    row(ApiKey::ListOffsets, older_versions::LIST_OFFSETS, 11),
    row(ApiKey::Metadata, 0, 13),
    row(ApiKey::OffsetCommit, older_versions::OFFSET_COMMIT, 10),
    row(ApiKey::OffsetFetch, 1, 10),
    row(ApiKey::FindCoordinator, 0, 6),
    row(ApiKey::JoinGroup, 0, 9),
    row(ApiKey::Heartbeat, 0, 4),
    row(ApiKey::LeaveGroup, 0, 5),
    row(ApiKey::SyncGroup, 0, 5),
    row(ApiKey::DescribeGroups, 0, 6),
    row(ApiKey::ListGroups, 0, 5),
    row(ApiKey::SaslHandshake, 0, 1),
    row(ApiKey::ApiVersions, 0, 5),
    row(ApiKey::CreateTopics, 2, 7),
    row(ApiKey::DeleteTopics, 1, 6),
    row(ApiKey::DeleteRecords, 0, 2),
    row(ApiKey::InitProducerId, 0, 5),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4),
    row(ApiKey::AddPartitionsToTxn, 0, 5),
    row(ApiKey::AddOffsetsToTxn, 0, 4),
    row(ApiKey::EndTxn, 0, 5),
    row(ApiKey::WriteTxnMarkers, 1, 2),
    row(ApiKey::TxnOffsetCommit, 0, 6),
    row(ApiKey::DescribeConfigs, 1, 4),
    row(ApiKey::AlterConfigs, 0, 2),
    row(ApiKey::AlterReplicaLogDirs, 1, 2),
    row(ApiKey::DescribeLogDirs, 1, 5),
    row(ApiKey::SaslAuthenticate, 0, 2),
    row(ApiKey::CreatePartitions, 0, 3),
    row(ApiKey::DeleteGroups, 0, 3),
    row(ApiKey::IncrementalAlterConfigs, 0, 1),
    row(ApiKey::AlterPartitionReassignments, 0, 1),
    row(ApiKey::ListPartitionReassignments, 0, 0),
    row(ApiKey::OffsetDelete, 0, 0),
    row(ApiKey::DescribeCluster, 0, 2),
    row(ApiKey::DescribeProducers, 0, 0),
    row(ApiKey::DescribeTransactions, 0, 0),
    row(ApiKey::ListTransactions, 0, 2),
    row(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    row(ApiKey::ConsumerGroupDescribe, 0, 1),
    row(ApiKey::ListConfigResources, 0, 1),
    row(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The longest client software name or version that Kafka's pattern is ever matched with is a string's; the pattern itself is `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// The versions of a request that are served; `None` where none is. ApiVersions is answered in others too.
pub fn served_versions(api_key: ApiKey) -> Option<RangeInclusive<i16>> {
    SERVED.iter().find(|served| served.api_key == api_key).map(|served| served.min..=served.max)
}

/// Answers in the version that was asked in, or in version 0 where that is unknown. The body of an unknown version is not looked at.
pub fn answer(request: Request) -> Answer {
    let Request { context, mut body } = request;
    let version = context.api_version;
    if !served_versions(ApiKey::ApiVersions).is_some_and(|versions| versions.contains(&version)) {
        return respond(&context, 0, &unknown_version());
    }
    match ApiVersionsRequest::decode(&mut body, version) {
        Ok(asked) => {
            let here = (context.shard.cluster_id(), context.shard.config().node_id());
            respond(&context, version, &api_versions(&context.shard.image(), &asked, version, here))
        }
        Err(error) => Answer::Close(CloseReason::Malformed(format!("ApiVersions version {version}: {error}"))),
    }
}

fn respond(context: &RequestContext, version: i16, response: &ApiVersionsResponse) -> Answer {
    Response::answer(ApiKey::ApiVersions, version, context.correlation_id, response, Default::default())
}

/// Only the entry of ApiVersions itself: enough to ask again.
fn unknown_version() -> ApiVersionsResponse {
    let own = SERVED.iter().filter(|served| served.api_key == ApiKey::ApiVersions).map(told).collect();
    ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), api_keys: own, ..Default::default() }
}

fn told(served: &Served) -> ApiVersion {
    ApiVersion { api_key: served.api_key.code(), min_version: served.told_min, max_version: served.max, ..Default::default() }
}

/// `here` is this broker's cluster and node id.
fn api_versions(image: &Image, request: &ApiVersionsRequest, version: i16, here: (&str, i32)) -> ApiVersionsResponse {
    match check(request, version, here) {
        Err(error) => ApiVersionsResponse { error_code: error.code(), ..Default::default() },
        Ok(()) => ApiVersionsResponse {
            api_keys: SERVED.iter().map(told).collect(),
            supported_features: supported_features(version),
            finalized_features_epoch: image.offset(),
            finalized_features: finalized_features(image),
            ..Default::default()
        },
    }
}

/// Software name and version must be words (KIP-511); a client that names another broker than this one must look again for its cluster (KIP-1242).
fn check(request: &ApiVersionsRequest, version: i16, (cluster_id, node_id): (&str, i32)) -> Result<(), ErrorCode> {
    if version >= 5 && request.cluster_id.is_some() != (request.node_id != -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    if version >= 3 && !(is_software_text(&request.client_software_name) && is_software_text(&request.client_software_version)) {
        return Err(ErrorCode::InvalidRequest);
    }
    let is_elsewhere = |wanted: &Str| *wanted != *cluster_id || request.node_id != node_id;
    if version >= 5 && request.cluster_id.as_ref().is_some_and(is_elsewhere) {
        return Err(ErrorCode::RebootstrapRequired);
    }
    Ok(())
}

/// Clients before version 4 cannot read a feature whose lowest level is 0 (KAFKA-17492).
fn supported_features(version: i16) -> Vec<SupportedFeatureKey> {
    served_features()
        .filter(|feature| version >= 4 || feature.level_min > 0)
        .map(|feature| SupportedFeatureKey {
            name: Str::from_static(feature.name),
            min_version: feature.level_min,
            max_version: feature.level_max,
            ..Default::default()
        })
        .collect()
}

fn finalized_features(image: &Image) -> Vec<FinalizedFeatureKey> {
    let key = |(name, level): (&str, i16)| FinalizedFeatureKey {
        name: Str::from(name),
        max_version_level: level,
        min_version_level: level,
        ..Default::default()
    };
    image.features().filter(|(name, _)| is_served(name)).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::decide::start::bootstrap_records;

    fn asked(name: &str, version: &str) -> ApiVersionsRequest {
        ApiVersionsRequest { client_software_name: Str::from(name), client_software_version: Str::from(version), ..Default::default() }
    }

    fn started() -> Image {
        let mut image = Image::empty();
        bootstrap_records(&[], 1).iter().for_each(|record| image.apply(record).expect("applies"));
        image.advance(4, 1);
        image
    }

    /// Keys rise, ranges lie within those of the schemas, and what is told contains what is served.
    #[test]
    fn the_table_is_sound() {
        assert!(SERVED.is_sorted_by(|a, b| a.api_key < b.api_key));
        for served in &SERVED {
            let known = served.api_key.stable_versions().expect("a version that exists");
            let is_older = matches!((served.api_key, served.min), (ApiKey::ListOffsets, 0) | (ApiKey::OffsetCommit, 1));
            assert!((is_older || known.contains(&served.min)) && *known.end() == served.max, "{}", served.api_key.name());
            assert!(served.told_min <= served.min && served.api_key.on_broker());
        }
        assert_eq!(served_versions(ApiKey::Produce), Some(3..=13));
        assert_eq!(served_versions(ApiKey::EndTxn), Some(0..=5));
        assert_eq!(served_versions(ApiKey::Vote), None);
    }

    /// Every version can say the answer; features with a lowest level of 0 appear from version 4 on.
    #[test]
    fn every_version_is_answered() {
        for version in 0..=5 {
            let response = api_versions(&started(), &asked("librdkafka", "2.11.0-rc1"), version, ("c", 1));
            assert_eq!(response.error_code, 0, "version {version}");
            let produce = &response.api_keys[0];
            assert_eq!((produce.api_key, produce.min_version, produce.max_version), (0, 0, 13));
            let supported: Vec<&str> = response.supported_features.iter().map(|feature| &*feature.name).collect();
            let all = ["metadata.version", "kraft.version", "eligible.leader.replicas.version", "group.version", "transaction.version"];
            assert_eq!(supported, if version >= 4 { &all[..] } else { &all[..1] }, "version {version}");
            assert_eq!(response.finalized_features_epoch, 4);
            assert_eq!(response.finalized_features.len(), 4);
            response.to_bytes(version).expect("can be said in that version");
        }
    }

    #[test]
    fn unknown_versions_are_answered_in_version_0() {
        let response = unknown_version();
        assert_eq!(response.error_code, ErrorCode::UnsupportedVersion.code());
        let keys: Vec<_> = response.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
        assert_eq!(keys, [(18, 0, 5)]);
        response.to_bytes(0).expect("version 0");
    }

    #[test]
    fn software_names_are_words() {
        for good in ["a", "apache-kafka-java", "2.11.0", "A.9"] {
            assert!(is_software_text(good), "{good}");
        }
        for bad in ["", "-a", "a-", ".a", "a b", "ü", "a_b"] {
            assert!(!is_software_text(bad), "{bad}");
        }
        let code = |request, version| api_versions(&started(), &request, version, ("c", 1)).error_code;
        assert_eq!(code(asked("", ""), 2), 0, "not known in version 2");
        assert_eq!(code(asked("", "1"), 3), ErrorCode::InvalidRequest.code());
        assert_eq!(code(asked("a", "a b"), 3), ErrorCode::InvalidRequest.code());
    }

    /// Cluster and node id come together, and both must be ours.
    #[test]
    fn a_client_of_another_cluster_starts_over() {
        let code = |cluster_id: Option<&str>, node_id| {
            let request = ApiVersionsRequest { cluster_id: cluster_id.map(Str::from), node_id, ..asked("a", "1") };
            ErrorCode::try_from(api_versions(&started(), &request, 5, ("c", 1)).error_code).expect("known")
        };
        assert_eq!(code(Some("c"), 1), ErrorCode::None);
        assert_eq!(code(None, -1), ErrorCode::None);
        assert_eq!(code(Some("c"), 2), ErrorCode::RebootstrapRequired);
        assert_eq!(code(Some("d"), 1), ErrorCode::RebootstrapRequired);
        assert_eq!(code(Some("c"), -1), ErrorCode::InvalidRequest);
        assert_eq!(code(None, 1), ErrorCode::InvalidRequest);
    }
}
