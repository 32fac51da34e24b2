//! When each record is due. Pure arithmetic, fixed before the first record is sent, so that nothing that happens in a run can move it.
//!
//! Records are dealt to the producers in turn: record `number` of producer `p` of `P` is the `number * P + p`-th of all, and due at that count divided by the rate. A request takes the
//! next `batch` records of one producer and is due when its last record is; with a linger, when its first record has waited so long, and then it holds only what was due by then.

#[derive(Clone, Debug)]
pub struct Schedule {
    start_ns: u64,
    rate: u64,
    producers: u64,
    records_per_request: u64,
    /// From the first record of a request to its sending.
    hold_ns: u64,
}

const SECOND_NS: u64 = 1_000_000_000;

impl Schedule {
    /// `rate` is in records a second over all producers. Counts are below 1.8e10 records, which 64 bits of nanoseconds allow.
    pub fn new(start_ns: u64, rate: u64, producers: usize, batch_records: usize, linger_ns: Option<u64>) -> Schedule {
        assert!(rate > 0 && producers > 0 && batch_records > 0, "a schedule has a rate, a producer and a batch");
        let producers = producers as u64;
        let mut records_per_request = batch_records as u64;
        let mut hold_ns = (records_per_request - 1) * producers * SECOND_NS / rate;
        if let Some(linger_ns) = linger_ns.filter(|linger_ns| *linger_ns < hold_ns) {
            records_per_request = 1 + linger_ns * rate / (producers * SECOND_NS);
            hold_ns = linger_ns;
        }
        Schedule { start_ns, rate, producers, records_per_request, hold_ns }
    }

    pub fn records_per_request(&self) -> usize {
        self.records_per_request as usize
    }

    /// When record `number` of `producer` should be on its way.
    pub fn record_due_ns(&self, producer: usize, number: u64) -> u64 {
        self.start_ns + (number * self.producers + producer as u64) * SECOND_NS / self.rate
    }

    /// When the request whose first record is `first_number` goes out.
    pub fn request_due_ns(&self, producer: usize, first_number: u64) -> u64 {
        self.record_due_ns(producer, first_number) + self.hold_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_evenly_and_dealt_to_producers_in_turn() {
        let schedule = Schedule::new(1_000, 1_000_000, 4, 1, None);
        let due: Vec<u64> = (0..8).map(|record| schedule.record_due_ns(record % 4, record as u64 / 4)).collect();
        assert_eq!(due, [1_000, 2_000, 3_000, 4_000, 5_000, 6_000, 7_000, 8_000]);
    }

    #[test]
    fn no_rounding_error_adds_up_over_hours() {
        let schedule = Schedule::new(0, 3, 1, 1, None);
        assert_eq!(schedule.record_due_ns(0, 3 * 3_600 * 10), 36_000 * SECOND_NS);
    }

    #[test]
    fn a_request_goes_out_when_its_last_record_is_due() {
        let schedule = Schedule::new(0, 1_000, 2, 5, None);
        assert_eq!(schedule.records_per_request(), 5);
        assert_eq!(schedule.request_due_ns(1, 10), schedule.record_due_ns(1, 14));
    }

    #[test]
    fn a_linger_sends_what_was_due_by_then() {
        // One record each 2 ms and producer; 5 ms after the first, the second and the third are there too.
        let schedule = Schedule::new(0, 1_000, 2, 100, Some(5_000_000));
        assert_eq!(schedule.records_per_request(), 3);
        assert_eq!(schedule.request_due_ns(0, 0), 5_000_000);
        let full_before = Schedule::new(0, 1_000, 1, 3, Some(5_000_000));
        assert_eq!(full_before.records_per_request(), 3);
        assert_eq!(full_before.request_due_ns(0, 0), 2_000_000);
    }
}
