//! Where clients come in: IPv4 and IPv6, several listeners at once, the address that each client is told, and the shards that connections are spread over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use corelane_wire::Str;
use corelane_wire::messages::{DescribeClusterRequest, FindCoordinatorRequest};
use harness::batch::record;
use harness::broker::{Broker, BrokerOptions, free_port};
use harness::own_broker_cases;
use harness::raw::Connection;
use harness::suite::OwnBrokerCase;

use crate::crossing;
use crate::process::Process;

pub const CASES: &[OwnBrokerCase] = own_broker_cases![
    an_ipv6_listener_serves,
    several_listeners_serve_at_once,
    clients_are_told_the_address_that_they_dialled,
    a_listener_without_a_host_takes_both_families,
    connections_are_spread_over_the_shards,
    the_kernel_asks_silent_clients_whether_they_live,
];

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// All of 127.0.0.0/8 is this machine.
const ANOTHER_LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn an_ipv6_listener_serves() {
    if !has_ipv6() {
        return;
    }
    let port = free_port();
    let _broker = Process::with_settings(&[&format!("listeners=PLAINTEXT://[::1]:{port}")]);
    let mut connection = dial(LOCALHOST_V6, port);
    assert_eq!(told(&mut connection), vec![("::1".to_string(), port); 3]);
    connection.create_topic("six", 1);
    assert_eq!(connection.append("six", 0, vec![record("key", "value")]), 0);
    assert_eq!(connection.read_all("six", 0, 0).len(), 1);
}

/// Each tells its clients what is advertised for it; what comes in through one is there for the clients of the other.
fn several_listeners_serve_at_once() {
    let (inside, outside) = (free_port(), free_port());
    let _broker = Process::with_settings(&[
        &format!("listeners=INSIDE://127.0.0.1:{inside},OUTSIDE://127.0.0.2:{outside}"),
        "listener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT",
        "inter.broker.listener.name=INSIDE",
        "advertised.listeners=INSIDE://inside.example:1234,OUTSIDE://outside.example:5678",
    ]);
    let (mut writer, mut reader) = (dial(LOCALHOST, inside), dial(ANOTHER_LOOPBACK, outside));
    assert_eq!(told(&mut writer), vec![("inside.example".to_string(), 1234); 3]);
    assert_eq!(told(&mut reader), vec![("outside.example".to_string(), 5678); 3]);
    writer.create_topic("shared", 1);
    for offset in 0..10 {
        assert_eq!(writer.append("shared", 0, vec![record("key", "value")]), offset);
        assert_eq!(reader.read_all("shared", 0, offset).len(), 1);
    }
}

fn clients_are_told_the_address_that_they_dialled() {
    let port = free_port();
    let _broker = Process::with_settings(&[&format!("listeners=PLAINTEXT://0.0.0.0:{port}")]);
    for address in [LOCALHOST, ANOTHER_LOOPBACK] {
        assert_eq!(told(&mut dial(address, port)), vec![(address.to_string(), port); 3]);
    }
}

/// An IPv4 client is told an IPv4 address, not its form within IPv6, which not every client can dial.
fn a_listener_without_a_host_takes_both_families() {
    if !has_ipv6() {
        return;
    }
    let port = free_port();
    let _broker = Process::with_settings(&[&format!("listeners=PLAINTEXT://:{port}")]);
    for address in [LOCALHOST, ANOTHER_LOOPBACK, LOCALHOST_V6] {
        assert_eq!(told(&mut dial(address, port)), vec![(address.to_string(), port); 3]);
    }
}

/// All write to one partition, so those that are not on its shard move to it: half of them, as they were spread evenly.
fn connections_are_spread_over_the_shards() {
    const CONNECTIONS: usize = 6;
    let Some(broker) = crossing::start(true) else { return };
    Connection::to(&broker).create_topic("spread", 1);
    let writers: Vec<String> = (0..CONNECTIONS).map(|number| format!("writer{number}-")).collect();
    std::thread::scope(|scope| {
        for writer in &writers {
            let connection = Connection::to(&broker);
            scope.spawn(move || crossing::send(connection, "spread", writer, |_| 0));
        }
    });
    assert_eq!(crossing::moves(&broker), CONNECTIONS / 2);
}

/// Keep-alive: the kernel's timer runs at the broker's end of a connection on which nothing is under way.
fn the_kernel_asks_silent_clients_whether_they_live() {
    const TIMER_OF_A_SILENT_CONNECTION: &str = "02";
    let broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::to(&broker);
    connection.metadata(9, &[]);
    let client = connection.stream().local_addr().expect("it is connected").port();
    let (here, there) = (format!(":{:04X}", broker.address().port()), format!(":{client:04X}"));
    // One of both holds it: a listener for IPv6 takes IPv4 in, too.
    let sockets = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default()).concat();
    let fields: Vec<Vec<&str>> = sockets.lines().map(|line| line.split_whitespace().collect()).collect();
    let own = fields.iter().find(|fields| fields.len() > 5 && fields[1].ends_with(&here) && fields[2].ends_with(&there));
    let timer = own.expect("the broker's end of the connection")[5];
    assert!(timer.starts_with(&format!("{TIMER_OF_A_SILENT_CONNECTION}:")), "timer {timer}");
}

fn dial(address: IpAddr, port: u16) -> Connection {
    Connection::open(SocketAddr::new(address, port)).expect("the broker accepts connections")
}

/// Where this client is sent: by Metadata, DescribeCluster, FindCoordinator.
fn told(connection: &mut Connection) -> Vec<(String, u16)> {
    connection.wait_for_coordinator("a-group");
    let metadata = connection.metadata(9, &[]).brokers.remove(0);
    let cluster = connection.call(0, &DescribeClusterRequest::default()).brokers.remove(0);
    let coordinator = connection.call(2, &FindCoordinatorRequest { key: Str::from("a-group"), ..Default::default() });
    let pair = |host: &Str, port: i32| (host.to_string(), port as u16);
    vec![pair(&metadata.host, metadata.port), pair(&cluster.host, cluster.port), pair(&coordinator.host, coordinator.port)]
}

fn has_ipv6() -> bool {
    let has = TcpListener::bind((LOCALHOST_V6, 0)).is_ok();
    if !has {
        println!("left out: this machine has no IPv6 loopback");
    }
    has
}
