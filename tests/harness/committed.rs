//! A reader of committed records, who works them out as consumers do: by the list of aborted transactions that comes with a fetch, and the markers in the log.

use std::io;

use corelane_wire::ErrorCode;
use corelane_wire::messages::FetchRequest;
use corelane_wire::messages::fetch_response::PartitionData;

use crate::batch::{ATTRIBUTE_CONTROL, Record, read_batches};
use crate::raw::{Connection, code, fetch_request, records_of};
use crate::wait;

/// A reader of one partition, from its beginning on.
#[derive(Clone, Debug)]
pub struct CommittedReader {
    topic: String,
    partition: i32,
    next: i64,
}

/// What one poll brought.
#[derive(Debug)]
pub struct Poll {
    pub records: Vec<(i64, Record)>,
    /// Nothing above is shown to this reader; below, everything is decided. Both are -1 where the broker did not say.
    pub last_stable_offset: i64,
    pub high_watermark: i64,
}

impl CommittedReader {
    pub fn new(topic: &str, partition: i32) -> CommittedReader {
        CommittedReader { topic: topic.to_string(), partition, next: 0 }
    }

    /// Everything below has been read.
    pub fn next_offset(&self) -> i64 {
        self.next
    }

    /// What there is to read now, or a part of it; nothing from a broker that has only just started.
    pub fn poll(&mut self, connection: &mut Connection) -> io::Result<Poll> {
        let request = FetchRequest { isolation_level: 1, max_wait_ms: 100, ..fetch_request(&[(&self.topic, self.partition, self.next)]) };
        let data = connection.try_call(11, &request)?.responses.remove(0).partitions.remove(0);
        match code(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::NotLeaderOrFollower | ErrorCode::UnknownTopicOrPartition | ErrorCode::LeaderNotAvailable => {
                return Ok(Poll { records: Vec::new(), last_stable_offset: -1, high_watermark: -1 });
            }
            error => panic!("{}-{} at {}: {}", self.topic, self.partition, self.next, error.name()),
        }
        let records = self.take(&data);
        Ok(Poll { records, last_stable_offset: data.last_stable_offset, high_watermark: data.high_watermark })
    }

    /// All records from here on, once everything is decided: the last stable offset goes on to the end.
    pub fn read_to_the_end(&mut self, connection: &mut Connection) -> Vec<(i64, Record)> {
        let mut records = Vec::new();
        wait::until("everything to be decided and read", wait::PATIENCE, || {
            loop {
                let before = self.next;
                let poll = self.poll(connection).expect("the broker is there");
                records.extend(poll.records);
                if self.next == poll.high_watermark && poll.last_stable_offset == poll.high_watermark {
                    return Some(());
                }
                if self.next == before {
                    return None;
                }
            }
        });
        records
    }

    fn take(&mut self, data: &PartitionData) -> Vec<(i64, Record)> {
        let listed = data.aborted_transactions.iter().flatten();
        let mut aborted: Vec<(i64, i64)> = listed.map(|one| (one.first_offset, one.producer_id)).collect();
        aborted.sort_unstable_by(|left, right| right.cmp(left));
        let (mut giving_up, mut records) = (Vec::new(), Vec::new());
        for batch in read_batches(&records_of(data)) {
            while aborted.last().is_some_and(|(first, _)| *first <= batch.last_offset()) {
                giving_up.extend(aborted.pop().map(|(_, producer_id)| producer_id));
            }
            let from = std::mem::replace(&mut self.next, batch.last_offset() + 1);
            if batch.attributes & ATTRIBUTE_CONTROL != 0 {
                giving_up.retain(|producer_id| *producer_id != batch.producer_id);
            } else if !giving_up.contains(&batch.producer_id) {
                records.extend(batch.records.into_iter().filter(|(offset, _)| *offset >= from));
            }
        }
        records
    }
}
