"""Stored events as lists: the newest ones, those behind a number, and how many each subject has had.

Owns what explains a number: each event that counts for it, with its place in the log, its value, the copies of it that
were refused as duplicates, and whether it arrived after a cut.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from aggregation.answer import Read, counted_events
from aggregation.batch import ConfigVersions
from aggregation.fold import counts_for
from aggregation.plan import STRETCHES, Scope, Statement
from schemas.usage_query import Instant, InvalidQueryError

LIST_MAX = 100
PAGE_MAX = 1000
_DECODED = ("event", "log_id", "partition", "offset", "line", "appended_at")
_PLACE = "(toUnixTimestamp64Micro(time), log_id, partition, offset, line)"


class EventsQuery(BaseModel):
    """Which events to list; instants as `from <= time < to`, `id` as any part of an event's id."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")
    ingested_at_from: Instant | None = None
    ingested_at_to: Instant | None = None
    id: str | None = Field(default=None, min_length=1)
    subject: str | None = Field(default=None, min_length=1)
    limit: int = Field(default=LIST_MAX, ge=1, le=LIST_MAX)


def events_query(parameters: dict[str, Any]) -> EventsQuery:
    """The query of a request. Raises InvalidQueryError with the first thing that is wrong."""
    try:
        return EventsQuery.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidQueryError(f"{'.'.join(str(step) for step in first['loc'])}: {message}") from None


def list_statement(tenant: str, asked: EventsQuery) -> Statement:
    """The events that are asked for, newest first."""
    bounds = {
        "time >= {from:DateTime64(6, 'UTC')}": asked.start,
        "time < {to:DateTime64(6, 'UTC')}": asked.end,
        "appended_at >= {ingested_from:DateTime64(3, 'UTC')}": asked.ingested_at_from,
        "appended_at < {ingested_to:DateTime64(3, 'UTC')}": asked.ingested_at_to,
        "position(id, {id:String}) > 0": asked.id,
        "subject = {subject:String}": asked.subject,
    }
    clauses = {clause: value for clause, value in bounds.items() if value is not None}
    named = {clause.split("{")[1].split(":")[0]: value for clause, value in clauses.items()}
    return Statement(
        "SELECT event, time, appended_at, stored_at, validation_errors FROM events"  # noqa: S608  bound
        f" WHERE {' AND '.join(['tenant = {tenant:String}', *clauses])}"
        " ORDER BY time DESC, appended_at DESC, partition DESC, offset DESC, line DESC LIMIT {limit:UInt32}",
        {"tenant": tenant, "limit": asked.limit, **named},
    )


def listed(rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Events as OpenMeter lists them. The event is as it was sent; without a time, it has the log's."""
    found = []
    for row in rows.iter_rows(named=True):
        event = json.loads(row["event"], parse_float=Decimal, parse_int=Decimal)
        event.pop("tenant", None)
        event.setdefault("time", None)
        event["time"] = event["time"] or _shown(row["time"])
        found.append(
            {
                "event": event,
                "ingestedAt": _shown(row["appended_at"]),
                "storedAt": _shown(row["stored_at"]),
                **({"validationError": "; ".join(row["validation_errors"])} if row["validation_errors"] else {}),
            }
        )
    return found


def counts_statement(tenant: str, since: datetime) -> Statement:
    """How many events each subject has had since an instant, by event time."""
    return Statement(
        "SELECT subject, count() AS events FROM events WHERE tenant = {tenant:String}"
        " AND time >= {since:DateTime64(6, 'UTC')} GROUP BY subject ORDER BY subject",
        {"tenant": tenant, "since": since},
    )


def open_metrics(rows: pl.DataFrame) -> str:
    r"""The counts as OpenMetrics.

    >>> open_metrics(pl.DataFrame({"subject": ["a"], "events": [2]})).splitlines()[2]
    'openmeter_events_total{subject="a"} 2.0'
    """
    lines = ["# HELP openmeter_events Number of ingested events", "# TYPE openmeter_events counter"]
    for subject, events in rows.iter_rows():
        label = subject.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines.append(f'openmeter_events_total{{subject="{label}"}} {events}.0')
    return "\n".join([*lines, "# EOF", ""])


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
                "time": _shown(row["time"]),
                **_place(row),
                "epoch": row["epoch"],
                "counts": bool(counts),
                "value": value,
                **({} if counts else {"reason": reason}),
                **({"late": row["epoch"] >= late_since} if late_since is not None else {}),
                "duplicates": refused.get((row["source"], row["id"]), []),
            }
        )
    last = rows.row(-1, named=True)
    places = (int(last["micros"]), last["log_id"], last["partition"], last["offset"], last["line"])
    return Page(events, ".".join(map(str, places)) if more else None)


def _page_statement(scope: Scope, span: tuple[int, int], cursor: str, limit: int) -> Statement:
    clauses, bound = scope.where()
    clauses += [
        "type = {type:String}",
        "time >= fromUnixTimestamp64Micro({start:Int64}, 'UTC')",
        "time < fromUnixTimestamp64Micro({end:Int64}, 'UTC')",
    ]
    bound |= {"type": scope.meter.event_type, "start": span[0], "end": span[1], "limit": limit}
    if cursor:
        try:
            micros, log_id, *place = cursor.split(".")
            partition, offset, line = map(int, place)
            bound |= {"micros": int(micros), "log_id": log_id, "partition": partition, "offset": offset, "line": line}
        except ValueError:
            raise InvalidQueryError("cursor: allowed: the nextCursor of an answer") from None
        after = "({micros:Int64}, {log_id:String}, {partition:UInt16}, {offset:UInt64}, {line:UInt32})"
        clauses.append(f"{_PLACE} > {after}")
    return Statement(
        "SELECT event, log_id, partition, offset, line, appended_at, id AS id, source, subject, time, epoch,"  # noqa: S608
        " validation_errors, toUnixTimestamp64Micro(time) AS micros FROM events"
        f" WHERE {' AND '.join(clauses)} ORDER BY {_PLACE} LIMIT {{limit:UInt32}}",
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
    return {**{name: row[name] for name in names}, "appendedAt": _shown(row["appended_at"])}


def _shown(at: datetime) -> str:
    return f"{at.replace(tzinfo=None).isoformat()}Z"
