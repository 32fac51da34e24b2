//! Producers, an operator's timeouts and restarts in any order, with lost and repeated requests; after each step a few promises are held against the coordinator.
//!
//! The promises: the state is what the log replays to; the epoch of an id never falls; a decided transaction never changes its decision; who was told of a commit finds it
//! committed; who is fenced changes nothing.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Move {
    Initialise { id: usize },
    Recover { id: usize },
    Add { id: usize, partition: i32, is_stale: bool },
    End { id: usize, is_commit: bool, is_stale: bool },
    RepeatEnd { id: usize },
    Complete { id: usize },
    TimePasses { ms: i64 },
    Restart,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let id = 0..3usize;
    let one = prop_oneof![
        2 => id.clone().prop_map(|id| Move::Initialise { id }),
        1 => id.clone().prop_map(|id| Move::Recover { id }),
        5 => (id.clone(), 0..4i32, proptest::bool::weighted(0.15)).prop_map(|(id, partition, is_stale)| Move::Add { id, partition, is_stale }),
        4 => (id.clone(), any::<bool>(), proptest::bool::weighted(0.15)).prop_map(|(id, is_commit, is_stale)| Move::End { id, is_commit, is_stale }),
        2 => id.clone().prop_map(|id| Move::RepeatEnd { id }),
        5 => id.prop_map(|id| Move::Complete { id }),
        1 => (1..100_000i64).prop_map(|ms| Move::TimePasses { ms }),
        1 => Just(Move::Restart),
    ];
    proptest::collection::vec(one, 1..120)
}

/// What a client of one id believes.
#[derive(Debug, Clone, Copy, Default)]
struct Client {
    current: Option<Producer>,
    former: Option<Producer>,
    last_end: Option<(Producer, bool)>,
    /// A commit that it was told of and whose end it has not seen.
    told_commit: bool,
}

struct Model {
    world: World,
    version: i16,
    clients: HashMap<usize, Client>,
    /// Decisions that must stand until they are complete.
    decided: HashMap<String, Completion>,
    highest: HashMap<String, (i64, i16)>,
}

fn name(id: usize) -> String {
    format!("id-{id}")
}

impl Model {
    fn make(&mut self, one: &Move) {
        match *one {
            Move::Initialise { id } => self.initialise(id, None),
            Move::Recover { id } => {
                let current = self.clients.entry(id).or_default().current;
                self.initialise(id, current);
            }
            Move::Add { id, partition, is_stale } => {
                let Some(producer) = self.producer(id, is_stale) else { return };
                let before = self.world.coordinator.get(&name(id)).cloned();
                let added = self.world.add(&name(id), producer, &[partition], self.version);
                if is_stale && added.is_err() {
                    assert_eq!(self.world.coordinator.get(&name(id)), before.as_ref(), "who is refused changes nothing");
                }
            }
            Move::End { id, is_commit, is_stale } => {
                let Some(producer) = self.producer(id, is_stale) else { return };
                self.end(id, producer, is_commit, is_stale);
            }
            Move::RepeatEnd { id } => {
                if let Some((producer, is_commit)) = self.clients.entry(id).or_default().last_end {
                    self.end(id, producer, is_commit, true);
                }
            }
            Move::Complete { id } => {
                if self.world.coordinator.completion(&name(id)).is_some() {
                    self.world.complete(&name(id));
                    self.check_end(id);
                }
            }
            Move::TimePasses { ms } => {
                self.world.now_ms += ms;
                for id in self.world.coordinator.timed_out(self.world.now_ms) {
                    let fresh = Some(self.world.next_producer_id);
                    self.world.next_producer_id += 1;
                    let now_ms = self.world.now_ms;
                    let aborted = self.world.coordinator.abort_timed_out(now_ms, self.world.server_version, fresh, &id);
                    self.world.replay(aborted.expect("it has timed out").expect("an id was given"));
                }
            }
            Move::Restart => {
                let prepared = self.world.restart();
                for id in self.decided.keys() {
                    assert!(prepared.iter().any(|prepared| **prepared == **id), "{id} was decided and is not prepared after a restart");
                }
            }
        }
    }

    fn producer(&mut self, id: usize, is_stale: bool) -> Option<Producer> {
        let client = self.clients.entry(id).or_default();
        if is_stale { client.former } else { client.current }
    }

    fn initialise(&mut self, id: usize, expected: Option<Producer>) {
        if let Ok(producer) = self.world.initialise_as(&name(id), expected) {
            let client = self.clients.entry(id).or_default();
            *client = Client { current: Some(producer), former: client.current, ..Client::default() };
        }
    }

    fn end(&mut self, id: usize, producer: Producer, is_commit: bool, is_late: bool) {
        let was_open = self.world.coordinator.get(&name(id)).map(|known| (known.state == State::Ongoing, known.producer));
        let outcome = self.world.end(&name(id), producer, is_commit, self.version);
        let client = self.clients.entry(id).or_default();
        if let Ok(next) = outcome {
            if !is_late {
                client.last_end = Some((producer, is_commit));
                client.told_commit = is_commit && was_open == Some((true, producer));
                if next != producer {
                    client.former = Some(producer);
                    client.current = Some(next);
                }
            }
            if was_open == Some((true, producer)) {
                let known = self.world.coordinator.get(&name(id)).unwrap();
                assert_eq!(known.state, if is_commit { State::PrepareCommit } else { State::PrepareAbort });
            }
        } else if let Some((true, current)) = was_open
            && current != producer
        {
            assert_eq!(self.world.state(&name(id)), State::Ongoing, "a stranger's end reaches no open transaction");
        }
    }

    fn check_end(&mut self, id: usize) {
        let state = self.world.state(&name(id));
        let client = self.clients.entry(id).or_default();
        if client.told_commit {
            assert_eq!(state, State::CompleteCommit, "who was told of a commit finds it committed");
            client.told_commit = false;
        }
        self.decided.remove(&name(id));
    }

    fn check(&mut self) {
        for id in (0..3).map(name) {
            let Some(known) = self.world.coordinator.get(&id) else { continue };
            let highest = self.highest.entry(id.clone()).or_insert((known.producer.id, known.producer.epoch));
            assert!(known.producer.id != highest.0 || known.producer.epoch >= highest.1, "the epoch of {id} has fallen");
            *highest = (known.producer.id, known.producer.epoch);
            match (self.world.coordinator.completion(&id), self.decided.get(&id)) {
                (Some(now), Some(before)) => assert_eq!(now, *before, "a decision stands"),
                (Some(now), None) => {
                    self.decided.insert(id, now);
                }
                (None, Some(_)) => panic!("{id} was decided and has not been completed"),
                (None, None) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold(moves in moves(), version in prop_oneof![Just(TV1), Just(TV2)]) {
        let mut model =
            Model { world: World::new(), version, clients: HashMap::new(), decided: HashMap::new(), highest: HashMap::new() };
        for one in &moves {
            model.make(one);
            model.check();
        }
        // The log alone tells everything but the epoch that a retry may refer to.
        let before: Vec<_> = (0..3).map(|id| model.world.coordinator.get(&name(id)).cloned()).collect();
        model.world.restart();
        for (id, before) in before.into_iter().enumerate() {
            let before = before.map(|known| Transaction { last_producer_epoch: -1, ..known });
            prop_assert_eq!(model.world.coordinator.get(&name(id)).cloned(), before);
        }
    }
}
