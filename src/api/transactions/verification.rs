//! Before the first batch of a transaction goes into a partition, the transaction's coordinator has to know of it (KIP-890).
//!
//! The owners are asked first: where the transaction is open already, nothing more is to be done. For the rest they give guards, and the coordinator is asked once for all of them:
//! clients of version 2 have their partitions registered by this, older ones have registered them and are held to it. An append under a guard fails if the transaction has
//! ended meanwhile, so that nothing late can begin a transaction that nobody will end.

use std::time::{Duration, Instant};

use super::ask;
use crate::api::RequestContext;
use crate::cluster::TopicIdPartition;
use crate::rt::ShardId;
use crate::shard::message::{GuardItem, Guarding, Reply as ShardReply, Request};
use crate::txn::{Call, EPOCH_BUMP_VERSION, Producer, Reply, TopicPartition};
use crate::wire::{ErrorCode, Str};

/// What the version of a request means for the first append of a transaction.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// The broker registers the partition (Produce from version 12 on, TxnOffsetCommit from version 5 on); otherwise it only verifies.
    pub registers: bool,
    /// The client knows TRANSACTION_ABORTABLE.
    pub knows_abortable: bool,
}

/// A partition that a transactional batch is meant for.
#[derive(Debug, Clone)]
pub struct FirstAppend {
    pub key: TopicIdPartition,
    pub name: TopicPartition,
}

/// One producer's appends of one request.
pub struct Verifier<'a> {
    pub context: &'a RequestContext,
    pub transactional_id: &'a Str,
    pub producer: Producer,
    pub protocol: Protocol,
}

impl Verifier<'_> {
    /// What to append under, one for each partition in order; an error where the batch must not be appended. None: nothing is held against it.
    pub async fn verify(&self, appends: &[FirstAppend]) -> Vec<Result<Option<Guarding>, ErrorCode>> {
        if !self.protocol.registers && !self.context.shard.config().transaction_partition_verification_enable() {
            return vec![Ok(None); appends.len()];
        }
        let patience = self.context.shard.config().add_partitions_to_txn_retry_backoff_max_ms();
        let deadline = Instant::now() + Duration::from_millis(patience.max(0) as u64);
        let is_first = |guarding: &Guarding| matches!(guarding, Guarding::Guarded(_));
        let (guards, codes) = loop {
            let guards = self.take_guards(appends).await;
            let unknown: Vec<TopicPartition> =
                appends.iter().zip(&guards).filter(|(_, guard)| is_first(guard)).map(|(append, _)| append.name.clone()).collect();
            let codes = self.ask_coordinator(unknown.clone(), Duration::ZERO).await;
            let left = deadline.saturating_duration_since(Instant::now());
            let is_early = self.protocol.registers && codes.contains(&ErrorCode::ConcurrentTransactions);
            if !is_early || left.is_zero() {
                break (guards, codes);
            }
            // The transaction before is not at its end. Its markers make the guards worthless, so that new ones are taken once they are written.
            self.ask_coordinator(unknown, left).await;
        };
        let mut codes = codes.into_iter();
        guards
            .into_iter()
            .map(|guard| match is_first(&guard).then(|| codes.next().expect("one code for each first append")) {
                None | Some(ErrorCode::None) => Ok(Some(guard)),
                Some(error) => Err(self.translate(error)),
            })
            .collect()
    }

    /// A guard without a question: where verification is switched off.
    pub async fn guard_of(&self, key: TopicIdPartition) -> Guarding {
        let append = FirstAppend { key, name: (Str::default(), key.partition) };
        self.take_guards(&[append]).await.remove(0)
    }

    async fn take_guards(&self, appends: &[FirstAppend]) -> Vec<Guarding> {
        let shard = &self.context.shard;
        let mut by_owner: Vec<Vec<usize>> = vec![Vec::new(); usize::from(shard.shards())];
        for (place, append) in appends.iter().enumerate() {
            by_owner[usize::from(shard.owner(&append.key).0)].push(place);
        }
        let item = |place: &usize| GuardItem {
            partition: appends[*place].key,
            producer_id: self.producer.id,
            producer_epoch: self.producer.epoch,
        };
        let mut calls = Vec::new();
        for (owner, places) in by_owner.into_iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let items = places.iter().map(item).collect();
            calls.push((places, shard.call(ShardId(owner as u16), Request::Guards { items })));
        }
        let mut guards = vec![Guarding::Open; appends.len()];
        for (places, call) in calls {
            let ShardReply::Guards(taken) = call.await else { unreachable!("guards are answered by guards") };
            for (place, guard) in places.into_iter().zip(taken) {
                guards[place] = guard;
            }
        }
        guards
    }

    /// One code for each partition; `patience` is how long to wait for the end of the transaction before.
    async fn ask_coordinator(&self, partitions: Vec<TopicPartition>, patience: Duration) -> Vec<ErrorCode> {
        let count = partitions.len();
        if count == 0 {
            return Vec::new();
        }
        let (transactional_id, producer) = (self.transactional_id.clone(), self.producer);
        let call = if self.protocol.registers {
            Call::AddPartitions { transactional_id, producer, partitions, client_version: EPOCH_BUMP_VERSION }
        } else {
            Call::Verify { transactional_id, producer, partitions }
        };
        match ask(self.context, self.transactional_id, call, patience).await {
            Reply::Added(Ok(())) => vec![ErrorCode::None; count],
            Reply::Verified(Ok(codes)) => codes,
            Reply::Added(Err(error)) | Reply::Verified(Err(error)) => vec![error; count],
            other => unreachable!("an append is verified by its own reply, not {other:?}"),
        }
    }

    /// What the coordinator's refusal means to the client of an append (semantics of Kafka's AddPartitionsToTxnManager and ReplicaManager).
    fn translate(&self, error: ErrorCode) -> ErrorCode {
        match error {
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            ErrorCode::TransactionAbortable if !self.protocol.knows_abortable => ErrorCode::InvalidTxnState,
            ErrorCode::ConcurrentTransactions if self.protocol.registers => error,
            // Every client takes this as a reason to send again, without looking for another leader first.
            ErrorCode::ConcurrentTransactions
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
            other => other,
        }
    }
}
