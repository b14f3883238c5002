"""The events behind a number: each that counts for it or does not, with its place in the log, its value and its copies.

Owns what explains a number: why an event does not count, which copies of it were refused as duplicates, and whether it
arrived after a cut. A page ends at an event's place, so that the next one goes on behind it whatever arrives meanwhile.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from aggregation.answer import Read, counted_events
from aggregation.batch import ConfigVersions
from aggregation.fold import counts_for
from aggregation.listing import shown
from aggregation.place import behind, cursor_at, micros_of, place_of
from aggregation.plan import STRETCHES, Scope, Statement

PAGE_MAX = 1000
_DECODED = ("event", "log_id", "partition", "offset", "line", "appended_at")


@dataclass(frozen=True)
class Page:
    """Events behind a number, and where the next page begins; None on the last one."""

    events: list[dict[str, Any]]
    cursor: str | None


def page(
    scope: Scope, span: tuple[int, int], late_since: int | None, cursor: str, limit: int, read: Read,
    versions: ConfigVersions,
) -> Page:  # fmt: skip
    """The next events of [start, end), in microseconds, that the meter's type has, by time and place.

    Raises InvalidQueryError for a cursor that is none of ours.
    """
    rows = read(_page_statement(scope, span, cursor, limit + 1))
    more, rows = len(rows) > limit, rows.head(limit)
    if rows.is_empty():
        return Page([], None)
    decoded = counted_events(scope, rows.select(_DECODED), read(STRETCHES), versions)
    copies = read(_copies_statement(scope, rows))
    refused: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for copy in copies.iter_rows(named=True):
        refused.setdefault((copy["source"], copy["id"]), []).append(_place(copy))
    values = {}
    if len(decoded):
        text = pl.col(scope.meter.value_property) if scope.meter.value_property else pl.lit(None, pl.String)
        judged = decoded.select("log_id", "partition", "offset", "line", counts=counts_for(scope.meter), value=text)
        values = {tuple(row[:4]): row[4:] for row in judged.iter_rows()}
    events = []
    for row in rows.iter_rows(named=True):
        counts, value = values.get((row["log_id"], row["partition"], row["offset"], row["line"]), (None, None))
        reason = "the meter was not in force here" if counts is None else "; ".join(row["validation_errors"])
        events.append(
            {
                "id": row["id"],
                "source": row["source"],
                "subject": row["subject"],
                "time": shown(row["time"]),
                **_place(row),
                "epoch": row["epoch"],
                "counts": bool(counts),
                "value": value,
                **({} if counts else {"reason": reason}),
                **({"late": row["epoch"] >= late_since} if late_since is not None else {}),
                "duplicates": refused.get((row["source"], row["id"]), []),
            }
        )
    return Page(events, cursor_at(rows.row(-1, named=True)) if more else None)


def _page_statement(scope: Scope, span: tuple[int, int], cursor: str, limit: int) -> Statement:
    clauses, bound = scope.where()
    clauses += [
        "type = {type:String}",
        "time >= fromUnixTimestamp64Micro({start:Int64}, 'UTC')",
        "time < fromUnixTimestamp64Micro({end:Int64}, 'UTC')",
    ]
    bound |= {"type": scope.meter.event_type, "start": span[0], "end": span[1], "limit": limit}
    after, place = behind(cursor, "time", newest_first=False)
    clauses += after
    bound |= place
    return Statement(
        "SELECT event, log_id, partition, offset, line, appended_at, id AS id, source, subject, time, epoch,"  # noqa: S608
        f" validation_errors, {micros_of('time')} AS micros FROM events"
        f" WHERE {' AND '.join(clauses)} ORDER BY {place_of('time')} LIMIT {{limit:UInt32}}",
        bound,
    )


def _copies_statement(scope: Scope, rows: pl.DataFrame) -> Statement:
    return Statement(
        "SELECT source, id, log_id, partition, offset, line, appended_at FROM duplicates"
        " WHERE tenant = {tenant:String} AND (source, id) IN"
        " (SELECT arrayJoin(arrayZip({sources:Array(String)}, {ids:Array(String)})))"
        " ORDER BY partition, offset, line",
        {"tenant": scope.tenant, "sources": rows["source"].to_list(), "ids": rows["id"].to_list()},
    )


def _place(row: dict[str, Any]) -> dict[str, Any]:
    names = ("partition", "offset", "line")
    return {**{name: row[name] for name in names}, "appendedAt": shown(row["appended_at"])}
