//! The task that writes groups: as many at once as are allowed, the next as soon as one has come back.
//!
//! It polls its writes itself instead of giving each a task of its own: when a write completes, the group that was collected meanwhile is handed to the kernel in the same turn.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{GROUPS_IN_FLIGHT_MAX, GroupSequence, Journal};
use crate::disk::{slow, trace};
use crate::rt::file::{Durability, Result};

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
            slow::timed(&file, "write to the journal", file.write_at(group.bytes, group.position, durability)).await?;
            trace::written(journal_id, group.sequence, durability);
            Ok(())
        });
        writes.push(Write { sequence: group.sequence, completion });
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
