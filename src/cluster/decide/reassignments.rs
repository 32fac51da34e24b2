//! AlterPartitionReassignments and ListPartitionReassignments, as far as they go where every replica is on this node: what is asked for is there already, or cannot be. So nothing is ever
//! under way, and nothing is written.

use super::Refusal;
use super::create_topics::check_assignment;
use crate::cluster::image::Image;
use crate::wire::ErrorCode;

/// Whether a partition may be on these brokers; `replicas` is None where a reassignment is to be cancelled. One that is agreed to has come to its end.
pub fn reassign(image: &Image, topic: &str, partition: i32, replicas: Option<&[i32]>, may_change_factor: bool) -> Result<(), Refusal> {
    let unknown = |message: String| Refusal::new(ErrorCode::UnknownTopicOrPartition, message);
    let known = image.topic(topic).ok_or_else(|| unknown(format!("Unable to find a topic named {topic}.")))?;
    let known = known.partition(partition).ok_or_else(|| unknown(format!("Unable to find partition {topic}:{partition}.")))?;
    let Some(replicas) = replicas else { return Err(Refusal::bare(ErrorCode::NoReassignmentInProgress)) };
    check_assignment(image, replicas, None)?;
    if !may_change_factor && replicas.len() != known.replicas.len() {
        return Err(Refusal::bare(ErrorCode::InvalidReplicationFactor));
    }
    let is_where_it_is = replicas.len() == known.replicas.len() && replicas.iter().all(|broker| known.replicas.contains(broker));
    if is_where_it_is {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, "Replicas on other brokers are not served yet."))
}
