//! `connections`: many that are held and say nothing, and others that come, ask what the broker speaks, and go, on a schedule; both beside a light load.

use std::collections::BTreeMap;
use std::net::TcpStream;

use corelane_wire::messages::ApiVersionsRequest;
use socket2::{Domain, Protocol, Socket, Type};

use super::Target;
use crate::client::API_VERSIONS_VERSION;
use crate::client::connection::{Connection, frame_of};
use crate::client::readiness::Readiness;
use crate::clock::seconds_ns;
use crate::cost::resident_bytes;
use crate::failure::Failure;
use crate::load::{Setup, gone};
use crate::recorder::{LoopKind, Recorder, Window};

/// A descriptor each, and some for everything else.
const SPARE_DESCRIPTORS: u64 = 256;

pub struct Connections {
    address: std::net::SocketAddr,
    held: Vec<Connection>,
    per_second: u64,
    start_ns: u64,
    begun: u64,
    answered: u64,
    failed: u64,
    /// Come and not gone yet: when each was due.
    coming: Vec<Option<(Connection, u64)>>,
    readiness: Readiness,
    request: Vec<u8>,
    figures: BTreeMap<String, f64>,
    /// From the time when a connection was due to the answer to its first question.
    pub connected: Recorder,
}

impl Connections {
    /// Opens those that are held.
    pub fn open(setup: &Setup<'_>, target: &Target) -> Result<Connections, Failure> {
        let workload = setup.workload;
        allow_descriptors(workload.connections as u64)?;
        let request = frame_of(API_VERSIONS_VERSION, 1, &request()).map_err(|error| Failure::Settings(error.to_string()))?;
        let resident = || target.watched.first().and_then(|watched| resident_bytes(watched.pid).ok());
        let (resident_before, began_ns) = (resident(), setup.clock.now_ns());
        let mut held = Vec::with_capacity(workload.connections);
        for _ in 0..workload.connections {
            let opened = Connection::open(setup.address, setup.congestion_control).and_then(|mut connection| {
                connection.ask(API_VERSIONS_VERSION, &self::request())?;
                Ok(connection)
            });
            match opened {
                Ok(connection) => held.push(connection),
                Err(error) => return Err(Failure::Refused(format!("connection {} of {}: {error}", held.len() + 1, workload.connections))),
            }
        }
        let seconds = (setup.clock.now_ns() - began_ns) as f64 / 1e9;
        let mut figures = BTreeMap::from([("connections_opened_per_second".to_string(), workload.connections as f64 / seconds)]);
        if let (Some(before), Some(after)) = (resident_before, resident()) {
            let each = after.saturating_sub(before) as f64 / workload.connections.max(1) as f64;
            figures.insert("resident_bytes_per_connection".to_string(), each);
        }
        let start_ns = setup.clock.now_ns();
        let length_ns = seconds_ns(workload.warm_up_seconds + workload.duration_seconds) + 1_000_000_000;
        Ok(Connections {
            address: setup.address,
            held,
            per_second: workload.connections_per_second,
            start_ns,
            begun: 0,
            answered: 0,
            failed: 0,
            coming: Vec::new(),
            readiness: Readiness::watching().map_err(Failure::machine("epoll"))?,
            request,
            figures,
            connected: Recorder::new("connected", LoopKind::Open, Window { start_ns, end_ns: start_ns + length_ns }),
        })
    }

    /// Opens the next one if it is due, and takes answers.
    pub fn step(&mut self, now_ns: u64) -> Result<(), Failure> {
        if self.per_second == 0 {
            return Ok(());
        }
        let due_ns = self.start_ns + self.begun * 1_000_000_000 / self.per_second;
        if now_ns >= due_ns {
            self.begun += 1;
            self.begin(due_ns).map_err(|error| gone(&error))?;
        }
        for place in self.readiness.look().map_err(Failure::machine("epoll"))? {
            let Some((connection, due_ns)) = &mut self.coming[*place] else { continue };
            let answered = connection.flush().and_then(|()| connection.receive()).map(|_| connection.next_frame().is_some());
            match answered {
                Ok(true) => {
                    self.connected.record(*due_ns, now_ns.saturating_sub(*due_ns));
                    self.answered += 1;
                    self.coming[*place] = None;
                }
                Ok(false) => (),
                Err(_) => {
                    self.failed += 1;
                    self.coming[*place] = None;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, due_ns: u64) -> std::io::Result<()> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&self.address.into()) {
            Ok(()) => (),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => (),
            Err(_) => {
                self.failed += 1;
                return Ok(());
            }
        }
        let mut connection = Connection::over(TcpStream::from(socket))?;
        connection.send(&self.request)?;
        let place = self.coming.iter().position(Option::is_none).unwrap_or_else(|| {
            self.coming.push(None);
            self.coming.len() - 1
        });
        self.readiness.add(std::os::fd::AsFd::as_fd(&connection), place)?;
        self.coming[place] = Some((connection, due_ns));
        Ok(())
    }

    pub fn figures(&mut self) -> BTreeMap<String, f64> {
        let mut figures = self.figures.clone();
        figures.insert("connections_held".to_string(), self.held.len() as f64);
        figures.insert("connections_lost".to_string(), self.lost() as f64);
        if self.per_second > 0 {
            figures.insert("connections_answered".to_string(), self.answered as f64);
            figures.insert("connections_failed".to_string(), self.failed as f64);
        }
        figures
    }

    /// Those that the broker has closed although nobody asked it to.
    fn lost(&mut self) -> usize {
        self.held.iter_mut().filter_map(|connection| connection.receive().err()).count()
    }
}

fn request() -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: "corelane-bench".into(), client_software_version: "1".into(), ..Default::default() }
}

pub fn allow_descriptors(wanted: u64) -> Result<(), Failure> {
    let wanted = wanted + SPARE_DESCRIPTORS;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
        .map_err(|error| Failure::Settings(format!("{wanted} open files are needed and not allowed ({error}): raise `ulimit -n`")))
}
