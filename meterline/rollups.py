"""Rollups held against the events they come from: the recount of the audit, and the rebuild that repairs a month.

Owns that rollups are never read for money while they are not whole: a billing run and what replaces rollups exclude
each other, and a rebuild or backfill that died is finished, by asking for it again, before anything is billed.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from aggregation.recount import RECOUNTED_COLUMNS, Backfill, recount
from meterline.output import Output, Progress, Table, Text
from meterline.period import Period
from meterline.system import System, wait_until_stored
from schemas.log import Barrier
from schemas.meter import Meter
from schemas.tables import ROLLUPS
from stores.clickhouse import insert, query, stream
from stores.faults import reached
from stores.log import Log

CHUNK_EVENTS = 1_000_000
RECOUNTED_AT_ONCE = 250_000
SHOWN_DIFFERENCES = 20
EVER = Period(datetime(1900, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RECOUNTED = replace(ROLLUPS, name="rollups_recounted")

BEFORE_CUT = "(log_id != {log_id:String} OR %s < {ends:Array(UInt64)}[partition + 1])"
"""Holds for a place in the log, or for the first one of a batch."""
_EVENTS_WITHIN = (
    "time >= {start:DateTime64(3, 'UTC')} AND time < {end:DateTime64(3, 'UTC')} AND epoch < {cut:UInt32}"
    " AND {type:String} IN ('', type)"
)
_ROLLUPS_WITHIN = (  # by numbers, because a mutation keeps an instant as seconds, and reads no negative ones again
    "toUnixTimestamp64Milli(window_start) >= {start_ms:Int64} AND toUnixTimestamp64Milli(window_start) < {end_ms:Int64}"
    " AND epoch < {cut:UInt32} AND {meter:String} IN ('', meter)"
)
_STRETCHES = """
    SELECT log_id, partition, min(first_offset) AS offset, before AS config_version FROM (
        SELECT log_id, partition, first_offset, lagInFrame(config_version, 1, 0) OVER (
            PARTITION BY log_id, partition ORDER BY first_offset
            ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before FROM progress
    ) GROUP BY log_id, partition, before"""
_DIFFERENCES = f"""
    SELECT meter, subject, toString(dimensions) AS of, toString(window_start) AS hour, epoch,
        toString((sumIf(count, stored), sumIf(sum, stored), minIf(min, stored), maxIf(max, stored),
            length(groupUniqArrayArrayIf(uniques, stored) AS values), maxIf(latest, stored))) AS stored_measures,
        toString((sumIf(count, NOT stored), sumIf(sum, NOT stored), minIf(min, NOT stored), maxIf(max, NOT stored),
            length(groupUniqArrayArrayIf(uniques, NOT stored) AS values_recounted), maxIf(latest, NOT stored)))
            AS recounted_measures
    FROM (
        SELECT *, true AS stored FROM {ROLLUPS.name} WHERE {_ROLLUPS_WITHIN}
        UNION ALL SELECT *, false AS stored FROM {RECOUNTED.name} WHERE {_ROLLUPS_WITHIN}
    ) GROUP BY tenant, meter, subject, dimensions, window_start, epoch
    HAVING stored_measures != recounted_measures OR arraySort(values) != arraySort(values_recounted)"""  # noqa: S608


@dataclass(frozen=True)
class Cut:
    """All that is before a barrier: it is stored, and will not change."""

    log_id: str
    epoch: int
    ends: tuple[int, ...]
    """For each partition of the log, the offset behind the barrier."""

    def parameters(self, period: Period | None = None, meter: Meter | None = None) -> dict[str, Any]:
        """As parameters of a query, of all meters or of one."""
        bounds: dict[str, Any] = {}
        if period:
            start_ms, end_ms = ((at - _EPOCH) // timedelta(milliseconds=1) for at in (period.start, period.end))
            bounds = {"start": period.start, "end": period.end, "start_ms": start_ms, "end_ms": end_ms}
        bounds |= {"meter": meter.slug, "type": meter.event_type} if meter else {"meter": "", "type": ""}
        return {"log_id": self.log_id, "cut": self.epoch, "ends": list(self.ends), **bounds}


@dataclass(frozen=True)
class Differences:
    """Where rollups are not what the events say: how many keys, and some of them, with both."""

    keys: int
    some: pl.DataFrame

    def table(self) -> Table:
        """As a table of (count, sum, min, max, number of uniques, latest)."""
        columns = ("meter", "subject", "dimensions", "hour", "epoch", "stored", "recounted")
        title = f"{self.keys:,} rollups differ from the recount; (count, sum, min, max, uniques, latest)"
        return Table(title=title, columns=columns, rows=[[str(cell) for cell in row] for row in self.some.rows()])


def cut_here(app: System, reason: str) -> Generator[Output, None, Cut]:
    """Cut the log, and wait until all before the cut is stored."""
    with app.database.begin() as connection:
        number = app.log.new_barrier(connection, reason)
    ends = app.log.punctuate(Barrier(number))
    yield from wait_until_stored(app, ends, "cut")
    return Cut(app.log.log_id, number, tuple(ends[partition] for partition in sorted(ends)))


@contextmanager
def whole_rollups(database: sa.Engine) -> Iterator[None]:
    """Hold off rebuilds while rollups are read. Raises RuntimeError where one runs, or has died on its way."""
    with _locked(database, "rollups", "the rollups are being rebuilt or backfilled; wait for it to end", shared=True):
        with database.connect() as connection:
            unfinished = sa.text("SELECT month FROM rollup_rebuilds WHERE finished_at IS NULL ORDER BY number LIMIT 1")
            month = connection.execute(unfinished).scalar()
            unfilled = sa.text("SELECT slug FROM meter_backfills WHERE finished_at IS NULL ORDER BY number LIMIT 1")
            slug = connection.execute(unfilled).scalar()
        if month:
            raise RuntimeError(
                f"a rebuild of {month} did not finish; finish it with `meterline rollups rebuild --month {month}`"
            )
        if slug:
            raise RuntimeError(
                f"a backfill of {slug} did not finish; finish it with `meterline meters backfill {slug}`"
            )
        yield


@contextmanager
def recounted(
    app: System, period: Period, cut: Cut, meter: Meter | None = None
) -> Iterator[Generator[Output, None, int]]:
    """The table RECOUNTED, and what fills it with the period's usage before the cut, of a meter; gone at the end.

    The generator returns how many events are not as their lines say. Raises RuntimeError while someone else recounts.
    """
    with _locked(app.database, "recount", "someone else recounts rollups; wait for it to end"):
        app.clickhouse.command(f"DROP TABLE IF EXISTS {RECOUNTED.name} SYNC")  # of a recount that was killed
        app.clickhouse.command(RECOUNTED.ddl())
        try:
            yield _fill(app, period, cut, meter)
        finally:
            app.clickhouse.command(f"DROP TABLE {RECOUNTED.name} SYNC")


def differences(app: System, period: Period, cut: Cut, meter: Meter | None = None) -> Differences:
    """What of the period's rollups before the cut, of a meter, is not as RECOUNTED has it."""
    where = cut.parameters(period, meter)
    keys = query(app.clickhouse, f"SELECT count() AS keys FROM ({_DIFFERENCES})", **where).item()  # noqa: S608
    some = query(app.clickhouse, f"{_DIFFERENCES} ORDER BY ALL LIMIT {SHOWN_DIFFERENCES}", **where)
    return Differences(int(keys), some)


def rebuild_rollups(app: System, *, month: str) -> Iterator[Output]:
    """Put what the stored events say in the place of a month's rollups, in this order.

    1. Cut: what comes later is not touched, so workers go on meanwhile.
    2. Recount the month beside the rollups. Where nothing differs, nothing is done.
    3. Note the rebuild, delete the month's rollups before the cut, and copy the recounted ones. Killed in between, the
       month is not whole, and is not billed until the rebuild is asked for again; that one does all of it anew.
    4. Compare again, and only then call it finished.
    """
    period = Period.parse(month)
    # 1. cut
    cut = yield from cut_here(app, f"rebuild {month}")
    if missing := missing_events(app, cut):
        raise RuntimeError(f"{missing:,} accepted events are not stored: a rebuild would lose their usage")
    with rollups_locked(app.database), recounted(app, period, cut) as recounting:
        # 2. recount
        yield from recounting
        before = differences(app, period, cut)
        if before.keys:
            yield before.table()
            # 3. replace
            with app.database.begin() as connection:
                connection.execute(
                    sa.text("INSERT INTO rollup_rebuilds (month, cut) VALUES (:month, :cut)"),
                    {"month": str(period), "cut": cut.epoch},
                )
            replace_rollups(app, period, cut)
        # 4. compare
        if differences(app, period, cut).keys:
            raise RuntimeError(f"the rollups of {month} still differ from the recount; ask for the rebuild again")
        with app.database.begin() as connection:
            finish = "UPDATE rollup_rebuilds SET finished_at = now() WHERE month = :month AND finished_at IS NULL"
            connection.execute(sa.text(finish), {"month": str(period)})
    yield Text(text=f"{month}: {before.keys:,} rollups rebuilt; all are what the events say, up to cut {cut.epoch}")


def missing_events(app: System, cut: Cut) -> int:
    """How many events before the cut were accepted, and are not stored."""
    accepted = f"SELECT sum(accepted) FROM progress WHERE {BEFORE_CUT % 'first_offset'}"  # noqa: S608
    stored = f"SELECT count() FROM events WHERE {BEFORE_CUT % 'offset'}"  # noqa: S608
    missing = f"SELECT toInt64(({accepted})) - toInt64(({stored})) AS missing"
    return int(query(app.clickhouse, missing, **cut.parameters()).item())


def _fill(app: System, period: Period, cut: Cut, meter: Meter | None) -> Generator[Output, None, int]:
    where = cut.parameters(period, meter)
    by_day = "SELECT toDate32(time) AS day, count() AS events FROM events WHERE {} GROUP BY day ORDER BY day"
    days = query(app.clickhouse, by_day.format(_EVENTS_WITHIN), **where)
    stretches = query(app.clickhouse, _STRETCHES)
    backfills = backfills_of(app.database, app.log)
    total, done, altered = int(days["events"].sum()), 0, 0
    columns = ", ".join(f'"{name}"' for name in RECOUNTED_COLUMNS)
    sql = f"SELECT {columns} FROM events WHERE {_EVENTS_WITHIN} AND toDate32(time) BETWEEN {{first:Date32}} AND {{last:Date32}}"  # noqa: S608, E501
    yield Progress(step="recount", done=0, total=total)
    for first, last in _spans(days):
        for number, events in enumerate(
            stream(app.clickhouse, sql, rows_min=RECOUNTED_AT_ONCE, **where, first=first, last=last)
        ):
            found = recount(events, stretches, app.log.config, backfills, meter)
            insert(app.clickhouse, RECOUNTED, found.rollups, f"{first}:{number}")
            done, altered = done + len(events), altered + found.altered
            yield Progress(step="recount", done=done, total=total)
    return altered


def _spans(days: pl.DataFrame) -> Iterator[tuple[date, date]]:
    """Days in spans of some CHUNK_EVENTS: the embedded engine makes a result whole before it hands it out."""
    chunks = days.with_columns(chunk=pl.col("events").cum_sum() // CHUNK_EVENTS)
    spans = chunks.group_by("chunk", maintain_order=True).agg(pl.col("day").first(), pl.col("day").last().alias("last"))
    yield from spans.select("day", "last").iter_rows()


def replace_rollups(app: System, period: Period, cut: Cut, meter: Meter | None = None) -> None:
    """Put what RECOUNTED has in the place of the period's rollups before the cut, of a meter."""
    where = cut.parameters(period, meter)
    for step, sql in (
        ("rollups_deleted", f"ALTER TABLE {ROLLUPS.name} DELETE WHERE {_ROLLUPS_WITHIN} SETTINGS mutations_sync = 2"),
        ("rollups_copied", f"INSERT INTO {ROLLUPS.name} SELECT * FROM {RECOUNTED.name} WHERE {_ROLLUPS_WITHIN}"),  # noqa: S608
    ):
        app.clickhouse.command(sql, parameters=where)
        reached(step)


def backfills_of(database: sa.Engine, log: Log) -> list[Backfill]:
    """Every backfill that was begun: a meter's definition counts the same in every version, so the last one will do."""
    meters = {meter.slug: meter for meter in log.meters()}
    with database.connect() as connection:
        rows = connection.execute(sa.text("SELECT slug, from_at, to_at, ends FROM meter_backfills ORDER BY number"))
        return [Backfill(meters[row.slug], row.from_at, row.to_at, row.ends) for row in rows]


def rollups_locked(database: sa.Engine) -> AbstractContextManager[None]:
    """Hold off whoever reads the rollups for money. Raises RuntimeError while someone does."""
    return _locked(database, "rollups", "a billing run reads the rollups; wait for it to end")


@contextmanager
def _locked(database: sa.Engine, name: str, busy: str, *, shared: bool = False) -> Iterator[None]:
    with database.begin() as connection:
        lock = "pg_try_advisory_xact_lock_shared" if shared else "pg_try_advisory_xact_lock"
        if not connection.execute(sa.text(f"SELECT {lock}(hashtextextended(:name, 0))"), {"name": name}).scalar_one():
            raise RuntimeError(busy)
        yield
