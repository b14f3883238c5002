"""docs/producing.md, as it stands: its example is run against a real broker, and its vectors are right."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
import xxhash
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from meterline.deployed import create_log
from schemas.configuration import ConfigurationError
from schemas.identity import event_key, partition_of
from schemas.log import Limits
from stores.kafka_producer import RECORD_BYTES_MAX
from stores.servers import Servers
from tests.faults.conftest import PARTITIONS, Deployment, event
from tests.faults.gateways import BATCH, Gateway
from tests.oracles.topic import read_topic
from tests.servers import plain_http
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Broker

DOCUMENT = (Path(__file__).parents[2] / "docs" / "producing.md").read_text(encoding="utf-8")


def test_the_example_puts_events_where_the_gateway_would(deployment: Deployment, tmp_path: Path) -> None:
    """Run as it stands: every event is in the partition of its identity, and counts once with the gateway's copy."""
    deployment.worker()
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL) if "aiokafka" in each)
    events = [event(n) if n % 3 else event(n, source=f"/ünï/{n}") for n in range(300)]
    servers = {"METERLINE_KAFKA": deployment.servers.kafka, "METERLINE_TOPIC": deployment.servers.topic}
    (tmp_path / "produce.py").write_text(program, encoding="utf-8")
    subprocess.run(
        [sys.executable, tmp_path / "produce.py"], input=b"\n".join(events) + b"\n\n", env={**os.environ, **servers},
        check=True, timeout=60,
    )  # fmt: skip
    records = read_topic(deployment.servers.kafka, deployment.servers.topic, PARTITIONS)
    placed = {record.value: number for number, own in records.items() for record in own if record.value is not None}
    assert placed == {
        line: partition_of(event_key("default", "/s" if n % 3 else f"/ünï/{n}", str(n)), PARTITIONS)
        for n, line in enumerate(events)
    }
    gateway = Gateway(deployment.servers, tmp_path / "gateway.log").start()
    try:
        again = plain_http.post(gateway.url, content=b"[" + b",".join(events) + b"]", headers=BATCH)
        assert again.status_code == 204
    finally:
        gateway.stop()
    deployment.settle()
    assert deployment.check() == {"events": 300, "duplicates": 300, "rejections": 0}
    metrics = plain_http.get(f"http://127.0.0.1:{deployment.workers[0].port}/metrics").text
    assert "meterline_misplaced_total 0.0" in metrics


def test_the_vectors_are_right() -> None:
    """Key, hash and partitions of each row of the table."""
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in DOCUMENT.splitlines()]
    vectors = [row for row in rows if len(row) == 7 and row[5].isdigit()]
    assert len(vectors) == 5
    for tenant, source, event_id, key, digest, of_8, of_64 in vectors:
        assert event_key(tenant, source, event_id).decode() == key
        assert xxhash.xxh3_64_hexdigest(key.encode()) == digest
        assert [partition_of(key.encode(), count) for count in (8, 64)] == [int(of_8), int(of_64)]


def test_the_limits_are_those_of_the_code() -> None:
    """The table of limits says what is in force as delivered."""
    limits = Limits()
    assert f"| {RECORD_BYTES_MAX >> 20} MiB (`max.message.bytes` of the topic)" in DOCUMENT
    assert f"| an event | {limits.event_bytes_max >> 20} MiB |" in DOCUMENT
    assert f"| 1 to {limits.field_bytes_max} bytes of UTF-8 |" in DOCUMENT
    assert f"| from {limits.event_at_min.year} up to {limits.event_at_max.year} |" in DOCUMENT


@pytest.mark.parametrize(("record_bytes", "usable"), [(RECORD_BYTES_MAX - 1, False), (RECORD_BYTES_MAX, True)])
def test_a_topic_that_does_not_take_every_event_is_refused(
    broker: Broker, clickhouse_server: ClickHouse, database: sa.Engine, record_bytes: int, usable: bool
) -> None:
    """A topic made by hand is used for the log if it is empty and its records may be as large as the gateway's."""
    topic = f"by-hand.{os.urandom(4).hex()}"

    async def create() -> None:
        settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(record_bytes)}
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        await admin.create_topics([NewTopic(topic, 3, 1, topic_configs=settings)])
        await admin.close()

    asyncio.run(create())
    servers = Servers(broker.bootstrap_servers, clickhouse_server.url, database.url.render_as_string(hide_password=False), topic)  # fmt: skip
    if usable:
        assert "in 3 partitions" in create_log(servers, partitions=8, replication=1, replace_lost_log=False)
    else:
        with pytest.raises(ConfigurationError, match=rf"max\.message\.bytes of at least {RECORD_BYTES_MAX}"):
            create_log(servers, partitions=8, replication=1, replace_lost_log=False)
