//! Power cuts: the broker on a disk that keeps what was flushed and nothing else for sure.
//!
//! `disk` is that disk, `mount` puts it where a broker can use it (a FUSE filesystem of this process), `load` and `affairs` make promises on it, `history` and `affairs` compare after
//! each cut, and `rounds` tells how one follows the other. Where no FUSE filesystem can be mounted the cases are left out and say why.
//!
//! `scripts/soak power-cut --rounds N` asks for more cuts with CORELANE_POWER_CUT_ROUNDS, and CORELANE_POWER_CUT_SEED leads one life again.

mod affairs;
mod content;
mod disk;
mod history;
mod load;
mod mount;
mod plants;
mod rounds;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

use harness::places::{self, Target};
use libtest_mimic::{Failed, Trial};

use self::rounds::{CUTS_PER_LIFE, Manner, live};

/// Lives in the suite: five cuts each.
const SEEDS: [u64; 5] = [1, 2, 3, 4, 5];

fn main() -> ExitCode {
    let mut trials = vec![Trial::test("content::bytes_come_back", || {
        content::cases::bytes_come_back();
        Ok(())
    })];
    let reason = match (places::target(), mount::availability()) {
        (Target::Kafka, _) => Some("Kafka does not promise what is tested here".to_string()),
        (Target::Corelane, availability) => availability.err(),
    };
    if let Some(reason) = &reason {
        println!("the power cuts are not run: {reason}");
    }
    for seed in seeds() {
        trials.push(Trial::test(format!("life::seed_{seed}"), move || lead(seed)).with_ignored_flag(reason.is_some()));
    }
    for plant in plants::ALL {
        trials.push(Trial::test(format!("plants::{}_is_found", plant.name), || plant.find()).with_ignored_flag(reason.is_some()));
    }
    harness::suite::main_one_by_one(trials)
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| env::var(name).ok().map(|value| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is a number")));
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

fn lead(seed: u64) -> Result<(), Failed> {
    let begun = Instant::now();
    let tally = live(seed, CUTS_PER_LIFE, &Manner::default())?;
    println!(
        "seed {seed}: {} cuts, {} records acknowledged and all there, {} changes in doubt, {:.1} s",
        tally.cuts,
        tally.acknowledged,
        tally.unflushed,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
