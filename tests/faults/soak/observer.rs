//! A way to the broker on which everything is seen that members of groups and their coordinator tell each other about assignments.
//!
//! It is noted before it is passed on: the coordinator cannot act on what is not noted yet, nor a member.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;

use bytes::Bytes;
use corelane_wire::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerProtocolAssignment, SyncGroupRequest, SyncGroupResponse,
};
use corelane_wire::{ApiKey, Decoder, Message, decode_versioned, read_request_header, read_response_header};

use super::owners::{Owners, Partitions};

pub struct Observer {
    address: SocketAddr,
    broker: Arc<OnceLock<SocketAddr>>,
    owners: Arc<Mutex<Owners>>,
}

impl Observer {
    /// Listens until the test's process ends. A broker has to advertise the address, so there is none yet.
    pub fn listen() -> Observer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let observer = Observer { address, broker: Arc::default(), owners: Arc::default() };
        let (broker, owners) = (Arc::clone(&observer.broker), Arc::clone(&observer.owners));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // No broker there: the client sees its connection end.
                let _refused = connect(client, *broker.wait(), &owners);
            }
        });
        observer
    }

    pub fn lead_to(&self, broker: SocketAddr) {
        self.broker.set(broker).expect("one broker");
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn owners(&self) -> MutexGuard<'_, Owners> {
        lock(&self.owners)
    }
}

/// A request whose answer is of interest, by its correlation id.
enum Asked {
    Sync { version: i16, request: SyncGroupRequest },
    Heartbeat { version: i16, request: ConsumerGroupHeartbeatRequest },
}

type Open = Mutex<HashMap<i32, Asked>>;

fn connect(client: TcpStream, broker: SocketAddr, owners: &Arc<Mutex<Owners>>) -> io::Result<()> {
    let server = TcpStream::connect(broker)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let open = Arc::new(Open::default());
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let (asked, noted) = (Arc::clone(&open), Arc::clone(owners));
    thread::spawn(move || pass_on(from, to, |frame| note_request(frame, &asked, &noted)));
    let noted = Arc::clone(owners);
    thread::spawn(move || pass_on(server, client, |frame| note_answer(frame, &open, &noted)));
    Ok(())
}

/// Frame by frame, until one side ends; the end on one side is the end on both.
fn pass_on(mut from: TcpStream, mut to: TcpStream, note: impl Fn(Bytes)) {
    let mut pass_one = || -> io::Result<()> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        from.read_exact(&mut frame)?;
        let frame = Bytes::from(frame);
        note(frame.clone());
        to.write_all(&length)?;
        to.write_all(&frame)
    };
    while pass_one().is_ok() {}
    let _ended = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn note_request(frame: Bytes, open: &Open, owners: &Mutex<Owners>) {
    let mut decoder = Decoder::new(frame);
    let (api_key, header) = read_request_header(&mut decoder).expect("members speak the protocol");
    let version = header.request_api_version;
    let asked = match api_key {
        ApiKey::SyncGroup => Asked::Sync { version, request: read(&mut decoder, version) },
        ApiKey::ConsumerGroupHeartbeat => {
            let request: ConsumerGroupHeartbeatRequest = read(&mut decoder, version);
            let (group, member) = (request.group_id.as_str(), request.member_id.as_str());
            if request.member_epoch <= 0 {
                lock(owners).has_nothing(group, member);
            } else if let Some(topics) = &request.topic_partitions {
                lock(owners).reported(group, member, &topics.iter().flat_map(|topic| &topic.partitions).copied().collect());
            }
            Asked::Heartbeat { version, request }
        }
        _ => return,
    };
    open.lock().expect("nobody panics with it").insert(header.correlation_id, asked);
}

fn note_answer(frame: Bytes, open: &Open, owners: &Mutex<Owners>) {
    let correlation_id = i32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
    let asked = open.lock().expect("nobody panics with it").remove(&correlation_id);
    let mut decoder = Decoder::new(frame);
    match asked {
        Some(Asked::Sync { version, request }) => {
            read_response_header(&mut decoder, ApiKey::SyncGroup, version).expect("the broker speaks the protocol");
            let answer: SyncGroupResponse = read(&mut decoder, version);
            if answer.error_code == 0 && !answer.assignment.is_empty() {
                let (group, member) = (request.group_id.as_str(), request.member_id.as_str());
                lock(owners).assigned(group, member, request.generation_id, &partitions_of(answer.assignment));
            }
        }
        Some(Asked::Heartbeat { version, request }) => {
            read_response_header(&mut decoder, ApiKey::ConsumerGroupHeartbeat, version).expect("the broker speaks the protocol");
            note_heartbeat(&request, read(&mut decoder, version), &mut lock(owners));
        }
        None => {}
    }
}

fn note_heartbeat(request: &ConsumerGroupHeartbeatRequest, answer: ConsumerGroupHeartbeatResponse, owners: &mut Owners) {
    // In version 0 the coordinator names a member that joins.
    let member = answer.member_id.as_ref().filter(|member| !member.as_str().is_empty()).unwrap_or(&request.member_id);
    let (group, member) = (request.group_id.as_str(), member.as_str());
    if answer.error_code != 0 || answer.member_epoch < 0 {
        return;
    }
    let assignment = answer.assignment.map(|assignment| assignment.topic_partitions);
    let assignment = assignment.map(|topics| topics.into_iter().flat_map(|topic| topic.partitions).collect());
    owners.answered(group, member, answer.member_epoch, assignment);
}

/// What a leader has given a member of a classic group.
fn partitions_of(assignment: Bytes) -> Partitions {
    let assignment: ConsumerProtocolAssignment = decode_versioned(assignment).expect("an assignment of consumers");
    assignment.assigned_partitions.into_iter().flat_map(|topic| topic.partitions).collect()
}

fn read<M: Message>(decoder: &mut Decoder, version: i16) -> M {
    M::decode(decoder, version).expect("both sides speak the protocol")
}

fn lock(owners: &Mutex<Owners>) -> MutexGuard<'_, Owners> {
    owners.lock().expect("nobody panics with it")
}
