//! DescribeCluster: the cluster's id, its brokers, and whom to send administrative requests to.

use super::RequestContext;
use super::cluster_view::{CLUSTER_OPERATIONS, ClusterView, OPERATIONS_NOT_ASKED, Reachable};
use crate::wire::messages::describe_cluster_response::DescribeClusterBroker;
use crate::wire::messages::{DescribeClusterRequest, DescribeClusterResponse};
use crate::wire::{ErrorCode, Str};

/// `EndpointType`: whom the client believes to be talking to (KIP-919).
const BROKER: i8 = 1;
const CONTROLLER: i8 = 2;

/// Answers DescribeCluster.
pub async fn handle_describe_cluster(context: &RequestContext, request: DescribeClusterRequest, version: i16) -> DescribeClusterResponse {
    let image = context.shard.image();
    describe_cluster(&ClusterView::new(context, &image), context.shard.cluster_id(), &request, version)
}

fn describe_cluster(view: &ClusterView, cluster_id: &str, request: &DescribeClusterRequest, version: i16) -> DescribeClusterResponse {
    if let Some((error, message)) = wrong_endpoint(request.endpoint_type) {
        // Version 0 knows neither of these errors.
        let error = if version == 0 { ErrorCode::InvalidRequest } else { error };
        return DescribeClusterResponse { error_code: error.code(), error_message: Some(Str::from(message)), ..Default::default() };
    }
    let told = |broker: Reachable| DescribeClusterBroker {
        broker_id: broker.id,
        host: broker.host,
        port: broker.port,
        rack: broker.rack,
        is_fenced: broker.is_fenced,
        ..Default::default()
    };
    let brokers: Vec<_> = view.registered().filter(|broker| !broker.is_fenced || request.include_fenced_brokers).map(told).collect();
    DescribeClusterResponse {
        error_message: None,
        cluster_id: Str::from(cluster_id),
        controller_id: view.controller_id(),
        brokers,
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            OPERATIONS_NOT_ASKED
        },
        ..Default::default()
    }
}

fn wrong_endpoint(endpoint_type: i8) -> Option<(ErrorCode, String)> {
    match endpoint_type {
        BROKER => None,
        CONTROLLER => {
            let message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            Some((ErrorCode::MismatchedEndpointType, message.to_owned()))
        }
        other => Some((ErrorCode::UnsupportedEndpointType, format!("Unsupported endpoint type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Image, MetadataRecord};
    use crate::wire::records::RegisterBrokerRecord;

    fn ask(request: DescribeClusterRequest, version: i16) -> DescribeClusterResponse {
        let mut image = Image::empty();
        image.apply(&MetadataRecord::from(RegisterBrokerRecord { broker_id: 1, fenced: true, ..Default::default() })).expect("applies");
        let view = ClusterView { image: &image, listener: "PLAINTEXT", node_id: 1, own_endpoint: (Str::from("h"), 5) };
        describe_cluster(&view, "cluster", &request, version)
    }

    #[test]
    fn fenced_brokers_are_told_when_asked_for() {
        let response = ask(DescribeClusterRequest::default(), 2);
        assert_eq!((response.brokers.len(), response.controller_id, &*response.cluster_id), (0, -1, "cluster"));
        let response = ask(DescribeClusterRequest { include_fenced_brokers: true, ..Default::default() }, 2);
        assert_eq!((response.brokers[0].broker_id, response.brokers[0].port, response.brokers[0].is_fenced), (1, 5, true));
    }

    #[test]
    fn other_endpoints_are_refused() {
        let code = |endpoint_type, version| ask(DescribeClusterRequest { endpoint_type, ..Default::default() }, version).error_code;
        assert_eq!(code(CONTROLLER, 1), ErrorCode::MismatchedEndpointType.code());
        assert_eq!(code(7, 1), ErrorCode::UnsupportedEndpointType.code());
        assert_eq!(code(CONTROLLER, 0), ErrorCode::InvalidRequest.code());
    }

    #[test]
    fn operations_are_told_when_asked_for() {
        assert_eq!(ask(DescribeClusterRequest::default(), 1).cluster_authorized_operations, i32::MIN);
        let asked = DescribeClusterRequest { include_cluster_authorized_operations: true, ..Default::default() };
        assert_eq!(ask(asked, 1).cluster_authorized_operations, 8096);
    }
}
