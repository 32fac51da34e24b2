//! Waiting for a moment. Deadlines lie in the shard's own timer wheel and are looked at together with the ring, so they hold on a busy shard as well.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::reactor::{Reactor, current};
use super::wheel::TimerKey;

/// Resolves after `duration`; late by at most a seventh of a millisecond on a shard whose tasks yield.
pub fn sleep(duration: Duration) -> Sleep {
    // Far enough to never come, near enough to be added to a clock.
    const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
    sleep_until(Instant::now() + duration.min(FOREVER))
}

/// Resolves at `deadline`, at once if it has passed.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { reactor: current(), deadline, timer: None }
}

/// The future of [`sleep`]. Dropping it takes the timer back.
pub struct Sleep {
    reactor: Rc<Reactor>,
    deadline: Instant,
    timer: Option<TimerKey>,
}

/// Runs `future` for at most `duration`. At the end of the time it is dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(context).map(|()| Err(Elapsed))
    })
    .await
}

/// The time given to [`timeout`] was over first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Milliseconds since 1970, as Kafka's timestamps count them. May step when the machine's clock is set. Any thread.
pub fn wall_clock_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        let is_set = self.timer.is_some_and(|timer| self.reactor.renew_timer(timer, context.waker()));
        if !is_set {
            self.timer = Some(self.reactor.set_timer(self.deadline, context.waker().clone()));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.reactor.cancel_timer(timer);
        }
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the time was over")
    }
}

impl std::error::Error for Elapsed {}
