//! Which of many connections have something to read, without asking each of them.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{Timespec, epoll};

/// Up to so many are simply tried in turn: one `read` that finds nothing costs what one `epoll_wait` does.
const TRIED_MAX: usize = 2;

const EVENTS_MAX: usize = 256;

pub struct Readiness {
    epoll: Option<OwnedFd>,
    events: Vec<epoll::Event>,
    ready: Vec<usize>,
}

impl Readiness {
    /// Of these, told apart by their place.
    pub fn of<'a>(connections: impl ExactSizeIterator<Item = BorrowedFd<'a>>) -> io::Result<Readiness> {
        let count = connections.len();
        if count <= TRIED_MAX {
            return Ok(Readiness { epoll: None, events: Vec::new(), ready: (0..count).collect() });
        }
        let mut readiness = Readiness::watching()?;
        for (place, connection) in connections.enumerate() {
            readiness.add(connection, place)?;
        }
        Ok(readiness)
    }

    /// The same, and able to wait for them.
    pub fn waiting_for<'a>(connections: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<Readiness> {
        let mut readiness = Readiness::watching()?;
        for (place, connection) in connections.enumerate() {
            readiness.add(connection, place)?;
        }
        Ok(readiness)
    }

    /// Of those that are added later.
    pub fn watching() -> io::Result<Readiness> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Readiness { epoll: Some(epoll), events: Vec::with_capacity(EVENTS_MAX), ready: Vec::with_capacity(EVENTS_MAX) })
    }

    /// A connection that is closed leaves by itself.
    pub fn add(&mut self, connection: BorrowedFd<'_>, place: usize) -> io::Result<()> {
        let epoll = self.epoll.as_ref().expect("only a watching readiness grows");
        Ok(epoll::add(epoll, connection, epoll::EventData::new_u64(place as u64), epoll::EventFlags::IN | epoll::EventFlags::HUP)?)
    }

    /// The places of those that may be read now, at most [`EVENTS_MAX`] at a time; does not wait.
    pub fn look(&mut self) -> io::Result<&[usize]> {
        self.look_for(0)
    }

    /// The same, asleep until there is one, for so long at most.
    pub fn look_for(&mut self, wait_ns: u64) -> io::Result<&[usize]> {
        if let Some(epoll) = &self.epoll {
            let wait = Timespec { tv_sec: (wait_ns / 1_000_000_000) as i64, tv_nsec: (wait_ns % 1_000_000_000) as i64 };
            self.events.clear();
            match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.events), Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => (),
                Err(error) => return Err(error.into()),
            }
            self.ready.clear();
            self.ready.extend(self.events.iter().map(|event| event.data.u64() as usize));
        }
        Ok(&self.ready)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// A client that sleeps until a record is due would send it late otherwise, and the broker would be charged with it.
    #[test]
    fn a_short_wait_is_not_made_a_millisecond() {
        let mut readiness = Readiness::watching().unwrap();
        let waits = (0..50).map(|_| {
            let began = Instant::now();
            assert!(readiness.look_for(100_000).unwrap().is_empty());
            began.elapsed()
        });
        let shortest = waits.min().expect("fifty");
        assert!(shortest >= Duration::from_micros(100) && shortest < Duration::from_millis(1), "{shortest:?}");
    }
}
