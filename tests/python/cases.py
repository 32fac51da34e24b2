"""What a client does in its main job, told once for all Python clients.

`client` is a `Client` of one `*_client.py`, `name` a prefix that no other case uses, `expected` the values of tests/differences.toml.
"""

import threading
import time

from samples import Record, headers_of_every_kind, odd_records, records, same, until


def codec_none(client, name, expected):
    round_trip(client, name, "none")


def codec_gzip(client, name, expected):
    round_trip(client, name, "gzip")


def codec_snappy(client, name, expected):
    round_trip(client, name, "snappy")


def codec_lz4(client, name, expected):
    round_trip(client, name, "lz4")


def codec_zstd(client, name, expected):
    round_trip(client, name, "zstd")


def round_trip(client, topic, codec):
    """What is written over three partitions is read from each in order, with offsets that count from 0."""
    client.create_topic(topic, partitions=3)
    written = records()
    for partition in range(3):
        client.produce(topic, written[partition::3], codec=codec, partition=partition)
    for partition in range(3):
        got = client.consume(topic, partition, len(written[partition::3]))
        same(got, written[partition::3])
        assert [record.offset for record in got] == list(range(len(got))), [record.offset for record in got]


def tombstones_and_empty_values(client, topic, expected):
    """A missing key or value stays missing, an empty one stays empty."""
    client.create_topic(topic)
    client.produce(topic, odd_records())
    same(client.consume(topic, 0, len(odd_records())), odd_records())


def headers(client, topic, expected):
    """Headers come back in order, with repeated keys, empty and missing values."""
    client.create_topic(topic)
    kinds = [header for header in headers_of_every_kind() if header[1] is not None or client.sends_missing_header_values]
    written = [Record(b"k", b"v", kinds), Record(b"k", b"none at all", [])]
    client.produce(topic, written, codec="gzip")
    same(client.consume(topic, 0, 2), written)


def one_mib_records(client, topic, expected):
    """Values of 1 MiB pass where the topic allows them, compressed or not, between small ones."""
    client.create_topic(topic, configs={"max.message.bytes": "4194304"})
    large = Record(b"large", bytes(position * 7919 % 251 for position in range(1 << 20)))
    written = [Record(b"small", b"before"), large, Record(b"small", b"between"), large, Record(b"small", b"after")]
    for codec in ["none", "lz4"]:
        client.produce(topic, written, codec=codec)
    same(client.consume(topic, 0, 2 * len(written)), written + written)


def record_too_large(client, topic, expected):
    """A record above max.message.bytes is refused by name and leaves nothing behind."""
    client.create_topic(topic, configs={"max.message.bytes": "1000"})
    error = client.produce_error(topic, Record(b"k", bytes(5000)))
    assert error in ("MESSAGE_TOO_LARGE", 10), error
    client.produce(topic, [Record(b"k", b"fits")])
    same(client.consume(topic, 0, 1), [Record(b"k", b"fits")])
    assert client.offsets(topic, 0) == (0, 1), client.offsets(topic, 0)


def acks_of_every_kind(client, topic, expected):
    """Records sent with acks 0, 1 and all are there, those with acks 0 without an answer."""
    client.create_topic(topic)
    sent = records(12)
    client.produce(topic, sent[:4], acks=0)
    until("records sent with acks=0", lambda: client.offsets(topic, 0)[1] == 4)
    client.produce(topic, sent[4:8], acks=1)
    client.produce(topic, sent[8:], acks="all")
    same(client.consume(topic, 0, 12), sent)


def idempotent_producer(client, topic, expected):
    """Several batches of an idempotent producer in flight arrive once and in order."""
    client.create_topic(topic)
    sent = records(400)
    client.produce(topic, sent, idempotent=True)
    same(client.consume(topic, 0, len(sent)), sent)


def topic_made_by_its_first_use(client, topic, expected):
    """Producing to a topic that does not exist makes it."""
    client.produce(topic, records(3), partition=None)
    same(client.consume(topic, 0, 3), records(3))


def reading_from_the_past(client, topic, expected):
    """A reader begins where it is told, in the middle of a compressed batch too, and stops at the end."""
    client.create_topic(topic)
    sent = records(50)
    client.produce(topic, sent, codec="lz4")
    for start in [0, 1, 17, 49]:
        got = client.consume(topic, 0, 50 - start, start=start)
        same(got, sent[start:])
        assert got[0].offset == start, got[0].offset
    assert client.offsets(topic, 0) == (0, 50), client.offsets(topic, 0)


def timestamps_lookup(client, topic, expected):
    """The offset for a time is that of the first record at or after it, inside a compressed batch too."""
    client.create_topic(topic)
    base = int(time.time() * 1000) - 100_000
    sent = [Record(b"k", b"%d" % index, timestamp=base + index * 1000) for index in range(20)]
    client.produce(topic, sent[:10], codec="none")
    client.produce(topic, sent[10:], codec="gzip")
    asked = {base - 1: 0, base: 0, base + 1: 1, base + 4000: 4, base + 12_500: 13, base + 19_000: 19, base + 19_001: None}
    found = {moment: client.offset_for_time(topic, 0, moment) for moment in asked}
    assert found == asked, f"{found} instead of {asked}"
    assert [record.timestamp for record in client.consume(topic, 0, 20)] == [record.timestamp for record in sent]


def group_of_three(client, topic, expected):
    """Three members share six partitions; when one leaves the others take over; every record arrives."""
    members_of_three(client, topic, {})


def consumer_protocol_group_of_three(client, topic, expected):
    """The same by the consumer protocol (KIP-848), where the broker assigns."""
    members_of_three(client, topic, {"group.protocol": "consumer"})


def members_of_three(client, topic, settings):
    client.create_topic(topic, partitions=6)
    group = topic + "-group"
    members = [Member(client, group, topic, settings) for _ in range(3)]
    try:
        until("three members with two partitions each", lambda: shares(members) == [2, 2, 2])
        assert sorted(partition for member in members for partition in member.assignment) == list(range(6))
        first = records(60)
        for partition in range(6):
            client.produce(topic, first[partition::6], partition=partition)
        until("the records of the first round", lambda: received(members) >= {record.key for record in first})
        members[0].leave()
        until("two members with three partitions each", lambda: shares(members[1:]) == [3, 3])
        second = [Record(b"second-%d" % index, record.value) for index, record in enumerate(records(60))]
        for partition in range(6):
            client.produce(topic, second[partition::6], partition=partition)
        until("the records of the second round", lambda: received(members[1:]) >= {record.key for record in second})
    finally:
        for member in members:
            member.leave()


def shares(members):
    return sorted(len(member.assignment) for member in members)


def received(members):
    return {record.key for member in members for record in list(member.records)}


class Member:
    """A member of a group in a thread of its own, as an application would run it."""

    def __init__(self, client, group, topic, settings):
        self.records, self.assignment, self.error = [], [], None
        self.leaving = threading.Event()
        self.consumer = client.subscriber(group, topic, **({"settings": settings} if settings else {}))
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.leaving.is_set():
                self.records += self.consumer.poll(0.2)
                self.assignment = self.consumer.assignment()
        except BaseException as error:
            self.error = error
        finally:
            self.consumer.close()
            self.assignment = []

    def leave(self):
        self.leaving.set()
        self.thread.join(60)
        if self.error is not None:
            error, self.error = self.error, None
            raise error


def commit_and_resume(client, topic, expected):
    """What a member committed is where the next one begins."""
    client.create_topic(topic)
    group = topic + "-group"
    sent = records(30)
    client.produce(topic, sent)
    first = client.subscriber(group, topic)
    got = []
    try:
        until("records for the first member", lambda: got.extend(first.poll(0.2)) or len(got) >= 30)
        first.commit(topic, 0, 12)
    finally:
        first.close()
    assert client.committed(group, topic, 0) == 12, client.committed(group, topic, 0)
    second = client.subscriber(group, topic)
    again = []
    try:
        until("records for the second member", lambda: again.extend(second.poll(0.2)) or len(again) >= 18)
    finally:
        second.close()
    same(again, sent[12:])
    assert again[0].offset == 12, again[0].offset


def admin_topics(client, topic, expected):
    """Topics are made, described, enlarged and deleted; what cannot be is refused by name."""
    client.create_topic(topic, partitions=2)
    assert client.partition_count(topic) == 2
    assert topic in client.list_topics()
    assert client.create_topic_error(topic) in ("TOPIC_ALREADY_EXISTS", 36)
    assert client.create_topic_error("no spaces allowed") in ("INVALID_TOPIC_EXCEPTION", 17)
    assert client.create_topic_error(topic + "-none", partitions=0) in ("INVALID_PARTITIONS", 37)
    assert client.create_topic_error(topic + "-replicas", replicas=3) in ("INVALID_REPLICATION_FACTOR", 38)
    assert client.create_topic_error(topic + "-config", configs={"retention.ms": "soon"}) in ("INVALID_CONFIG", 40)
    client.add_partitions(topic, 5)
    until("five partitions", lambda: client.partition_count(topic) == 5)
    client.produce(topic, records(2), partition=4)
    same(client.consume(topic, 4, 2), records(2))
    client.delete_topic(topic)
    until("the topic to be gone", lambda: topic not in client.list_topics())


def admin_configs(client, topic, expected):
    """Settings of a topic: defaults with their source, changed one by one, and reset."""
    client.create_topic(topic, configs={"retention.ms": "86400000"})
    before = client.topic_configs(topic)
    assert before["retention.ms"] == ("86400000", False), before["retention.ms"]
    assert before["segment.bytes"] == ("1073741824", True), before["segment.bytes"]
    assert before["flush.messages"] == (expected["flush-messages-default"], True), before["flush.messages"]
    client.alter_topic_configs(topic, {"segment.bytes": "16777216", "cleanup.policy": "compact"})
    changed = lambda: client.topic_configs(topic)["segment.bytes"] == ("16777216", False)
    until("the changed setting", changed)
    after = client.topic_configs(topic)
    assert after["cleanup.policy"] == ("compact", False), after["cleanup.policy"]
    assert after["retention.ms"] == ("86400000", False), after["retention.ms"]


def admin_groups(client, topic, expected):
    """A group is listed and described while it lives; its offsets outlast it; it can be deleted once empty."""
    client.create_topic(topic, partitions=2)
    group = topic + "-group"
    client.produce(topic, records(10), partition=1)
    member = Member(client, group, topic, {})
    try:
        until("the assignment", lambda: sorted(member.assignment) == [0, 1])
        until("the group's listing", lambda: group in client.list_groups())
        until("a stable group of one", lambda: client.describe_group(group) == ("Stable", 1))
        until("the records", lambda: len(member.records) == 10)
    finally:
        member.leave()
    until("an empty group", lambda: client.describe_group(group) == ("Empty", 0))
    late = client.subscriber(group, topic)
    try:
        until("the assignment", lambda: late.poll(0.2) and False or len(late.assignment()) == 2)
        late.commit(topic, 1, 7)
    finally:
        late.close()
    assert client.committed(group, topic, 1) == 7, client.committed(group, topic, 1)
    until("an empty group", lambda: client.describe_group(group) == ("Empty", 0))
    client.delete_group(group)
    until("the group to be gone", lambda: group not in client.list_groups())


def delete_records(client, topic, expected):
    """Records below an offset are given up; the log begins there."""
    client.create_topic(topic)
    client.produce(topic, records(20))
    client.delete_records(topic, 0, 8)
    assert client.offsets(topic, 0) == (8, 20), client.offsets(topic, 0)
    same(client.consume(topic, 0, 12, start=8), records(20)[8:])


def describe_cluster(client, topic, expected):
    """The cluster names itself, its one broker and its controller."""
    cluster_id, brokers = client.cluster()
    assert cluster_id and len(brokers) == 1, (cluster_id, brokers)


def transactions(client, topic, expected):
    """Readers of committed records get what was committed, in order, and nothing of what was aborted."""
    client.create_topic(topic, partitions=2)
    with client.transactional(topic + "-id") as producer:
        committed = []
        for round in range(6):
            written = [Record(f"{round}-{index}".encode(), b"v" * 50 * index) for index in range(8)]
            producer.begin()
            producer.produce(topic, written[:4], 0)
            producer.produce(topic, written[4:], 1)
            # What is not sent yet when a transaction is given up never will be.
            producer.flush()
            if round % 2 == 0:
                producer.commit()
                committed.append(written)
            else:
                producer.abort()
    for partition in range(2):
        kept = [record for written in committed for record in written[4 * partition:4 * partition + 4]]
        same(client.consume(topic, partition, len(kept), isolation="read_committed"), kept)
        assert len(client.consume(topic, partition, 24, isolation="read_uncommitted")) == 24


def a_second_instance_fences_the_first(client, topic, expected):
    """Who takes over a transactional id ends the other's transaction, and the other is told so."""
    client.create_topic(topic)
    with client.transactional(topic + "-id") as first:
        first.begin()
        first.produce(topic, [Record(b"k", b"of the first")], 0)
        first.flush()
        with client.transactional(topic + "-id") as second:
            second.begin()
            second.produce(topic, [Record(b"k", b"of the second")], 0)
            second.commit()
            assert first.error_of_commit() in ("_FENCED", "INVALID_PRODUCER_EPOCH", "PRODUCER_FENCED"), first.error_of_commit()
    got = client.consume(topic, 0, 1, isolation="read_committed")
    assert [record.value for record in got] == [b"of the second"], got


def exactly_once_copy(client, topic, expected):
    """Read, write and commit the positions in one transaction; every other one is given up. The copy holds each record once."""
    source, copy, group = topic, topic + "-copy", topic + "-group"
    client.create_topic(source, partitions=2)
    client.create_topic(copy)
    sent = records(40)
    for partition in range(2):
        client.produce(source, sent[partition::2], partition=partition)
    copied = 0
    for attempt in range(40):
        with client.transactional(topic + "-id") as producer:
            reader = client.subscriber(group, source)
            try:
                got = []
                # Once there is an assignment, the group's coordinator can be asked for positions.
                until("an assignment", lambda: got.extend(reader.poll(0.2)) or reader.assignment())
                until("records or the end", lambda: got.extend(reader.poll(0.2)) or got or client.lag(group, source, 2) == 0)
                if not got:
                    break
                producer.begin()
                is_sent = producer.send_with_positions(copy, got, reader)
                if attempt % 2 == 0 or not is_sent:
                    producer.abort()
                else:
                    producer.commit()
                    copied += len(got)
            finally:
                reader.close()
        if copied == len(sent):
            break
    got = client.consume(copy, 0, len(sent), isolation="read_committed")
    assert sorted(record.key for record in got) == sorted(record.key for record in sent)
    assert client.lag(group, source, 2) == 0
