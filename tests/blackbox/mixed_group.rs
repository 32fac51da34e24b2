//! One group of the classic protocol whose members are of four libraries: Kafka's own, librdkafka, kafka-python and aiokafka. They agree on an assignor that all of them have, whoever
//! leads understands what the others say, and when some are gone the rest takes over.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use corelane_wire::Str;
use corelane_wire::decode_versioned;
use corelane_wire::messages::{ConsumerProtocolAssignment, DescribeGroupsRequest};
use harness::batch::record;
use harness::broker::{Broker, java_with};
use harness::raw::Connection;
use harness::suite::Case;
use harness::{cases, places, wait};

pub const CASES: &[Case] = cases![members_of_four_libraries_share_a_topic];

const TOPIC: &str = "mixed-group";
const GROUP: &str = "mixed-group-group";
const PARTITIONS: i32 = 8;

/// A JVM and two Pythons have to start, and each that comes makes all others meet.
const PATIENCE: Duration = Duration::from_secs(120);

fn members_of_four_libraries_share_a_topic(broker: &Broker) {
    let mut connection = Connection::to(broker);
    connection.create_topic(TOPIC, PARTITIONS);
    connection.wait_for_coordinator(GROUP);
    let read: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let mut members: Vec<Member> = commands(&broker.bootstrap()).into_iter().map(|command| Member::start(command, &read)).collect();
    let even = |members: usize| vec![PARTITIONS as usize / members; members];
    wait::until("two partitions each", PATIENCE, || (shares(&mut connection) == even(4)).then_some(()));
    round(&mut connection, "first", &read);
    // The first of them, and then the one that is the first now: whoever led, another leads afterwards.
    for left in [3, 2] {
        drop(members.remove(0));
        wait::until("the rest to take over", PATIENCE, || {
            let shares = shares(&mut connection);
            (shares.len() == left && shares.iter().sum::<usize>() == PARTITIONS as usize).then_some(())
        });
        round(&mut connection, &format!("{left} left"), &read);
    }
}

fn commands(bootstrap: &str) -> Vec<Command> {
    let mut java = java_with("tools");
    java.args(["org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", bootstrap, "--topic", TOPIC, "--group", GROUP]);
    java.args(["--from-beginning", "--command-property", "session.timeout.ms=10000"]);
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-b",
        bootstrap,
        "-u",
        "-q",
        "-f",
        "%s\\n",
        "-X",
        "partition.assignment.strategy=range",
        "-X",
        "auto.offset.reset=earliest",
    ]);
    kcat.args(["-X", "session.timeout.ms=10000", "-G", GROUP, TOPIC]);
    let python = |library: &str| {
        let mut command = Command::new(places::tools().join("python/bin/python"));
        command.arg(places::project().join("tests/python/member.py")).args([library, bootstrap, GROUP, TOPIC]);
        command
    };
    vec![java, kcat, python("kafka-python"), python("aiokafka")]
}

/// How many partitions each member has by what the leader has assigned, once the group is stable.
fn shares(connection: &mut Connection) -> Vec<usize> {
    let described = connection.call(5, &DescribeGroupsRequest { groups: vec![Str::from(GROUP)], ..Default::default() }).groups.remove(0);
    if *described.group_state != *"Stable" {
        return Vec::new();
    }
    let of_member = |assignment: &bytes::Bytes| {
        let assignment: ConsumerProtocolAssignment = decode_versioned(assignment.clone()).ok()?;
        Some(assignment.assigned_partitions.iter().map(|topic| topic.partitions.len()).sum::<usize>())
    };
    described.members.iter().map(|member| of_member(&member.member_assignment).unwrap_or(0)).collect()
}

/// A record into each partition, all of which somebody reads.
fn round(connection: &mut Connection, name: &str, read: &Mutex<BTreeSet<String>>) {
    for partition in 0..PARTITIONS {
        connection.append(TOPIC, partition, vec![record("k", format!("{name} {partition}"))]);
    }
    wait::until(&format!("the records of the round '{name}'"), PATIENCE, || {
        let read = read.lock().expect("nobody panics with it");
        (0..PARTITIONS).all(|partition| read.contains(&format!("{name} {partition}"))).then_some(())
    });
}

/// A process that prints what it reads.
struct Member(Child);

impl Member {
    fn start(mut command: Command, read: &Arc<Mutex<BTreeSet<String>>>) -> Member {
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("a member can be started");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let read = Arc::clone(read);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                read.lock().expect("nobody panics with it").insert(line);
            }
        });
        Member(process)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
