//! `flame`: a flame graph out of what `perf script` printed. See scripts/flame.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph;

/// Writes the SVG to the standard output.
pub fn draw(stacks: &Path) -> io::Result<()> {
    let mut collapsed = Vec::new();
    Folder::default().collapse(BufReader::new(File::open(stacks)?), &mut collapsed)?;
    let mut options = flamegraph::Options::default();
    options.title = "CPU time".to_string();
    flamegraph::from_reader(&mut options, &collapsed[..], io::stdout().lock()).map_err(io::Error::other)
}
