//! WriteTxnMarkers: the end of transactions, as other brokers' coordinators decide it, or an operator who ends one that hangs.

use crate::api::RequestContext;
use crate::cluster::TopicIdPartition;
use crate::drive::transactions::Markers;
use crate::wire::messages::write_txn_markers_request::WritableTxnMarker;
use crate::wire::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use crate::wire::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use crate::wire::{ErrorCode, Str};

pub async fn handle_write_txn_markers(context: &RequestContext, request: WriteTxnMarkersRequest, _version: i16) -> WriteTxnMarkersResponse {
    let mut response = WriteTxnMarkersResponse::default();
    for marker in request.markers {
        response.markers.push(write(context, marker).await);
    }
    response
}

async fn write(context: &RequestContext, marker: WritableTxnMarker) -> WritableTxnMarkerResult {
    let image = context.shard.image();
    let key = |topic: &Str, partition: i32| {
        let found = image.topic(topic)?;
        found.partition(partition).map(|_| TopicIdPartition { topic_id: found.id, partition })
    };
    let named = || marker.topics.iter().flat_map(|topic| topic.partition_indexes.iter().map(|partition| (&topic.name, *partition)));
    let markers = Markers {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        is_commit: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
        transaction_version: i16::from(marker.transaction_version),
        partitions: named().filter_map(|(topic, partition)| key(topic, partition)).collect(),
    };
    let mut outcomes = context.shard.send_markers(markers).await.into_iter();
    let mut result = WritableTxnMarkerResult { producer_id: marker.producer_id, ..Default::default() };
    for topic in &marker.topics {
        let of_partition = |partition: &i32| {
            let outcome = match key(&topic.name, *partition) {
                Some(_) => outcomes.next().expect("one outcome for each partition that is there"),
                None => ErrorCode::UnknownTopicOrPartition,
            };
            WritableTxnMarkerPartitionResult { partition_index: *partition, error_code: outcome.code(), ..Default::default() }
        };
        let partitions = topic.partition_indexes.iter().map(of_partition).collect();
        result.topics.push(WritableTxnMarkerTopicResult { name: topic.name.clone(), partitions, ..Default::default() });
    }
    result
}
