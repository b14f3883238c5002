"""Usage for rating: of each meter what is wanted of it, added up as coarsely as it may be, exactly. Core.

Owns that rows from rollups and rows from events together are the usage before a cut, each event once; and that no cut
or window ends within a row. Unlike the answer of a query it has no limit: who asks for all subjects gets them all, so
ask for some at a time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl

from aggregation.answer import Read, events_of, rows_from_events, rows_from_rollups
from aggregation.batch import ConfigVersions
from aggregation.fold import counts_for
from aggregation.plan import MEASURES, MICROS, VALUES, Scope, Statement, SubjectRange, plan
from aggregation.recount import Backfill
from aggregation.windows import SECONDS, Instants
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from schemas.tables import LATEST, LATEST_ORDER
from schemas.usage_query import SUBJECT, UsageQuery, WindowSize
from schemas.wanted import Want

SUBJECTS_BYTES_MAX = 200_000
"""Of subjects by name in one statement, as a URL has them: a server takes a megabyte."""
SAMPLED = 256
"""Of so many subjects one is looked at to find ranges of subjects."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_AT = pl.Datetime("us", "UTC")
_WINDOWS = {"minute": WindowSize.MINUTE, "hour": WindowSize.HOUR, "day": WindowSize.DAY}
_COLUMNS: dict[str, tuple[Any, frozenset[Aggregation]]] = {
    "sum": (QUANTITY, frozenset({Aggregation.AVG})),
    "latest": (LATEST.inner, frozenset({Aggregation.LATEST})),
    "uniques": (pl.List(pl.String), frozenset({Aggregation.UNIQUE_COUNT})),
}
"""Columns that usage has only where a meter of such an aggregation is wanted, and null for the others."""


def usage_for(
    read: Read,
    versions: ConfigVersions,
    tenant: str,
    meters: Iterable[Meter],
    wants: Sequence[Want],
    cut: int,
    subjects: Sequence[str] | SubjectRange | None = None,
    *,
    backfills: Mapping[str, Sequence[Backfill]] | None = None,
) -> pl.DataFrame:
    """The usage of epochs before the cut that is wanted: columns rating.frames.USAGE, in no order.

    Of some subjects by name, of a range of them, or of all. `sum`, `latest` and `uniques` are there if a wanted meter
    has them, `position` if single events are wanted: their order in the log among those of one instant. A dimension has
    the column `dimension.NAME`. `backfills` are by meter. Raises LookupError for a meter that there is not.
    """
    known = {meter.slug: meter for meter in meters}
    lacking = sorted({want.meter for want in wants} - known.keys())
    if lacking:
        raise LookupError(f"usage is wanted of meters that there are not: {', '.join(lacking)}")
    schema = _schema([known[want.meter].aggregation for want in wants], wants)
    parts = [pl.DataFrame(schema=schema)]
    for want in wants:
        meter = known[want.meter]
        query = UsageQuery(
            group_by=(SUBJECT, *(name for name in want.dimensions if name in meter.group_by)),
            window_size=WindowSize.HOUR if want.window == "hour" else None,
            as_of=cut,
        )
        scope = Scope(tenant, meter, query, tuple((backfills or {}).get(meter.slug, ())))
        found = [rows for own in _scopes(scope, subjects) for rows in _rows(own, want, read, versions)]
        if want.events and found:
            found = [pl.concat(found).sort(LATEST_ORDER).with_row_index("position")]
        parts += [_as_usage(rows, meter, want, schema) for rows in found]
    return pl.concat(parts)


def sampled_subjects_statement(tenant: str, wants: Sequence[Want], cut: int) -> Statement:
    """Some of the subjects with usage of the hours that are wanted, in order: one of SAMPLED, by a digest."""
    first, end = min(want.cuts[0] for want in wants), max(want.cuts[-1] for want in wants)
    return Statement(
        "SELECT subject FROM rollups WHERE tenant = {tenant:String} AND meter IN {meters:Array(String)}"
        " AND epoch < {cut:UInt32} AND window_start >= fromUnixTimestamp64Milli({first_ms:Int64}, 'UTC')"
        " AND window_start < fromUnixTimestamp64Milli({end_ms:Int64}, 'UTC')"
        " AND cityHash64(subject) % {sampled:UInt32} = 0 GROUP BY subject ORDER BY subject",
        {
            "tenant": tenant, "meters": sorted({want.meter for want in wants}), "cut": cut, "sampled": SAMPLED,
            "first_ms": _micros(first) // 1000 - 3_600_000, "end_ms": _micros(end) // 1000,
        },
    )  # fmt: skip


def ranges(sampled: Sequence[str], subjects_at_once: int) -> Iterator[SubjectRange]:
    """Ranges of about so many subjects that together are all, from a sample in order.

    >>> [(each.first, each.end) for each in ranges(["b", "f", "k"], 2 * SAMPLED)]
    [(None, 'f'), ('f', None)]
    """
    step = max(subjects_at_once // SAMPLED, 1)
    bounds = [None, *sampled[step - 1 :: step][: max(-(-len(sampled) // step) - 1, 0)], None]
    yield from (SubjectRange(first, end) for first, end in pairwise(bounds))


def _scopes(scope: Scope, subjects: Sequence[str] | SubjectRange | None) -> Iterator[Scope]:
    """The scope of some subjects: by name in pieces that a statement has room for."""
    if subjects is None or isinstance(subjects, SubjectRange):
        yield replace(scope, within=subjects)
        return
    names = list(dict.fromkeys(subjects))
    sizes = np.cumsum([len(quote(name)) + 12 for name in names]) // SUBJECTS_BYTES_MAX
    for piece in np.unique(sizes):
        own = tuple(name for name, of in zip(names, sizes, strict=True) if of == piece)
        yield replace(scope, query=scope.query.model_copy(update={"subject": own}))


def _rows(scope: Scope, want: Want, read: Read, versions: ConfigVersions) -> Iterator[pl.DataFrame]:
    """Rows with the measures of the meter: by window and cut with `window_start`, or by event with LATEST_ORDER."""
    starts = _starts(want)
    first_us, end_us = _micros(want.cuts[0]), _micros(want.cuts[-1])
    fine = want.events or want.window == "minute"
    planned = plan(first_us, end_us, starts, all_from_events=fine)
    if want.events:
        yield from (_one_by_one(events, scope.meter) for events in events_of(scope, planned, read, versions))
        return
    if planned.from_rollups:
        yield rows_from_rollups(scope, planned, read, groups_max=None)
    yield from rows_from_events(scope, planned, read, versions)


def _starts(want: Want) -> Instants:
    """Where rows may begin, and the end of the last one."""
    cuts = np.array([_micros(at) for at in want.cuts], np.int64)
    assert not (cuts % MICROS).any(), "local days begin at whole seconds"
    cuts //= MICROS
    if want.window is None or want.events:
        return cuts
    width = SECONDS[_WINDOWS[want.window]]
    windows = np.arange(cuts[0] // width * width + width, cuts[-1], width, dtype=np.int64)
    return np.union1d(cuts, windows)


def _one_by_one(events: pl.DataFrame, meter: Meter) -> pl.DataFrame:
    """A row an event that the meter counts, with its place in time and in the log."""
    values: dict[str, pl.Expr] = {"count": pl.lit(1, pl.UInt64)}
    if meter.value_property:
        text = pl.col(meter.value_property)
        number = text.cast(QUANTITY) if meter.numeric else text
        if meter.aggregation is Aggregation.LATEST:
            values["latest"] = pl.concat_list(pl.struct(*LATEST_ORDER, number.alias("value")))
        elif meter.aggregation is Aggregation.UNIQUE_COUNT:
            values["uniques"] = pl.concat_list(text)
        else:
            values[MEASURES[meter.aggregation][0]] = number
    dimensions = [pl.col(path).fill_null("").alias(f"dimension {name}") for name, path in meter.group_by.items()]
    return events.filter(counts_for(meter)).select("subject", *LATEST_ORDER, *dimensions, **values)


def _as_usage(rows: pl.DataFrame, meter: Meter, want: Want, schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows with the columns of usage."""
    kind = meter.aggregation
    made: dict[str, pl.Expr] = {"subject": pl.col("subject"), "meter": pl.lit(meter.slug)}
    made["at"] = pl.col("time") if want.events else (pl.col("window_start") * MICROS).cast(_AT)
    made |= {name: pl.col(name) for name in ("position", "count", "sum", "uniques") if name in rows.columns}
    if kind is not Aggregation.UNIQUE_COUNT:
        made["quantity"] = VALUES[kind]
    if kind is Aggregation.LATEST:
        rows = rows.with_columns(pl.col("latest").cast(LATEST))
        made["latest"] = pl.col("latest").list.first()
    made |= {f"dimension.{name}": pl.col(f"dimension {name}") for name in want.dimensions if name in meter.group_by}
    return rows.select(made.get(name, pl.lit(None)).cast(of).alias(name) for name, of in schema.items())


def _schema(kinds: Sequence[Aggregation], wants: Sequence[Want]) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "subject": pl.String, "meter": pl.String, "at": _AT, "quantity": QUANTITY, "count": pl.Int64,
        **{name: of for name, (of, having) in _COLUMNS.items() if having.intersection(kinds)},
    }  # fmt: skip
    if any(want.events for want in wants):
        schema["position"] = pl.UInt64
    return schema | {f"dimension.{name}": pl.String for want in wants for name in want.dimensions}


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
