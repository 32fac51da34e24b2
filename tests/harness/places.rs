//! Where things are: the broker under test, the original's jars, the clients' interpreters, and the folder in which a run keeps its data and logs.
//!
//! Each place has an environment variable, which `scripts/test` sets; the defaults let a plain `cargo test` work after `scripts/test --install` has run once.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which broker the tests talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Corelane,
    Kafka,
}

/// `CORELANE_TEST_AGAINST=kafka` puts the original in our place.
pub fn target() -> Target {
    match env::var("CORELANE_TEST_AGAINST").as_deref() {
        Ok("kafka") => Target::Kafka,
        Ok("corelane") | Ok("") | Err(_) => Target::Corelane,
        Ok(other) => panic!("CORELANE_TEST_AGAINST is `{other}`; it may be `corelane` or `kafka`"),
    }
}

pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the project's folder").to_path_buf()
}

/// What `scripts/test --install` put aside: `python/`, `node/`, `java/`, `go/`, `kafka/lib/`, `kafka/tools/`, `kafka/streams/`, `kafka/clients-3.9/`.
pub fn tools() -> PathBuf {
    folder("CORELANE_TEST_TOOLS", || project().join("target/test-tools"))
}

/// Jars of the original: `lib/` is the broker and its clients, `tools/` the command line tools of the release before, `streams/` Kafka Streams, `clients-3.9/` old clients.
pub fn kafka() -> PathBuf {
    folder("CORELANE_TEST_KAFKA", || tools().join("kafka"))
}

/// Data and logs of a run. The operating system's temporary folder may be memory, which would make durable writes meaningless; `scripts/test` names a folder on the disk.
pub fn scratch() -> PathBuf {
    let folder = folder("CORELANE_TEST_DIR", || project().join("target/test-runs"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// The same broker with its own witness compiled in (the feature `trace`): named by `CORELANE_TRACED_BINARY`, else built now.
pub fn traced_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let build = || build_corelane(&["--features", "trace"]);
    BINARY.get_or_init(|| env::var_os("CORELANE_TRACED_BINARY").map(PathBuf::from).unwrap_or_else(build)).clone()
}

/// The binary under test: the one named by `CORELANE_BINARY`, else the release build, brought up to date by cargo first.
pub fn corelane_binary() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| env::var_os("CORELANE_BINARY").map(PathBuf::from).unwrap_or_else(|| build_corelane(&["--release"]))).clone()
}

fn build_corelane(how: &[&str]) -> PathBuf {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let output = Command::new(cargo)
        .args(["build", "--package", "corelane", "--bin", "corelane", "--message-format", "json"])
        .args(how)
        .current_dir(project())
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "the broker does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back()
        .expect("cargo names the executable that it built")
}

fn folder(variable: &str, otherwise: impl FnOnce() -> PathBuf) -> PathBuf {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from).unwrap_or_else(otherwise)
}
