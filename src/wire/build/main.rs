//! Build script: turns the schema files into Rust. `parse` reads the notation, `generate` writes one module per message; this file says which files become which module of
//! the crate.

mod generate;
mod parse;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use parse::{Kind, Message};

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=schema");
    if let Err(problem) = run() {
        eprintln!("{problem}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let crate_directory = PathBuf::from(env::var("CARGO_MANIFEST_DIR").map_err(|error| error.to_string())?);
    let out_directory = PathBuf::from(env::var("OUT_DIR").map_err(|error| error.to_string())?);

    let messages = read_directory(&crate_directory.join("schema/messages"))?;
    let records = read_directory(&crate_directory.join("schema/records"))?;
    let all_messages: Vec<Message> = messages.iter().flat_map(|(_, messages)| messages.clone()).collect();

    let mut message_modules = String::new();
    for message in &all_messages {
        message_modules += &generate::message_module(message);
    }
    let mut record_modules = String::new();
    for (file, records) in &records {
        record_modules += &generate::record_room(file, records);
    }
    let requests: Vec<&Message> = all_messages.iter().filter(|message| message.kind == Kind::Request).collect();
    let all_records: Vec<(&str, &Message)> =
        records.iter().flat_map(|(file, records)| records.iter().map(move |record| (file.as_str(), record))).collect();

    write(&out_directory, "messages.rs", &message_modules)?;
    write(&out_directory, "records.rs", &record_modules)?;
    write(&out_directory, "api_key.rs", &generate::api_keys(&requests))?;
    write(&out_directory, "catalogue.rs", &generate::catalogue(&all_messages, &all_records))
}

/// The messages of every file in a directory, with the file's name (without `.txt`), in the order of the names.
fn read_directory(directory: &Path) -> Result<Vec<(String, Vec<Message>)>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).map_err(failed)?;
        let messages = parse::parse(&path.display().to_string(), &text).map_err(|error| error.to_string())?;
        let name = path.file_stem().expect("it has an extension").to_string_lossy().into_owned();
        files.push((name, messages));
    }
    Ok(files)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), String> {
    let path = directory.join(name);
    fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}
