"""What an operation works on: the open stores, the log, and how far the log is stored."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from aggregation.store import stored_offsets
from meterline.output import Output, Progress
from schemas.configuration import ConfigurationError
from schemas.log import Limits, LogConfig
from schemas.meter import Meter, changed_meters, parse_meters
from stores.clickhouse import Client, open_clickhouse
from stores.log import Log
from stores.postgres import engine_for, migrate
from stores.servers import Servers

STUCK_AFTER_S = 60.0
POLL_S = 0.1


class Follower(Protocol):
    """Whoever stores the log's batches, as far as others need to know."""

    def offsets(self) -> Mapping[int, int]:
        """For each partition, the offset behind its last stored batch."""

    def wait_for(self, offsets: dict[int, int], timeout_s: float) -> bool:
        """Wait until every partition is stored up to its offset, or the time is over."""


@dataclass(frozen=True)
class System:
    """The open stores, the log, and its follower."""

    database: sa.Engine
    clickhouse: Client
    log: Log
    follower: Follower


class StoredProgress:
    """What the workers of a deployment have stored, read from ClickHouse."""

    def __init__(self, client: Client, log: Log) -> None:
        self._client = client
        self._log = log

    def offsets(self) -> Mapping[int, int]:
        """For each partition, the offset behind its last stored batch."""
        return dict.fromkeys(range(self._log.partitions), 0) | stored_offsets(self._client, self._log.log_id)

    def wait_for(self, offsets: dict[int, int], timeout_s: float) -> bool:
        """Wait until every partition is stored up to its offset, or the time is over."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            stored = self.offsets()
            if all(stored[partition] >= end for partition, end in offsets.items()):
                return True
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(min(POLL_S, timeout_s))  # the batches are another process's: there is no event to wait for


@contextmanager
def connected(servers: Servers) -> Iterator[System]:
    """A system over the servers of a deployment, with the tables in place."""
    from stores.kafka_log import open_log  # noqa: PLC0415  Kafka's client is loaded by a deployment alone

    database = engine_for(servers.postgres)
    migrate(database)
    clickhouse = open_clickhouse(servers.clickhouse)
    try:
        log = open_log(database, servers)
        try:
            yield System(database, clickhouse, log, StoredProgress(clickhouse, log))
        finally:
            log.close()
    finally:
        clickhouse.close()
        database.dispose()


def configure_meters(log: Log, text: str, file: str, limits: Limits | None = None) -> int:
    """Put the meters of a YAML text in force from here on in the log; returns the configuration's version.

    Raises ConfigurationError with all faults; then nothing has changed.
    """
    meters = parse_meters(text, file)

    def change(newest: LogConfig, known: tuple[Meter, ...]) -> LogConfig:
        if faults := changed_meters(known, meters, file):
            raise ConfigurationError(faults)
        return LogConfig(limits=limits or newest.limits, meters=meters)

    return log.reconfigure(change)


def wait_until_stored(
    app: System, ends: dict[int, int], step: str, now_s: Callable[[], float] = time.monotonic
) -> Iterator[Output]:
    """Wait until the partitions are stored up to these offsets, telling how far they are.

    Raises TimeoutError, naming each partition that is behind, when none of them came further for STUCK_AFTER_S.
    """
    start = app.follower.offsets()
    total = sum(max(end - start[partition], 0) for partition, end in ends.items())
    moved_s = dict.fromkeys(ends, now_s())
    before = start
    while not app.follower.wait_for(ends, POLL_S):
        stored = app.follower.offsets()
        moved_s |= {partition: now_s() for partition in ends if stored[partition] > before[partition]}
        before = stored
        behind = {partition: end for partition, end in ends.items() if stored[partition] < end}
        if behind and now_s() - max(moved_s[partition] for partition in behind) > STUCK_AFTER_S:
            each = "; ".join(
                f"partition {partition} stands at offset {stored[partition]} of {end}"
                f" since {now_s() - moved_s[partition]:.0f} s"
                for partition, end in behind.items()
            )
            raise TimeoutError(f"{each}. Is a worker running? Its log says why a batch could not be stored")
        yield Progress(step=step, done=total - sum(end - stored[each] for each, end in behind.items()), total=total)
    yield Progress(step=step, done=total, total=total)
