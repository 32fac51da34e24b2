//! One transactional id: what its record says, and nothing else.

use std::collections::BTreeSet;

use super::{EPOCH_BUMP_VERSION, Producer, TopicPartition};
use crate::log::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_TIMESTAMP};

/// The last epoch that a producer may use. The one above it is there to fence this one.
const PRODUCER_EPOCH_MAX: i16 = i16::MAX - 1;

/// Kafka's states, by the numbers that records carry. Two more of Kafka's, Dead and PrepareEpochFence, never reach a log, and nothing here passes through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// An id without a transaction so far.
    Empty = 0,
    Ongoing = 1,
    /// Decided and durable, markers under way.
    PrepareCommit = 2,
    PrepareAbort = 3,
    CompleteCommit = 4,
    CompleteAbort = 5,
}

impl State {
    pub const ALL: [State; 6] =
        [State::Empty, State::Ongoing, State::PrepareCommit, State::PrepareAbort, State::CompleteCommit, State::CompleteAbort];

    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Ongoing => "Ongoing",
            State::PrepareCommit => "PrepareCommit",
            State::PrepareAbort => "PrepareAbort",
            State::CompleteCommit => "CompleteCommit",
            State::CompleteAbort => "CompleteAbort",
        }
    }

    pub(super) fn from_number(number: i8) -> Option<State> {
        State::ALL.into_iter().find(|state| *state as i8 == number)
    }

    /// Decided, and not at its end.
    pub fn is_prepared(self) -> bool {
        matches!(self, State::PrepareCommit | State::PrepareAbort)
    }
}

/// What is known of one transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub state: State,
    /// The epoch is that of the markers while the transaction is prepared.
    pub producer: Producer,
    /// The id before the last exhausted epoch, -1 if there was none: so that a retry of the request that led to the new one is known.
    pub previous_producer_id: i64,
    /// The id that follows when the transaction is complete, -1 if it stays.
    pub next_producer_id: i64,
    /// The epoch before the last change, -1 where nobody may refer to it. Records do not carry it: after a restart such a retry is fenced, as Kafka does.
    pub last_producer_epoch: i16,
    pub timeout_ms: i32,
    pub partitions: BTreeSet<TopicPartition>,
    /// When the transaction began, -1 before the first one.
    pub started_ms: i64,
    pub updated_ms: i64,
    /// The level of `transaction.version` by which the client works.
    pub client_version: i16,
}

impl Transaction {
    /// An id that was not there before. Its first InitProducerId raises the epoch to 0.
    pub(super) fn new(producer_id: i64) -> Transaction {
        Transaction {
            state: State::Empty,
            producer: Producer { id: producer_id, epoch: NO_PRODUCER_EPOCH },
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            last_producer_epoch: NO_PRODUCER_EPOCH,
            timeout_ms: 0,
            partitions: BTreeSet::new(),
            started_ms: NO_TIMESTAMP,
            updated_ms: NO_TIMESTAMP,
            client_version: 0,
        }
    }

    pub(super) fn is_epoch_exhausted(&self) -> bool {
        self.producer.epoch >= PRODUCER_EPOCH_MAX
    }

    /// Whether `producer` is the one that held an epoch which no request can raise any more.
    pub(super) fn is_predecessor(&self, producer: Producer) -> bool {
        producer.id == self.previous_producer_id && producer.epoch >= PRODUCER_EPOCH_MAX
    }

    /// A producer that has just been initialised begins without a transaction.
    pub(super) fn initialised(&self, producer: Producer, last_producer_epoch: i16, timeout_ms: i32, now_ms: i64) -> Transaction {
        let is_new_id = producer.id != self.producer.id;
        Transaction {
            state: State::Empty,
            producer,
            previous_producer_id: if is_new_id { self.producer.id } else { self.previous_producer_id },
            next_producer_id: NO_PRODUCER_ID,
            last_producer_epoch,
            timeout_ms,
            partitions: BTreeSet::new(),
            started_ms: NO_TIMESTAMP,
            updated_ms: now_ms,
            client_version: self.client_version,
        }
    }

    pub(super) fn with_partitions(&self, added: &[TopicPartition], client_version: i16, now_ms: i64) -> Transaction {
        let mut next = self.clone();
        if self.state != State::Ongoing {
            next.state = State::Ongoing;
            next.started_ms = now_ms;
        }
        next.partitions.extend(added.iter().map(|(topic, partition)| (topic.detached(), *partition)));
        next.updated_ms = now_ms;
        next.client_version = client_version;
        next
    }

    /// Decided. Under version 2 the markers carry the next epoch; `next_producer_id` follows where that epoch is the last.
    pub(super) fn prepared(&self, is_commit: bool, client_version: i16, next_producer_id: i64, now_ms: i64) -> Transaction {
        let raises_epoch = client_version >= EPOCH_BUMP_VERSION;
        let mut next = Transaction {
            state: if is_commit { State::PrepareCommit } else { State::PrepareAbort },
            next_producer_id,
            updated_ms: now_ms,
            client_version,
            // An abort without a partition has no beginning, and records want one.
            started_ms: if self.state == State::Ongoing { self.started_ms } else { now_ms },
            ..self.clone()
        };
        if raises_epoch {
            next.last_producer_epoch = self.producer.epoch;
            next.producer.epoch = self.producer.epoch.saturating_add(1);
        }
        next
    }

    /// Aborted by the coordinator itself: its producer is fenced in either version.
    pub(super) fn fenced(&self, server_version: i16, next_producer_id: i64, now_ms: i64) -> Transaction {
        let mut next = self.prepared(false, server_version, next_producer_id, now_ms);
        if server_version < EPOCH_BUMP_VERSION {
            next.last_producer_epoch = NO_PRODUCER_EPOCH;
            next.producer.epoch = self.producer.epoch.saturating_add(1);
        }
        next
    }

    /// All markers are written.
    pub(super) fn completed(&self, now_ms: i64) -> Transaction {
        assert!(self.state.is_prepared(), "only what is decided comes to its end, not {:?}", self.state);
        let mut next = Transaction {
            state: if self.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort },
            partitions: BTreeSet::new(),
            updated_ms: now_ms,
            ..self.clone()
        };
        next.producer = self.next_producer();
        if next.producer.id != self.producer.id {
            next.previous_producer_id = self.producer.id;
            next.next_producer_id = NO_PRODUCER_ID;
        }
        next
    }

    /// The producer of the next transaction, as the answer to EndTxn tells it.
    pub(super) fn next_producer(&self) -> Producer {
        if self.next_producer_id == NO_PRODUCER_ID { self.producer } else { Producer { id: self.next_producer_id, epoch: 0 } }
    }

    pub(super) fn is_timed_out(&self, now_ms: i64) -> bool {
        self.state == State::Ongoing && self.started_ms.saturating_add(i64::from(self.timeout_ms)) < now_ms
    }

    pub(super) fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        let is_idle = matches!(self.state, State::Empty | State::CompleteCommit | State::CompleteAbort);
        is_idle && self.updated_ms <= now_ms.saturating_sub(expiration_ms)
    }
}
