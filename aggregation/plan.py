"""Where a usage query is answered from: whole hours from `rollups`, and the rest from the events themselves.

    from 10:20        11:00      12:00   a window ends at 13:45   14:00
         [ events -----)[ rollups --------------)[ events --------)[ rollups ...

Rollups hold whole hours of UTC. An hour that `from`, `to` or a window's bound cuts is read from `events`; where most
hours are cut, all of them are. Owns the statements of a query: each has the tenant, and all values are bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from aggregation.recount import Backfill
from aggregation.windows import DAY_S, HOUR_S, Instants
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY, average
from schemas.usage_query import UsageQuery, WindowSize

MICROS = 1_000_000
EVENTS_AT_ONCE = 250_000
GROUPS_MAX = 500_000
"""Of a query, before its filters: what is read and put together at once stays within some 200 MB."""
_EDGES_MAX = 0.5  # of the hours; beyond it, one pass over the events is the shorter way
_HOUR = "toInt64(intDiv(toUnixTimestamp64Milli(window_start), 1000))"

Spans = tuple[tuple[int, int], ...]
"""Stretches of time, [start, end) in microseconds since 1970, in order."""

MEASURES = {
    Aggregation.COUNT: ("count",),
    Aggregation.SUM: ("sum",),
    Aggregation.MIN: ("min",),
    Aggregation.MAX: ("max",),
    Aggregation.AVG: ("sum", "count"),
    Aggregation.LATEST: ("latest",),
    Aggregation.UNIQUE_COUNT: ("uniques",),
}
"""The columns of rollups that an aggregation's value is made of."""
VALUES = {
    Aggregation.COUNT: pl.col("count").cast(QUANTITY),
    Aggregation.SUM: pl.col("sum"),
    Aggregation.MIN: pl.col("min"),
    Aggregation.MAX: pl.col("max"),
    Aggregation.AVG: average(pl.col("sum"), pl.col("count")),
    Aggregation.LATEST: pl.col("latest").list.first().struct.field("value"),
    Aggregation.UNIQUE_COUNT: pl.col("uniques").list.len().cast(QUANTITY),
}
"""The value, made of these columns."""
_ADDED_UP = {
    "count": "sum(count)",
    "sum": "sum(sum)",
    "min": "min(min)",
    "max": "max(max)",
    "latest": "max(latest)",
    "uniques": "groupUniqArrayArray(uniques)",
}
"""How rows of rollups make one, in SQL."""


@dataclass(frozen=True)
class SubjectRange:
    """Subjects from the first on and before the end, by their bytes; None: without bound."""

    first: str | None = None
    end: str | None = None


@dataclass(frozen=True)
class Scope:
    """Whose usage of which meter, as of which cut, split and filtered by which dimensions."""

    tenant: str
    meter: Meter
    query: UsageQuery
    backfills: tuple[Backfill, ...] = ()
    """What of the meter was filled later."""
    customers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The subjects of each customer; a subject has one customer at most."""
    within: SubjectRange | None = None
    """Whose usage alone is read, if given."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions that rows have: those asked for, and those that are filtered."""
        return tuple(dict.fromkeys((*self.query.dimensions, *self.query.filters)))

    @property
    def by_subject(self) -> bool:
        """Whether usage is read by subject: also where it is put together by customer."""
        return self.query.by_subject or self.query.by_customer

    @property
    def subjects(self) -> list[str] | None:
        """The subjects whose usage is asked for, and no others; None for all."""
        wanted = self.query.subject or None
        if not self.query.filter_customer_id:
            return list(wanted) if wanted else None
        paid_for = [subject for customer in self.query.filter_customer_id for subject in self.customers[customer]]
        return [subject for subject in dict.fromkeys(paid_for) if wanted is None or subject in wanted]

    def where(self) -> tuple[list[str], dict[str, Any]]:
        """Conditions on the rows of either table, and the parameters of them."""
        clauses = ["tenant = {tenant:String}"]
        bound: dict[str, Any] = {"tenant": self.tenant}
        if (subjects := self.subjects) is not None:
            clauses.append("subject IN {subjects:Array(String)}")
            bound["subjects"] = subjects
        for name, compared in (("first", ">="), ("end", "<")):
            bound_at = getattr(self.within, name, None)
            if bound_at is not None:
                clauses.append(f"subject {compared} {{subject_{name}:String}}")
                bound[f"subject_{name}"] = bound_at
        if self.query.as_of is not None:
            clauses.append("epoch < {cut:UInt32}")
            bound["cut"] = self.query.as_of
        return clauses, bound


@dataclass(frozen=True)
class Statement:
    """A SELECT with its parameters."""

    sql: str
    bound: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What of a range comes from where. Hours are seconds since 1970, spans [start, end) in microseconds."""

    first_hour: int
    end_hour: int
    cut_hours: tuple[int, ...]
    spans: Spans
    windows: Instants | None

    @property
    def from_rollups(self) -> bool:
        """Whether some whole hour is left for rollups."""
        return (self.end_hour - self.first_hour) // HOUR_S > len(self.cut_hours)


def plan(start_us: int, end_us: int, windows: Instants | None, *, all_from_events: bool = False) -> Plan:
    """How to answer for [start, end).

    >>> plan(10 * MICROS, 2 * 3600 * MICROS, None)
    Plan(first_hour=0, end_hour=7200, cut_hours=(0,), spans=((10000000, 3600000000),), windows=None)
    """
    hour_us = HOUR_S * MICROS
    first, end = start_us // hour_us, -(-end_us // hour_us)
    points = [start_us, end_us]
    cut = {point // hour_us for point in points if point % hour_us}
    if windows is not None:
        inside = windows[(windows % HOUR_S != 0) & (windows * MICROS > start_us) & (windows * MICROS < end_us)]
        cut |= set((inside // HOUR_S).tolist())
    if all_from_events or len(cut) > max(2, (end - first) * _EDGES_MAX):
        return Plan(first * HOUR_S, first * HOUR_S, (), ((start_us, end_us),), windows)
    hours = np.array(sorted(cut), np.int64)
    runs = np.split(hours, np.flatnonzero(np.diff(hours) != 1) + 1) if len(hours) else []
    spans = tuple((max(int(run[0]) * hour_us, start_us), min((int(run[-1]) + 1) * hour_us, end_us)) for run in runs)
    return Plan(first * HOUR_S, end * HOUR_S, tuple((hours * HOUR_S).tolist()), spans, windows)


def pieces(spans: Spans, events: Sequence[tuple[int, int]]) -> Iterator[Spans]:
    """Spans in pieces of some EVENTS_AT_ONCE, so that not all events of a long range are in memory at once.

    `events` has the days since 1970 on which there are some, in order, and how many.

    >>> day = 86_400 * MICROS
    >>> [*pieces(((0, 4 * day),), [(0, 10), (1, EVENTS_AT_ONCE), (3, 1)])]
    [((0, 172800000000),), ((172800000000, 345600000000),)]
    """
    start, gathered = spans[0][0], 0
    for day, count in events:
        gathered += count
        if gathered >= EVENTS_AT_ONCE:
            end = (day + 1) * DAY_S * MICROS
            yield _within(spans, start, end)
            start, gathered = end, 0
    if gathered:
        yield _within(spans, start, spans[-1][1])


def _within(spans: Spans, start: int, end: int) -> Spans:
    return tuple((max(first, start), min(last, end)) for first, last in spans if first < end and last > start)


def rollups_statement(
    scope: Scope, planned: Plan, measures: tuple[str, ...], groups_max: int | None = GROUPS_MAX
) -> Statement:
    """The rollups of a plan: a row a window (`at`: some hour of it, in seconds), subject if asked for, and dimensions.

    The columns of dimensions are named `value0`, `value1` and so on. Where there are more groups than `groups_max`,
    only so many and one more are given.
    """
    at, windows = "toInt64(0)", {}
    if planned.windows is not None:
        at = _HOUR
        if scope.query.window_size is not WindowSize.HOUR:
            at, windows = f"roundDown({_HOUR}, {{windows:Array(Int64)}})", {"windows": planned.windows.tolist()}
    clauses, bound = scope.where()
    keys = [f"{at} AS at", *(["subject"] if scope.by_subject else [])]
    for number, name in enumerate(scope.dimensions):
        keys.append(f"dimensions[{{dimension{number}:String}}] AS value{number}")
        bound[f"dimension{number}"] = name
        if (passing := scope.query.filters.get(name)) and passing.values is not None:
            clauses.append(f"value{number} IN {{passing{number}:Array(String)}}")
            bound[f"passing{number}"] = list(passing.values)
    clauses += [
        "meter = {meter:String}",
        "window_start >= fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')",
        "window_start < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')",
    ]
    if planned.cut_hours:
        clauses.append(f"NOT has({{cut_hours:Array(Int64)}}, {_HOUR})")
        bound["cut_hours"] = list(planned.cut_hours)
    bound |= {
        "meter": scope.meter.slug,
        "first_ms": planned.first_hour * 1000,
        "end_ms": planned.end_hour * 1000,
        **windows,
    }
    added_up = [f"{_ADDED_UP[name]} AS {name}" for name in measures]
    groups = ["at", *(["subject"] if scope.by_subject else [])]
    groups += [f"value{number}" for number in range(len(scope.dimensions))]
    limit = ""
    if groups_max is not None:
        limit = (
            f" LIMIT {groups_max + 1}"
            f" SETTINGS max_rows_to_group_by = {groups_max + 1}, group_by_overflow_mode = 'break'"
        )
    return Statement(
        f"SELECT {', '.join([*keys, *added_up])} FROM rollups WHERE {' AND '.join(clauses)}"  # noqa: S608  bound
        f" GROUP BY {', '.join(groups)}{limit}",
        bound,
    )


def usage_range_statement(scope: Scope) -> Statement:
    """The first and the last hour, in seconds, that rollups have of a scope; and how many rows there are."""
    clauses, bound = scope.where()
    return Statement(
        f"SELECT min({_HOUR}) AS first, max({_HOUR}) AS last, count() AS rows FROM rollups"  # noqa: S608  bound
        f" WHERE {' AND '.join([*clauses, 'meter = {meter:String}'])}",
        {**bound, "meter": scope.meter.slug},
    )


def events_statement(scope: Scope, spans: Spans) -> Statement:
    """The events of spans, as their lines are, with their places in the log."""
    return _of_events("event, log_id, partition, offset, line, appended_at", scope, spans)


def days_statement(scope: Scope, spans: Spans) -> Statement:
    """How many events the days of spans have: (days since 1970, events), in order; no day without any."""
    day = f"intDiv(toUnixTimestamp64Micro(time), {DAY_S * MICROS})"
    statement = _of_events(f"{day} AS day, count() AS events", scope, spans)
    return replace(statement, sql=f"{statement.sql} GROUP BY day ORDER BY day")


def _of_events(columns: str, scope: Scope, spans: Spans) -> Statement:
    clauses, bound = scope.where()
    clauses += [
        "type = {type:String}",
        "time >= fromUnixTimestamp64Micro({start:Int64}, 'UTC')",
        "time < fromUnixTimestamp64Micro({end:Int64}, 'UTC')",
    ]
    bound |= {"type": scope.meter.event_type, "start": spans[0][0], "end": spans[-1][1]}
    if len(spans) > 1:
        clauses.append(
            "arrayExists((a, b) -> toUnixTimestamp64Micro(time) >= a AND toUnixTimestamp64Micro(time) < b,"
            " {starts:Array(Int64)}, {ends:Array(Int64)})"
        )
        bound |= {"starts": [start for start, _ in spans], "ends": [end for _, end in spans]}
    return Statement(f"SELECT {columns} FROM events WHERE {' AND '.join(clauses)}", bound)  # noqa: S608  bound


STRETCHES = Statement(
    "SELECT log_id, partition, toUInt32(config_version) AS config_version, min(next_offset) AS offset FROM progress"
    " GROUP BY log_id, partition, config_version",
    {},
)
"""From which offset of a partition on its batches were folded by which version of the configuration."""
