//! Debian's kcat (librdkafka 2.0.2), as a person types it.

use std::io::Write;
use std::process::{Command, Stdio};

use harness::broker::Broker;
use harness::cases;
use harness::raw::Connection;
use harness::suite::Case;

pub const CASES: &[Case] = cases![every_codec, keys_headers_and_tombstones, offsets_and_times, groups, lists_metadata, one_mib_record];

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn every_codec(broker: &Broker) {
    let topic = fresh(broker, "kcat-codecs", 1);
    for codec in CODECS {
        kcat(broker, &["-P", "-t", topic, "-z", codec, "-K", ":"], format!("{codec}:{}\n", "value ".repeat(100)).as_bytes());
    }
    let read = kcat(broker, &["-C", "-t", topic, "-e", "-q", "-f", "%p %o %k %S\n"], b"");
    let expected: String = CODECS.iter().enumerate().map(|(offset, codec)| format!("0 {offset} {codec} 600\n")).collect();
    assert_eq!(read, expected);
}

fn keys_headers_and_tombstones(broker: &Broker) {
    let topic = fresh(broker, "kcat-headers", 1);
    kcat(broker, &["-P", "-t", topic, "-K", ":", "-H", "first=1", "-H", "second=two"], b"key:value\n");
    kcat(broker, &["-P", "-t", topic, "-K", ":", "-Z"], b"tombstone:\n");
    let read = kcat(broker, &["-C", "-t", topic, "-e", "-q", "-f", "%k %S %h\n"], b"");
    assert_eq!(read, "key 5 first=1,second=two\ntombstone -1 \n");
}

fn offsets_and_times(broker: &Broker) {
    let topic = fresh(broker, "kcat-offsets", 1);
    kcat(broker, &["-P", "-t", topic], b"a\nb\nc\nd\n");
    assert_eq!(kcat(broker, &["-C", "-t", topic, "-p", "0", "-o", "2", "-e", "-q"], b""), "c\nd\n");
    assert_eq!(kcat(broker, &["-C", "-t", topic, "-p", "0", "-o", "-1", "-e", "-q"], b""), "d\n");
    assert_eq!(kcat(broker, &["-Q", "-t", &format!("{topic}:0:1000")], b"").trim(), format!("{topic} [0] offset 0"));
}

/// A balanced consumer reads all, and after it the group begins where it ended.
fn groups(broker: &Broker) {
    let topic = fresh(broker, "kcat-group", 3);
    kcat(broker, &["-P", "-t", topic, "-p", "1"], b"a\nb\n");
    let arguments = ["-G", "kcat-group", "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=6000", "-c", "2", "-q", topic];
    assert_eq!(kcat(broker, &arguments, b""), "a\nb\n");
    kcat(broker, &["-P", "-t", topic, "-p", "1"], b"c\nd\n");
    assert_eq!(kcat(broker, &arguments, b""), "c\nd\n");
}

fn lists_metadata(broker: &Broker) {
    let topic = fresh(broker, "kcat-metadata", 4);
    let listed = kcat(broker, &["-L", "-t", topic], b"");
    assert!(listed.contains(&format!("at {}", broker.bootstrap())), "{listed}");
    assert!(listed.contains("topic \"kcat-metadata\" with 4 partitions"), "{listed}");
}

fn one_mib_record(broker: &Broker) {
    let topic = "kcat-large";
    Connection::to(broker).create_topic_with(topic, 1, &[("max.message.bytes", "4194304")]);
    let value = vec![b'x'; 1 << 20];
    kcat(broker, &["-P", "-t", topic, "-D", "|", "-X", "message.max.bytes=4000000"], &value);
    assert_eq!(kcat(broker, &["-C", "-t", topic, "-e", "-q", "-f", "%S"], b""), (1 << 20).to_string());
}

fn fresh<'a>(broker: &Broker, topic: &'a str, partitions: i32) -> &'a str {
    Connection::to(broker).create_topic(topic, partitions);
    topic
}

/// Runs kcat with this input; what it printed, after it succeeded.
fn kcat(broker: &Broker, arguments: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("kcat");
    command.args(["-b", &broker.bootstrap()]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("kcat is installed (scripts/test --install)");
    process.stdin.take().expect("piped").write_all(input).expect("kcat reads its input");
    let output = process.wait_with_output().expect("kcat ends");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("kcat prints UTF-8")
}
