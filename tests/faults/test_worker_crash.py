"""The worker, stopped between any two of its inserts, run twice at once, and cut by barriers. Real stores, real log."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from aggregation import store as store_module
from aggregation.store import STORE_ORDER
from ingest.pack import identify, pack
from meterline.worker import Worker
from schemas.log import Barrier, Flush, Limits, LogConfig
from schemas.meter import Meter
from schemas.tables import Table
from stores.clickhouse import Client, query
from stores.postgres_log import PostgresLog, open_log

METERS = (
    Meter(slug="calls", event_type="call", aggregation="COUNT"),
    Meter(slug="ms", event_type="call", aggregation="SUM", value_property="$.ms"),
)
PARTITIONS = 3


def line(number: int) -> bytes:
    event = {"specversion": "1.0", "id": str(number), "source": "/s", "type": "call", "subject": f"s{number % 5}",
             "time": "2013-01-31T10:00:00Z", "data": {"ms": number}}  # fmt: skip
    return json.dumps(event).encode()


def append(log: PostgresLog, numbers: list[int]) -> None:
    lines = [line(number) for number in numbers] + [b"not json"]
    log.append(pack(lines, identify(lines), log.partitions))


@pytest.fixture
def log(database: sa.Engine) -> PostgresLog:
    """A log of three partitions with small batches."""
    opened = open_log(database, PARTITIONS)
    opened.configure(LogConfig(limits=Limits(batch_events_max=20), meters=METERS))
    return opened


@pytest.fixture
def started() -> Iterator[Callable[[Worker], Worker]]:
    """Starts workers, and stops them at the end."""
    workers: list[Worker] = []

    def start(worker: Worker) -> Worker:
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.stop()


def drained(log: PostgresLog, worker: Worker) -> None:
    assert worker.wait_for(log.punctuate(Flush()), 60)


def totals(clickhouse: Client) -> dict[str, Any]:
    """What the stores hold, epochs added up."""
    rollups = query(
        clickhouse,
        "SELECT meter, toUInt64(sum(count)) AS n, toUInt64(sum(sum)) AS s FROM rollups GROUP BY meter ORDER BY meter",
    )
    stored = {
        name: query(clickhouse, f"SELECT count() AS n FROM {name}")["n"].item()
        for name in ("events", "duplicates", "rejections")
    }
    progress = query(
        clickhouse,
        "SELECT sum(accepted) AS events, sum(duplicates) AS duplicates, sum(rejected) AS rejections FROM progress",
    )
    assert progress.row(0, named=True) == stored
    return {**stored, "rollups": rollups.rows()}


def expected(distinct: int, copies: int, bad: int) -> dict[str, Any]:
    return {
        "events": distinct, "duplicates": copies, "rejections": bad,
        "rollups": [("calls", distinct, 0), ("ms", distinct, sum(range(distinct)))],
    }  # fmt: skip


class Killed(BaseException):
    """The process ended here."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("table", STORE_ORDER, ids=lambda table: table.name)
def test_killed_at_an_insert_the_replay_counts_each_event_once(
    table: Table, after: bool, log: PostgresLog, clickhouse: Client, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before or after the insert into each table, in the middle of the work, and started again."""
    append(log, list(range(100)))
    append(log, list(range(50, 150)))
    insert, inserts = store_module.insert, iter(range(10**6))

    def killing(client: Client, into: Table, frame: pl.DataFrame, token: str) -> None:
        fatal = into is table and not frame.is_empty() and next(inserts) == 1
        if fatal and not after:
            raise Killed
        insert(client, into, frame, token)
        if fatal:
            raise Killed

    monkeypatch.setattr(store_module, "insert", killing)
    dying = started(Worker(log, clickhouse))
    with pytest.raises(RuntimeError, match="the worker has stopped"):
        drained(log, dying)
    monkeypatch.setattr(store_module, "insert", insert)
    drained(log, started(Worker(log, clickhouse)))
    assert totals(clickhouse) == expected(150, 50, 2)


@pytest.mark.parametrize("table", STORE_ORDER, ids=lambda table: table.name)
def test_an_insert_whose_answer_is_lost_is_tried_again(
    table: Table, log: PostgresLog, clickhouse: Client, started: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine took the rows, the worker heard an error: the second try changes nothing."""
    append(log, list(range(100)))
    append(log, list(range(50, 150)))
    insert, lost = store_module.insert, iter(range(10**6))

    def losing(client: Client, into: Table, frame: pl.DataFrame, token: str) -> None:
        insert(client, into, frame, token)
        if into is table and not frame.is_empty() and next(lost) % 2 == 0:
            raise ConnectionResetError("the answer is lost")

    monkeypatch.setattr(store_module, "insert", losing)
    monkeypatch.setattr(store_module, "STORE_RETRY_S", 0.0)
    drained(log, started(Worker(log, clickhouse)))
    assert totals(clickhouse) == expected(150, 50, 2)


def test_two_workers_on_one_log_by_accident_change_nothing(log: PostgresLog, clickhouse: Client, started: Any) -> None:
    """Both store every batch; the stores hold each once."""
    for start in range(0, 300, 50):
        append(log, list(range(start, start + 60)))
    first, second = started(Worker(log, clickhouse)), started(Worker(log, clickhouse))
    drained(log, first)
    drained(log, second)
    assert totals(clickhouse) == expected(310, 50, 6)


def test_a_barrier_cuts_every_partition(
    log: PostgresLog, database: sa.Engine, clickhouse: Client, started: Any
) -> None:
    """What was appended before the barrier is below the cut, what came after is not, in all partitions."""
    worker = started(Worker(log, clickhouse))
    append(log, list(range(100)))
    with database.begin() as connection:
        cut = log.new_barrier(connection, "test")
    log.punctuate(Barrier(cut))
    append(log, list(range(100, 130)))
    drained(log, worker)
    counted = query(
        clickhouse,
        "SELECT sumIf(count, epoch < {cut:UInt32}) AS before, sumIf(count, epoch >= {cut:UInt32}) AS behind"
        " FROM rollups WHERE meter = 'calls'",
        cut=cut,
    )
    assert counted.row(0) == (100, 30)
    assert query(clickhouse, "SELECT uniqExact(partition) AS n FROM events")["n"].item() == PARTITIONS


def test_meters_change_at_an_offset_of_the_log(log: PostgresLog, clickhouse: Client, started: Any) -> None:
    """A meter counts from its first configuration record on, also for a worker that starts in the middle of the log."""
    append(log, list(range(100)))
    newer = Meter(slug="newer", event_type="call", aggregation="COUNT")
    log.configure(LogConfig(limits=Limits(batch_events_max=20), meters=(*METERS, newer)))
    append(log, list(range(100, 130)))
    first = started(Worker(log, clickhouse))
    drained(log, first)
    first.stop()
    append(log, list(range(130, 140)))
    drained(log, started(Worker(log, clickhouse)))
    counted = query(clickhouse, "SELECT meter, toUInt64(sum(count)) AS n FROM rollups GROUP BY meter ORDER BY meter")
    assert counted.rows() == [("calls", 140), ("ms", 140), ("newer", 40)]


def test_a_silent_partition_is_flushed_by_the_worker_itself(log: PostgresLog, clickhouse: Client, started: Any) -> None:
    """Events are stored without anybody asking, although no batch is full."""
    worker = started(Worker(log, clickhouse))
    append(log, [1, 2, 3])
    ends = log.end_offsets()
    assert worker.wait_for(ends, 30)
    assert totals(clickhouse)["events"] == 3


def test_a_batch_that_spans_three_hundred_months(log: PostgresLog, clickhouse: Client, started: Any) -> None:
    """Events of any age in one batch: no limit of the engine is in the way."""
    lines = [
        line(month).replace(b"2013-01-31", b"%d-%02d-15" % (2000 + month // 12, month % 12 + 1)) for month in range(300)
    ]
    log.append([(0, b"\n".join(lines))])
    drained(log, started(Worker(log, clickhouse)))
    assert query(clickhouse, "SELECT uniqExact(window_start) AS n FROM rollups")["n"].item() == 300
