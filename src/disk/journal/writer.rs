//! The task that writes groups: as many at once as are allowed, the next as soon as one has come back.
//!
//! It polls its writes itself instead of giving each a task of its own: when a write completes, the group that was collected meanwhile is handed to the kernel in the same turn.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{GROUPS_IN_FLIGHT_MAX, GroupSequence, Journal};
use crate::disk::trace;
use crate::rt::file::{Durability, Result};

/// A write that takes this long is told of. As writes follow each other, there are no more than two lines a second.
const SLOW: Duration = Duration::from_millis(500);

struct Write {
    sequence: GroupSequence,
    completion: Pin<Box<dyn Future<Output = Result<()>>>>,
}

/// Runs until the journal is closed or has failed and nothing is under way any more.
pub async fn write_groups(journal: Rc<Journal>) {
    let mut writes = Vec::with_capacity(GROUPS_IN_FLIGHT_MAX);
    poll_fn(|context| poll_writes(&journal, &mut writes, context)).await
}

fn poll_writes(journal: &Rc<Journal>, writes: &mut Vec<Write>, context: &mut Context<'_>) -> Poll<()> {
    loop {
        begin_writes(journal, writes);
        if !poll_completions(journal, writes, context) {
            break;
        }
    }
    let is_over = journal.is_closed() || journal.failure().is_some();
    if is_over && writes.is_empty() {
        return Poll::Ready(());
    }
    journal.writer.set(Some(context.waker().clone()));
    Poll::Pending
}

fn begin_writes(journal: &Rc<Journal>, writes: &mut Vec<Write>) {
    while writes.len() < GROUPS_IN_FLIGHT_MAX {
        let Some(group) = journal.next_group() else { return };
        let durability = if group.is_strong { journal.durability } else { Durability::None };
        let (file, journal_id) = (journal.ring_file.file.clone(), journal.journal_id);
        let completion = Box::pin(async move {
            let begun = Instant::now();
            file.write_at(group.bytes, group.position, durability).await?;
            tell_if_slow(file.path(), begun.elapsed());
            trace::written(journal_id, group.sequence, durability);
            Ok(())
        });
        writes.push(Write { sequence: group.sequence, completion });
    }
}

/// A disk that answers, but late, is a fault that nobody else names.
fn tell_if_slow(path: &Path, took: Duration) {
    if took >= SLOW {
        tracing::warn!(path = %path.display(), milliseconds = took.as_millis() as u64, "the journal's disk is slow");
    }
}

/// Looks at every write once, which also hands fresh ones to the kernel. Returns whether any has come back.
fn poll_completions(journal: &Rc<Journal>, writes: &mut Vec<Write>, context: &mut Context<'_>) -> bool {
    let before = writes.len();
    writes.retain_mut(|write| match write.completion.as_mut().poll(context) {
        Poll::Ready(result) => {
            journal.group_written(write.sequence, result);
            false
        }
        Poll::Pending => true,
    });
    writes.len() < before
}
