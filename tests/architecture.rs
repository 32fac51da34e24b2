//! The shape of the house, read from its sources: which room names which, and what only one room may name.
//!
//! ARCHITECTURE.md says that arrows run one way, `main -> net -> api -> shard -> drive -> partition -> disk -> rt`, that every room may call the pure ones, and that a pure
//! room knows neither a driving room nor the world outside. These tests read every `crate::` path below `src/` and fail with file and line where a source says otherwise; those of the
//! programs that measure are read for `unsafe`.
//! Comments and literals are blanked first, so that a sentence about a room is not taken for a call into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that may await, in the order of the flow: each may name those after it.
const DRIVING: &[&str] = &["net", "api", "shard", "drive", "partition", "disk", "rt"];

/// Synchronous rooms: time and randomness come in as arguments. Any room may name them; they name only each other.
const PURE: &[&str] = &["config", "wire", "log", "group", "txn", "cluster"];

/// The only room that touches the kernel, and the words that stay inside it.
const KERNEL_ROOM: &str = "rt";
const KERNEL_WORDS: &[&str] = &["unsafe", "glommio", "io_uring", "libc"];

/// The sources of the programs that measure.
const MEASURING: &[&str] = &["bench/src", "perf/src"];

/// What a pure room would need in order to wait, or to see the world by itself.
const WORLD_WORDS: &[&str] =
    &["async", "await", "std::fs", "std::net::TcpStream", "std::net::TcpListener", "std::thread", "SystemTime::now", "Instant::now"];

#[test]
fn every_folder_of_src_is_a_known_room() {
    let unknown: Vec<String> = sources()
        .iter()
        .filter_map(|source| source.room.clone())
        .filter(|room| !DRIVING.contains(&room.as_str()) && !PURE.contains(&room.as_str()))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    assert!(unknown.is_empty(), "folders of src/ that are neither driving nor pure rooms in this test's tables: {unknown:?}");
}

#[test]
fn no_arrow_runs_against_the_flow() {
    let mut against = Vec::new();
    for source in sources() {
        let Some(room) = source.room.as_deref() else { continue };
        for (line, named) in source.rooms_named() {
            if !may_name(room, &named) {
                against.push(format!("{}:{line}: room `{room}` names `{named}`", source.path.display()));
            }
        }
    }
    assert!(against.is_empty(), "arrows against `main -> {}`:\n{}", DRIVING.join(" -> "), against.join("\n"));
}

#[test]
fn no_path_climbs_out_of_its_room() {
    let mut climbing = Vec::new();
    for source in sources().iter().filter(|source| source.room.is_some()) {
        for (line, text) in source.lines() {
            let climbs = longest_run_of_supers(text);
            // A module may climb to its room's root, and an inline module (a file's own tests) stands one step lower.
            if climbs > source.depth_below_room + 1 {
                climbing.push(format!("{}:{line}: {climbs} times `super`", source.path.display()));
            }
        }
    }
    assert!(climbing.is_empty(), "`super` leads out of the room, where no arrow is seen:\n{}", climbing.join("\n"));
}

#[test]
fn only_rt_touches_the_kernel() {
    let found = words_found(KERNEL_WORDS, |source| source.room.as_deref() != Some(KERNEL_ROOM));
    assert!(found.is_empty(), "outside src/{KERNEL_ROOM}:\n{}", found.join("\n"));
}

#[test]
fn the_measuring_tools_have_no_unsafe_code_either() {
    let found_below =
        |folder: &'static str| words_in(&sources_below(folder), &["unsafe"]).into_iter().map(move |found| format!("{folder}/{found}"));
    let found: Vec<String> = MEASURING.iter().flat_map(|folder| found_below(folder)).collect();
    assert!(found.is_empty(), "what they need of the kernel belongs into src/{KERNEL_ROOM}:\n{}", found.join("\n"));
}

#[test]
fn pure_rooms_neither_wait_nor_look_outside() {
    let found = words_found(WORLD_WORDS, |source| source.room.as_deref().is_some_and(|room| PURE.contains(&room)) && !source.is_aside);
    assert!(found.is_empty(), "in a pure room:\n{}", found.join("\n"));
}

#[test]
fn every_source_opens_with_its_purpose() {
    let without: Vec<String> =
        sources().iter().filter(|source| !source.original.starts_with("//!")).map(|source| source.path.display().to_string()).collect();
    assert!(without.is_empty(), "sources that do not open with a `//!` paragraph:\n{}", without.join("\n"));
}

#[test]
fn the_reader_of_sources_sees_calls_and_only_calls() {
    let text = "//! crate::net\nuse crate::{log::Log, rt as machine};\nlet s = \"crate::api\"; crate::disk::journal(); /* crate::shard */ let c = '\"'; crate::log::x()";
    let source = Source::read(PathBuf::from("partition/append.rs"), text.to_string());
    let named: Vec<String> = source.rooms_named().into_iter().map(|(line, room)| format!("{line}:{room}")).collect();
    assert_eq!(named, ["2:log", "2:rt", "3:disk", "3:log"]);
    assert!(may_name("partition", "disk") && !may_name("disk", "partition") && !may_name("log", "rt") && may_name("log", "wire"));
    assert_eq!(longest_run_of_supers("use super::super::journal;"), 2);
}

fn may_name(room: &str, named: &str) -> bool {
    let place = |room: &str| DRIVING.iter().position(|driving| *driving == room);
    match (place(room), place(named)) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(from), Some(to)) => from <= to,
    }
}

/// One source file below `src/`, as the checks read it.
struct Source {
    path: PathBuf,
    original: String,
    /// The text with comments and literals blanked, its lines where they were.
    code: String,
    /// The first folder below `src/`; none for `main.rs` and `lib.rs`, which may name everything.
    room: Option<String>,
    depth_below_room: usize,
    /// A build script or a test, which may read files and start threads in a pure room too.
    is_aside: bool,
}

impl Source {
    fn read(path: PathBuf, original: String) -> Source {
        let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        let room = (parts.len() > 1).then(|| parts[0].clone());
        let file = parts.last().map(String::as_str).unwrap_or_default();
        let depth_below_room = parts.len().saturating_sub(if file == "mod.rs" { 2 } else { 1 });
        let code = blank_comments_and_literals(&original);
        Source {
            is_aside: file == "build.rs" || file.ends_with("tests.rs") || parts.iter().any(|part| part == "build" || part == "tests"),
            path,
            original,
            code,
            room,
            depth_below_room,
        }
    }

    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, text)| (index + 1, text))
    }

    /// The rooms that this file names through `crate::`, with the line of each.
    fn rooms_named(&self) -> Vec<(usize, String)> {
        let known = |name: &str| DRIVING.contains(&name) || PURE.contains(&name);
        let mut named = Vec::new();
        for (start, _) in self.code.match_indices("crate::") {
            if self.code[..start].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$') {
                continue;
            }
            let rest = &self.code[start + "crate::".len()..];
            let line = self.code[..start].matches('\n').count() + 1;
            named.extend(first_names(rest).into_iter().filter(|name| known(name)).map(|name| (line, name)));
        }
        named
    }
}

/// The names that a path begins with: one, or those at the first level of a braced group.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String { text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut names = vec![name(group)];
    let mut depth = 1;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(name(&group[index + 1..])),
            _ => {}
        }
    }
    names
}

fn longest_run_of_supers(text: &str) -> usize {
    let mut longest = 0;
    let mut rest = text;
    while let Some(start) = rest.find("super") {
        let mut run = 0;
        rest = &rest[start..];
        while let Some(after) = rest.strip_prefix("super") {
            run += 1;
            rest = after.strip_prefix("::").unwrap_or(after);
        }
        longest = longest.max(run);
    }
    longest
}

fn words_found(words: &[&str], concerns: impl Fn(&Source) -> bool) -> Vec<String> {
    let concerned: Vec<Source> = sources().into_iter().filter(|source| concerns(source)).collect();
    words_in(&concerned, words)
}

fn words_in(sources: &[Source], words: &[&str]) -> Vec<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for source in sources {
        for (line, text) in source.lines() {
            for word in words {
                let whole = text
                    .match_indices(word)
                    .any(|(start, _)| !text[..start].ends_with(is_word) && !text[start + word.len()..].starts_with(is_word));
                if whole {
                    found.push(format!("{}:{line}: `{word}`", source.path.display()));
                }
            }
        }
    }
    found
}

fn sources() -> Vec<Source> {
    sources_below("src")
}

fn sources_below(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests stand in the project's folder").join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 10, "read only {} sources below {}", files.len(), root.display());
    files
        .into_iter()
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            Source::read(file.strip_prefix(&root).expect("collected below the root").to_path_buf(), text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
}

/// Replaces comments, strings and character literals by blanks; what remains is code, with every line where it was.
fn blank_comments_and_literals(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < characters.len() {
        let end = end_of_comment_or_literal(&characters, at);
        if end > at {
            code.extend(characters[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        } else {
            code.push(characters[at]);
            at += 1;
        }
    }
    code
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn end_of_comment_or_literal(text: &[char], at: usize) -> usize {
    let starts = |pattern: &str| pattern.chars().enumerate().all(|(index, c)| text.get(at + index) == Some(&c));
    let inside_word = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    if starts("//") {
        return text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |length| at + length);
    }
    if starts("/*") {
        return end_of_block_comment(text, at);
    }
    if !inside_word && (starts("r\"") || starts("r#\"") || starts("r##\"") || starts("br\"") || starts("br#\"")) {
        return end_of_raw_string(text, at);
    }
    if starts("\"") {
        return end_of_quoted(text, at, '"');
    }
    // A quote is a character if one closes it after one (escaped) character, otherwise the start of a lifetime.
    if starts("'") && (text.get(at + 1) == Some(&'\\') || text.get(at + 2) == Some(&'\'')) {
        return end_of_quoted(text, at, '\'');
    }
    at
}

fn end_of_block_comment(text: &[char], at: usize) -> usize {
    let mut depth = 0;
    let mut end = at;
    while end < text.len() {
        match (text[end], text.get(end + 1)) {
            ('/', Some('*')) => (depth, end) = (depth + 1, end + 2),
            ('*', Some('/')) => (depth, end) = (depth - 1, end + 2),
            _ => end += 1,
        }
        if depth == 0 {
            return end;
        }
    }
    text.len()
}

fn end_of_raw_string(text: &[char], at: usize) -> usize {
    let open = at + text[at..].iter().position(|c| *c == '"').expect("the caller saw a quote");
    let hashes = text[at..open].iter().filter(|c| **c == '#').count();
    (open + 1..text.len())
        .find(|end| text[*end] == '"' && (1..=hashes).all(|after| text.get(end + after) == Some(&'#')))
        .map_or(text.len(), |end| end + 1 + hashes)
}

fn end_of_quoted(text: &[char], at: usize, quote: char) -> usize {
    let mut end = at + 1;
    while end < text.len() && text[end] != quote {
        end += if text[end] == '\\' { 2 } else { 1 };
    }
    (end + 1).min(text.len())
}
