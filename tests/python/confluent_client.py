"""confluent-kafka (librdkafka) in the words of cases.py."""

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
                                   ResourceType)

from samples import Record

SECONDS = 60


class Client:
    sends_missing_header_values = True

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def close(self):
        self.admin = None

    def create_topic(self, topic, partitions=1, replicas=1, configs=None):
        new = NewTopic(topic, num_partitions=partitions, replication_factor=replicas, config=configs or {})
        self.admin.create_topics([new])[topic].result(SECONDS)

    def create_topic_error(self, topic, **options):
        return error_of(lambda: self.create_topic(topic, **options))

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])[topic].result(SECONDS)

    def add_partitions(self, topic, total):
        self.admin.create_partitions([NewPartitions(topic, total)])[topic].result(SECONDS)

    def list_topics(self):
        return set(self.admin.list_topics(timeout=SECONDS).topics)

    def partition_count(self, topic):
        return len(self.admin.list_topics(topic, timeout=SECONDS).topics[topic].partitions)

    def topic_configs(self, topic):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self.admin.describe_configs([resource])[resource].result(SECONDS)
        return {name: (entry.value, entry.is_default) for name, entry in entries.items()}

    def alter_topic_configs(self, topic, configs):
        entries = [ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in configs.items()]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result(SECONDS)

    def list_groups(self):
        return {group.group_id for group in self.admin.list_consumer_groups().result(SECONDS).valid}

    def describe_group(self, group):
        described = self.admin.describe_consumer_groups([group])[group].result(SECONDS)
        return described.state.name.capitalize(), len(described.members)

    def delete_group(self, group):
        self.admin.delete_consumer_groups([group])[group].result(SECONDS)

    def delete_records(self, topic, partition, offset):
        where = TopicPartition(topic, partition, offset)
        list(self.admin.delete_records([where]).values())[0].result(SECONDS)

    def cluster(self):
        described = self.admin.describe_cluster().result(SECONDS)
        return described.cluster_id, described.nodes

    def produce(self, topic, records, codec="none", partition=0, acks="all", idempotent=False):
        producer = Producer({
            "bootstrap.servers": self.bootstrap,
            "compression.type": codec,
            "acks": acks,
            "enable.idempotence": idempotent,
            "linger.ms": 20,
            "batch.num.messages": 50,
            "message.max.bytes": 4000000,
        })
        failed = []
        for record in records:
            place = {} if partition is None else {"partition": partition}
            if record.timestamp is not None:
                place["timestamp"] = record.timestamp
            producer.produce(topic, record.value, record.key, headers=record.headers or None,
                             on_delivery=lambda error, message: error and failed.append(error), **place)
        assert producer.flush(SECONDS) == 0, "records still unanswered"
        if failed:
            raise KafkaException(failed[0])

    def produce_error(self, topic, record):
        return error_of(lambda: self.produce(topic, [record]))

    def transactional(self, transactional_id):
        return Transactional(self.bootstrap, transactional_id)

    def lag(self, group, topic, partitions):
        return sum(self.offsets(topic, partition)[1] - max(self.committed(group, topic, partition), 0) for partition in range(partitions))

    def consume(self, topic, partition, count, start=0, isolation="read_committed"):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused", "enable.auto.commit": False, "auto.offset.reset": "error",
                             "isolation.level": isolation})
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            got = []
            while len(got) < count:
                messages = consumer.consume(count - len(got), timeout=SECONDS)
                assert messages, f"{len(got)} of {count} records"
                got += [read(message) for message in messages]
            return got
        finally:
            consumer.close()

    def offsets(self, topic, partition):
        return self.look(lambda consumer: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS))

    def offset_for_time(self, topic, partition, moment_ms):
        where = TopicPartition(topic, partition, moment_ms)
        found = self.look(lambda consumer: consumer.offsets_for_times([where], timeout=SECONDS))[0]
        assert not found.error, found.error
        # librdkafka says "end" (-1) where no record is that late.
        return found.offset if found.offset >= 0 else None

    def committed(self, group, topic, partition):
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, partition)])
        found = self.admin.list_consumer_group_offsets([asked])[group].result(SECONDS).topic_partitions[0]
        return found.offset

    def subscriber(self, group, topic, settings=None):
        return Subscriber(self.bootstrap, group, topic, settings or {})

    def look(self, question):
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused"})
        try:
            return question(consumer)
        finally:
            consumer.close()


class Transactional:
    """A producer with a transactional id."""

    def __init__(self, bootstrap, transactional_id):
        self.producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": transactional_id, "linger.ms": 5})

    def __enter__(self):
        self.producer.init_transactions(SECONDS)
        return self

    def __exit__(self, *_):
        self.producer = None

    def begin(self):
        self.producer.begin_transaction()

    def produce(self, topic, records, partition):
        for record in records:
            self.producer.produce(topic, record.value, record.key, partition=partition)

    def flush(self):
        assert self.producer.flush(SECONDS) == 0, "records still unanswered"

    def send_positions(self, subscriber):
        consumer = subscriber.consumer
        places = [place for place in consumer.position(consumer.assignment()) if place.offset >= 0]
        self.producer.send_offsets_to_transaction(places, consumer.consumer_group_metadata(), SECONDS)

    def send_with_positions(self, topic, records, subscriber):
        """False where the broker asks to begin again, as one does that has only just started."""
        try:
            self.produce(topic, records, 0)
            self.send_positions(subscriber)
            return True
        except KafkaException as exception:
            if exception.args[0].txn_requires_abort() or exception.args[0].retriable():
                return False
            raise

    def commit(self):
        self.producer.commit_transaction(SECONDS)

    def abort(self):
        self.producer.abort_transaction(SECONDS)

    def error_of_commit(self):
        try:
            self.commit()
        except KafkaException as exception:
            return exception.args[0].name()
        return None


class Subscriber:
    def __init__(self, bootstrap, group, topic, settings):
        # The broker tells members of the consumer protocol what these are.
        classic = {} if settings.get("group.protocol") == "consumer" else {"session.timeout.ms": 10000, "heartbeat.interval.ms": 500}
        self.consumer = Consumer({
            "bootstrap.servers": bootstrap,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 1000,
            **classic,
            **settings,
        })
        self.consumer.subscribe([topic])

    def poll(self, seconds):
        return [read(message) for message in self.consumer.consume(100, timeout=seconds)]

    def assignment(self):
        return [place.partition for place in self.consumer.assignment()]

    def commit(self, topic, partition, offset):
        self.consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)

    def close(self):
        self.consumer.close()


def read(message):
    if message.error():
        raise KafkaException(message.error())
    return Record(message.key(), message.value(), message.headers() or [], message.timestamp()[1], message.offset())


def error_of(action):
    try:
        action()
    except KafkaException as exception:
        error = exception.args[0]
        return 10 if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else error.code()
    return None
