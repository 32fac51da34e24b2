//! Where one acknowledgement spends its time: the moments of a request on its way through the rooms, kept while `latency.trace.file` is set and written there at a clean stop.
//!
//! A request carries its `Stages` with it, over to the shard that owns its partition and back; whoever has done a step marks the moment. Stages are the times between one moment and the next, so
//! they add up to the whole. Off, which it nearly always is, a request carries a null pointer and a mark is one comparison, too little to be measured beside the microseconds of a request
//! (perf/README.md says how that was seen); so it is a setting and not another build.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::ShardId;

/// Steps of an acknowledgement, each named by the stage that it ends, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request's frame is whole (the first byte of it was read where the stages began).
    FrameRead,
    /// There is memory for it, and few enough are under way before it.
    Admitted,
    /// Header and body are decoded.
    Decoded,
    /// Every batch is checked.
    Checked,
    /// Every owner has taken its batches into its journal's open group.
    HandedOver,
    /// The last of these groups was given to the kernel.
    Submitted,
    /// Its write has come back.
    Durable,
    /// The answer is encoded.
    Released,
    /// Its last byte was given to the kernel.
    Sent,
}

const MOMENTS: usize = Moment::Sent as usize + 1;
/// The names of the stages, as the file has them.
pub const STAGE_NAMES: [&str; MOMENTS] =
    ["frame read", "admission", "decode", "check", "hand-over", "wait for the device", "device", "release", "send"];
/// Requests that one shard keeps; the latest. 21 MiB.
const KEPT_MAX: usize = 600_000;

static TRACE_FILE: OnceLock<PathBuf> = OnceLock::new();

thread_local! {
    static KEPT: RefCell<Kept> = const { RefCell::new(Kept { stages_ns: Vec::new(), next: 0 }) };
}

/// Before any shard starts: requests are traced from now on, and [`write_trace`] writes to `path` and the shard's number.
pub fn trace_to(path: &Path) {
    let first = TRACE_FILE.set(path.to_path_buf());
    assert!(first.is_ok(), "tracing is decided once");
}

/// The moments of one request. Cheap to clone; clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Stages(Option<Arc<Moments>>);

#[derive(Debug)]
struct Moments {
    begun: Instant,
    /// Nanoseconds after `begun`; 0 is a step that was not taken.
    after_ns: [AtomicU64; MOMENTS],
}

struct Kept {
    stages_ns: Vec<[u32; MOMENTS]>,
    next: usize,
}

impl Stages {
    /// Whether requests are traced: who would have to look at the clock for it asks first.
    pub fn are_traced() -> bool {
        TRACE_FILE.get().is_some()
    }

    /// A request whose first byte was read at `begun`.
    pub fn begin(begun: Instant) -> Self {
        Self(Self::are_traced().then(|| Arc::new(Moments { begun, after_ns: Default::default() })))
    }

    /// The step is done now. Done several times (one batch after the other), the last counts.
    pub fn mark(&self, moment: Moment) {
        if self.0.is_some() {
            self.mark_at(moment, Instant::now());
        }
    }

    /// The step was done then.
    pub fn mark_at(&self, moment: Moment, at: Instant) {
        if let Some(moments) = &self.0 {
            let after = at.saturating_duration_since(moments.begun).as_nanos() as u64;
            moments.after_ns[moment as usize].fetch_max(after, Ordering::Relaxed);
        }
    }

    /// Whether this request is traced.
    pub fn is_traced(&self) -> bool {
        self.0.is_some()
    }

    /// The answer is with the kernel: this shard keeps the stages.
    pub fn finish(&self) {
        self.mark(Moment::Sent);
        if let Some(moments) = &self.0 {
            KEPT.with_borrow_mut(|kept| kept.add(moments.stages_ns()));
        }
    }
}

impl Moments {
    /// A step that was not taken, or that came before the one before it, took no time; so the stages add up to the whole.
    fn stages_ns(&self) -> [u32; MOMENTS] {
        let mut before = 0;
        self.after_ns.each_ref().map(|after| {
            let after = after.load(Ordering::Relaxed).max(before);
            let stage = after - before;
            before = after;
            u32::try_from(stage).unwrap_or(u32::MAX)
        })
    }
}

impl Kept {
    fn add(&mut self, stages_ns: [u32; MOMENTS]) {
        if self.stages_ns.len() < KEPT_MAX {
            self.stages_ns.push(stages_ns);
        } else {
            self.stages_ns[self.next] = stages_ns;
            self.next = (self.next + 1) % KEPT_MAX;
        }
    }
}

/// Writes what this shard has kept, if requests are traced: the names of the stages, then a line of nanoseconds for each request, separated by commas. Blocks, so only at the shard's end.
pub fn write_trace(shard: ShardId) -> io::Result<()> {
    let Some(path) = TRACE_FILE.get() else { return Ok(()) };
    let mut text = STAGE_NAMES.join(",") + "\n";
    KEPT.with_borrow(|kept| {
        let (later, earlier) = kept.stages_ns.split_at(kept.next);
        for stages_ns in earlier.iter().chain(later) {
            for (index, stage) in stages_ns.iter().enumerate() {
                let separator = if index + 1 == MOMENTS { '\n' } else { ',' };
                write!(text, "{stage}{separator}").expect("a string takes everything");
            }
        }
    });
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{shard}"));
    std::fs::write(name, text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Stages add up to the whole whatever was marked, in whatever order.
    #[test]
    fn stages_add_up() {
        let begun = Instant::now();
        let stages = Stages(Some(Arc::new(Moments { begun, after_ns: Default::default() })));
        for (moment, after_us) in
            [(Moment::FrameRead, 2), (Moment::Decoded, 5), (Moment::Durable, 90), (Moment::Submitted, 10), (Moment::Released, 80)]
        {
            stages.mark_at(moment, begun + Duration::from_micros(after_us));
        }
        stages.mark_at(Moment::Sent, begun + Duration::from_micros(100));
        let stages_ns = stages.0.as_ref().unwrap().stages_ns();
        assert_eq!(stages_ns, [2_000, 0, 3_000, 0, 0, 5_000, 80_000, 0, 10_000]);
        assert_eq!(stages_ns.iter().sum::<u32>(), 100_000);
    }

    #[test]
    fn nothing_is_kept_where_nothing_is_traced() {
        let stages = Stages::begin(Instant::now());
        stages.mark(Moment::Decoded);
        stages.finish();
        assert!(!stages.is_traced());
        KEPT.with_borrow(|kept| assert!(kept.stages_ns.is_empty()));
    }
}
