//! What a shard does for others and for itself: each request family goes to the partition, coordinator or controller that it names.

use std::rc::Rc;

use super::Shard;
use super::message::{Reply, Request};

impl Shard {
    /// Does what `request` asks of this shard.
    pub(super) async fn serve(self: &Rc<Shard>, request: Request) -> Reply {
        match request {
            Request::Connection(new) => {
                let serve = self.connection_handler.get().expect("connections come once net has started");
                serve(new).await;
                Reply::Done
            }
            other => unreachable!("no room of this shard serves {other:?} yet"),
        }
    }
}
