"""A topic's records, read from offset 0 by a plain consumer that sees what transactions have committed."""

import asyncio

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.log import Record


def read_topic(bootstrap_servers: str, topic: str, partitions: int) -> dict[int, list[Record]]:
    """All records of each partition, in order."""
    return asyncio.run(_read(bootstrap_servers, topic, partitions))


async def _read(bootstrap_servers: str, topic: str, count: int) -> dict[int, list[Record]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: dict[int, list[Record]] = {number: [] for number in range(count)}
        for partition in partitions:
            consumer.seek(partition, 0)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                found[partition.partition] += [Record(r.offset, r.timestamp, r.key, r.value) for r in records]
        return found
    finally:
        await consumer.stop()
