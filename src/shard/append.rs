//! Appends to partitions of this shard: admission in the order of the calls, then the wait for durability.
//!
//! An append that this shard asks of itself is admitted within the call, so that nothing stands between a checked batch and the journal's open group. What is left is a wait, which needs no task
//! of its own: whoever wants the answer waits.

use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::message::{AppendItem, AppendResult, Reply};
use super::{Call, Shard};
use crate::log::{AppendError, Origin};
use crate::partition::{Appending, Partition};
use crate::rt;
use crate::rt::stages::{Moment, Stages};
use crate::wire::ErrorCode;

/// What is to be appended, and how.
#[derive(Debug)]
pub struct Append {
    /// In this order.
    pub items: Vec<AppendItem>,
    /// Answer when all is durable; otherwise when it is admitted.
    pub wait_durable: bool,
    /// 2 where the clients' requests are of that protocol (KIP-890); matters to transactional batches only.
    pub transaction_version: i16,
    /// The way of the request.
    pub stages: Stages,
}

/// What admission said of each batch.
struct Admitted {
    batches: Vec<Result<(Rc<Partition>, Appending), AppendResult>>,
    wait_durable: bool,
    stages: Stages,
}

impl Shard {
    /// Appends to partitions of this shard at its own request.
    pub(super) fn append_here(self: &Rc<Shard>, append: Append) -> Call {
        let shard = Rc::clone(self);
        let mut admission = Box::pin(async move { shard.admit_all(append).await });
        match admission.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(admitted) => Call::Waiting(Box::pin(async move { Reply::Append(admitted.results().await) })),
            // The journal is full, or others wait for it. That wait is in a line with theirs and goes on whether or not anybody looks at the answer yet.
            Poll::Pending => Call::Local(rt::spawn(async move { Reply::Append(admission.await.results().await) })),
        }
    }

    /// Appends to partitions of this shard at the request of another.
    pub(super) async fn append(&self, append: Append) -> Vec<AppendResult> {
        self.admit_all(append).await.results().await
    }

    /// The batches are admitted in their order, those of a call before those of the next.
    async fn admit_all(&self, append: Append) -> Admitted {
        let Append { items, wait_durable, transaction_version, stages } = append;
        let mut batches = Vec::with_capacity(items.len());
        let turn = self.admission.acquire(1).await;
        for item in items {
            batches.push(self.admit(&item, transaction_version).await);
        }
        drop(turn);
        stages.mark(Moment::HandedOver);
        Admitted { batches, wait_durable, stages }
    }

    async fn admit(&self, item: &AppendItem, transaction_version: i16) -> Result<(Rc<Partition>, Appending), AppendResult> {
        let Some(partition) = self.partitions.get(&item.partition) else {
            return Err(AppendResult {
                error: ErrorCode::NotLeaderOrFollower,
                message: None,
                base_offset: -1,
                last_offset: -1,
                log_append_time_ms: -1,
                log_start_offset: -1,
            });
        };
        let origin = Origin::Client { transaction_version };
        let appended = match item.guarding {
            None => partition.append(&item.batch, origin).await,
            Some(guarding) => partition.append_verified(&item.batch, origin, guarding.guard()).await,
        };
        match appended {
            Ok(appending) => Ok((partition, appending)),
            Err(error) => Err(refused(&error, partition.log_start_offset())),
        }
    }
}

impl Admitted {
    /// All are waited for together.
    async fn results(self) -> Vec<AppendResult> {
        let mut results = Vec::with_capacity(self.batches.len());
        for batch in self.batches {
            results.push(match batch {
                Ok((partition, appending)) if self.wait_durable => match partition.wait_acknowledged(&appending).await {
                    Ok(()) => {
                        partition.mark_group(appending.sequence, &self.stages);
                        appended(&appending)
                    }
                    Err(error) => refused(&error, appending.log_start_offset),
                },
                Ok((_, appending)) => appended(&appending),
                Err(result) => result,
            });
        }
        results
    }
}

fn appended(appending: &Appending) -> AppendResult {
    AppendResult {
        error: ErrorCode::None,
        message: None,
        base_offset: appending.base_offset,
        last_offset: appending.last_offset,
        log_append_time_ms: appending.log_append_time_ms,
        log_start_offset: appending.log_start_offset,
    }
}

fn refused(error: &AppendError, log_start_offset: i64) -> AppendResult {
    AppendResult {
        error: error.error_code(),
        message: Some(error.to_string()),
        base_offset: -1,
        last_offset: -1,
        log_append_time_ms: -1,
        log_start_offset,
    }
}
