//! The timer wheel: deadlines in, what is due out. Pure: time is a count of ticks and comes in as an argument.
//!
//! Seven levels of 64 slots (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987). A timer lies on the level of the highest group of six bits in which its deadline differs
//! from now: at tick 0, a deadline of 70 (1 * 64 + 6) lies in slot 1 of level 1; when the time reaches 64 that slot is emptied and the timer goes to slot 6 of level 0; at 70 it fires.
//! So to set, to cancel and to fire a timer costs the same however many there are, and bit sets find the next occupied slot.

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;
const ROUND_TICKS: u64 = 1 << (SLOT_BITS * LEVELS as u32);
/// Ticks that the wheel can look ahead; deadlines beyond it fire at its end, which is early. A round less one slot of the highest level, so that a slot never holds two rounds.
const RANGE_TICKS: u64 = ROUND_TICKS - ROUND_TICKS / SLOTS as u64;
const NONE: u32 = u32::MAX;

/// Timers that each carry a `T`.
pub(super) struct Wheel<T> {
    now: u64,
    heads: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    timers: Vec<Timer<T>>,
    free: u32,
    count: usize,
}

/// Names a timer for as long as it is set; afterwards it names nothing, even if the place is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimerKey {
    index: u32,
    generation: u32,
}

struct Timer<T> {
    deadline: u64,
    value: Option<T>,
    generation: u32,
    level: u8,
    slot: u8,
    next: u32,
    previous: u32,
}

impl<T> Wheel<T> {
    pub fn new() -> Self {
        Self { now: 0, heads: [[NONE; SLOTS]; LEVELS], occupied: [0; LEVELS], timers: Vec::new(), free: NONE, count: 0 }
    }

    /// Sets a timer for the tick `deadline`; one that is not after the wheel's time fires at the next tick.
    pub fn insert(&mut self, deadline: u64, value: T) -> TimerKey {
        let deadline = deadline.clamp(self.now + 1, self.now + RANGE_TICKS);
        let index = match self.free {
            NONE => {
                self.timers.push(Timer { deadline, value: Some(value), generation: 0, level: 0, slot: 0, next: NONE, previous: NONE });
                (self.timers.len() - 1) as u32
            }
            index => {
                let timer = &mut self.timers[index as usize];
                self.free = timer.next;
                timer.deadline = deadline;
                timer.value = Some(value);
                index
            }
        };
        self.count += 1;
        self.link(index);
        TimerKey { index, generation: self.timers[index as usize].generation }
    }

    /// The value of a timer that is still set.
    pub fn get_mut(&mut self, key: TimerKey) -> Option<&mut T> {
        let timer = self.timers.get_mut(key.index as usize)?;
        if timer.generation == key.generation { timer.value.as_mut() } else { None }
    }

    /// Takes a timer back; none if it has fired.
    pub fn remove(&mut self, key: TimerKey) -> Option<T> {
        self.get_mut(key)?;
        self.unlink(key.index);
        Some(self.release(key.index))
    }

    /// Moves the time to `now` and puts what is due into `due`, in the order of the deadlines.
    pub fn advance(&mut self, now: u64, due: &mut Vec<T>) {
        while let Some((level, slot, begins)) = self.next_slot()
            && begins <= now
        {
            self.now = begins;
            self.empty_slot(level, slot, due);
        }
        self.now = self.now.max(now);
    }

    /// The tick at which `advance` has something to do next: never after the earliest deadline, at times before it.
    pub fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, begins)| begins)
    }

    /// Timers that are set.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Every timer of a lower level is due before any of a higher one, since it agrees with now in the bits of that level.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let shift = SLOT_BITS * level as u32;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let above = self.now & !((1u64 << (shift + SLOT_BITS)) - 1);
        // The highest level is a circle: a deadline in the next round has the smaller slot number.
        let current = (self.now >> shift) as usize % SLOTS;
        if level == LEVELS - 1 {
            let later = self.occupied[level] & (!0u64 << current);
            let (slot, round) = if later != 0 { (later.trailing_zeros() as usize, 0) } else { (slot, ROUND_TICKS) };
            return Some((level, slot, above + round + ((slot as u64) << shift)));
        }
        debug_assert!(slot >= current, "a slot behind now was not emptied");
        Some((level, slot, above + ((slot as u64) << shift)))
    }

    fn empty_slot(&mut self, level: usize, slot: usize, due: &mut Vec<T>) {
        let mut index = std::mem::replace(&mut self.heads[level][slot], NONE);
        self.occupied[level] &= !(1 << slot);
        while index != NONE {
            let Timer { deadline, next, .. } = self.timers[index as usize];
            if deadline <= self.now {
                due.push(self.release(index));
            } else {
                self.link(index);
            }
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let deadline = self.timers[index as usize].deadline;
        let differs = (deadline ^ self.now) | (SLOTS as u64 - 1);
        let level = ((u64::BITS - 1 - differs.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1) as usize;
        let slot = (deadline >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.heads[level][slot], index);
        self.occupied[level] |= 1 << slot;
        if head != NONE {
            self.timers[head as usize].previous = index;
        }
        let timer = &mut self.timers[index as usize];
        (timer.level, timer.slot, timer.next, timer.previous) = (level as u8, slot as u8, head, NONE);
    }

    fn unlink(&mut self, index: u32) {
        let Timer { level, slot, next, previous, .. } = self.timers[index as usize];
        let (level, slot) = (level as usize, slot as usize);
        match previous {
            NONE => self.heads[level][slot] = next,
            _ => self.timers[previous as usize].next = next,
        }
        if next != NONE {
            self.timers[next as usize].previous = previous;
        }
        if self.heads[level][slot] == NONE {
            self.occupied[level] &= !(1 << slot);
        }
    }

    fn release(&mut self, index: u32) -> T {
        let timer = &mut self.timers[index as usize];
        let value = timer.value.take().expect("only a timer that is set is released");
        timer.generation = timer.generation.wrapping_add(1);
        timer.next = std::mem::replace(&mut self.free, index);
        self.count -= 1;
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn due_at<T>(wheel: &mut Wheel<T>, now: u64) -> Vec<T> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due
    }

    /// The example of the file's head, and a key that outlives its timer.
    #[test]
    fn a_timer_falls_through_the_levels() {
        let mut wheel = Wheel::new();
        let key = wheel.insert(70, "seventy");
        assert_eq!(wheel.next_tick(), Some(64));
        assert!(due_at(&mut wheel, 64).is_empty());
        assert_eq!(wheel.next_tick(), Some(70));
        assert!(due_at(&mut wheel, 69).is_empty());
        assert_eq!(due_at(&mut wheel, 70), ["seventy"]);
        wheel.insert(80, "eighty");
        assert_eq!(wheel.remove(key), None, "the place has a new owner");
        assert_eq!(wheel.len(), 1);
    }

    /// What is past already fires at the next tick; what is too far fires early, never never.
    #[test]
    fn extreme_deadlines_fire() {
        let mut wheel = Wheel::new();
        assert!(due_at(&mut wheel, ROUND_TICKS - 3).is_empty());
        wheel.insert(5, "past");
        wheel.insert(u64::MAX, "far");
        assert_eq!(due_at(&mut wheel, ROUND_TICKS - 2), ["past"]);
        assert!(wheel.next_tick().unwrap() > ROUND_TICKS);
        assert_eq!(due_at(&mut wheel, ROUND_TICKS * 3), ["far"]);
    }

    proptest! {
        /// Against a sorted map: the same timers fire at the same steps, and `next_tick` is never late.
        #[test]
        fn behaves_as_a_sorted_map(steps in prop::collection::vec((0u8..3, 0u64..1 << 20, 0u32..44), 1..300)) {
            let mut wheel = Wheel::new();
            let mut model: BTreeMap<(u64, usize), TimerKey> = BTreeMap::new();
            let mut now = 0;
            for (number, (kind, amount, shift)) in steps.into_iter().enumerate() {
                match kind {
                    0 | 1 => {
                        let deadline = (now + (amount << (shift % 20))).max(now + 1);
                        model.insert((deadline, number), wheel.insert(deadline, (deadline, number)));
                        if kind == 1 && let Some((&entry, &key)) = model.iter().nth(amount as usize % model.len()) {
                            model.remove(&entry);
                            prop_assert_eq!(wheel.remove(key), Some(entry));
                        }
                    }
                    _ => {
                        now += (amount >> 10) << (shift % 24);
                        let mut due = due_at(&mut wheel, now);
                        prop_assert!(due.is_sorted_by_key(|(deadline, _)| *deadline));
                        due.sort();
                        let rest = model.split_off(&(now + 1, 0));
                        let expected: Vec<_> = std::mem::replace(&mut model, rest).into_keys().collect();
                        prop_assert_eq!(due, expected);
                    }
                }
                let first = model.keys().next().map(|(deadline, _)| *deadline);
                prop_assert_eq!(wheel.len(), model.len());
                prop_assert_eq!(wheel.next_tick().is_some(), first.is_some());
                prop_assert!(wheel.next_tick() <= first);
            }
        }
    }
}
