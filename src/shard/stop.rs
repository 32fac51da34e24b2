//! The end of the broker, in steps that all shards take together: clients go, coordinators and controller close, everything is placed.

use std::rc::Rc;

use super::message::{Reply, Request, StopStep};
use super::{Call, Shard};
use crate::drive::controller::Controller;
use crate::rt::ShardId;

impl Shard {
    /// Stops all shards from shard 0. The broker's epoch if every record lies in its segment, so that the directories may be marked clean.
    pub async fn stop_all(self: &Rc<Shard>, controller: Option<&Rc<Controller>>) -> Option<i64> {
        let clients_gone = self.step(StopStep::Clients).await;
        let broker_epoch = match controller {
            Some(controller) => controller.stop().await.ok(),
            None => None,
        };
        let placed = self.step(StopStep::Storage).await;
        broker_epoch.filter(|_| clients_gone && placed)
    }

    /// Resolves when this shard has nothing left to do.
    pub async fn stopped(&self) {
        while !self.stopping.get() {
            self.stopped.notified().await;
        }
    }

    pub(super) async fn stop(&self, step: StopStep) -> bool {
        match step {
            StopStep::Clients => {
                if let Some(handler) = self.client_handler.get() {
                    handler.stop().await;
                }
                self.transactions.stop().await;
                self.groups.stop().await;
                true
            }
            StopStep::Storage => {
                let placed = self.partitions.shut_down().await;
                if let Err(error) = &placed {
                    tracing::error!(shard = self.id.0, %error, "the storage of a shard did not stop cleanly");
                }
                self.stopping.set(true);
                self.stopped.notify_all();
                placed.is_ok()
            }
        }
    }

    async fn step(self: &Rc<Shard>, step: StopStep) -> bool {
        let calls: Vec<Call> = (0..self.shards).map(|shard| self.call(ShardId(shard), Request::Stop(step))).collect();
        let mut all = true;
        for call in calls {
            all &= matches!(call.await, Reply::Stopped(true));
        }
        all
    }
}
