//! Reading the answer to a Produce in place: version 9, as compact as it is, gives one line for each partition and allocates nothing.

use std::io;

use super::connection::invalid;

/// What became of one partition's batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionAnswer {
    pub partition: i32,
    pub error_code: i16,
    pub base_offset: i64,
}

/// The correlation id at the front of any response.
pub fn correlation_id(frame: &[u8]) -> io::Result<i32> {
    frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)).ok_or_else(|| invalid("a response without a correlation id"))
}

/// Calls `visit` for each partition of the answer.
pub fn read_produce(frame: &[u8], mut visit: impl FnMut(PartitionAnswer)) -> io::Result<()> {
    let mut reader = Reader { rest: frame };
    let mut read = || -> Option<()> {
        reader.skip(4)?;
        reader.skip_tags()?;
        for _ in 0..reader.count()? {
            reader.skip_compact()?;
            for _ in 0..reader.count()? {
                let answer = PartitionAnswer { partition: reader.int32()?, error_code: reader.int16()?, base_offset: reader.int64()? };
                // Log append time and log start offset.
                reader.skip(16)?;
                for _ in 0..reader.count()? {
                    reader.skip(4)?;
                    reader.skip_compact()?;
                    reader.skip_tags()?;
                }
                reader.skip_compact()?;
                reader.skip_tags()?;
                visit(answer);
            }
            reader.skip_tags()?;
        }
        Some(())
    };
    read().ok_or_else(|| invalid("a response to Produce that ends too early"))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let taken = *self.rest.first_chunk::<N>()?;
        self.skip(N)?;
        Some(taken)
    }

    fn int16(&mut self) -> Option<i16> {
        self.take().map(i16::from_be_bytes)
    }

    fn int32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn int64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let [byte] = self.take()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// Elements of a compact array; null has none.
    fn count(&mut self) -> Option<usize> {
        self.varint().map(|count| count.saturating_sub(1))
    }

    /// A compact string, null or not.
    fn skip_compact(&mut self) -> Option<()> {
        let length = self.varint()?.saturating_sub(1);
        self.skip(length)
    }

    fn skip_tags(&mut self) -> Option<()> {
        for _ in 0..self.varint()? {
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use corelane_wire::messages::ProduceResponse;
    use corelane_wire::messages::produce_response::{BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse};
    use corelane_wire::{ApiKey, Chunk, encode_response};

    use super::super::PRODUCE_VERSION;
    use super::*;

    fn frame(response: &ProduceResponse) -> Vec<u8> {
        let chunks = encode_response(ApiKey::Produce, PRODUCE_VERSION, 77, response).expect("valid");
        let bytes = chunks.iter().flat_map(|chunk| match chunk {
            Chunk::Memory(bytes) => bytes.to_vec(),
            Chunk::Deferred(_) => unreachable!("no records in it"),
        });
        bytes.skip(4).collect()
    }

    #[test]
    fn what_the_codec_writes_is_read_in_place() {
        let record_errors =
            vec![BatchIndexAndErrorMessage { batch_index: 3, batch_index_error_message: Some("why".into()), ..Default::default() }];
        let partitions = vec![
            PartitionProduceResponse { index: 5, error_code: 0, base_offset: 1 << 40, ..Default::default() },
            PartitionProduceResponse {
                index: 6,
                error_code: 87,
                base_offset: -1,
                record_errors,
                error_message: Some("no".into()),
                ..Default::default()
            },
        ];
        let topic = TopicProduceResponse { name: "a-topic".into(), partition_responses: partitions, ..Default::default() };
        let frame = frame(&ProduceResponse { responses: vec![topic], ..Default::default() });
        assert_eq!(correlation_id(&frame).expect("there"), 77);
        let mut seen = Vec::new();
        read_produce(&frame, |answer| seen.push(answer)).expect("whole");
        let wanted = [(5, 0, 1 << 40), (6, 87, -1)].map(|(partition, error_code, base_offset)| PartitionAnswer {
            partition,
            error_code,
            base_offset,
        });
        assert_eq!(seen, wanted);
        for length in 0..frame.len() - 6 {
            assert!(read_produce(&frame[..length], |_| ()).is_err(), "cut at {length}");
        }
    }
}
