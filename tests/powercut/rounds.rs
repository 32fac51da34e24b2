//! Lives of a disk: rounds of load, power cut, restart and comparison, one after the other on what the cut left.
//!
//! Everything that a round decides follows from the life's seed: when the power fails, counted in the disk's operations, what survives, how slow the disk is. What the threads of
//! broker and load make of it in between is theirs; so a seed finds the same schedule of cuts again, and most often the same fault.

use std::fmt;
use std::ops::AddAssign;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use corelane_wire::ErrorCode;
use harness::batch::now_ms;
use harness::broker::{Broker, BrokerOptions};
use harness::places;
use harness::random::Random;
use harness::raw::{Connection, code};
use harness::wait;
use rustix::process::Signal;

use crate::affairs::{Affairs, GROUP};
use crate::block::{Attached, Filesystem, disk_with_image};
use crate::disk::{CutRules, Disk};
use crate::failure::{Failure, comparing};
use crate::folder::Folder;
use crate::found::found_in;
use crate::history::{Broken, History, Kind};
use crate::load::{self, Round, lock, place_of};
use crate::mount::Mounted;
use crate::schedule::{Moment, Trouble};
use crate::transfers::Transfers;

/// Cuts of one disk before a fresh one takes its place.
pub const CUTS_PER_LIFE: u64 = 5;

const CAPACITY_BYTES: u64 = 1 << 30;

/// A load that has not reached the operation at which it was to be cut is cut wherever it is by then.
const LOAD_LIMIT: Duration = Duration::from_secs(10);

/// Small everything: rings that go round, segments that roll, retention and compaction that come at once.
const SETTINGS: &[(&str, &str)] = &[
    ("journal.bytes", "4194304"),
    ("log.retention.check.interval.ms", "150"),
    ("log.cleaner.backoff.ms", "50"),
    ("log.cleaner.min.cleanable.ratio", "0.01"),
    ("log.segment.delete.delay.ms", "50"),
    ("offsets.topic.num.partitions", "2"),
    ("offsets.topic.segment.bytes", "1048576"),
];

/// Name, kind, number of partitions, settings.
type TopicPlan = (&'static str, Kind, i32, &'static [(&'static str, &'static str)]);

const TOPICS: &[TopicPlan] = &[
    ("plain", Kind::Plain, 2, &[("internal.segment.bytes", "262144")]),
    ("idempotent", Kind::Idempotent, 2, &[("internal.segment.bytes", "262144"), ("segment.ms", "300")]),
    ("expiring", Kind::Expiring, 1, &[("internal.segment.bytes", "32768"), ("retention.bytes", "100000")]),
    ("trimmed", Kind::Trimmed, 1, &[("internal.segment.bytes", "32768")]),
    ("compacted", Kind::Compacted, 1, &[("cleanup.policy", "compact"), ("internal.segment.bytes", "32768"), ("segment.ms", "100")]),
    ("bulk", Kind::Bulk, 1, &[("internal.segment.bytes", "1048576")]),
];

/// What is written to beside these in a wide life.
const WEAK_TOPICS: &[TopicPlan] = &[
    ("written", Kind::Weak, 2, &[("flush.messages", "1000000"), ("internal.segment.bytes", "262144")]),
    ("flushed", Kind::Weak, 1, &[("flush.messages", "100"), ("flush.ms", "200"), ("internal.segment.bytes", "65536")]),
    ("cached", Kind::Weak, 1, &[("write.caching", "true"), ("segment.ms", "300")]),
];

/// How lives are led: by which broker.
#[derive(Clone, Default)]
pub struct Manner {
    /// With everything that a broker has: transactions, the weaker classes of durability, several data directories between which replicas move, another number of shards at each start,
    /// and noise in what the journal was writing.
    pub is_wide: bool,
    /// The broker is the build that can have faults, with its own witness silenced, on a disk that is slow and has no trouble: where planted faults are looked for.
    pub is_traced: bool,
    /// The fault that it has (`CORELANE_PLANT`).
    pub plant: Option<&'static str>,
    /// Rounds that go on until rings have gone round.
    pub is_long: bool,
    /// The power fails under this filesystem's blocks, and not under files and names of ours.
    pub filesystem: Option<Filesystem>,
    /// The disk opens no file with O_DIRECT, so the broker has to do without.
    pub refuses_direct_io: bool,
    /// The power fails at the first rename to a name that ends so, the disk is slow, and what survives of all that was not flushed is its names.
    pub cut_at_rename: Option<&'static str>,
}

/// What a number of cuts came to.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub cuts: u64,
    pub acknowledged: u64,
    /// Transactions that are committed, all of each.
    pub transfers: u64,
    /// Records that the cuts took from topics of the weaker classes, all at the end of their logs.
    pub forgone: u64,
    /// Changes that were in doubt when the power failed.
    pub unflushed: u64,
}

impl Tally {
    pub const ZERO: Tally = Tally { cuts: 0, acknowledged: 0, transfers: 0, forgone: 0, unflushed: 0 };
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        let Tally { cuts, acknowledged, transfers, forgone, unflushed } = more;
        self.cuts += cuts;
        self.acknowledged += acknowledged;
        self.transfers += transfers;
        self.forgone += forgone;
        self.unflushed += unflushed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let Tally { cuts, acknowledged, transfers, forgone, unflushed } = self;
        write!(
            formatter,
            "{cuts} cuts, {acknowledged} records acknowledged and kept as promised, {transfers} transactions committed and whole, "
        )?;
        write!(formatter, "{forgone} records gone with unflushed ends of weaker classes, {unflushed} changes in doubt")
    }
}

/// One disk from its first use through that many cuts; the seed decides everything that can be decided.
pub fn live(seed: u64, cuts: u64, manner: &Manner) -> Result<Tally, Failure> {
    let mut life = Life::begin(seed, manner);
    for cut in 0..cuts {
        let outcome = life.round(cut);
        if let Err(failure) = outcome {
            if manner.plant.is_none() {
                life.keep();
            }
            return Err(failure.told(|words| format!("cut {cut} of the life with CORELANE_POWER_CUT_SEED={seed}: {words}")));
        }
    }
    let outcome = life.last_check();
    outcome.map_err(|failure| failure.told(|words| format!("after the last cut of the life with CORELANE_POWER_CUT_SEED={seed}: {words}")))
}

/// A bit that the disk turns over in a segment at rest: `corelane log verify` names the file and says so by its exit.
pub fn find_flipped_bit(seed: u64) -> Result<(), Failure> {
    let mut life = Life::begin(seed, &Manner { is_long: true, ..Manner::default() });
    life.round(0)?;
    life.stop_cleanly()?;
    let mut disk = life.disk.take().expect("after the stop the disk is here");
    let (name, position) = disk.flip_bit("bulk-0", ".log", &mut life.random).expect("a long round leaves a segment");
    let mounted = Mounted::mount(disk, &life.folder.disk(), life.random.split(), 0).expect("the disk can be mounted");
    let data = life.folder.disk().join("data");
    let output = Command::new(places::corelane_binary()).args(["log", "verify"]).arg(&data).output().expect("the binary can be started");
    drop(mounted.power_off());
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let is_named = text.lines().any(|line| line.contains("bulk") && line.contains(&name));
    if output.status.success() || !is_named {
        let words = format!("a bit at byte {position} of {name} has turned over, and log verify says ({}):\n{text}", output.status);
        return Err(Failure::Broken(words));
    }
    Ok(())
}

struct Life {
    manner: Manner,
    random: Random,
    folder: Folder,
    broker: Broker,
    disk: Option<Disk>,
    /// Nothing was ever written to it.
    is_fresh: bool,
    /// Of the last cut, whose work the next round finds.
    former_rules: Option<CutRules>,
    histories: Vec<Mutex<History>>,
    affairs: Affairs,
    transfers: Option<Transfers>,
    seed: u64,
    tally: Tally,
}

impl Life {
    fn begin(seed: u64, manner: &Manner) -> Life {
        let folder = Folder::new();
        let mut options = BrokerOptions::default();
        for (key, value) in SETTINGS {
            options = options.set(key, value);
        }
        if manner.is_traced {
            options = options.traced().environment("CORELANE_WITNESS", "off");
        }
        if let Some(plant) = manner.plant {
            options = options.environment("CORELANE_PLANT", plant);
        }
        if manner.is_wide {
            options.more_directories = (seed % 3) as usize;
        }
        let place = if manner.filesystem.is_some() { folder.filesystem() } else { folder.disk() };
        let broker = Broker::prepare_on(options, &place.join("data"));
        let affairs = Affairs::of(broker.data_directories());
        Life {
            manner: manner.clone(),
            random: Random::from_seed(seed),
            folder,
            broker,
            disk: Some(match manner.filesystem {
                Some(_) => disk_with_image(CAPACITY_BYTES),
                None => Disk::new(CAPACITY_BYTES),
            }),
            is_fresh: true,
            former_rules: None,
            histories: Vec::new(),
            affairs,
            transfers: manner.is_wide.then(Transfers::new),
            seed,
            tally: Tally::ZERO,
        }
    }

    /// Start, comparison, load, cut.
    fn round(&mut self, number: u64) -> Result<(), Failure> {
        let mut random = self.random.split();
        let mut moment = Moment::draw(&mut random, number, self.manner.is_long);
        let is_plain = !self.manner.is_traced && self.manner.filesystem.is_none();
        let mut trouble = if is_plain { Trouble::draw(&mut random) } else { Trouble::None };
        let mut latency_us_max = random.one_of(&[0, 300, 3_000, 15_000]);
        let mut rules = CutRules::draw(&mut random);
        rules.sector_bytes = rules.sector_bytes.max(self.manner.filesystem.map_or(0, Filesystem::sector_bytes_min));
        if self.manner.is_wide {
            self.broker.change_setting("shards", random.one_of(&["1", "2"]));
            // What a filesystem's own journal was writing may be lost or torn, but it is not made for noise.
            rules.noise_percent = if self.manner.filesystem.is_none() { random.one_of(&[0, 20, 100]) } else { 0 };
        }
        if self.manner.is_traced {
            // What is answered too early is found where being late takes long.
            latency_us_max = latency_us_max.max(5_000);
        }
        if self.manner.cut_at_rename.is_some() {
            (moment, trouble, latency_us_max) = (Moment::Load(u64::from(u32::MAX)), Trouble::None, 15_000);
            rules = CutRules { writes_percent: 0, names_percent: 100, names_in_order: false, ..rules };
        }
        let former_rules = self.former_rules.replace(rules);
        let mut disk = self.disk.take().expect("between two rounds the disk is here");
        disk.capacity_bytes = CAPACITY_BYTES;
        let mounted = self.mount(disk, random.split(), latency_us_max);
        let attached = self.attach(&mounted);
        let outcome = attached.as_ref().map_err(Failure::clone).and_then(|_| self.use_until_cut(&mounted, moment, trouble, &mut random));
        self.broker.kill_while(|| mounted.let_go());
        drop(attached);
        let disk = mounted.power_off();
        self.tally.cuts += 1;
        self.tally.unflushed += disk.unflushed_count() as u64;
        self.disk = Some(disk.cut(rules, &mut random));
        self.histories.iter().for_each(|history| lock(history).give_up());
        let tell = |words| format!("{words} ({moment:?}, {trouble:?}, latency up to {latency_us_max} us, after {former_rules:?})");
        outcome.map_err(|failure| failure.told(tell))
    }

    /// Starts once more, compares and ends as it should.
    fn stop_cleanly(&mut self) -> Result<(), Failure> {
        let (disk, random) = (self.disk.take().expect("after a round the disk is here"), self.random.split());
        let mounted = self.mount(disk, random, 0);
        let outcome = self.use_until_stop(&mounted);
        self.broker.kill_while(|| mounted.let_go());
        outcome?;
        let mut disk = mounted.power_off();
        disk.flush_everything();
        self.disk = Some(disk);
        Ok(())
    }

    fn use_until_stop(&mut self, mounted: &Mounted) -> Result<(), Failure> {
        if !self.start(mounted)? {
            return Err(Failure::Other("the disk is gone, though nobody has cut the power".into()));
        }
        self.verify()?;
        let status = self.broker.terminate(wait::PATIENCE);
        if !status.success() {
            return Err(Failure::Other(format!("SIGTERM ends the broker with {status}:\n{}", self.broker.end_of_log())));
        }
        Ok(())
    }

    /// Starts once more and compares, without a cut.
    fn last_check(mut self) -> Result<Tally, Failure> {
        let mut disk = self.disk.take().expect("after the last round the disk is here");
        disk.capacity_bytes = CAPACITY_BYTES;
        let random = self.random.split();
        let mounted = self.mount(disk, random, 0);
        let attached = self.attach(&mounted);
        let outcome = attached.as_ref().map_err(Failure::clone).and_then(|_| self.start(&mounted)).and_then(|_| self.verify());
        let outcome = outcome.and_then(|()| match self.broker.log().contains("direct I/O does not work") {
            warned if warned == self.manner.refuses_direct_io => Ok(()),
            warned => Err(Failure::Other(format!("a warning of direct I/O: {warned}"))),
        });
        if outcome.is_err() && self.manner.plant.is_none() {
            self.keep();
        }
        self.broker.kill_while(|| mounted.let_go());
        drop(attached);
        outcome.map(|()| self.tally())
    }

    fn tally(&self) -> Tally {
        let sum = |of: fn(&History) -> u64| self.histories.iter().map(|history| of(&lock(history))).sum();
        Tally {
            acknowledged: sum(|history| history.acknowledged),
            forgone: sum(|history| history.forgone),
            transfers: self.transfers.as_ref().map_or(0, Transfers::committed_count),
            ..self.tally
        }
    }

    fn topics(&self) -> impl Iterator<Item = &'static TopicPlan> + use<> {
        TOPICS.iter().chain(if self.manner.is_wide { WEAK_TOPICS } else { &[] })
    }

    fn mount(&self, disk: Disk, random: Random, latency_us_max: u64) -> Mounted {
        let mounted = Mounted::mount(disk, &self.folder.disk(), random, latency_us_max).expect("the disk can be mounted");
        if self.manner.refuses_direct_io {
            mounted.refuse_direct_io();
        }
        mounted
    }

    /// The filesystem over the disk, where there is one.
    fn attach<'a>(&mut self, mounted: &'a Mounted) -> Result<Option<Attached<'a>>, Failure> {
        let is_fresh = std::mem::take(&mut self.is_fresh);
        let Some(filesystem) = self.manner.filesystem else { return Ok(None) };
        Attached::attach(mounted, &self.folder, filesystem, is_fresh).map(Some).map_err(Failure::Other)
    }

    fn use_until_cut(&mut self, mounted: &Mounted, moment: Moment, trouble: Trouble, random: &mut Random) -> Result<(), Failure> {
        if let Moment::Start(operations) = moment {
            mounted.freeze_after(Some(operations));
        }
        if !self.start(mounted)? {
            return Ok(());
        }
        mounted.freeze_after(None);
        if mounted.is_frozen() {
            return Ok(());
        }
        if self.histories.is_empty() {
            self.make_topics();
        } else {
            self.verify()?;
        }
        trouble.begin(mounted);
        if let Some(name_end) = self.manner.cut_at_rename {
            mounted.freeze_at_rename(name_end);
        }
        match moment {
            // It started with fewer operations.
            Moment::Start(_) => mounted.freeze_after(Some(1 + random.below(50))),
            Moment::Load(operations) => mounted.freeze_after(Some(operations)),
            Moment::Stop { load, stop } => {
                let end = mounted.operations() + load;
                return self.load(mounted, trouble, random, |broker| {
                    let begun = Instant::now();
                    while mounted.operations() < end && begun.elapsed() < LOAD_LIMIT {
                        thread::sleep(Duration::from_millis(1));
                    }
                    mounted.freeze_after(Some(stop));
                    broker.signal(Signal::TERM);
                    let ended = wait_for_either_end(broker, mounted);
                    mounted.freeze();
                    ended
                });
            }
        }
        self.load(mounted, trouble, random, |_| {
            if !mounted.wait_frozen(LOAD_LIMIT) {
                mounted.freeze();
            }
            Ok(())
        })
    }

    /// Starts the broker. Whether it is ready; it is not if the power fails before.
    fn start(&mut self, mounted: &Mounted) -> Result<bool, Failure> {
        self.broker.begin();
        let begun = Instant::now();
        // Where a fault is planted, a start that does not end is looked for.
        let patience = if self.manner.plant.is_some() { wait::PATIENCE / 3 } else { wait::PATIENCE };
        loop {
            if mounted.is_frozen() {
                return Ok(false);
            }
            if !self.broker.is_running() {
                return Err(Failure::RefusedStart(format!("the broker does not start:\n{}", self.broker.end_of_log())));
            }
            // It may hold its answer for ever, because the power fails meanwhile.
            if self.broker.is_ready_within(Duration::from_millis(200)) {
                return Ok(true);
            }
            if begun.elapsed() > patience {
                let words = format!("the broker is not ready after {patience:?}:\n{}", self.broker.end_of_log());
                return Err(Failure::EndlessStart(words));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn make_topics(&mut self) {
        let mut connection = Connection::to(&self.broker);
        for (topic, kind, partitions, configs) in self.topics() {
            connection.create_topic_with(topic, *partitions, configs);
            for partition in 0..*partitions {
                let producer_id = connection.producer_id();
                self.histories.push(Mutex::new(History::new(topic, partition, *kind, self.seed, producer_id, now_ms())));
            }
        }
        connection.wait_for_coordinator(GROUP);
        if let Some(transfers) = &self.transfers {
            transfers.make_topic(&mut connection);
        }
    }

    /// Everything that was promised is compared with what is there. A comparison gives up where a topic is missing, but also where the broker is, which says nothing of promises.
    fn verify(&mut self) -> Result<(), Failure> {
        match comparing(|| self.compare()) {
            Ok(outcome) => outcome.map_err(Failure::Broken),
            Err(words) if self.broker.is_running() && self.broker.is_ready() => Err(Failure::Broken(words)),
            Err(words) => Err(Failure::Other(format!("the broker goes away while it is asked ({words}):\n{}", self.broker.end_of_log()))),
        }
    }

    fn compare(&mut self) -> Result<(), Broken> {
        let mut connection = Connection::to(&self.broker);
        for (topic, _, partitions, _) in self.topics() {
            let described = connection.metadata(12, &[topic]).topics.remove(0);
            if code(described.error_code) == ErrorCode::UnknownTopicOrPartition {
                return Err(format!("topic {topic} is not there any more"));
            }
            connection.wait_for_leaders(topic, *partitions);
        }
        for history in &self.histories {
            let (topic, partition) = place_of(history);
            let found = found_in(&mut connection, &topic, partition);
            lock(history).verify(&found)?;
        }
        self.affairs.verify(&mut connection)?;
        self.transfers.as_mut().map_or(Ok(()), |transfers| transfers.verify(&mut connection))
    }

    /// Loads the broker until `end` returns, which has cut the power; then the threads end with their connections.
    fn load<End>(&mut self, mounted: &Mounted, trouble: Trouble, random: &mut Random, end: End) -> Result<(), Failure>
    where
        End: FnOnce(&mut Broker) -> Result<(), Failure>,
    {
        let (stop, failures) = (AtomicBool::new(false), Mutex::new(Vec::new()));
        let round = Round { address: self.broker.address(), stop: &stop, failures: &failures, is_troubled: trouble.is_refusal_fine() };
        let round = &round;
        // Everybody else takes it easy in every second round with transactions, so that there are some before the power fails.
        let is_about_transfers = self.transfers.is_some() && random.is_below_percent(50);
        let pauses_us: &[u64] = if is_about_transfers { &[5_000, 20_000, 50_000] } else { &[0, 200, 2_000] };
        let (broker, histories, affairs, transfers) = (&mut self.broker, &self.histories, &mut self.affairs, &mut self.transfers);
        let (cut, ended) = thread::scope(|scope| {
            let ending = Ending { broker, mounted, stop: &stop };
            for history in histories {
                let pause = Duration::from_micros(random.one_of(pauses_us));
                scope.spawn(move || load::write(round, history, pause));
                if lock(history).kind == Kind::Idempotent {
                    let random = random.split();
                    scope.spawn(move || load::repeat(round, history, random));
                }
            }
            for history in histories.iter().filter(|history| lock(history).kind == Kind::Trimmed) {
                let random = random.split();
                scope.spawn(move || load::trim(round, history, random));
            }
            scope.spawn(move || load::read(round, histories));
            if let Some(transfers) = transfers {
                transfers.go_on(scope, round, random);
            }
            let business = random.split();
            scope.spawn(|| {
                // An error is the broker's end.
                let connection = Connection::open(round.address);
                let _ = connection.and_then(|mut connection| affairs.go_on(round, &mut connection, business));
            });
            let cut = end(ending.broker);
            (cut, ending.broker.ended())
        });
        match failures.into_inner().expect("no panic while it is held").into_iter().next() {
            Some(failure) => Err(failure),
            None if ended.is_some_and(|status| !status.success()) && !trouble.is_refusal_fine() => {
                Err(Failure::Other(format!("the broker ended by itself:\n{}", self.broker.end_of_log())))
            }
            None => cut,
        }
    }

    fn keep(&mut self) {
        self.broker.keep_folder();
    }
}

/// Ends a load, also where the thread that leads it panics: the others go on until the broker is dead.
struct Ending<'a> {
    broker: &'a mut Broker,
    mounted: &'a Mounted,
    stop: &'a AtomicBool,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // What waits for the disk cannot die before it is let go.
        self.broker.kill_while(|| self.mounted.let_go());
    }
}

/// Until the broker has followed SIGTERM, or the power has failed.
fn wait_for_either_end(broker: &mut Broker, mounted: &Mounted) -> Result<(), Failure> {
    let begun = Instant::now();
    while broker.is_running() && !mounted.is_frozen() {
        if begun.elapsed() > wait::PATIENCE {
            return Err(Failure::Other(format!("SIGTERM has not ended the broker in {:?}:\n{}", wait::PATIENCE, broker.end_of_log())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
