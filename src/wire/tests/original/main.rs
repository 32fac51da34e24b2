//! Every message in every version through Apache Kafka's own classes: they must read our bytes and write the same again, and agree on every default.
//!
//! Needs a Java runtime and Kafka's jars in `lib` of the folder that `CORELANE_TEST_KAFKA` names (`scripts/test` sets it); without them the test says so and is listed as ignored.

#[path = "../messages/values.rs"]
#[allow(dead_code)]
mod values;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Trial};
use values::{all_messages, default_message, describe, first_seed, random_message};

const SEEDS: u64 = 6;

fn main() -> ExitCode {
    let jars = jars();
    if let Err(reason) = &jars {
        println!("apache_kafka_agrees is not run: {reason}");
    }
    let is_left_out = jars.is_err();
    let agrees = move || {
        apache_kafka_agrees(&jars?);
        Ok(())
    };
    let trial = Trial::test("apache_kafka_agrees", agrees).with_ignored_flag(is_left_out);
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}

/// Where Kafka's jars lie, or why they are not known.
fn jars() -> Result<PathBuf, String> {
    let kafka = std::env::var_os("CORELANE_TEST_KAFKA").filter(|path| !path.is_empty()).ok_or("CORELANE_TEST_KAFKA is not set")?;
    let jars = Path::new(&kafka).join("lib");
    if jars.is_dir() { Ok(jars) } else { Err(format!("{} is missing", jars.display())) }
}

fn apache_kafka_agrees(jars: &Path) {
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
    let answers = ask(jars, questions);
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
