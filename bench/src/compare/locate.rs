//! Where the systems are: given, beside this program, built, or fetched.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// The broker: as given, beside this program, or built from the sources that this program was built from.
pub fn corelane(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return existing(path);
    }
    if let Some(path) = beside("corelane") {
        return Ok(path);
    }
    build("corelane", &["--bin", "corelane"])
}

/// `corelane-perf`, which has the floor and the probes; without it there is neither.
pub fn perf(given: Option<&Path>) -> Result<Option<PathBuf>, Failure> {
    given.map(existing).transpose().map(|path| path.or_else(|| beside("corelane-perf")))
}

/// A folder of Kafka's jars: as given, where the tests keep them, or fetched by Maven.
pub fn kafka(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let of_tests = std::env::var_os("CORELANE_TEST_KAFKA").map(PathBuf::from);
    if let Some(path) = given.map(Path::to_path_buf).or(of_tests) {
        return jars_in(&path).ok_or_else(|| Failure::Settings(format!("{}: there are no jars of Kafka in it", path.display())));
    }
    let target = target_folder();
    if let Some(path) = [target.join("kafka"), target.join("test-tools/kafka")].iter().find_map(|path| jars_in(path)) {
        return Ok(path);
    }
    fetch(&target.join("kafka/lib"))
}

fn jars_in(path: &Path) -> Option<PathBuf> {
    let holds_jars = |path: &PathBuf| {
        let mut files = std::fs::read_dir(path).ok()?.flatten();
        files.find(|file| file.file_name().to_string_lossy().starts_with("kafka_2"))
    };
    [path.join("lib"), path.join("libs"), path.to_path_buf()].into_iter().find(|path| holds_jars(path).is_some())
}

fn fetch(folder: &Path) -> Result<PathBuf, Failure> {
    let pom = sources().join("tests/java/jars/broker/pom.xml");
    eprintln!("corelane-bench: fetching Kafka's jars by Maven");
    let mut command = Command::new("mvn");
    command.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies").arg(format!("-DoutputDirectory={}", folder.display()));
    let status = command.status().map_err(Failure::machine("mvn (needed for Kafka's jars; or give --kafka FOLDER)"))?;
    if !status.success() {
        return Err(Failure::Machine(format!("mvn could not fetch Kafka's jars ({status}); --kafka names a folder that holds them")));
    }
    jars_in(folder).ok_or_else(|| Failure::Machine(format!("mvn left no jars in {}", folder.display())))
}

fn existing(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| Failure::Settings(format!("{}: {error}", path.display())))
}

fn beside(name: &str) -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.exists().then_some(path)
}

fn build(name: &str, arguments: &[&str]) -> Result<PathBuf, Failure> {
    eprintln!("corelane-bench: building {name}");
    let status = Command::new("cargo").args(["build", "--release"]).args(arguments).current_dir(sources()).status();
    if !status.map_err(Failure::machine("cargo"))?.success() {
        return Err(Failure::Machine(format!("{name} could not be built; --corelane names a binary")));
    }
    existing(&target_folder().join("release").join(name))
}

/// The repository: the folder of the manifest that Cargo built this from, while it is there.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

fn target_folder() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| sources().join("target"), PathBuf::from)
}
