"""kafka-python in the words of cases.py."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from samples import Record

SECONDS = 60


class Client:
    sends_missing_header_values = False

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)

    def close(self):
        self.admin.close()

    def create_topic(self, topic, partitions=1, replicas=1, configs=None):
        self.admin.create_topics({topic: {"num_partitions": partitions, "replication_factor": replicas, "configs": configs or {}}})

    def create_topic_error(self, topic, **options):
        return error_of(lambda: self.create_topic(topic, **options))

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def add_partitions(self, topic, total):
        self.admin.create_partitions({topic: total})

    def list_topics(self):
        return set(self.admin.list_topics())

    def partition_count(self, topic):
        return len(self.admin.describe_topics([topic])[0]["partitions"])

    def topic_configs(self, topic):
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        described = self.admin.describe_configs([resource], config_filter="all")
        entries = next(iter(described.values()))[topic]
        return {name: (entry["value"], entry["config_source"] == "DEFAULT_CONFIG") for name, entry in entries.items()}

    def alter_topic_configs(self, topic, configs):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])

    def list_groups(self):
        return {group["group_id"] for group in self.admin.list_groups()}

    def describe_group(self, group):
        described = self.admin.describe_groups([group])[group]
        return str(described["group_state"]), len(described["members"])

    def delete_group(self, group):
        self.admin.delete_groups([group])

    def delete_records(self, topic, partition, offset):
        self.admin.delete_records({TopicPartition(topic, partition): offset})

    def cluster(self):
        described = self.admin.describe_cluster()
        return described["cluster_id"], described["brokers"]

    def produce(self, topic, records, codec="none", partition=0, acks="all", idempotent=False):
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=None if codec == "none" else codec,
            acks=acks,
            enable_idempotence=idempotent,
            linger_ms=20,
            max_request_size=4000000,
        )
        try:
            sent = [
                producer.send(topic, record.value, record.key, record.headers, partition, record.timestamp)
                for record in records
            ]
            producer.flush(SECONDS)
            if acks != 0:
                for future in sent:
                    future.get(SECONDS)
        finally:
            producer.close()

    def produce_error(self, topic, record):
        return error_of(lambda: self.produce(topic, [record]))

    def consume(self, topic, partition, count, start=0):
        where = TopicPartition(topic, partition)
        with self.consumer() as consumer:
            consumer.assign([where])
            consumer.seek(where, start)
            got = []
            while len(got) < count:
                batches = consumer.poll(SECONDS * 1000, max_records=count - len(got))
                assert batches, f"{len(got)} of {count} records"
                got += [read(message) for message in batches[where]]
            return got

    def offsets(self, topic, partition):
        where = TopicPartition(topic, partition)
        with self.consumer() as consumer:
            return consumer.beginning_offsets([where])[where], consumer.end_offsets([where])[where]

    def offset_for_time(self, topic, partition, moment_ms):
        where = TopicPartition(topic, partition)
        with self.consumer() as consumer:
            found = consumer.offsets_for_times({where: moment_ms})[where]
            return None if found is None else found.offset

    def committed(self, group, topic, partition):
        where = TopicPartition(topic, partition)
        return self.admin.list_group_offsets({group: [where]})[group][where].offset

    def subscriber(self, group, topic):
        return Subscriber(self.bootstrap, group, topic)

    def consumer(self):
        return Closing(KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="none"))


class Closing:
    """kafka-python's consumer is no context manager."""

    def __init__(self, consumer):
        self.consumer = consumer

    def __enter__(self):
        return self.consumer

    def __exit__(self, *_):
        self.consumer.close()


class Subscriber:
    def __init__(self, bootstrap, group, topic):
        self.consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
            metadata_max_age_ms=1000,
        )

    def poll(self, seconds):
        batches = self.consumer.poll(int(seconds * 1000))
        return [read(message) for messages in batches.values() for message in messages]

    def assignment(self):
        return [place.partition for place in self.consumer.assignment()]

    def commit(self, topic, partition, offset):
        self.consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(offset, "", -1)})

    def close(self):
        self.consumer.close()


def read(message):
    return Record(message.key, message.value, message.headers, message.timestamp, message.offset)


def error_of(action):
    try:
        action()
    except KafkaError as error:
        # A record that the client itself refuses as too large never reaches the broker; the cases use one that it sends.
        return error.errno
    return None
