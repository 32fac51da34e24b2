//! Every message in every version through Apache Kafka's own classes: they must read our bytes and write the same again, and agree on every default.
//!
//! Needs a Java runtime and Kafka's jars in `lib` of the folder that `CORELANE_TEST_KAFKA` names (`scripts/test` sets it); without it the test says so and passes.

#[path = "../messages/values.rs"]
#[allow(dead_code)]
mod values;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use values::{all_messages, default_message, describe, first_seed, random_message};

const SEEDS: u64 = 6;

#[test]
fn apache_kafka_agrees() {
    let Some(kafka) = std::env::var_os("CORELANE_TEST_KAFKA").filter(|path| !path.is_empty()) else {
        eprintln!("CORELANE_TEST_KAFKA is not set: not compared with Apache Kafka");
        return;
    };
    let jars = Path::new(&kafka).join("lib");
    let mut questions = String::new();
    let mut expected = Vec::new();
    for (entry, schema) in all_messages() {
        for version in entry.versions.0..=entry.versions.1 {
            let _ = writeln!(questions, "{} {version} -", entry.name);
            expected.push((describe(entry, version, 0), hex(&default_message(&schema, version))));
            for seed in first_seed()..first_seed() + SEEDS {
                let bytes = random_message(&schema, version, seed);
                let _ = writeln!(questions, "{} {version} {}", entry.name, hex(&bytes));
                expected.push((describe(entry, version, seed), hex(&bytes)));
            }
        }
    }
    let answers = ask(&jars, questions);
    assert_eq!(answers.lines().count(), expected.len());
    let differences: Vec<String> = answers
        .lines()
        .zip(&expected)
        .filter(|(answer, (_, expected))| answer != expected)
        .map(|(answer, (what, expected))| format!("{what}:\n  Kafka {answer}\n  ours  {expected}"))
        .collect();
    assert!(differences.is_empty(), "{} of {} differ:\n{}", differences.len(), expected.len(), differences.join("\n"));
}

fn ask(jars: &Path, questions: String) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/original/Transcode.java");
    let mut java = Command::new("java")
        .arg("-cp")
        .arg(jars.join("*"))
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Java runtime is on the path");
    let mut stdin = java.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(questions.as_bytes()));
    let output = java.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
