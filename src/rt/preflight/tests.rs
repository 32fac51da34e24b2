//! Preflight on directories of a test: what it refuses leaves no trace, what it accepts is locked.

use super::*;
use std::fs;

fn plan(directories: &[&Path]) -> Plan {
    Plan {
        data_directories: directories.iter().map(|path| path.to_path_buf()).collect(),
        descriptors_min: 64,
        descriptors_for_10_000_partitions: 64,
        ..Plan::default()
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A directory is made with those above it, locked against a second start, and free again afterwards.
#[test]
fn a_directory_is_made_and_locked() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("a/b");
    let passed = check(&plan(&[&data])).unwrap();
    assert_eq!(names_in(&data), [".lock"]);
    assert_eq!(passed.directories.len(), 1);
    assert_eq!(passed.is_direct(&data), passed.directories[0].is_direct);
    assert!(!passed.is_direct(root.path()));

    let refused = check(&plan(&[&data])).unwrap_err();
    assert!(refused.problems[0].cause.contains("is in use"), "{refused}");
    drop(passed);
    assert_eq!(check(&plan(&[&data])).unwrap().directories[0].path, data);
}

/// One directory that cannot be used: the message names it with a remedy, and the others, though fit, are not even made.
#[test]
fn a_refusal_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (fit, file) = (root.path().join("fit"), root.path().join("file"));
    fs::write(&file, "").unwrap();
    let refused = check(&plan(&[&fit, &file, &file.join("below")])).unwrap_err();
    let message = refused.to_string();
    assert_eq!(refused.problems.len(), 2, "{message}");
    assert!(message.contains(&format!("{} is not a directory", file.display())) && message.contains("remedy: "), "{message}");
    assert_eq!(names_in(root.path()), ["file"]);
}

/// Journals that do not fit are refused with figures; what a journal already occupies is not asked for again.
#[test]
fn journals_need_room() {
    let root = tempfile::tempdir().unwrap();
    let journal = root.path().join("journal/corelane-journal-0");
    let reserve = |bytes| Plan { reserved_files: vec![(journal.clone(), bytes)], ..plan(&[root.path()]) };
    let refused = check(&reserve(1 << 60)).unwrap_err();
    assert!(refused.problems[0].cause.contains("MiB are needed"), "{refused}");
    assert_eq!(names_in(root.path()), Vec::<String>::new());
    let passed = check(&reserve(1 << 20)).unwrap();
    assert_eq!(passed.directories.len(), 2);
}

/// Limits that cannot be met are a problem, those that will not last a warning.
#[test]
fn descriptors_are_counted() {
    let root = tempfile::tempdir().unwrap();
    let passed = check(&Plan { descriptors_for_10_000_partitions: 1 << 40, ..plan(&[root.path()]) }).unwrap();
    assert!(passed.warnings[0].contains("10,000 partitions"), "{:?}", passed.warnings);
    drop(passed);
    let refused = check(&Plan { descriptors_min: 1 << 40, ..plan(&[root.path()]) }).unwrap_err();
    assert!(refused.problems[0].cause.contains("may open"), "{refused}");
}
