//! Producer snapshots for files, made on the shard's core a few producers at a time: there may be a million of them, and nobody is to wait for that.

use crate::log::Producers;
use crate::log::producer_snapshot::{Encoded, Encoder};
use crate::rt;

/// For Kafka's `.snapshot` file.
pub async fn encode_kafka(producers: Producers) -> Encoded {
    in_steps(Encoder::kafka(producers)).await
}

/// For the checkpoint.
pub async fn encode_own(producers: Producers) -> Encoded {
    in_steps(Encoder::own(producers)).await
}

async fn in_steps(mut encoder: Encoder) -> Encoded {
    let mut is_first = true;
    while encoder.step() {
        // Most partitions know a few producers: one step is all.
        if !std::mem::take(&mut is_first) {
            rt::yield_now().await;
        }
    }
    encoder.finish()
}
