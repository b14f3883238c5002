"""A usage query's rows: rollups and the events at the edges, brought together to one exact value a group.

Owns that both ways give the same number: an event's line is decoded and folded by the worker's own functions, and it
counts only where the configuration in force at its place in the log had the meter, as it did for the rollups.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any

import numpy as np
import polars as pl

from aggregation.batch import ConfigVersions
from aggregation.decode import Lines, decode
from aggregation.fold import window_usage
from aggregation.plan import (
    GROUPS_MAX,
    MEASURES,
    MICROS,
    STRETCHES,
    VALUES,
    Plan,
    Scope,
    Statement,
    days_statement,
    events_statement,
    pieces,
    plan,
    rollups_statement,
    usage_range_statement,
)
from aggregation.windows import HOUR_S, SECONDS, Instants, boundaries
from schemas.meter import Aggregation
from schemas.money import QUANTITY
from schemas.tables import EVENTS, LATEST, LATEST_ORDER
from schemas.usage_query import InvalidQueryError, UsageQuery

Read = Callable[[Statement], pl.DataFrame]
"""Runs a statement."""

WINDOWS_MAX = 1_000_000
ROWS_MAX = 100_000
_EARLIEST_US, _LATEST_US = -86_400 * 365 * 45 * MICROS, 86_400 * 365 * 230 * MICROS  # that ClickHouse can hold

_LATEST = pl.col("latest").list.first().struct
_TOGETHER = {
    "count": pl.col("count").sum(),
    "sum": pl.col("sum").sum(),
    "min": pl.col("min").min(),
    "max": pl.col("max").max(),
    "latest": pl.col("latest").sort_by([_LATEST.field(name) for name in LATEST_ORDER]).last(),
    "uniques": pl.col("uniques").list.explode(keep_nulls=False, empty_as_null=False).unique(),
}
"""How rows of a group make one."""


@dataclass(frozen=True)
class Answer:
    """The rows of a query, by window and then by group.

    Columns window_start and window_end (seconds since 1970), subject and customer (null: nobody's) if asked for,
    `dimension NAME` for each dimension that the query is split by, and value (Decimal(38, 9)).
    """

    rows: pl.DataFrame
    scope: Scope


def answer(
    scope: Scope, read: Read, versions: ConfigVersions, *, all_from_events: bool = False, rows_max: int = ROWS_MAX
) -> Answer:
    """Answer a query. Raises InvalidQueryError when it asks for too many windows, or the answer has too many rows.

    1. The range: as asked for, or as far as there is usage. 2. The plan. 3. Rollups. 4. Events at the edges.
    5. Filters, on the rows of both. 6. One row a group.
    """
    query, meter = scope.query, scope.meter
    measures = MEASURES[meter.aggregation]
    # 1. range
    start_us, end_us = usage_span(query)
    size_us = SECONDS[query.window_size] * MICROS if query.window_size else None
    if query.start is None or query.end is None or (size_us and (end_us - start_us) // size_us > WINDOWS_MAX):
        first, last, rows = read(usage_range_statement(scope)).row(0)
        if not rows:
            return _finished(scope, _no_rows(scope, measures), _a_minute(query))
        start_us, end_us = max(start_us, first * MICROS), min(end_us, (last + HOUR_S) * MICROS)
    if start_us >= end_us:
        return _finished(scope, _no_rows(scope, measures), _a_minute(query))
    windows = None
    if query.window_size:
        if size_us and (end_us - start_us) // size_us > WINDOWS_MAX:
            raise InvalidQueryError(f"the range has more than {WINDOWS_MAX} windows; allowed: a shorter one")
        windows = boundaries(start_us // MICROS, -(-end_us // MICROS), query.window_size, query.zone)
    # 2. plan
    planned = plan(start_us, end_us, windows, all_from_events=all_from_events)
    # 3., 4. and 5.
    rows = _passing(scope, planned, read, versions)
    # 6. groups
    if windows is None:
        windows = _bounds(scope, (start_us, end_us), read, versions)
    finished = _finished(scope, rows, windows)
    if len(finished.rows) > rows_max:
        raise _too_many(rows_max)
    return finished


def _passing(scope: Scope, planned: Plan, read: Read, versions: ConfigVersions) -> pl.DataFrame:
    """The rows of a plan that pass the query's filters, some of them of the same group."""
    measures = MEASURES[scope.meter.aggregation]
    rows = _no_rows(scope, measures)
    # 3. rollups
    if planned.from_rollups:
        rows = _added(rows, rows_from_rollups(scope, planned, read), measures)
    # 4. events
    for part in rows_from_events(scope, planned, read, versions):
        rows = _added(rows, part, measures)
    # 5. filters
    for name, passing in scope.query.filters.items():
        values = rows[f"dimension {name}"].unique()
        rows = rows.filter(pl.col(f"dimension {name}").is_in([each for each in values if passing.passes(each)]))
    return rows


def _added(rows: pl.DataFrame, part: pl.DataFrame, measures: tuple[str, ...]) -> pl.DataFrame:
    """Rows and more of them. Those of a group are put together as soon as there are too many."""
    cast = part.select(pl.col(name).cast(kind) for name, kind in rows.schema.items())
    together = pl.concat([rows, cast])
    if len(together) > GROUPS_MAX:
        keys = [name for name in rows.columns if name not in measures]
        together = together.group_by(keys).agg(_TOGETHER[name] for name in measures).select(rows.columns)
        if len(together) > GROUPS_MAX:
            raise _too_many(GROUPS_MAX)
    return together


def _too_many(rows: int) -> InvalidQueryError:
    narrower = "a shorter range, larger windows, fewer dimensions in groupBy, or some subjects only"
    return InvalidQueryError(f"the answer would have more than {rows} rows; allowed: {narrower}")


def usage_span(query: UsageQuery) -> tuple[int, int]:
    """The range of a query in microseconds since 1970; as far as the engine's times go, where it has no end."""
    return _asked(query.start, _EARLIEST_US), _asked(query.end, _LATEST_US)


def counted_events(
    scope: Scope, events: pl.DataFrame, stretches: pl.DataFrame, versions: ConfigVersions
) -> pl.DataFrame:
    """Stored events as `decode` has them, where the meter was in force or was filled later; in any order.

    `events` has the columns of `events_statement`, and any others, which are kept.
    """
    places = ("log_id", "partition", "offset")
    placed = (
        events.cast({name: EVENTS.frame[name] for name in events.columns if name in EVENTS.frame})
        .sort("offset")
        .join_asof(
            stretches.cast({name: EVENTS.frame[name] for name in places}).sort("offset"),
            on="offset",
            by=["log_id", "partition"],
            check_sortedness=False,
        )
    )
    decoded = []
    for (version,), rows in placed.partition_by("config_version", as_dict=True).items():
        config = versions(int(version or 0))
        in_force = scope.meter.slug in {meter.slug for meter in config.meters}
        if not in_force and not scope.backfills:
            continue
        buffer = np.frombuffer(bytearray("\n".join([*rows["event"].to_list(), ""]).encode()), np.uint8)
        ends = np.flatnonzero(buffer == ord("\n"))
        lines = Lines.of(buffer, ends, rows.drop("event", "config_version"))
        counted = decode(lines, sorted(scope.meter.paths), config.limits).events
        if not in_force:
            counted = counted.filter(reduce(pl.Expr.or_, [each.covers() for each in scope.backfills]))
        decoded.append(counted)
    return pl.concat(decoded) if decoded else pl.DataFrame()


def events_of(scope: Scope, planned: Plan, read: Read, versions: ConfigVersions) -> Iterator[pl.DataFrame]:
    """The counted events of a plan's spans, decoded, some at a time, in the order of days."""
    if not planned.spans:
        return
    days = read(days_statement(scope, planned.spans)).rows()
    stretches = read(STRETCHES) if days else pl.DataFrame()
    for spans in pieces(planned.spans, days):
        events = read(events_statement(scope, spans))
        decoded = counted_events(scope, events, stretches, versions) if len(events) else events
        if len(decoded):
            yield decoded


def rows_from_events(scope: Scope, planned: Plan, read: Read, versions: ConfigVersions) -> Iterator[pl.DataFrame]:
    """The rows that the events of a plan's spans make, several a group."""
    for decoded in events_of(scope, planned, read, versions):
        seconds = decoded["time"].dt.epoch("s")
        starts = pl.Series("window_start", _window_of(seconds, planned.windows))
        yield window_usage(decoded.with_columns(starts), scope.meter)


def rows_from_rollups(scope: Scope, planned: Plan, read: Read, groups_max: int | None = GROUPS_MAX) -> pl.DataFrame:
    """The rows that the rollups of a plan make, several a group."""
    found = read(rollups_statement(scope, planned, MEASURES[scope.meter.aggregation], groups_max))
    return _windowed(_named(found, scope), planned.windows)


def _windowed(rows: pl.DataFrame, windows: Instants | None) -> pl.DataFrame:
    return rows.with_columns(window_start=pl.Series(_window_of(rows["at"], windows)))


def _window_of(seconds: pl.Series, windows: Instants | None) -> Instants:
    """The start of the window of each instant; 0 where there are no windows."""
    if windows is None:
        return np.zeros(len(seconds), np.int64)
    return windows[np.searchsorted(windows, seconds.to_numpy(), "right") - 1]


def _named(rows: pl.DataFrame, scope: Scope) -> pl.DataFrame:
    return rows.rename({f"value{number}": f"dimension {name}" for number, name in enumerate(scope.dimensions)})


def _no_rows(scope: Scope, measures: tuple[str, ...]) -> pl.DataFrame:
    kinds: dict[str, Any] = {"count": pl.UInt64, "uniques": pl.List(pl.String), "latest": LATEST}
    keys: dict[str, Any] = {"subject": pl.String} if scope.by_subject else {}
    keys |= {f"dimension {name}": pl.String for name in scope.dimensions}
    return pl.DataFrame(
        schema={"window_start": pl.Int64, **keys, **{name: kinds.get(name, QUANTITY) for name in measures}}
    )


def _finished(scope: Scope, rows: pl.DataFrame, windows: Instants) -> Answer:
    """One row a group, with its window. `windows` are where windows start, and where the last one ends.

    A query without windows has one, and its rows' window_start is 0.
    """
    query, kind = scope.query, scope.meter.aggregation
    if query.by_customer:
        payers = {subject: customer for customer, subjects in scope.customers.items() for subject in subjects}
        rows = rows.with_columns(
            customer=pl.col("subject").replace_strict(payers, default=None, return_dtype=pl.String)
        )
    whose = {"subject": query.by_subject, "customer": query.by_customer}
    keys = [*(name for name, asked in whose.items() if asked), *(f"dimension {name}" for name in query.dimensions)]
    groups = rows.group_by("window_start", *keys).agg(_TOGETHER[name] for name in MEASURES[kind])
    counts = kind in {Aggregation.COUNT, Aggregation.UNIQUE_COUNT}
    if counts and groups.is_empty() and not keys and not query.window_size:
        nothing = {"window_start": [0], "count": [0], "uniques": [[]]}
        groups = pl.DataFrame({name: nothing[name] for name in groups.columns}, schema=groups.schema)
    valued = groups.with_columns(value=VALUES[kind].cast(QUANTITY)).filter(pl.col("value").is_not_null())
    starts = valued["window_start"].to_numpy()
    places = np.searchsorted(windows, starts) if query.window_size else np.zeros(len(starts), np.int64)
    valued = valued.with_columns(
        window_start=pl.Series(windows[places], dtype=pl.Int64),
        window_end=pl.Series(windows[places + 1], dtype=pl.Int64),
    )
    return Answer(valued.sort("window_start", *keys).select("window_start", "window_end", *keys, "value"), scope)


def _bounds(scope: Scope, found_us: tuple[int, int], read: Read, versions: ConfigVersions) -> Instants:
    """The range of a row that has no window: the minutes of the first and of the last event, where none was asked for.

    `found_us` are whole hours then, and have usage in the first and in the last one.
    """
    query, (start_us, end_us) = scope.query, found_us
    shown = [start_us // MICROS, end_us // MICROS]
    hour_us = HOUR_S * MICROS
    first_hour, last_hour = (start_us, min(start_us + hour_us, end_us)), (max(end_us - hour_us, start_us), end_us)
    if query.start is None and (minutes := _minutes(scope, first_hour, read, versions)):
        shown[0] = min(minutes)
    if query.end is None and (minutes := _minutes(scope, last_hour, read, versions)):
        shown[1] = max(minutes) + 60
    return np.array(shown, np.int64)


def _minutes(scope: Scope, span: tuple[int, int], read: Read, versions: ConfigVersions) -> list[int]:
    """The minutes in which the meter was used."""
    events = read(events_statement(scope, (span,)))
    decoded = counted_events(scope, events, read(STRETCHES), versions) if len(events) else events
    return window_usage(_by_minute(decoded), scope.meter)["window_start"].to_list() if len(decoded) else []


def _a_minute(query: UsageQuery) -> Instants:
    """What a row without usage shows for a range that has no end."""
    start, end = (int(at.timestamp()) if at else None for at in (query.start, query.end))
    if start is None:
        start = 0 if end is None else end - 60
    return np.array([start, start + 60 if end is None else end], np.int64)


def _by_minute(events: pl.DataFrame) -> pl.DataFrame:
    return events.with_columns(window_start=pl.col("time").dt.epoch("s") // 60 * 60)


def _asked(at: datetime | None, otherwise_us: int) -> int:
    if at is None:
        return otherwise_us
    since = at - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    micros = (since.days * 86_400 + since.seconds) * MICROS + since.microseconds
    return min(max(micros, _EARLIEST_US), _LATEST_US)
