"""A member of a classic group by kafka-python or aiokafka, for groups of several libraries: prints the value of each record that it reads, until it is ended.

    member.py kafka-python|aiokafka BOOTSTRAP GROUP TOPIC
"""

import asyncio
import sys


def kafka_python(bootstrap, group, topic):
    from kafka import KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor

    consumer = KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, client_id="kafka-python", auto_offset_reset="earliest",
        partition_assignment_strategy=[RangePartitionAssignor], session_timeout_ms=10_000, heartbeat_interval_ms=500)
    for message in consumer:
        print(message.value.decode(), flush=True)


async def aiokafka(bootstrap, group, topic):
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor

    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id=group, client_id="aiokafka", auto_offset_reset="earliest",
        partition_assignment_strategy=[RangePartitionAssignor], session_timeout_ms=10_000, heartbeat_interval_ms=500)
    await consumer.start()
    async for message in consumer:
        print(message.value.decode(), flush=True)


library, *arguments = sys.argv[1:]
if library == "aiokafka":
    asyncio.run(aiokafka(*arguments))
else:
    kafka_python(*arguments)
