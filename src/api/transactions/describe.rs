//! What operators ask about transactions: DescribeTransactions, ListTransactions (KIP-664, KIP-994, KIP-1152).

use std::time::Duration;

use regex::Regex;

use super::ask;
use crate::api::RequestContext;
use crate::drive::transactions::{Coordinators, TransactionRequest};
use crate::rt::ShardId;
use crate::shard::message::{Reply as ShardReply, Request};
use crate::txn::{Call, Reply, State};
use crate::wire::messages::list_transactions_response::TransactionState;
use crate::wire::messages::{DescribeTransactionsRequest, DescribeTransactionsResponse, ListTransactionsRequest, ListTransactionsResponse};
use crate::wire::{ErrorCode, Str};

/// Memory that a client's pattern may take once it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub async fn handle_describe_transactions(
    context: &RequestContext,
    request: DescribeTransactionsRequest,
    _version: i16,
) -> DescribeTransactionsResponse {
    let mut response = DescribeTransactionsResponse::default();
    for transactional_id in request.transactional_ids {
        let call = Call::Describe { transactional_id: transactional_id.clone() };
        let Reply::Described(described) = ask(context, &transactional_id, call, Duration::ZERO).await else {
            unreachable!("a description is answered by one")
        };
        response.transaction_states.push(described);
    }
    response
}

/// Lists the transactions of every coordinator of this broker. While one of them loads, the list would lack some that are there.
pub async fn handle_list_transactions(
    context: &RequestContext,
    request: ListTransactionsRequest,
    _version: i16,
) -> ListTransactionsResponse {
    let refuse = |error: ErrorCode| ListTransactionsResponse { error_code: error.code(), ..Default::default() };
    let Ok(pattern) = pattern_of(request.transactional_id_pattern.as_deref()) else {
        return refuse(ErrorCode::InvalidRegularExpression);
    };
    let (states, unknown_state_filters) = known_states(request.state_filters);
    let mut response = ListTransactionsResponse { unknown_state_filters, ..Default::default() };
    if states.is_empty() && !response.unknown_state_filters.is_empty() {
        return response;
    }
    let call = Call::List { states, producer_ids: request.producer_id_filters, duration_ms: request.duration_filter };
    let ask_shard = |shard| {
        let request = TransactionRequest { to: Coordinators::All, call: call.clone(), patience: Duration::ZERO };
        context.shard.call(ShardId(shard), Request::Transaction(request))
    };
    let calls: Vec<_> = (0..context.shard.shards()).map(ask_shard).collect();
    for call in calls {
        match call.await {
            ShardReply::Transaction(Reply::Listed(Ok(listed))) => {
                let wanted =
                    listed.into_iter().filter(|line| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&line.transactional_id)));
                response.transaction_states.extend(wanted.map(|line| TransactionState {
                    transactional_id: line.transactional_id,
                    producer_id: line.producer_id,
                    transaction_state: Str::from_static(line.state.name()),
                    ..Default::default()
                }));
            }
            ShardReply::Transaction(Reply::Listed(Err(error))) => return refuse(error),
            other => unreachable!("ListTransactions is answered by a list, not {other:?}"),
        }
    }
    response
}

/// The pattern, which has to fit the whole id; none for one that is absent or empty.
fn pattern_of(pattern: Option<&str>) -> Result<Option<Regex>, regex::Error> {
    match pattern.filter(|pattern| !pattern.is_empty()) {
        None => Ok(None),
        // Checked by itself first: brackets around it must not make sense of what makes none.
        Some(pattern) => {
            Regex::new(pattern)?;
            regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES_MAX).build().map(Some)
        }
    }
}

/// The states that filters name, and the filters that name none.
fn known_states(filters: Vec<Str>) -> (Vec<State>, Vec<Str>) {
    let (mut states, mut unknown) = (Vec::new(), Vec::new());
    for filter in filters {
        match State::ALL.into_iter().find(|state| state.name() == &*filter) {
            Some(state) => states.push(state),
            None => unknown.push(filter),
        }
    }
    (states, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_id() {
        let fits = |pattern: &str, id: &str| pattern_of(Some(pattern)).unwrap().is_none_or(|pattern| pattern.is_match(id));
        assert!(fits("a.*|b", "abc") && fits("a.*|b", "b") && fits("", "anything"));
        assert!(!fits("a.*|b", "bc") && !fits("b", "abc"));
        assert!(pattern_of(Some("(")).is_err() && pattern_of(Some("a)(?:b")).is_err());
        assert!(pattern_of(None).unwrap().is_none());
    }

    #[test]
    fn unknown_states_are_told_back() {
        let (states, unknown) = known_states(["Ongoing", "ongoing", "Sleeping"].map(Str::from).to_vec());
        assert_eq!((states, unknown), (vec![State::Ongoing], vec![Str::from("ongoing"), Str::from("Sleeping")]));
    }
}
