//! What readers of committed records have seen, and whether that agrees with what the tellers were told.

use std::collections::{BTreeMap, HashMap};

use harness::batch::Record;
use harness::committed::CommittedReader;
use harness::raw::Connection;

use super::teller::{TOPIC, Teller, Told};

/// One committed record of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    /// The teller's number, the transfer's, and the record's within it.
    pub teller: u64,
    pub transfer: u64,
    pub index: u64,
}

/// The committed records of one partition in their order.
pub type History = Vec<Seen>;

impl Seen {
    pub fn of(offset: i64, record: &Record) -> Seen {
        let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().expect("there")).expect("text");
        let number = |text: &str| text.parse().expect("a number");
        let (key, value) = (text(&record.key), text(&record.value));
        let (transfer, index) = value.split_once(' ').expect("two numbers");
        let teller = key.strip_prefix("teller-").expect("a teller's record");
        Seen { offset, teller: number(teller), transfer: number(transfer), index: number(index) }
    }
}

/// The whole committed history of one partition, once everything in it is decided.
pub fn committed(connection: &mut Connection, partition: i32) -> History {
    let records = CommittedReader::new(TOPIC, partition).read_to_the_end(connection);
    records.iter().map(|(offset, record)| Seen::of(*offset, record)).collect()
}

/// Compares the histories of all partitions with what the tellers were told; an error names the first anomaly.
pub fn check(tellers: &[Teller], records_of: impl Fn(&Teller, u64) -> u64, histories: &[History]) -> Result<(), String> {
    // In how many partitions a transfer was found; whose answer was lost is in all of them or in none.
    let mut spread: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for (partition, history) in histories.iter().enumerate() {
        let mut found = counted(history).map_err(|anomaly| format!("partition {partition}: {anomaly}"))?;
        for teller in tellers {
            for (transfer, told) in (0..).zip(&teller.transfers) {
                let expected = records_of(teller, transfer);
                let count = found.remove(&(teller.number, transfer)).unwrap_or(0);
                let is_right = match told {
                    Told::Committed => count == expected,
                    Told::Aborted => count == 0,
                    Told::Unknown => count == expected || count == 0,
                };
                if !is_right {
                    let number = teller.number;
                    return Err(format!(
                        "partition {partition}: transfer {transfer} of {number} is {told:?}, {count} of {expected} records"
                    ));
                }
                *spread.entry((teller.number, transfer)).or_default() += usize::from(count > 0);
            }
        }
        if let Some(stray) = found.keys().next() {
            return Err(format!("partition {partition}: {stray:?} was never written"));
        }
    }
    match spread.iter().find(|(_, partitions)| ![0, histories.len()].contains(*partitions)) {
        Some((transfer, partitions)) => Err(format!("{transfer:?} is in {partitions} of {} partitions", histories.len())),
        None => Ok(()),
    }
}

/// How many records of each transfer there are. Those of one teller have to be in the order in which they were written.
fn counted(history: &[Seen]) -> Result<BTreeMap<(u64, u64), u64>, String> {
    let mut found = BTreeMap::new();
    let mut last: HashMap<u64, (u64, u64)> = HashMap::new();
    for seen in history {
        let here = (seen.transfer, seen.index);
        if let Some(before) = last.insert(seen.teller, here)
            && before >= here
        {
            return Err(format!("{} has {here:?} after {before:?}: a duplicate, or out of order", seen.teller));
        }
        *found.entry((seen.teller, seen.transfer)).or_default() += 1;
    }
    Ok(found)
}

/// Compares what somebody has read while it happened with the history as it stands in the end: he has seen its beginning, each record once, and nothing else.
pub fn check_watched(watched: &[Seen], history: &[Seen]) -> Result<(), String> {
    for (position, seen) in watched.iter().enumerate() {
        if position > 0 && watched[position - 1].offset >= seen.offset {
            return Err(format!("{seen:?} after {:?}: polls went back", watched[position - 1]));
        }
        match history.get(position) {
            Some(stands) if stands == seen => {}
            Some(stands) if stands.offset < seen.offset => return Err(format!("{stands:?} was passed over; {seen:?} came instead")),
            other => return Err(format!("{seen:?} was read, and was not committed; there stands {other:?}")),
        }
    }
    Ok(())
}

/// A checker that never objects proves nothing.
pub fn the_checker_sees_planted_anomalies() {
    let told = [Told::Committed, Told::Aborted, Told::Unknown, Told::Committed];
    let mut teller = Teller::new(0);
    teller.transfers = told.to_vec();
    let tellers = [teller];
    let record = |transfer: u64| Seen { offset: 0, teller: 0, transfer, index: 0 };
    let at_offsets = |history: Vec<Seen>| -> History { (0..).zip(history).map(|(offset, seen)| Seen { offset, ..seen }).collect() };
    let sound = at_offsets(vec![record(0), record(2), record(3)]);
    // Each transfer has one record in each partition.
    let check = |histories: &[History]| check(&tellers, |_, _| 1, histories);
    assert_eq!(check(&[sound.clone(), sound.clone()]), Ok(()));
    let without = at_offsets(vec![record(0), record(3)]);
    assert_eq!(check(&[without.clone(), without.clone()]), Ok(()));
    let anomalies: [(&str, History); 6] = [
        ("a lost write", vec![record(2), record(3)]),
        ("an aborted read", vec![record(0), record(1), record(2), record(3)]),
        ("a duplicate", vec![record(0), record(0), record(2), record(3)]),
        ("another order", vec![record(2), record(0), record(3)]),
        ("a stray", vec![record(0), record(2), record(3), record(9)]),
        ("half of a transfer", without),
    ];
    for (what, history) in anomalies {
        assert!(check(&[sound.clone(), at_offsets(history)]).is_err(), "{what}");
    }

    assert_eq!(check_watched(&sound, &sound), Ok(()));
    assert_eq!(check_watched(&sound[..2], &sound), Ok(()), "who has not come to the end yet");
    let [first, second, third] = <[Seen; 3]>::try_from(sound.clone()).expect("three");
    let undecided = Seen { offset: 3, ..record(1) };
    let anomalies = [
        ("a poll that went back", vec![first.clone(), second.clone(), first.clone()]),
        ("a record read twice", vec![first.clone(), first.clone()]),
        ("an intermediate read", vec![first.clone(), second.clone(), third.clone(), undecided]),
        ("a record passed over", vec![first.clone(), third.clone()]),
        ("another record at an offset", vec![first.clone(), Seen { index: 1, ..second.clone() }]),
        ("another order", vec![first, Seen { offset: 1, ..third }, Seen { offset: 2, ..second }]),
    ];
    for (what, watched) in anomalies {
        assert!(check_watched(&watched, &sound).is_err(), "{what}");
    }
}
