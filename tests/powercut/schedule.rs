//! What a round decides before it begins: when the power fails, and what goes wrong with the disk until then.

use std::time::{Duration, Instant};

use harness::random::Random;

use crate::mount::{Failing, Faults, Mounted};

/// When the power fails.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So many operations into the start: recovery meets it.
    Start(u64),
    /// So many operations into the load.
    Load(u64),
    /// So many operations after SIGTERM; or after the end, if that comes first.
    Stop { load: u64, stop: u64 },
}

impl Moment {
    /// Of the round with that number in its life.
    pub fn draw(random: &mut Random, number: u64, is_long: bool) -> Moment {
        if is_long {
            return Moment::Load(1_000 + random.below(4_000));
        }
        let load = random.one_of(&[50, 400, 2_000]);
        match random.below(10) {
            0 | 1 if number > 0 => Moment::Start(1 + random.below(80)),
            2 => Moment::Stop { load: 1 + random.below(load), stop: 1 + random.below(120) },
            _ => Moment::Load(1 + random.below(load)),
        }
    }
}

/// What goes wrong with the disk before the power fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// A write into a file whose name ends so fails, after so many that did not.
    FailingWrite(&'static str, u64),
    FailingFlush(&'static str, u64),
    /// So many bytes are left.
    Full(u64),
    /// Nothing becomes durable for so long.
    Stalled(Duration),
}

impl Trouble {
    pub fn draw(random: &mut Random) -> Trouble {
        let skip = random.below(40);
        let name_end = random.one_of(&["journal-0", "journal-1", ".log", ".log"]);
        match random.below(100) {
            0..8 => Trouble::FailingWrite(name_end, skip),
            8..14 => Trouble::FailingFlush(name_end, skip),
            14..22 => Trouble::Full(random.below(1 << 20)),
            22..26 => Trouble::Stalled(Duration::from_millis(random.below(800))),
            _ => Trouble::None,
        }
    }

    pub fn begin(self, mounted: &Mounted) {
        let failing = |name_end, skip| Some(Failing { name_end, skip, count: 1 });
        match self {
            Trouble::None => {}
            Trouble::FailingWrite(name_end, skip) => {
                mounted.set_faults(Faults { failing_writes: failing(name_end, skip), ..Faults::default() })
            }
            Trouble::FailingFlush(name_end, skip) => {
                mounted.set_faults(Faults { failing_flushes: failing(name_end, skip), ..Faults::default() })
            }
            Trouble::Full(left_bytes) => mounted.set_capacity(mounted.used_bytes() + left_bytes),
            Trouble::Stalled(period) => mounted.set_faults(Faults { stalled_until: Some(Instant::now() + period), ..Faults::default() }),
        }
    }

    /// Whether the broker may refuse.
    pub fn is_refusal_fine(self) -> bool {
        !matches!(self, Trouble::None | Trouble::Stalled(_))
    }
}
