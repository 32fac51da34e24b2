//! A Kafka Streams application (tests/java/WordCount.java) on its topics: lines, a repartition by word, a changelog of its store, and counts. It is killed and resumes, with its store
//! and without.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use harness::batch::record;
use harness::broker::{Broker, java_with_our_classes};
use harness::committed::CommittedReader;
use harness::raw::Connection;
use harness::suite::Case;
use harness::{cases, places, wait};

pub const CASES: &[Case] = cases![word_count_resumes_after_kills, word_count_counts_exactly_once];

const LINE_PARTITIONS: i32 = 3;
const COUNT_PARTITIONS: i32 = 2;
const WORDS: u64 = 12;
const LINES_PER_ROUND: u64 = 300;

/// A process that starts has a JVM to load, a group to join and a store to restore.
const PATIENCE: Duration = Duration::from_secs(120);

/// Counts go on from what was counted: none is lost.
fn word_count_resumes_after_kills(broker: &Broker) {
    let (counts, expected) = count_through_kills(broker, "streams-alos", "at_least_once");
    assert_eq!(counts.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "the words");
}

/// To a reader of committed records no line is counted twice and no count is missing, whenever the application was killed.
fn word_count_counts_exactly_once(broker: &Broker) {
    let (counts, expected) = count_through_kills(broker, "streams-eos", "exactly_once_v2");
    for (word, count) in &expected {
        assert_eq!(counts[word], (1..=*count).collect::<Vec<_>>(), "each count of {word}, once and in order");
    }
    assert_eq!(counts.len(), expected.len());
}

/// All counts of each word in the order in which they came.
type Counts = BTreeMap<String, Vec<u64>>;

/// Rounds of lines, with a kill in the middle of each: the second process finds the store as it was left, the third has to restore it from its changelog. Gives what was counted and
/// what there was to count, once every word has come so far.
fn count_through_kills(broker: &Broker, application: &str, guarantee: &str) -> (Counts, BTreeMap<String, u64>) {
    let mut connection = Connection::to(broker);
    connection.create_topic(&format!("{application}-lines"), LINE_PARTITIONS);
    connection.create_topic(&format!("{application}-counts"), COUNT_PARTITIONS);
    let mut readers: Vec<_> = (0..COUNT_PARTITIONS).map(|index| CommittedReader::new(&format!("{application}-counts"), index)).collect();
    let mut counts = Counts::new();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    let mut process = Application::new(broker, application, guarantee);
    process.start();
    for round in 0..3 {
        produce_lines(&mut connection, application, round, &mut expected);
        // Some of the round is counted, some is not.
        let before: usize = counts.values().map(Vec::len).sum();
        wait::until("some counts of the round", PATIENCE, || {
            read_counts(&mut connection, &mut readers, &mut counts);
            (counts.values().map(Vec::len).sum::<usize>() > before + 50).then_some(())
        });
        process.kill();
        if round == 1 {
            fs::remove_dir_all(&process.folder).expect("the store can be removed");
        }
        process.start();
    }
    wait::until("all counts", PATIENCE, || {
        read_counts(&mut connection, &mut readers, &mut counts);
        let last = |word: &String| counts.get(word).and_then(|counts| counts.last()).copied().unwrap_or(0);
        expected.iter().all(|(word, expected)| last(word) >= *expected).then_some(())
    });
    for internal in ["words-repartition", "counts-changelog"] {
        let name = format!("{application}-{internal}");
        assert_eq!(connection.metadata(9, &[&name]).topics[0].error_code, 0, "{name}");
    }
    (counts, expected)
}

fn produce_lines(connection: &mut Connection, application: &str, round: u64, expected: &mut BTreeMap<String, u64>) {
    for line in 0..LINES_PER_ROUND {
        let words: Vec<String> = (0..1 + line % 3).map(|index| format!("word-{}", (line * 7 + index * 5 + round) % WORDS)).collect();
        for word in &words {
            *expected.entry(word.clone()).or_default() += 1;
        }
        let partition = line as i32 % LINE_PARTITIONS;
        connection.append(&format!("{application}-lines"), partition, vec![record(&line.to_string(), words.join(" "))]);
    }
}

fn read_counts(connection: &mut Connection, readers: &mut [CommittedReader], counts: &mut Counts) {
    for reader in readers {
        for (_, record) in reader.poll(connection).expect("the broker is there").records {
            let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.expect("there")).expect("text");
            counts.entry(text(record.key)).or_default().push(text(record.value).parse().expect("a count"));
        }
    }
}

/// The application, one process at a time.
struct Application {
    arguments: [String; 3],
    /// Of its store.
    folder: PathBuf,
    process: Option<Child>,
}

impl Application {
    fn new(broker: &Broker, id: &str, guarantee: &str) -> Application {
        let folder = places::scratch().join(format!("{id}-{}", std::process::id()));
        Application { arguments: [broker.bootstrap(), id.to_string(), guarantee.to_string()], folder, process: None }
    }

    fn start(&mut self) {
        let log_path = places::scratch().join(format!("{}.log", self.arguments[1]));
        let log = File::options().create(true).append(true).open(log_path).expect("a log can be made");
        let mut command = java_with_our_classes("streams");
        command.arg("WordCount").args(&self.arguments).arg(&self.folder);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        self.process = Some(command.spawn().expect("java"));
    }

    fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("a child of ours can be killed");
        process.wait().expect("a child of ours can be awaited");
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        // It may not have come to make its folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
