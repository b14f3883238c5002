"""A deployment in processes: a real broker, the real ClickHouse engine behind HTTP, PostgreSQL, and workers."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ingest.pack import identify, pack
from meterline.deployed import create_log
from meterline.system import System, connected
from schemas.log import Flush, Limits, LogConfig
from schemas.meter import Meter
from stores.clickhouse import query
from stores.servers import Servers
from tests.oracles.log_oracle import Recount
from tests.oracles.topic import read_topic
from tests.servers.clickhouse import ClickHouse
from tests.servers.compose import command
from tests.servers.kafka import QUICK_START, Broker, free_port

METERS = (
    Meter(slug="calls", event_type="call", aggregation="COUNT", group_by={"region": "$.region"}),
    Meter(slug="bytes", event_type="call", aggregation="SUM", value_property="$.bytes"),
)
PARTITIONS = 4
BATCH_EVENTS = 200


@dataclass
class Supervised:
    """A worker of docker-compose.yml that is started again whenever it ends, as a supervisor would."""

    environment: dict[str, str]
    log: Path
    kill_at: str = ""
    port: int = field(default_factory=free_port)
    ended: list[int] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    _stopping: bool = False
    _first_end: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _start(self) -> None:
        environment = {**self.environment, "METERLINE_KILL_AT": self.kill_at if not self.ended else ""}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command("worker-1", {"--port": str(self.port)})[1:]],
                env={**os.environ, **environment}, stdout=output, stderr=output,
            )  # fmt: skip

    def _supervise(self) -> None:
        while True:
            assert self.process is not None
            self.ended.append(self.process.wait())
            self._first_end.set()
            if self._stopping:
                return
            self._start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait_for_end(self, timeout_s: float = 60) -> int:
        """Wait until it has ended once; its status."""
        assert self._first_end.wait(timeout_s), self.log.read_text()[-4000:]
        return self.ended[0]

    def stop(self) -> None:
        """End it for good."""
        self._stopping = True
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self._thread.join(timeout=30)


@dataclass
class Deployment:
    """The servers and workers of one test, and what was produced."""

    directory: Path
    servers: Servers
    broker: Broker
    clickhouse: ClickHouse
    system: System
    workers: list[Supervised] = field(default_factory=list)

    def worker(self, *, kill_at: str = "", name: str = "") -> Supervised:
        """Start one more worker."""
        number = len(self.workers)
        environment = {
            "METERLINE_KAFKA": self.servers.kafka, "METERLINE_TOPIC": self.servers.topic, "METERLINE_CLICKHOUSE": self.servers.clickhouse,
            "METERLINE_POSTGRES": self.servers.postgres, "METERLINE_WORKER": name or f"worker-{number}",
        }  # fmt: skip
        started = Supervised(environment, self.directory / f"worker-{number}.log", kill_at)
        self.workers.append(started)
        return started

    def append(self, lines: Sequence[bytes], *, single: bool = False) -> None:
        """Put lines into the log, packed or each in a record of its own."""
        packed = pack(lines, identify(lines), PARTITIONS)
        self.system.log.append(
            [(partition, line) for partition, value in packed for line in (value.split(b"\n") if single else [value])]
        )

    def settle(self, timeout_s: float = 90) -> None:
        """Wait until everything that is in the log is stored."""
        ends = self.system.log.punctuate(Flush())
        deadline_s = time.monotonic() + timeout_s
        while not self.system.follower.wait_for(ends, 1.0):
            assert time.monotonic() < deadline_s, self.report(ends)

    def report(self, ends: dict[int, int]) -> str:
        """What the workers say."""
        logs = "\n".join(f"--- {w.log.name} {w.ended}\n{w.log.read_text()[-3000:]}" for w in self.workers)
        return f"stored {self.system.follower.offsets()} of {ends}\n{logs}"

    def check(self) -> dict[str, int]:
        """Assert that the stores hold exactly what a plain recount of the topic says; returns the counts."""
        expected = Recount()
        for number, records in read_topic(self.servers.kafka, self.servers.topic, PARTITIONS).items():
            expected.add(number, records, self.system.log.config)
        rollups = {
            (meter, subject, tuple(sorted(dimensions.items())), start, epoch): (count, total)
            for meter, subject, dimensions, start, epoch, count, total in query(
                self.system.clickhouse,
                "SELECT meter, subject, dimensions, toUnixTimestamp(window_start), epoch, toUInt64(sum(count)),"
                " sum(sum) FROM rollups GROUP BY ALL",
            ).iter_rows()
        }
        assert rollups == expected.rollups
        for table, places in expected.places.items():
            stored = query(self.system.clickhouse, f"SELECT partition, offset, line FROM {table}").rows()
            assert len(stored) == len(set(stored)), f"{table}: a row stands twice"
            assert set(stored) == places, table
        epochs = query(self.system.clickhouse, "SELECT partition, offset, line, epoch FROM events").rows()
        assert {tuple(place): epoch for *place, epoch in epochs} == expected.epochs
        batches: dict[int, list[Any]] = {number: [] for number in range(PARTITIONS)}
        for number, *batch in query(
            self.system.clickhouse,
            "SELECT partition, first_offset, next_offset, epoch, config_version FROM progress ORDER BY first_offset",
        ).iter_rows():
            batches[number].append(tuple(batch))
        for number, found in batches.items():  # a flush that a worker asked for may still be on its way
            assert found == expected.batches[number][: len(found)]
        counts = expected.counts()
        progress = query(
            self.system.clickhouse, "SELECT sum(accepted), sum(duplicates), sum(rejected), sum(lines) FROM progress"
        ).row(0)
        assert progress == (*counts.values(), sum(counts.values()))
        return counts


def event(number: int, **fields: Any) -> bytes:
    """A usage event; events with the same number are copies."""
    return json.dumps({
        "specversion": "1.0", "id": str(number), "source": "/s", "type": "call", "subject": f"s{number % 7}",
        "time": f"2026-01-{number % 28 + 1:02d}T{number % 24:02d}:30:00Z",
        "data": {"bytes": f"{number}.5", "region": ("eu", "us")[number % 2]}, **fields,
    }).encode()  # fmt: skip


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker; each test has a topic of its own."""
    running = Broker(tmp_path_factory.mktemp("kafka"), options=QUICK_START).start()
    yield running
    running.kill()


@pytest.fixture(scope="session")
def clickhouse_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    """The ClickHouse engine as a server."""
    with ClickHouse(tmp_path_factory.mktemp("clickhouse-server")) as server:
        yield server


@pytest.fixture
def deployment(
    tmp_path: Path, broker: Broker, clickhouse_server: ClickHouse, database: sa.Engine, request: pytest.FixtureRequest
) -> Iterator[Deployment]:
    """Servers with a fresh topic and empty tables, and no worker yet."""
    from schemas.tables import TABLES
    from stores.clickhouse import open_server

    client = open_server(clickhouse_server.url)
    for table in TABLES:
        client.command(f"DROP TABLE {table.name} SYNC")
    client.close()
    servers = Servers(
        broker.bootstrap_servers, clickhouse_server.url, database.url.render_as_string(hide_password=False),
        topic=f"usage.{os.urandom(4).hex()}",
    )  # fmt: skip
    create_log(servers, partitions=PARTITIONS, replication=1, replace_lost_log=False)
    with connected(servers) as system:
        limits = Limits(batch_events_max=BATCH_EVENTS)
        system.log.configure(LogConfig(limits=limits, meters=METERS))
        running = Deployment(tmp_path, servers, broker, clickhouse_server, system)
        yield running
        for worker in running.workers:
            worker.stop()
        clickhouse_server.heal()
