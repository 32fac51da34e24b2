//! What readers of committed records have seen, and whether all of it agrees with what the tellers were told: of a committed transfer everything, of any other nothing, each record once
//! and in its order, and nothing seen that is not there afterwards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread::{self, Scope};
use std::time::Duration;

use corelane_wire::Str;
use corelane_wire::messages::OffsetFetchRequest;
use corelane_wire::messages::offset_fetch_request::OffsetFetchRequestTopic;
use harness::batch::Record;
use harness::committed::CommittedReader;
use harness::random::Random;
use harness::raw::Connection;
use harness::wait;

use crate::failure::{Failure, comparing};
use crate::history::Broken;
use crate::load::Round;
use crate::tellers::{self, PARTITIONS, TOPIC, Teller, Told, Trouble, end_what_is_open, lock};

const TELLERS: u64 = 6;

/// How many records of a transfer there are in each partition.
type Counts = [u64; PARTITIONS as usize];

const NOTHING: Counts = [0; PARTITIONS as usize];

/// One record of a committed transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    teller: u64,
    transfer: u64,
    index: u64,
}

/// Committed records of one partition by their offsets.
type Committed = BTreeMap<i64, Seen>;

/// Tellers, and what a watcher of committed records has seen of their transfers.
pub struct Transfers {
    pub tellers: Vec<Mutex<Teller>>,
    watched: [Committed; PARTITIONS as usize],
}

impl Transfers {
    pub fn new() -> Transfers {
        Transfers { tellers: (0..TELLERS).map(|number| Mutex::new(Teller::new(number))).collect(), watched: Default::default() }
    }

    pub fn make_topic(&self, connection: &mut Connection) {
        connection.create_topic_with(TOPIC, PARTITIONS, &[("internal.segment.bytes", "131072"), ("segment.ms", "500")]);
    }

    /// How many transfers are known to be committed.
    pub fn committed_count(&self) -> u64 {
        let committed = |teller: &Mutex<Teller>| lock(teller).transfers.iter().filter(|transfer| transfer.told == Told::Committed).count();
        self.tellers.iter().map(|teller| committed(teller) as u64).sum()
    }

    /// Tellers transfer and a watcher reads, each in a thread of the scope, until the round is over.
    pub fn go_on<'scope, 'env>(&'env mut self, scope: &'scope Scope<'scope, 'env>, round: &'env Round<'env>, random: &mut Random) {
        for teller in &self.tellers {
            let random = random.split();
            scope.spawn(move || tellers::run(round, teller, random));
        }
        let watched = &mut self.watched;
        scope.spawn(move || watch(round, watched));
    }

    /// Compares after a restart; what was in doubt is not any more.
    pub fn verify(&mut self, connection: &mut Connection) -> Result<(), Broken> {
        for teller in &self.tellers {
            wait::until("an end of what was open", wait::PATIENCE, || match end_what_is_open(teller, connection) {
                Ok(()) => Some(()),
                Err(Trouble::Refused(..)) => None,
                Err(Trouble::Gone(error)) => panic!("the broker goes away: {error}"),
            });
        }
        let found: Vec<Committed> = (0..PARTITIONS).map(|partition| committed(connection, partition)).collect();
        for (partition, (found, watched)) in found.iter().zip(&self.watched).enumerate() {
            verify_order(found).and_then(|()| verify_watched(found, watched)).map_err(|words| format!("{TOPIC}-{partition}: {words}"))?;
        }
        self.watched = found.try_into().expect("as many partitions");
        for teller in &self.tellers {
            let teller = &mut *lock(teller);
            verify_teller(teller, &self.watched)?;
            verify_position(teller, connection)?;
        }
        Ok(())
    }
}

/// Each of the tellers' transfers is there as its teller was told, or as a whole where nobody was told.
fn verify_teller(teller: &mut Teller, found: &[Committed]) -> Result<(), Broken> {
    let mut counts: BTreeMap<u64, Counts> = BTreeMap::new();
    for (partition, records) in found.iter().enumerate() {
        for seen in records.values().filter(|seen| seen.teller == teller.number) {
            counts.entry(seen.transfer).or_default()[partition] += 1;
        }
    }
    let id = teller.id();
    for (number, transfer) in (0..).zip(&mut teller.transfers) {
        let count = counts.remove(&number).unwrap_or(NOTHING);
        transfer.told = match (transfer.told, count == transfer.records, count == NOTHING) {
            (Told::Committed | Told::Unknown, true, _) => Told::Committed,
            (Told::Aborted | Told::Unknown, _, true) => Told::Aborted,
            (told, ..) => {
                return Err(format!(
                    "transfer {number} of {id} is {told:?}; {count:?} of its {:?} records are committed",
                    transfer.records
                ));
            }
        };
    }
    match counts.keys().next() {
        None => Ok(()),
        Some(number) => Err(format!("{id} has never begun transfer {number}, and it is committed")),
    }
}

/// The position of the teller's group is the one that the last committed transfer with a position has left.
fn verify_position(teller: &mut Teller, connection: &mut Connection) -> Result<(), Broken> {
    let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![0], ..Default::default() };
    let group_id = Str::from(teller.group());
    let request = OffsetFetchRequest { group_id, topics: Some(vec![topic]), require_stable: true, ..Default::default() };
    let position = wait::until("a stable position", wait::PATIENCE, || {
        let response = connection.call(7, &request);
        let answer = response.topics.first()?.partitions.first()?;
        (response.error_code == 0 && answer.error_code == 0).then_some(answer.committed_offset)
    });
    let is_committed = |position: &&i64| **position < 0 || teller.transfers[**position as usize].told == Told::Committed;
    let expected = *teller.positions.iter().filter(is_committed).max().expect("the first was left for sure");
    if position != expected {
        return Err(format!("the position of {} is {position}, and the last transfer that took one with it is {expected}", teller.group()));
    }
    teller.positions = vec![position];
    Ok(())
}

/// The records of each teller go up.
fn verify_order(found: &Committed) -> Result<(), Broken> {
    let mut last: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (offset, seen) in found {
        let now = (seen.transfer, seen.index);
        if let Some(before) = last.insert(seen.teller, now)
            && before >= now
        {
            return Err(format!("record {seen:?} at offset {offset} comes after transfer {}, record {}", before.0, before.1));
        }
    }
    Ok(())
}

/// What a reader of committed records has seen is there.
fn verify_watched(found: &Committed, watched: &Committed) -> Result<(), Broken> {
    match watched.iter().find(|(offset, seen)| found.get(offset) != Some(seen)) {
        None => Ok(()),
        Some((offset, seen)) => Err(format!("{seen:?} was seen at offset {offset}, and now {:?} is there", found.get(offset))),
    }
}

/// All committed records of a partition, once everything in it is decided: the last stable offset goes on to the end.
fn committed(connection: &mut Connection, partition: i32) -> Committed {
    let records = CommittedReader::new(TOPIC, partition).read_to_the_end(connection);
    records.iter().map(|(offset, record)| (*offset, seen_of(record))).collect()
}

/// Reads on where everything is known, until the round is over.
fn watch(round: &Round, watched: &mut [Committed]) {
    let Some(mut connection) = round.connect() else { return };
    let mut readers: Vec<CommittedReader> = (0..PARTITIONS).map(|partition| CommittedReader::new(TOPIC, partition)).collect();
    while !round.is_over() {
        for (reader, watched) in readers.iter_mut().zip(&mut *watched) {
            let poll = match comparing(|| reader.poll(&mut connection)) {
                Ok(Ok(poll)) => poll,
                Ok(Err(_)) => return,
                Err(words) => return round.fail(Failure::Broken(format!("a reader of committed records: {words}"))),
            };
            watched.extend(poll.records.iter().map(|(offset, record)| (*offset, seen_of(record))));
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn seen_of(record: &Record) -> Seen {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().expect("there")).expect("text");
    let value = text(&record.value);
    let mut numbers = value.split(' ').map(|number| number.parse::<u64>());
    let mut next = || numbers.next().and_then(Result::ok).expect("a number");
    let (transfer, index) = (next(), next());
    let teller = text(&record.key).strip_prefix("teller-").and_then(|number| number.parse().ok()).expect("a teller's record");
    Seen { teller, transfer, index }
}

pub mod cases {
    use super::*;
    use crate::tellers::Transfer;

    /// What is missed: a part of a committed transfer, anything of an aborted one, one that nobody began, a record twice or too late, a record that a reader has seen.
    pub fn anomalies_are_named() {
        let whole = [(0, 0, 0), (0, 0, 1), (0, 2, 0), (0, 2, 1), (1, 0, 0), (1, 2, 0)];
        let without = |index: usize| whole.iter().enumerate().filter(|(at, _)| *at != index).map(|(_, seen)| *seen).collect::<Vec<_>>();
        let with = |seen| [&whole[..], &[seen]].concat();
        verify_teller(&mut teller(), &committed_of(&whole)).expect("everything is as it was told");
        let mut undecided = teller();
        verify_teller(&mut undecided, &committed_of(&[&whole[..2], &whole[4..5]].concat())).expect("nothing of a transfer in doubt");
        let told: Vec<Told> = undecided.transfers.iter().map(|transfer| transfer.told).collect();
        assert_eq!(told, [Told::Committed, Told::Aborted, Told::Aborted], "it is not in doubt any more");
        for torn in [without(0), without(4), without(3), with((1, 1, 0)), with((2, 7, 0)), with((2, 0, 0))] {
            assert!(verify_teller(&mut teller(), &committed_of(&torn)).is_err(), "{torn:?}");
        }
        let [found, ..] = &committed_of(&whole)[..] else { unreachable!("there are partitions") };
        verify_order(found).expect("in order");
        assert!(verify_order(&committed_of(&[(0, 1, 0), (0, 0, 1)])[0]).is_err());
        assert!(verify_order(&committed_of(&[(0, 1, 0), (0, 1, 0)])[0]).is_err());
        verify_watched(found, &committed_of(&whole[..2])[0]).expect("still there");
        assert!(verify_watched(&committed_of(&whole[..2])[0], found).is_err());
    }

    /// A teller of a committed transfer, an aborted one, and one in doubt.
    fn teller() -> Teller {
        let mut teller = Teller::new(0);
        let transfer = |told| Transfer { told, records: [2, 1, 0] };
        teller.transfers = vec![transfer(Told::Committed), transfer(Told::Aborted), transfer(Told::Unknown)];
        teller
    }

    /// Records by partition, transfer and index, at offsets in their order.
    fn committed_of(records: &[(usize, u64, u64)]) -> Vec<Committed> {
        let mut found = vec![Committed::new(); PARTITIONS as usize];
        for (offset, (partition, transfer, index)) in (0..).zip(records) {
            found[*partition].insert(offset, Seen { teller: 0, transfer: *transfer, index: *index });
        }
        found
    }
}
