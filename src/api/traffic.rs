//! Which shards the requests of one connection go to, and when that is reason enough for the connection to move: a hop to another core and back costs 12 us while that core spins and 50 while it sleeps.
//!
//! A connection that goes almost wholly to one other shard moves there within a second; after that it stays for a minute whatever it does, so that one whose traffic changes about is not carried to
//! and fro. Counted are Produce requests, and Fetch requests without a session (a fetch session lies on the connection's shard and holds it there). Time is an argument.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::rt::ShardId;

/// How long requests are counted before the counts are looked at.
const WINDOW: Duration = Duration::from_millis(400);
/// Fewer in a window say nothing, and gain nothing.
const REQUESTS_MIN: u32 = 4;
/// Of a hundred requests, those that have to go to one shard.
const SHARE_MIN: u32 = 90;
/// After a move.
const REST: Duration = Duration::from_secs(60);

/// The requests of one connection in the present window.
pub struct Traffic {
    here: ShardId,
    may_move: bool,
    moved_at: Option<Instant>,
    window_began: Cell<Option<Instant>>,
    requests: RefCell<SmallVec<[u32; 8]>>,
}

impl Traffic {
    /// Of a connection on shard `here` of so many, which came from another shard at `moved_at`. A connection that is held where it is never moves (`connection.move.enable`).
    pub fn new(here: ShardId, shards: u16, moved_at: Option<Instant>, is_held: bool) -> Traffic {
        Traffic {
            here,
            may_move: shards > 1 && !is_held,
            moved_at,
            window_began: Cell::new(None),
            requests: RefCell::new(SmallVec::from_elem(0, usize::from(shards))),
        }
    }

    /// A request goes to `owner`, perhaps among others.
    pub fn note(&self, owner: ShardId) {
        self.requests.borrow_mut()[usize::from(owner.0)] += 1;
    }

    /// Where the connection ought to be, if not here. Looks only at the end of a window.
    pub fn better_place(&self, now: Instant) -> Option<ShardId> {
        if !self.may_move {
            return None;
        }
        let Some(began) = self.window_began.get() else {
            self.window_began.set(Some(now));
            return None;
        };
        if now.saturating_duration_since(began) < WINDOW {
            return None;
        }
        self.window_began.set(Some(now));
        let busiest = self.busiest();
        self.requests.borrow_mut().fill(0);
        let is_rested = self.moved_at.is_none_or(|moved_at| now.saturating_duration_since(moved_at) >= REST);
        busiest.filter(|busiest| is_rested && *busiest != self.here)
    }

    /// The shard that almost all requests went to, if they were enough to tell.
    fn busiest(&self) -> Option<ShardId> {
        let requests = self.requests.borrow();
        let total: u32 = requests.iter().sum();
        let (shard, most) = requests.iter().enumerate().max_by_key(|(_, count)| **count)?;
        (total >= REQUESTS_MIN && most * 100 >= total * SHARE_MIN).then_some(ShardId(shard as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: ShardId = ShardId(0);
    const THERE: ShardId = ShardId(1);

    /// Requests at a steady rate; when the connection first wants to move, and where to.
    fn first_move(traffic: &Traffic, begun: Instant, seconds: u64, owner_of: impl Fn(u64) -> ShardId) -> Option<(Duration, ShardId)> {
        (0..seconds * 100).find_map(|number| {
            let now = begun + Duration::from_millis(10 * number);
            traffic.note(owner_of(number));
            traffic.better_place(now).map(|to| (now - begun, to))
        })
    }

    #[test]
    fn a_one_sided_connection_moves_within_a_second() {
        let traffic = Traffic::new(HERE, 2, None, false);
        let (after, to) = first_move(&traffic, Instant::now(), 5, |_| THERE).unwrap();
        assert_eq!(to, THERE);
        assert!(after < Duration::from_secs(1), "{after:?}");
    }

    #[test]
    fn a_mixed_connection_and_one_that_is_at_home_stay() {
        let begun = Instant::now();
        assert_eq!(first_move(&Traffic::new(HERE, 2, None, false), begun, 100, |number| ShardId((number % 2) as u16)), None);
        assert_eq!(first_move(&Traffic::new(HERE, 2, None, false), begun, 100, |_| HERE), None);
        assert_eq!(first_move(&Traffic::new(HERE, 2, None, true), begun, 100, |_| THERE), None, "it is held");
        assert_eq!(first_move(&Traffic::new(HERE, 1, None, false), begun, 100, |_| HERE), None);
    }

    /// Traffic that changes sides every five seconds moves its connection at most once a minute.
    #[test]
    fn a_connection_rests_after_a_move() {
        let begun = Instant::now();
        let mut at = HERE;
        let mut moves = Vec::new();
        let mut traffic = Traffic::new(at, 2, None, false);
        for number in 0..30_000_u64 {
            let now = begun + Duration::from_millis(10 * number);
            traffic.note(ShardId((number / 500 % 2) as u16));
            if let Some(to) = traffic.better_place(now) {
                at = to;
                moves.push(now);
                traffic = Traffic::new(at, 2, Some(now), false);
            }
        }
        assert!(moves.len() > 2);
        assert!(moves.windows(2).all(|pair| pair[1] - pair[0] >= REST), "{moves:?}");
    }

    #[test]
    fn a_few_requests_are_no_reason() {
        let traffic = Traffic::new(HERE, 2, None, false);
        let begun = Instant::now();
        for second in 0..100 {
            traffic.note(THERE);
            assert_eq!(traffic.better_place(begun + Duration::from_secs(second)), None);
        }
    }
}
