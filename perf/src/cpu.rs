//! `probe cpu`: what a core does by itself with the bytes of a record. Checksum (the broker's own), copy, and the small change: a clock reading, a system call, the first touch of a page.

use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::machine;
use crate::tally::{heading, row, size};

pub struct Plan {
    pub core: usize,
    pub json: bool,
}

const SIZES: [usize; 5] = [1 << 10, 16 << 10, 256 << 10, 1 << 20, 256 << 20];
const TIME: Duration = Duration::from_millis(150);
const TOUCHED_PAGES: usize = 16 << 10;
const PAGE_BYTES: usize = 4096;

pub fn probe(plan: &Plan) -> io::Result<()> {
    machine::pin_to(plan.core)?;
    let source: Vec<u8> = (0..SIZES[SIZES.len() - 1]).map(|place| place as u8).collect();
    let mut target = vec![1; source.len()];
    let mut rates = Vec::new();
    for bytes in SIZES {
        let checksum = gigabytes_per_second(bytes, || {
            black_box(crc32c::crc32c(black_box(&source[..bytes])));
        });
        let copy = gigabytes_per_second(bytes, || black_box(&mut target[..bytes]).copy_from_slice(black_box(&source[..bytes])));
        rates.push((bytes, checksum, copy));
    }
    let clock_ns = nanos_each(|| {
        black_box(Instant::now());
    });
    let system_call_ns = nanos_each(|| {
        black_box(rustix::process::getppid());
    });
    let page_ns = first_touch();
    if plan.json {
        let rates: Vec<_> = rates
            .iter()
            .map(|(bytes, checksum, copy)| json!({"bytes": bytes, "crc32c_gb_per_s": checksum, "memcpy_gb_per_s": copy}))
            .collect();
        println!("{}", json!({"bytes": rates, "clock_ns": clock_ns, "system_call_ns": system_call_ns, "page_first_touch_ns": page_ns}));
        return Ok(());
    }
    println!("Core {}, GB/s.\n", plan.core);
    heading(&["bytes at a time", "CRC-32C", "copy"]);
    for (bytes, checksum, copy) in rates {
        row(&[if bytes < 1024 { format!("{bytes} B") } else { size(bytes) }, format!("{checksum:.1}"), format!("{copy:.1}")]);
    }
    println!(
        "\nA clock reading takes {clock_ns:.0} ns, the least system call {system_call_ns:.0} ns, the first touch of a page {page_ns:.0} ns."
    );
    Ok(())
}

fn gigabytes_per_second(bytes: usize, mut once: impl FnMut()) -> f64 {
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < TIME {
        for _ in 0..((1 << 20) / bytes).max(1) {
            once();
            times += 1;
        }
    }
    times as f64 * bytes as f64 / begun.elapsed().as_secs_f64() / 1e9
}

fn nanos_each(mut once: impl FnMut()) -> f64 {
    const TIMES: u32 = 200_000;
    let begun = Instant::now();
    (0..TIMES).for_each(|_| once());
    begun.elapsed().as_nanos() as f64 / f64::from(TIMES)
}

fn first_touch() -> f64 {
    // Zeroed memory of this size comes straight from the kernel, page by page as it is touched.
    let mut pages = vec![0u8; TOUCHED_PAGES * PAGE_BYTES];
    let begun = Instant::now();
    for page in pages.chunks_mut(PAGE_BYTES) {
        page[0] = 1;
    }
    black_box(&pages);
    begun.elapsed().as_nanos() as f64 / TOUCHED_PAGES as f64
}
