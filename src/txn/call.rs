//! What goes into a transaction coordinator and what comes out. Plain values that may cross cores.

use super::{Producer, State, TopicPartition};
use crate::wire::messages::describe_transactions_response::TransactionState;
use crate::wire::{ErrorCode, Str};

/// A request to the coordinator of a transactional id.
#[derive(Debug, Clone)]
pub enum Call {
    /// InitProducerId. `expected` is what a producer that recovers believes to be (KIP-360).
    Initialise {
        transactional_id: Str,
        timeout_ms: i32,
        expected: Option<Producer>,
    },
    /// AddPartitionsToTxn, AddOffsetsToTxn, and the first append of a transaction under version 2.
    AddPartitions {
        transactional_id: Str,
        producer: Producer,
        partitions: Vec<TopicPartition>,
        client_version: i16,
    },
    /// Are these partitions in the open transaction (KIP-890)?
    Verify {
        transactional_id: Str,
        producer: Producer,
        partitions: Vec<TopicPartition>,
    },
    /// EndTxn.
    End {
        transactional_id: Str,
        producer: Producer,
        is_commit: bool,
        client_version: i16,
    },
    Describe {
        transactional_id: Str,
    },
    /// Empty filters and a negative duration let everything pass.
    List {
        states: Vec<State>,
        producer_ids: Vec<i64>,
        duration_ms: i64,
    },
}

/// The answer to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To `Initialise`, and to `End`: the producer of the next transaction.
    Producer(Result<Producer, ErrorCode>),
    Added(Result<(), ErrorCode>),
    /// One code for each partition asked about.
    Verified(Result<Vec<ErrorCode>, ErrorCode>),
    Described(TransactionState),
    Listed(Result<Vec<Listed>, ErrorCode>),
}

/// A line of ListTransactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub transactional_id: Str,
    pub producer_id: i64,
    pub state: State,
}

impl Call {
    /// The reply when the coordinator cannot take the call, or could not make durable what it decided.
    pub fn refuse(&self, error: ErrorCode) -> Reply {
        match self {
            Call::Initialise { .. } | Call::End { .. } => Reply::Producer(Err(error)),
            Call::AddPartitions { .. } => Reply::Added(Err(error)),
            Call::Verify { .. } => Reply::Verified(Err(error)),
            Call::Describe { transactional_id } => Reply::Described(TransactionState {
                error_code: error.code(),
                transactional_id: transactional_id.clone(),
                ..Default::default()
            }),
            Call::List { .. } => Reply::Listed(Err(error)),
        }
    }
}

impl Reply {
    /// The call may be made again when the transaction before has come to its end.
    pub fn is_concurrent(&self) -> bool {
        matches!(
            self,
            Reply::Producer(Err(ErrorCode::ConcurrentTransactions))
                | Reply::Added(Err(ErrorCode::ConcurrentTransactions))
                | Reply::Verified(Err(ErrorCode::ConcurrentTransactions))
        )
    }
}
