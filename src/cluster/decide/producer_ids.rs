//! Blocks of producer ids: each is given out once, whatever happens to who asked for it.

use std::ops::Range;

use crate::cluster::image::Image;
use crate::wire::ErrorCode;
use crate::wire::records::ProducerIdsRecord;

use super::{Decision, Refusal};

/// Ids in a block (KIP-730).
pub const PRODUCER_ID_BLOCK_SIZE: i64 = 1000;

/// The next block, for a broker in its present life.
pub fn allocate_producer_ids(image: &Image, broker_id: i32) -> Decision<Result<Range<i64>, Refusal>> {
    let Some(broker) = image.broker(broker_id) else {
        return Decision { records: Vec::new(), reply: Err(Refusal::bare(ErrorCode::BrokerIdNotRegistered)) };
    };
    let first = image.next_producer_id();
    let Some(next) = first.checked_add(PRODUCER_ID_BLOCK_SIZE) else {
        let message = "Exhausted all producerIds as the next block's end producerId has exceeded the int64 type limit";
        return Decision { records: Vec::new(), reply: Err(Refusal::new(ErrorCode::UnknownServerError, message)) };
    };
    let record = ProducerIdsRecord { broker_id, broker_epoch: broker.epoch, next_producer_id: next, ..Default::default() };
    Decision { records: vec![record.into()], reply: Ok(first..next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::tests::image_of_brokers;

    #[test]
    fn blocks_follow_one_another() {
        let mut image = image_of_brokers(&[(1, None, false)]);
        for first in [0, 1000, 2000] {
            let decision = allocate_producer_ids(&image, 1);
            assert_eq!(decision.reply, Ok(first..first + 1000));
            image.apply(&decision.records[0]).expect("applies");
        }
        assert_eq!(image.next_producer_id(), 3000);
    }

    #[test]
    fn a_broker_that_is_not_registered_gets_none() {
        let refusal = allocate_producer_ids(&Image::empty(), 1).reply.expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::BrokerIdNotRegistered);
    }
}
