"""The publisher, killed again and again: Kafka and the webhooks have every event in the end, and each object's in order."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from invoicing.deliveries.app import Sender
from invoicing.deliveries.store import LEASE
from invoicing.outbox import app as outbox_app
from invoicing.outbox import store
from invoicing.outbox.app import TOPIC, Publisher
from invoicing.webhooks.signatures import secret_text
from invoicing.webhooks.store import create_endpoint
from schemas.domain_event import DomainEvent, EventType, PeriodClosedData
from schemas.identity import partition_of
from schemas.webhook import NewEndpoint
from stores.kafka_producer import Producer
from stores.kafka_topics import topic_partitions
from stores.servers import Servers
from tests.servers.kafka import running_broker
from tests.servers.receiver import Received, receiving

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = secret_text(b"k" * 32)
KILLS = 2
EVENTS = 150  # of a tenant, before each kill
PATIENCE_S = 60


def emitted(database: sa.Engine, tenant: str, first: int, count: int = EVENTS) -> list[str]:
    """Emit events of five objects, ten a transaction; their ids."""
    events = [
        DomainEvent(
            EventType.PERIOD_CLOSED, f"book {number % 5}", number, NOW, PeriodClosedData(through=date(2026, 1, 1))
        )
        for number in range(first, first + count)
    ]
    for start in range(0, count, 10):
        with database.begin() as connection:
            store.emit(connection, tenant, events[start : start + 10])
    return [event.id_of(tenant) for event in events]


async def topic_records(servers: Servers, tenants: list[str]) -> list[ConsumerRecord]:
    """What the topic has of these tenants, partition by partition in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers.kafka, enable_auto_commit=False)
    await consumer.start()
    try:
        parts = [
            TopicPartition(TOPIC, each) for each in range(await topic_partitions(servers, partitions=1, replication=1))
        ]
        ends = await consumer.end_offsets(parts)
        consumer.assign(parts)
        await consumer.seek_to_beginning(*parts)
        found: list[ConsumerRecord] = []
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
    finally:
        await consumer.stop()
    return [each for each in found if each.key.decode().partition("|")[0] in tenants]


def kills(process: subprocess.Popen[bytes], after: int, killed: asyncio.Event) -> Callable[[Received], web.Response]:
    """Kills the process when so many more webhooks came, before the last one is answered."""
    seen = 0

    def answer(_: Received) -> web.Response:
        nonlocal seen
        seen += 1
        if seen == after:
            process.send_signal(signal.SIGKILL)
            killed.set()
        return web.Response()

    return answer


def test_a_publisher_that_is_killed_again_and_again_loses_nothing(
    database: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 in the middle of sending; then a send that is not noted, and a broker that is away: all of it comes, some of it twice."""
    tenants = [f"t{uuid.uuid4().hex[:8]}", f"u{uuid.uuid4().hex[:8]}"]
    url = database.url.render_as_string(hide_password=False)
    with running_broker(tmp_path / "kafka") as kafka:
        servers = Servers(kafka, "chdb:unused", url, TOPIC)
        environment = {
            "METERLINE_KAFKA": kafka,
            "METERLINE_CLICKHOUSE": "chdb:unused",
            "METERLINE_POSTGRES": url,
            "METERLINE_WEBHOOK_PRIVATE_TARGETS": "allow",
        }

        def publisher(*options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "meterline", "outbox", "publish", "--partitions", "3", *options]
            return subprocess.Popen(command, env={**os.environ, **environment})

        async def play() -> None:
            async with receiving() as receiver:
                with database.begin() as connection:
                    for number, tenant in enumerate(tenants):
                        create_endpoint(
                            connection,
                            tenant,
                            NewEndpoint(url=receiver.url + f"/{tenant}"),
                            endpoint_id=f"we_{number:024x}",
                            secret=SECRET,
                            now=NOW,
                        )
                ids: dict[str, list[str]] = {tenant: [] for tenant in tenants}
                for kill in range(KILLS):
                    for tenant in tenants:
                        ids[tenant] += emitted(database, tenant, 1 + kill * EVENTS)
                    killed = asyncio.Event()
                    with publisher() as process:
                        receiver.answers[f"/{tenants[kill % 2]}"] = kills(process, 20 + 30 * kill, killed)
                        try:
                            await asyncio.wait_for(killed.wait(), PATIENCE_S)
                        finally:
                            process.kill()
                    receiver.answers.clear()
                with publisher("--once") as process:
                    assert await asyncio.to_thread(process.wait, PATIENCE_S) == 0
                late = Sender(database, private_allowed=True, now=lambda: datetime.now(UTC) + LEASE)
                async with late.running():
                    await late.send_due()  # what those who were killed had in their hands
                for tenant in tenants:
                    arrived = receiver.of(f"/{tenant}")
                    assert {each.id for each in arrived} == set(ids[tenant])
                    assert all(each.is_signed_with(SECRET) for each in arrived)
                # Kafka: a send that is not noted comes again; a broker that is away leaves the position where it is.
                ids[tenants[0]] += emitted(database, tenants[0], 10_000, 20)
                await send_without_noting(database, servers, monkeypatch)
                records = await topic_records(servers, tenants)
                assert_all_there(records, ids)
                assert len(records) >= sum(map(len, ids.values())) + 20

        asyncio.run(play())


async def send_without_noting(database: sa.Engine, servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish twice: the first time everything dies between the brokers' answer and the commit."""
    nobody = Producer(Servers("127.0.0.1:1", "", "", TOPIC), 3)
    with pytest.raises(Exception, match="Unable to bootstrap"):
        await Publisher(database, nobody, 3).publish_all()
    await nobody.close()
    producer = Producer(servers, 3)
    publisher = Publisher(database, producer, 3)

    def dies(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(outbox_app.store, "advance", dies)
        with pytest.raises(ConnectionError):
            await publisher.publish_all()
    assert await publisher.publish_all() == 20
    assert await publisher.publish_all() == 0
    await producer.close()


def assert_all_there(records: list[ConsumerRecord], ids: dict[str, list[str]]) -> None:
    """Every event, in the partition of its object; an object's events come for the first time in their order."""
    seen: dict[str, list[str]] = {tenant: [] for tenant in ids}
    versions: dict[bytes, list[int]] = {}
    for record in records:
        event = json.loads(record.value)
        assert record.key == f"{event['tenant']}|{event['objectId']}".encode()
        assert record.partition == partition_of(record.key, 3)
        if event["id"] not in seen[event["tenant"]]:
            seen[event["tenant"]].append(event["id"])
            versions.setdefault(record.key, []).append(event["version"])
    assert {tenant: set(each) for tenant, each in seen.items()} == {tenant: set(each) for tenant, each in ids.items()}
    assert all(each == sorted(each) for each in versions.values())
