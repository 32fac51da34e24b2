//! Produce: checks on the connection's core, one hand-over to each owner, answers when durable (semantics of KafkaApis.handleProduceRequest and ReplicaManager.appendRecords).
//!
//! `begin` runs while the connection takes nothing else, so that batches of one connection reach their partitions in the order in which they were sent. What it returns only waits.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::transactions::{FirstAppend, Protocol, Verifier};
use super::{Answer, CloseReason, Request, RequestContext, Response};
use crate::cluster::TopicIdPartition;
use crate::config::TopicSettings;
use crate::disk::trace;
use crate::log::ValidatedBatch;
use crate::log::validation::{self, Rejected, Step, Validation, ValidationRules};
use crate::rt;
use crate::rt::stages::Moment;
use crate::shard::Append;
use crate::shard::message::{AppendItem, AppendResult, Guarding, Reply, Request as ShardRequest};
use crate::txn::{EPOCH_BUMP_VERSION, Producer};
use crate::wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use crate::wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use crate::wire::messages::{ProduceRequest, ProduceResponse};
use crate::wire::{ErrorCode, Message, Str};

/// Clients may not write to Kafka's internal topics, but for its own admin client under this name.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// From here on brokers register partitions with transactions (KIP-890).
const REGISTERS_VERSION: i16 = 12;
/// From here on clients know TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 11;

/// Admits a produce request; the future that comes back resolves to its answer.
pub async fn begin(mut request: Request) -> Result<Pin<Box<dyn Future<Output = Answer>>>, CloseReason> {
    let context = request.context.clone();
    let decoded = ProduceRequest::decode(&mut request.body, context.api_version);
    let produce = decoded.map_err(|error| CloseReason::Malformed(format!("Produce version {}: {error}", context.api_version)))?;
    context.stages.mark(Moment::Decoded);
    let acks = produce.acks;
    let timeout = Duration::from_millis(produce.timeout_ms.max(0) as u64);

    let mut admission = Admission::new(&context, acks);
    for topic in produce.topic_data {
        admission.admit_topic(topic, produce.transactional_id.is_some()).await;
    }
    if let Some(transactional_id) = &produce.transactional_id {
        admission.verify(transactional_id).await;
    }
    context.stages.mark(Moment::Checked);
    let handed_over = admission.hand_over(acks != 0);
    Ok(Box::pin(async move { handed_over.answer(acks, timeout).await }))
}

/// A partition of the request and what is known of its outcome.
struct Slot {
    partition: i32,
    key: Option<TopicIdPartition>,
    outcome: Outcome,
    /// What a transactional batch is appended under.
    guarding: Option<Guarding>,
}

enum Outcome {
    /// Checked, to be appended.
    Checked(Box<ValidatedBatch>),
    /// Handed to the owner, not answered yet.
    UnderWay,
    /// Refused before any owner saw it.
    Refused(Box<Rejected>),
    /// The owner has spoken.
    Appended(AppendResult),
}

struct Topic {
    name: Str,
    topic_id: uuid::Uuid,
    /// What coordinators know a transactional request's topic by, also where the request has the id only. Other requests never ask for it.
    resolved_name: Option<Str>,
    slots: Vec<Slot>,
}

/// The request while its batches are checked.
struct Admission {
    context: RequestContext,
    acks: i16,
    topics: Vec<Topic>,
}

impl Admission {
    fn new(context: &RequestContext, acks: i16) -> Admission {
        Admission { context: context.clone(), acks, topics: Vec::new() }
    }

    async fn admit_topic(&mut self, topic: TopicProduceData, transactional: bool) {
        let resolved = self.resolve(&topic, transactional);
        let mut slots = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let partition = data.index;
            let key = resolved.as_ref().ok().map(|resolved| TopicIdPartition { topic_id: resolved.topic_id, partition });
            let checked = match &resolved {
                Err(error) => Err(refusal(*error)),
                Ok(resolved) if partition < 0 || partition >= resolved.partition_count => Err(refusal(ErrorCode::UnknownTopicOrPartition)),
                Ok(resolved) => self.check(data, &resolved.settings, transactional).await,
            };
            let outcome = match checked {
                Ok(batch) => Outcome::Checked(Box::new(batch)),
                Err(rejected) => Outcome::Refused(Box::new(rejected)),
            };
            slots.push(Slot { partition, key, outcome, guarding: None });
        }
        let resolved_name = resolved.ok().and_then(|resolved| resolved.name);
        self.topics.push(Topic { name: topic.name, topic_id: topic.topic_id, resolved_name, slots });
    }

    fn resolve(&self, topic: &TopicProduceData, transactional: bool) -> Result<Resolved, ErrorCode> {
        if !(-1..=1).contains(&self.acks) {
            return Err(ErrorCode::InvalidRequiredAcks);
        }
        let image = self.context.shard.image();
        let found = if self.context.api_version >= 13 {
            image.topic_by_id(&topic.topic_id).ok_or(ErrorCode::UnknownTopicId)?
        } else {
            image.topic(&topic.name).ok_or(ErrorCode::UnknownTopicOrPartition)?
        };
        let by_admin = self.context.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
        if crate::cluster::is_internal_topic(&found.name) && !by_admin {
            return Err(ErrorCode::InvalidTopicException);
        }
        Ok(Resolved {
            topic_id: found.id,
            name: transactional.then(|| Str::from(&*found.name)),
            partition_count: found.partition_count(),
            settings: self.context.shard.topic_settings(found),
        })
    }

    /// Everything that can be said of a batch without its partition, in slices.
    async fn check(&self, data: PartitionProduceData, settings: &TopicSettings, transactional: bool) -> Result<ValidatedBatch, Rejected> {
        let bytes = data.records.map(|records| records.to_bytes()).unwrap_or_default();
        let rules = ValidationRules::new(settings, self.context.api_version);
        let _memory = self.context.shard.validation_memory(validation::memory_bytes(&bytes)).await;
        let mut validation = Validation::new(bytes, rules, rt::wall_clock_ms());
        let batch = loop {
            match validation.step() {
                Step::More => rt::yield_now().await,
                Step::Done(result) => break (*result)?,
            }
        };
        if batch.info.is_transactional && !transactional {
            return Err(refusal(ErrorCode::TransactionalIdAuthorizationFailed));
        }
        Ok(batch)
    }

    /// Makes sure that the coordinator knows of every partition that gets a transactional batch. Nothing else of the connection is begun meanwhile, so batches stay in order.
    async fn verify(&mut self, transactional_id: &Str) {
        let places = self.transactional_places();
        let Some(producer) = places.first().map(|place| self.producer_at(*place)) else { return };
        if places.iter().any(|place| self.producer_at(*place).id != producer.id) {
            for place in places {
                self.slot_mut(place).outcome = Outcome::Refused(Box::new(refusal(ErrorCode::InvalidProducerIdMapping)));
            }
            return;
        }
        let appends: Vec<FirstAppend> = places.iter().map(|place| self.first_append(*place)).collect();
        let version = self.context.api_version;
        let protocol = Protocol { registers: version >= REGISTERS_VERSION, knows_abortable: version >= ABORTABLE_VERSION };
        let context = self.context.clone();
        let verifier = Verifier { context: &context, transactional_id, producer, protocol };
        for (place, verified) in places.into_iter().zip(verifier.verify(&appends).await) {
            match verified {
                Ok(guarding) => self.slot_mut(place).guarding = guarding,
                Err(error) => self.slot_mut(place).outcome = Outcome::Refused(Box::new(refusal(error))),
            }
        }
    }

    fn transactional_places(&self) -> Vec<(usize, usize)> {
        let mut places = Vec::new();
        for (topic_index, topic) in self.topics.iter().enumerate() {
            for (slot_index, slot) in topic.slots.iter().enumerate() {
                if matches!(&slot.outcome, Outcome::Checked(batch) if batch.info.is_transactional) {
                    places.push((topic_index, slot_index));
                }
            }
        }
        places
    }

    fn producer_at(&self, (topic_index, slot_index): (usize, usize)) -> Producer {
        let Outcome::Checked(batch) = &self.topics[topic_index].slots[slot_index].outcome else {
            unreachable!("only checked slots are asked")
        };
        Producer { id: batch.info.producer_id, epoch: batch.info.producer_epoch }
    }

    fn first_append(&self, (topic_index, slot_index): (usize, usize)) -> FirstAppend {
        let topic = &self.topics[topic_index];
        let slot = &topic.slots[slot_index];
        let name = topic.resolved_name.clone().expect("a transactional request's topics are resolved with their names");
        FirstAppend { key: slot.key.expect("a checked slot is resolved"), name: (name, slot.partition) }
    }

    fn slot_mut(&mut self, (topic_index, slot_index): (usize, usize)) -> &mut Slot {
        &mut self.topics[topic_index].slots[slot_index]
    }

    /// One call to each shard that owns a partition of the request.
    fn hand_over(mut self, wait_durable: bool) -> HandedOver {
        let mut by_owner: Vec<Vec<(usize, usize)>> = vec![Vec::new(); usize::from(self.context.shard.shards())];
        for (topic_index, topic) in self.topics.iter().enumerate() {
            for (slot_index, slot) in topic.slots.iter().enumerate() {
                if let (Outcome::Checked(_), Some(key)) = (&slot.outcome, &slot.key) {
                    by_owner[usize::from(self.context.shard.owner(key).0)].push((topic_index, slot_index));
                }
            }
        }
        let transaction_version = if self.context.api_version >= REGISTERS_VERSION { EPOCH_BUMP_VERSION } else { 0 };
        let mut calls = Vec::new();
        for (owner, places) in by_owner.into_iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let items = places.iter().map(|place| self.take_item(*place)).collect();
            let stages = self.context.stages.clone();
            let append = Append { items, wait_durable, transaction_version, stages };
            let owner = rt::ShardId(owner as u16);
            self.context.connection.traffic.note(owner);
            let call = self.context.shard.call(owner, ShardRequest::Append(append));
            calls.push((places, call));
        }
        HandedOver { context: self.context, topics: self.topics, calls }
    }

    fn take_item(&mut self, (topic_index, slot_index): (usize, usize)) -> AppendItem {
        let slot = &mut self.topics[topic_index].slots[slot_index];
        let Outcome::Checked(batch) = std::mem::replace(&mut slot.outcome, Outcome::UnderWay) else {
            unreachable!("only checked slots are handed over")
        };
        AppendItem { partition: slot.key.expect("a checked slot is resolved"), batch: *batch, guarding: slot.guarding }
    }
}

struct Resolved {
    topic_id: uuid::Uuid,
    name: Option<Str>,
    partition_count: i32,
    settings: Rc<TopicSettings>,
}

/// The request while its owners work.
struct HandedOver {
    context: RequestContext,
    topics: Vec<Topic>,
    calls: Vec<(Vec<(usize, usize)>, crate::shard::Call)>,
}

impl HandedOver {
    async fn answer(mut self, acks: i16, timeout: Duration) -> Answer {
        let gather = async {
            for (places, call) in std::mem::take(&mut self.calls) {
                let Reply::Append(results) = call.await else { unreachable!("an append is answered by append results") };
                for ((topic_index, slot_index), result) in places.into_iter().zip(results) {
                    self.topics[topic_index].slots[slot_index].outcome = Outcome::Appended(result);
                }
            }
        };
        // What is appended stays appended; only the wait ends (REQUEST_TIMED_OUT).
        let _in_time = rt::timeout(timeout, gather).await;
        if acks == 0 {
            return if self.any_failed() { Answer::Close(CloseReason::FailedWithoutAnswer) } else { Answer::Nothing };
        }
        let response = self.response();
        let mut answer =
            Response::answer(self.context.api_key, self.context.api_version, self.context.correlation_id, &response, Default::default());
        if let Answer::Send(response) = &mut answer {
            self.context.stages.mark(Moment::Released);
            response.stages = self.context.stages;
        }
        answer
    }

    fn any_failed(&self) -> bool {
        self.topics.iter().flat_map(|topic| &topic.slots).any(|slot| match &slot.outcome {
            Outcome::Appended(result) => result.error != ErrorCode::None,
            Outcome::Refused(_) => true,
            Outcome::UnderWay | Outcome::Checked(_) => false,
        })
    }

    fn response(&self) -> ProduceResponse {
        let mut response = ProduceResponse::default();
        for topic in &self.topics {
            let partition_responses: Vec<PartitionProduceResponse> = topic.slots.iter().map(|slot| self.partition_response(slot)).collect();
            if self.context.api_version >= 10
                && partition_responses.iter().any(|partition| partition.error_code == ErrorCode::NotLeaderOrFollower.code())
            {
                response.node_endpoints = self.leader_endpoints();
            }
            response.responses.push(TopicProduceResponse {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partition_responses,
                ..Default::default()
            });
        }
        response
    }

    fn partition_response(&self, slot: &Slot) -> PartitionProduceResponse {
        let mut answer = PartitionProduceResponse { index: slot.partition, base_offset: -1, ..Default::default() };
        match &slot.outcome {
            Outcome::Appended(result) => {
                if let (ErrorCode::None, Some(partition)) = (result.error, slot.key) {
                    trace::acknowledged(partition, result.base_offset, result.last_offset);
                }
                answer.error_code = result.error.code();
                answer.base_offset = result.base_offset;
                answer.log_append_time_ms = result.log_append_time_ms;
                answer.log_start_offset = result.log_start_offset;
                answer.error_message = result.message.as_deref().map(Str::from);
                if result.error == ErrorCode::NotLeaderOrFollower {
                    answer.current_leader = self.current_leader(slot);
                }
            }
            Outcome::Refused(rejected) => {
                answer.error_code = rejected.error.code();
                answer.error_message = rejected.message.clone();
                answer.record_errors =
                    rejected.record_errors.iter().map(|(index, message)| record_error(*index, message.clone())).collect();
            }
            Outcome::UnderWay | Outcome::Checked(_) => answer.error_code = ErrorCode::RequestTimedOut.code(),
        }
        answer
    }

    fn current_leader(&self, slot: &Slot) -> LeaderIdAndEpoch {
        let image = self.context.shard.image();
        let partition = slot.key.as_ref().and_then(|key| image.partition(key));
        partition.map_or_else(LeaderIdAndEpoch::default, |partition| LeaderIdAndEpoch {
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
            ..Default::default()
        })
    }

    fn leader_endpoints(&self) -> Vec<NodeEndpoint> {
        let (node_id, host, port) = self.context.advertised_endpoint();
        vec![NodeEndpoint { node_id, host, port, ..Default::default() }]
    }
}

fn record_error(batch_index: i32, message: Option<Str>) -> BatchIndexAndErrorMessage {
    BatchIndexAndErrorMessage { batch_index, batch_index_error_message: message, ..Default::default() }
}

/// An error that is not about a record.
fn refusal(error: ErrorCode) -> Rejected {
    Rejected { error, message: None, record_errors: Vec::new() }
}
