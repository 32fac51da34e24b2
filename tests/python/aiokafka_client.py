"""aiokafka in the words of cases.py: its calls run on an event loop in a thread of their own."""

import asyncio
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from samples import Record

SECONDS = 60
DEFAULT_CONFIG = 5


class Client:
    sends_missing_header_values = True

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.admin = self.wait(started(lambda: AIOKafkaAdminClient(bootstrap_servers=bootstrap)))

    def close(self):
        self.wait(self.admin.close())
        self.loop.call_soon_threadsafe(self.loop.stop)

    def wait(self, awaitable):
        return asyncio.run_coroutine_threadsafe(awaitable, self.loop).result(2 * SECONDS)

    def create_topic(self, topic, partitions=1, replicas=1, configs=None):
        response = self.wait(self.admin.create_topics([NewTopic(topic, partitions, replicas, topic_configs=configs or {})]))
        raise_for([error[1] for error in response.topic_errors])

    def create_topic_error(self, topic, **options):
        return error_of(lambda: self.create_topic(topic, **options))

    def delete_topic(self, topic):
        response = self.wait(self.admin.delete_topics([topic]))
        raise_for([error[1] for error in response.topic_error_codes])

    def add_partitions(self, topic, total):
        response = self.wait(self.admin.create_partitions({topic: NewPartitions(total)}))
        raise_for([error[1] for error in response.topic_errors])

    def list_topics(self):
        return set(self.wait(self.admin.list_topics()))

    def partition_count(self, topic):
        return len(self.wait(self.admin.describe_topics([topic]))[0]["partitions"])

    def topic_configs(self, topic):
        responses = self.wait(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        code, _, _, _, entries = responses[0].resources[0][:5]
        raise_for([code])
        return {entry[0]: (entry[1], entry[3] == DEFAULT_CONFIG) for entry in entries}

    def alter_topic_configs(self, topic, configs):
        # This client knows only AlterConfigs, which resets what it does not name.
        kept = {name: value for name, (value, is_default) in self.topic_configs(topic).items() if not is_default and name != "min.insync.replicas"}
        responses = self.wait(self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {**kept, **configs})]))
        raise_for([resource[0] for response in responses for resource in response.resources])

    def list_groups(self):
        return {group[0] for group in self.wait(self.admin.list_consumer_groups())}

    def describe_group(self, group):
        described = self.wait(self.admin.describe_consumer_groups([group]))[0].groups[0]
        raise_for([described[0]])
        return described[2], len(described[5])

    def delete_records(self, topic, partition, offset):
        self.wait(self.admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)}))

    def cluster(self):
        described = self.wait(self.admin.describe_cluster())
        return described["cluster_id"], described["brokers"]

    def produce(self, topic, records, codec="none", partition=0, acks="all", idempotent=False):
        self.wait(self.produce_all(topic, records, codec, partition, acks, idempotent))

    async def produce_all(self, topic, records, codec, partition, acks, idempotent):
        producer = await started(lambda: AIOKafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=None if codec == "none" else codec,
            acks=acks,
            enable_idempotence=idempotent,
            linger_ms=20,
            max_request_size=4000000,
        ))
        try:
            sent = [
                await producer.send(topic, record.value, record.key, partition, record.timestamp, record.headers)
                for record in records
            ]
            await producer.flush()
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    def produce_error(self, topic, record):
        return error_of(lambda: self.produce(topic, [record]))

    def consume(self, topic, partition, count, start=0):
        where = TopicPartition(topic, partition)

        async def all_of(consumer):
            consumer.assign([where])
            consumer.seek(where, start)
            got = []
            while len(got) < count:
                batches = await consumer.getmany(where, timeout_ms=SECONDS * 1000, max_records=count - len(got))
                assert batches, f"{len(got)} of {count} records"
                got += [read(message) for message in batches[where]]
            return got

        return self.look(all_of)

    def offsets(self, topic, partition):
        where = TopicPartition(topic, partition)

        async def both(consumer):
            return (await consumer.beginning_offsets([where]))[where], (await consumer.end_offsets([where]))[where]

        return self.look(both)

    def offset_for_time(self, topic, partition, moment_ms):
        where = TopicPartition(topic, partition)

        async def one(consumer):
            found = (await consumer.offsets_for_times({where: moment_ms}))[where]
            return None if found is None else found.offset

        return self.look(one)

    def committed(self, group, topic, partition):
        where = TopicPartition(topic, partition)
        return self.wait(self.admin.list_consumer_group_offsets(group, partitions=[where]))[where].offset

    def subscriber(self, group, topic):
        return Subscriber(self, group, topic)

    def look(self, question):
        async def whole():
            consumer = await started(lambda: AIOKafkaConsumer(
                bootstrap_servers=self.bootstrap, enable_auto_commit=False, auto_offset_reset="none",
                max_partition_fetch_bytes=4000000))
            try:
                return await question(consumer)
            finally:
                await consumer.stop()

        return self.wait(whole())


class Subscriber:
    def __init__(self, client, group, topic):
        self.client = client
        self.consumer = client.wait(started(lambda: AIOKafkaConsumer(
            topic,
            bootstrap_servers=client.bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=10000,
            heartbeat_interval_ms=500,
            metadata_max_age_ms=1000,
        )))

    def poll(self, seconds):
        batches = self.client.wait(self.consumer.getmany(timeout_ms=int(seconds * 1000)))
        return [read(message) for messages in batches.values() for message in messages]

    def assignment(self):
        return [place.partition for place in self.consumer.assignment()]

    def commit(self, topic, partition, offset):
        self.client.wait(self.consumer.commit({TopicPartition(topic, partition): OffsetAndMetadata(offset, "")}))

    def close(self):
        self.client.wait(self.consumer.stop())


async def started(make):
    """Makes the client on the loop that it will live on, and starts it."""
    client = make()
    await client.start()
    return client


def read(message):
    return Record(message.key, message.value, message.headers, message.timestamp, message.offset)


def raise_for(codes):
    for code in codes:
        if code != 0:
            raise for_code(code)()


def error_of(action):
    try:
        action()
    except KafkaError as error:
        return error.errno
    return None
