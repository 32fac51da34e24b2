//! The loop of a run: one thread goes round its parts and never waits.
//!
//! The order of a round keeps time stamps true: what is due is sent first, then whatever has arrived is taken, and only then a small piece of what may take time (one batch of a
//! backlog, one connection) is done.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::client::readiness::Readiness;
use crate::clock::Clock;
use crate::failure::Failure;
use crate::load::Load;
use crate::readers::{CatchUp, Tail};
use crate::recorder::Window;

use super::connections::Connections;

/// A broker that answers nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// One that still answers when the last request has gone gets so much longer; what it owes then is charged with the time that has passed.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(10);

/// Consumers get so long after the last acknowledgement.
const LAST_RECORD_MAX: Duration = Duration::from_secs(10);

/// A parked client looks at its deadlines so often at least.
const SLEEP_MAX_NS: u64 = 1_000_000;

pub struct Parts {
    pub clock: Clock,
    pub load: Load,
    pub tail: Option<Tail>,
    pub catch_up: Vec<CatchUp>,
    pub connections: Option<Connections>,
    /// Sleeps instead of spinning.
    pub parks: bool,
}

impl Parts {
    /// From `start_ns` until all that was sent is acknowledged and, with consumers, has arrived.
    pub fn run(&mut self, start_ns: u64, window: Window) -> Result<(), Failure> {
        let tail_connections: Vec<_> = self.tail.iter().flat_map(Tail::connections).collect();
        let producers = self.load.connections().len();
        let connections: Vec<_> = self.load.connections().chain(tail_connections).collect();
        let readiness = if self.parks { Readiness::waiting_for(connections.into_iter()) } else { Readiness::of(connections.into_iter()) };
        let mut readiness = readiness.map_err(Failure::machine("epoll"))?;
        if let Some(tail) = &mut self.tail {
            (0..tail.count()).try_for_each(|place| tail.receive(place))?;
        }
        self.clock.sleep_until(start_ns.saturating_sub(1_000_000));
        let mut last_sent_ns = None;
        let mut records_deadline_ns = None;
        let mut window_begun = false;
        loop {
            self.load.send_due()?;
            for place in readiness.look_for(self.sleep_ns()).map_err(Failure::machine("epoll"))? {
                match place.checked_sub(producers) {
                    None => self.load.receive(*place)?,
                    Some(place) => self.tail.as_mut().expect("only it has further places").receive(place)?,
                }
            }
            let now_ns = self.clock.now_ns();
            if now_ns < window.end_ns {
                if now_ns >= window.start_ns && !window_begun {
                    window_begun = true;
                    self.catch_up.iter_mut().for_each(CatchUp::begin_window);
                }
                self.catch_up.iter_mut().try_for_each(CatchUp::step)?;
                if let Some(connections) = &mut self.connections {
                    connections.step(now_ns)?;
                }
                continue;
            }
            if !self.load.is_sent() {
                continue;
            }
            let last_sent_ns = *last_sent_ns.get_or_insert(now_ns);
            if !self.load.is_done() {
                let silent_since_ns = self.load.last_answer_ns().max(last_sent_ns);
                if now_ns > silent_since_ns + SILENCE_MAX.as_nanos() as u64 {
                    return Err(Failure::BrokerGone(format!("it has answered nothing for {} s", SILENCE_MAX.as_secs())));
                }
                // A backlog has to be written to its end; a window's rest need not.
                let may_leave = self.load.is_paced() && silent_since_ns > last_sent_ns;
                if !(may_leave && now_ns > last_sent_ns + LAST_ANSWER_MAX.as_nanos() as u64) {
                    continue;
                }
            }
            let Some(tail) = &self.tail else { return Ok(()) };
            let deadline_ns = *records_deadline_ns.get_or_insert(now_ns + LAST_RECORD_MAX.as_nanos() as u64);
            if tail.has_all_of(&self.load.ledger) || now_ns > deadline_ns {
                return Ok(());
            }
        }
    }

    /// Not at all, unless the workload parks its client.
    fn sleep_ns(&self) -> u64 {
        if !self.parks {
            return 0;
        }
        let now_ns = self.clock.now_ns();
        self.load.next_due_ns().map_or(SLEEP_MAX_NS, |due_ns| due_ns.saturating_sub(now_ns).min(SLEEP_MAX_NS))
    }

    /// What only some scenarios have to tell.
    pub fn figures(&mut self, seconds: f64) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        if let Some(us) = self.load.partition_spread_us() {
            figures.insert("partition_spread_us".to_string(), us);
        }
        if let Some(tail) = &self.tail {
            figures.insert("tail_records".to_string(), tail.records as f64);
        }
        if !self.catch_up.is_empty() && seconds > 0.0 {
            let bytes: u64 = self.catch_up.iter().map(|reader| reader.bytes).sum();
            let records: u64 = self.catch_up.iter().map(|reader| reader.records).sum();
            let damaged: u64 = self.catch_up.iter().map(|reader| reader.damaged).sum();
            figures.insert("catch_up_mb_per_second".to_string(), bytes as f64 / 1e6 / seconds);
            figures.insert("catch_up_records_per_second".to_string(), records as f64 / seconds);
            figures.insert("catch_up_damaged".to_string(), damaged as f64);
        }
        if let Some(connections) = &mut self.connections {
            figures.extend(connections.figures());
        }
        figures
    }
}
