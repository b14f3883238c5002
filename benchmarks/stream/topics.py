"""The payload in Kafka: one event a record, packed, and the first events alone for the slow.

All copies of an event are in one partition, as Meterline's producers place them. Single records have the subject as
their key: Meterline needs none, and a peer whose state is kept by message key needs no second topic.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.stream.oracle import Oracle
from benchmarks.stream.payload import Payload
from ingest.pack import identify, pack
from schemas.identity import partition_of

SINGLE, PACKED, FIRST = "bench.single", "bench.packed", "bench.first"
PARTITIONS = 4
BATCH_BYTES_MAX = 256 * 1024  # of single records, before compression
REQUEST_BYTES_MAX = 2 << 20
_SUBJECT = b'"subject":"'


async def create_topics(broker: str) -> None:
    """Make the topics, with the broker's time for their records."""
    settings = {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "-1",
        "max.message.bytes": str(REQUEST_BYTES_MAX),
    }
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    try:
        await admin.create_topics(
            [NewTopic(name, PARTITIONS, 1, topic_configs=settings) for name in (SINGLE, PACKED, FIRST)]
        )
    finally:
        await admin.close()


@dataclass
class Written:
    """What is in the topics: the right answers of the payload and of its first events, and sizes."""

    oracle: Oracle = field(default_factory=Oracle)
    first: Oracle = field(default_factory=Oracle)
    bytes: int = 0
    packed_records: int = 0


async def write(broker: str, payload: Payload, first_events: int) -> Written:
    """Write the payload to the topics; on return all of it is there."""
    written = Written()
    producer = AIOKafkaProducer(
        bootstrap_servers=broker, acks="all", enable_idempotence=True, compression_type="lz4",
        max_batch_size=REQUEST_BYTES_MAX // 2, max_request_size=REQUEST_BYTES_MAX, request_timeout_ms=60_000,
    )  # fmt: skip
    await producer.start()
    try:
        for lines in payload.chunks():
            keys = identify(lines)
            written.oracle.observe(lines)
            written.bytes += sum(map(len, lines))
            await _write_single(producer, SINGLE, lines, keys)
            rest = max(0, first_events - written.first.lines)
            written.first.observe(lines[:rest])
            await _write_single(producer, FIRST, lines[:rest], keys[:rest])
            records = pack(lines, keys, PARTITIONS)
            written.packed_records += len(records)
            for partition, record in records:
                await producer.send(PACKED, value=record, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()
    return written


async def _write_single(producer: AIOKafkaProducer, topic: str, lines: list[bytes], keys: list[bytes]) -> None:
    by_partition: dict[int, list[bytes]] = defaultdict(list)
    for line, key in zip(lines, keys, strict=True):
        by_partition[partition_of(key, PARTITIONS)].append(line)
    sent: list[asyncio.Future[object]] = []
    for partition, own in by_partition.items():
        batch, size = producer.create_batch(), 0
        for line in own:
            start = line.index(_SUBJECT) + len(_SUBJECT)
            if size + len(line) > BATCH_BYTES_MAX:
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch, size = producer.create_batch(), 0
            batch.append(key=line[start : line.index(b'"', start)], value=line, timestamp=None)
            size += len(line)
        if size:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)
