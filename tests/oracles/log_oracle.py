"""What a topic's records add up to: read from offset 0, and counted event by event with plain Python."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.meter import Meter

Key = tuple[str, str, tuple[tuple[str, str], ...], int, int]  # meter, subject, dimensions, window start, epoch
HORIZON_DAYS = 35


@dataclass
class Recount:
    """Count and sum of each rollup, and how many lines became what."""

    rollups: dict[Key, tuple[int, Decimal]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"events": 0, "duplicates": 0, "rejections": 0})

    def add(self, key: Key, value: Decimal) -> None:
        """Count one event of a meter."""
        count, total = self.rollups.get(key, (0, Decimal(0)))
        self.rollups[key] = (count + 1, total + value)


def recount(bootstrap_servers: str, topic: str, partitions: int, meters: Sequence[Meter]) -> Recount:
    """Count a topic of so many partitions, all meters being in force from its first event on."""
    result = Recount()
    for records in asyncio.run(_records(bootstrap_servers, topic, partitions)):
        _count(records, meters, result)
    return result


async def _records(bootstrap_servers: str, topic: str, count: int) -> list[list[Any]]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(count)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        found: dict[TopicPartition, list[Any]] = {partition: [] for partition in partitions}
        for partition in partitions:
            consumer.seek(partition, 0)
        while any([await consumer.position(partition) < ends[partition] for partition in partitions]):
            for partition, records in (await consumer.getmany(timeout_ms=500)).items():
                found[partition] += records
        return list(found.values())
    finally:
        await consumer.stop()


def _count(records: Sequence[Any], meters: Sequence[Meter], result: Recount) -> None:
    """One partition, in the order of the log."""
    epoch = 0
    first_day: dict[tuple[str, str, str], int] = {}
    for record in records:
        if record.value is None:
            key = (record.key or b"").decode()
            if key.startswith("barrier:"):
                epoch = max(epoch, int(key.split(":")[1]))
            continue
        for line in record.value.split(b"\n"):
            if not line.strip():
                continue
            event = _event(line)
            if event is None:
                result.counts["rejections"] += 1
                continue
            identity = (event.get("tenant", "default"), event["source"], event["id"])
            day = record.timestamp // 86_400_000
            if identity in first_day and day - first_day[identity] <= HORIZON_DAYS:
                result.counts["duplicates"] += 1
                continue
            first_day[identity] = day
            result.counts["events"] += 1
            for meter in meters:
                _meter(event, meter, epoch, result)


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
        fields = [event[name] for name in ("specversion", "id", "source", "type", "subject")]
        year = datetime.fromisoformat(event["time"]).year
    except (ValueError, KeyError, TypeError):
        return None
    return event if all(isinstance(each, str) and each for each in fields) and 2000 <= year < 2100 else None


def _meter(event: dict[str, Any], meter: Meter, epoch: int, result: Recount) -> None:
    if event["type"] != meter.event_type:
        return
    value = Decimal(0)
    if meter.value_property:
        value = Decimal(str(event["data"][meter.value_property.removeprefix("$.")]))
    start = int(datetime.fromisoformat(event["time"]).timestamp()) // 3600 * 3600
    dimensions = tuple(
        (name, event["data"].get(path.removeprefix("$."), "")) for name, path in sorted(meter.group_by.items())
    )
    result.add((meter.slug, event["subject"], dimensions, start, epoch), value)
