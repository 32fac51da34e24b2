//! What operators ask about transactions, and what they do to one that hangs.

use corelane_wire::messages::ListTransactionsRequest;
use harness::cases;
use harness::suite::Case;

use super::*;

pub const CASES: &[Case] = cases![an_operator_ends_a_hanging_transaction, transactions_are_described_and_listed, every_state_is_listed];

fn an_operator_ends_a_hanging_transaction(broker: &Broker) {
    let mut test = Test::new(broker, "txn-hanging");
    test.join(0);
    test.write(PRODUCE_1, 0, 0);
    let (epoch, _, start) = test.described_producer(0).expect("known");
    assert_eq!(start, 0);
    let coordinator_epoch = 1_000;
    assert_eq!(test.write_marker(0, epoch as i16, coordinator_epoch, false, &[0]), [ErrorCode::None]);
    assert_eq!(test.described_producer(0), Some((epoch, coordinator_epoch, -1)));
    let producer_id = test.producer_id;
    assert_eq!(test.read_committed(0, 0), (vec![0, 1], 2, vec![(producer_id, 0)]));
}

fn transactions_are_described_and_listed(broker: &Broker) {
    let mut test = Test::new(broker, "txn-describe");
    test.join(1);
    let unknown = Str::from("txn-describe-unknown");
    let request =
        DescribeTransactionsRequest { transactional_ids: vec![Str::from(test.id.as_str()), unknown, Str::from("")], ..Default::default() };
    let response = test.connection.call(0, &request);
    let codes: Vec<ErrorCode> = response.transaction_states.iter().map(|state| code(state.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::TransactionalIdNotFound, ErrorCode::InvalidRequest]);
    let described = &response.transaction_states[0];
    assert_eq!((&*described.transaction_state, described.transaction_timeout_ms), ("Ongoing", 60_000));
    assert_eq!((described.producer_id, described.producer_epoch), (test.producer_id, test.epoch));
    assert_eq!((&*described.topics[0].topic, &described.topics[0].partitions[..]), ("txn-describe", &[1][..]));

    let id = test.id.clone();
    let producer_id = test.producer_id;
    let mut list = |states: &[&str], producer_ids: &[i64], duration_ms: i64, pattern: Option<&str>| {
        let request = ListTransactionsRequest {
            state_filters: states.iter().map(|state| Str::from(*state)).collect(),
            producer_id_filters: producer_ids.to_vec(),
            duration_filter: duration_ms,
            transactional_id_pattern: pattern.map(Str::from),
            ..Default::default()
        };
        let response = settled(|| {
            let response = test.connection.call(2, &request);
            match code(response.error_code) {
                ErrorCode::CoordinatorLoadInProgress => Err(ErrorCode::CoordinatorLoadInProgress),
                _ => Ok(response),
            }
        });
        let response = response.expect("a list");
        let is_listed = response.transaction_states.iter().any(|state| *state.transactional_id == *id && state.producer_id == producer_id);
        let unknown: Vec<String> = response.unknown_state_filters.iter().map(ToString::to_string).collect();
        (code(response.error_code), is_listed, unknown)
    };
    let found = (ErrorCode::None, true, vec![]);
    let not_found = (ErrorCode::None, false, vec![]);
    assert_eq!(list(&[], &[], -1, None), found);
    assert_eq!(list(&["Ongoing"], &[producer_id], 0, Some("txn-desc.*")), found);
    assert_eq!(list(&["Empty"], &[], -1, None), not_found);
    assert_eq!(list(&[], &[producer_id + 100_000], -1, None), not_found);
    assert_eq!(list(&[], &[], 3_600_000, None), not_found);
    assert_eq!(list(&[], &[], -1, Some("txn-desc")), not_found, "a pattern fits the whole id");
    assert_eq!(list(&[], &[], -1, Some("(")).0, ErrorCode::InvalidRegularExpression);
    assert_eq!(list(&["Sleeping"], &[], -1, None), (ErrorCode::None, false, vec!["Sleeping".to_string()]));
    assert_eq!(list(&["Sleeping", "Ongoing"], &[], -1, None), (ErrorCode::None, true, vec!["Sleeping".to_string()]));
}

/// Each state that a transaction rests in, by its name, and the durations: they count from a transaction's beginning.
fn every_state_is_listed(broker: &Broker) {
    let mut test = Test::new(broker, "txn-states");
    let listed = |test: &mut Test, state: &str, duration_ms: i64| {
        let request = ListTransactionsRequest { state_filters: vec![Str::from(state)], duration_filter: duration_ms, ..Default::default() };
        let response = settled(|| {
            let response = test.connection.call(1, &request);
            outcome(response.error_code, response)
        });
        let response = response.expect("a list");
        let found = response.transaction_states.iter().find(|listed| *listed.transactional_id == *test.id);
        found.map(|listed| listed.transaction_state.to_string())
    };
    assert_eq!(listed(&mut test, "Empty", -1).as_deref(), Some("Empty"));
    test.write(PRODUCE_2, 0, 0);
    wait::until("a transaction of more than ten milliseconds", wait::PATIENCE, || listed(&mut test, "Ongoing", 10));
    assert_eq!(listed(&mut test, "Ongoing", 3_600_000), None);
    for (is_commit, state) in [(true, "CompleteCommit"), (false, "CompleteAbort")] {
        test.end(END_2, is_commit);
        assert_eq!(listed(&mut test, state, -1).as_deref(), Some(state));
        assert_eq!(listed(&mut test, "Ongoing", -1), None);
    }
}
