//! Power cuts: the broker on a disk that keeps what was flushed and nothing else for sure.
//!
//! `disk` is that disk, `mount` puts it where a broker can use it (a FUSE filesystem of this process), `load`, `affairs` and `tellers` make promises on it, `history`, `affairs` and
//! `transfers` compare after each cut, and `rounds` tells how one follows the other, as `schedule` has it. `block` puts ext4 and XFS between broker and disk, so that the power fails
//! under theirs. Where a rig cannot be had its cases are left out and say why.
//!
//! `scripts/soak power-cut --rounds N --jobs M` asks for more cuts with CORELANE_POWER_CUT_ROUNDS, and for so many lives beside each other with CORELANE_POWER_CUT_JOBS;
//! CORELANE_POWER_CUT_SEED leads one life again.

mod affairs;
mod block;
mod content;
mod disk;
mod failure;
mod folder;
mod found;
mod history;
mod load;
mod mount;
mod plants;
mod rounds;
mod schedule;
mod tellers;
mod transfers;

use std::env;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use harness::places::{self, Target};
use libtest_mimic::{Failed, Trial};

use self::block::Filesystem;
use self::failure::Failure;
use self::rounds::{CUTS_PER_LIFE, Manner, Tally, live};

static TOTAL: Mutex<Tally> = Mutex::new(Tally::ZERO);

/// Lives in the suite, of five cuts each: five on files and names of ours, one on each real filesystem (see `rig_of`).
const SEEDS: [u64; 7] = [1, 3, 5, 7, 9, 6, 8];

fn main() -> ExitCode {
    let unit = |name: &str, case: fn()| {
        Trial::test(name, move || {
            case();
            Ok(())
        })
    };
    let mut trials = vec![
        unit("content::bytes_come_back", content::cases::bytes_come_back),
        unit("history::repetitions_make_no_room", history::cases::repetitions_make_no_room),
        unit("history::only_an_unflushed_end_may_go", history::cases::only_an_unflushed_end_may_go),
        unit("transfers::anomalies_are_named", transfers::cases::anomalies_are_named),
    ];
    let reason = match places::target() {
        Target::Kafka => Some("Kafka does not promise what is tested here".to_string()),
        Target::Corelane => {
            folder::clear_leftovers();
            mount::availability().err()
        }
    };
    if let Some(reason) = &reason {
        println!("the power cuts are not run: {reason}");
    }
    for seed in seeds() {
        let filesystem = rig_of(seed);
        let reason = reason.clone().or_else(|| filesystem.and_then(|filesystem| filesystem.availability().err()));
        let name = match filesystem {
            None => format!("life::seed_{seed}"),
            Some(filesystem) => format!("life::seed_{seed}_on_{}", filesystem.name()),
        };
        if let Some(reason) = &reason {
            println!("{name} is not run: {reason}");
        }
        trials.push(
            Trial::test(name, move || lead(seed, &Manner { filesystem, is_wide: true, ..Manner::default() }))
                .with_ignored_flag(reason.is_some()),
        );
    }
    let deletions = || Ok(deletions()?);
    trials.push(Trial::test("regressions::a_directory_goes_after_its_deletion_is_durable", deletions).with_ignored_flag(reason.is_some()));
    let buffered = || lead(1, &Manner { refuses_direct_io: true, ..Manner::default() });
    trials.push(Trial::test("life::seed_1_without_direct_io", buffered).with_ignored_flag(reason.is_some()));
    let flipped = || Ok(rounds::find_flipped_bit(1)?);
    trials.push(Trial::test("damage::a_flipped_bit_is_named", flipped).with_ignored_flag(reason.is_some()));
    for (name, is_long) in [("short", false), ("long", true)] {
        let name = format!("plants::without_any_{name}_rounds_keep_every_promise");
        trials.push(Trial::test(name, move || plants::control(is_long)).with_ignored_flag(reason.is_some()));
    }
    for plant in plants::ALL {
        trials.push(Trial::test(format!("plants::{}_is_found", plant.name), || plant.find()).with_ignored_flag(reason.is_some()));
    }
    let outcome = harness::suite::main_side_by_side(trials, jobs());
    let total = *TOTAL.lock().expect("no panic while it is held");
    if total.cuts > 0 {
        println!("of the lives that came to their end: {total}");
    }
    outcome
}

/// How many lives are led beside each other. Most of one is waiting: for a slow disk, for the kernel's mounts, for threads to notice.
fn jobs() -> usize {
    number("CORELANE_POWER_CUT_JOBS").map_or_else(|| 2 * thread::available_parallelism().map_or(1, usize::from), |jobs| jobs as usize)
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// The lives to lead.
fn seeds() -> Vec<u64> {
    let first = number("CORELANE_POWER_CUT_SEED");
    let lives = number("CORELANE_POWER_CUT_ROUNDS").map(|rounds| rounds.div_ceil(CUTS_PER_LIFE));
    match (first, lives) {
        (None, None) => SEEDS.to_vec(),
        (first, lives) => {
            let first = first.unwrap_or(1);
            (first..first + lives.unwrap_or(1)).collect()
        }
    }
}

/// The seed decides this as well: every second life is on a real filesystem.
fn rig_of(seed: u64) -> Option<Filesystem> {
    match seed % 4 {
        0 => Some(Filesystem::Ext4),
        2 => Some(Filesystem::Xfs),
        _ => None,
    }
}

/// The directory of a deleted partition may lose its name only when the journal knows of the deletion: otherwise the next start misses it.
fn deletions() -> Result<(), Failure> {
    live(1, CUTS_PER_LIFE, &Manner { cut_at_rename: Some("-delete"), ..Manner::default() }).map(drop)
}

fn lead(seed: u64, manner: &Manner) -> Result<(), Failed> {
    let begun = Instant::now();
    let tally = live(seed, CUTS_PER_LIFE, manner)?;
    println!("seed {seed}: {tally}, {:.1} s", begun.elapsed().as_secs_f64());
    *TOTAL.lock().expect("no panic while it is held") += tally;
    Ok(())
}
