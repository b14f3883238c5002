"""Stored events and rejections as lists, the newest first, page by page; and how many events each subject has had.

Owns whose a rejection is: that tenant's whom the line names, if it is JSON at all; the default tenant's where an object
names none, as with events; and otherwise nobody's, to be seen by who runs the system.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from aggregation.event_filter import EventFilter
from aggregation.place import COLUMNS, behind, cursor_at, micros_of, place_of
from aggregation.plan import Statement
from schemas.outcomes import Reason
from schemas.tenant import DEFAULT_TENANT
from schemas.usage_query import Instant, InvalidQueryError, Names, Whole

LIST_MAX = 100
RAW_BYTES_MAX = 16 << 10
"""Of a rejected line that is shown: it may be as long as a record."""
_POSITION = "concat(left(log_id, 8), ':', toString(partition), ':', toString(offset), ':', toString(line))"
_NAMED = "toString(JSONType(raw, 'tenant'))"
_IS_SOMEBODYS = f"(isValidJSON(raw) AND toString(JSONType(raw)) = 'Object' AND {_NAMED} IN ('String', 'Null'))"
_OWNER = f"if({_NAMED} = 'Null', '{DEFAULT_TENANT}', JSONExtractString(raw, 'tenant'))"


class EventsQuery(BaseModel):
    """Which events to list; instants as `from <= time < to`, `id` as any part of an event's id."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")
    ingested_at_from: Instant | None = None
    ingested_at_to: Instant | None = None
    id: str | None = Field(default=None, min_length=1)
    subject: str | None = Field(default=None, min_length=1)
    customer_id: Names = ()
    limit: Whole = Field(default=LIST_MAX, ge=1, le=LIST_MAX)


class EventsPageQuery(BaseModel):
    """A page of events, newest first. The `client_id` is of no use here."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    cursor: str = ""
    limit: Whole = Field(default=LIST_MAX, ge=1, le=LIST_MAX)
    client_id: str | None = Field(default=None, min_length=1, max_length=36)
    filter: EventFilter = EventFilter()


class RejectionsQuery(BaseModel):
    """A page of rejections, newest first; of lines that are JSON and so some tenant's, or of nobody's."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True)

    start: Instant | None = Field(default=None, alias="from")
    end: Instant | None = Field(default=None, alias="to")
    reason: Reason | None = None
    cursor: str = ""
    limit: Whole = Field(default=LIST_MAX, ge=1, le=LIST_MAX)
    of_nobody: bool = False


Query = TypeVar("Query", bound=BaseModel)


def list_query(model: type[Query], parameters: dict[str, Any]) -> Query:
    """The query of a request. Raises InvalidQueryError with the first thing that is wrong."""
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidQueryError(f"{'.'.join(str(step) for step in first['loc'])}: {message}") from None


def list_statement(tenant: str, asked: EventsQuery, subjects: Sequence[str] | None) -> Statement:
    """The events that are asked for, newest first; `subjects` are those of the customers that are asked for."""
    bounds = {
        "time >= {from:DateTime64(6, 'UTC')}": asked.start,
        "time < {to:DateTime64(6, 'UTC')}": asked.end,
        "appended_at >= {ingested_from:DateTime64(3, 'UTC')}": asked.ingested_at_from,
        "appended_at < {ingested_to:DateTime64(3, 'UTC')}": asked.ingested_at_to,
        "position(id, {id:String}) > 0": asked.id,
        "subject = {subject:String}": asked.subject,
        "subject IN {of_customers:Array(String)}": None if subjects is None else list(subjects),
    }
    clauses = {clause: value for clause, value in bounds.items() if value is not None}
    named = {clause.split("{")[1].split(":")[0]: value for clause, value in clauses.items()}
    return Statement(
        "SELECT event, time, appended_at, stored_at, validation_errors, subject FROM events"  # noqa: S608  bound
        f" WHERE {' AND '.join(['tenant = {tenant:String}', *clauses])}"
        " ORDER BY time DESC, appended_at DESC, partition DESC, offset DESC, line DESC LIMIT {limit:UInt32}",
        {"tenant": tenant, "limit": asked.limit, **named},
    )


def subjects_of(customers: Mapping[str, Sequence[str]], wanted: Sequence[str] | None) -> list[str] | None:
    """The subjects of the customers that are wanted, of unknown ones none; None where no customer is asked for."""
    return None if wanted is None else [subject for each in wanted for subject in customers.get(each, ())]


def page_statement(tenant: str, asked: EventsPageQuery, subjects: Sequence[str] | None) -> Statement:
    """One event more than a page has; `subjects` are those of the customers that are asked for."""
    conditions, bound = asked.filter.conditions()
    behind_it, place = behind(asked.cursor, "time", newest_first=True)
    if subjects is not None:
        conditions.append("subject IN {of_customers:Array(String)}")
        bound["of_customers"] = list(subjects)
    return Statement(
        f"SELECT event, time, appended_at, stored_at, validation_errors, subject, {COLUMNS},"  # noqa: S608  bound
        f" {micros_of('time')} AS micros FROM events"
        f" WHERE {' AND '.join(['tenant = {tenant:String}', *conditions, *behind_it])}"
        f" ORDER BY {place_of('time')} DESC LIMIT {{limit:UInt32}}",
        {"tenant": tenant, "limit": asked.limit + 1, **bound, **place},
    )


def rejections_statement(tenant: str, asked: RejectionsQuery) -> Statement:
    """One rejection more than a page has."""
    behind_it, place = behind(asked.cursor, "appended_at", newest_first=True)
    bounds = {
        "appended_at >= {from:DateTime64(6, 'UTC')}": ("from", asked.start),
        "appended_at < {to:DateTime64(6, 'UTC')}": ("to", asked.end),
        "reason = {reason:String}": ("reason", asked.reason),
    }
    given = {clause: pair for clause, pair in bounds.items() if pair[1] is not None}
    whose = f"NOT ({_IS_SOMEBODYS})" if asked.of_nobody else f"{_IS_SOMEBODYS} AND {_OWNER} = {{tenant:String}}"
    return Statement(
        f"SELECT reason, detail, base64Encode(substring(raw, 1, {RAW_BYTES_MAX})) AS encoded, length(raw) AS bytes,"  # noqa: S608
        f" {_POSITION} AS position, {COLUMNS}, appended_at, rejected_at, {micros_of('appended_at')} AS micros"
        " FROM rejections"
        f" WHERE {' AND '.join([whose, *given, *behind_it])}"
        f" ORDER BY {place_of('appended_at')} DESC LIMIT {{limit:UInt32}}",
        {"tenant": tenant, "limit": asked.limit + 1, **dict(given.values()), **place},
    )


def paged(rows: pl.DataFrame, limit: int, shown_as: Callable[[pl.DataFrame], list[dict[str, Any]]]) -> dict[str, Any]:
    """Rows, of which there may be one too many, as a page of them with the cursor of the next page, if there is one."""
    items = rows.head(limit)
    return {"items": shown_as(items), "nextCursor": cursor_at(items.row(-1, named=True)) if len(rows) > limit else None}


def rejected(rows: pl.DataFrame, replays: Mapping[str, datetime]) -> list[dict[str, Any]]:
    """Rejections: why, where in the log, when, and the line, as much of it as is shown; what is no text in base64.

    `replays` says when those that were put into the log again were, by position.
    """
    found = []
    for row in rows.iter_rows(named=True):
        raw = b64decode(row["encoded"])
        try:
            line = {"raw": raw.decode(errors="strict" if row["bytes"] == len(raw) else "ignore")}
        except UnicodeDecodeError:
            line = {"rawBase64": row["encoded"]}
        found.append(
            {
                **{name: row[name] for name in ("reason", "detail", "partition", "offset", "line", "position")},
                "ingestedAt": shown(row["appended_at"]),
                "rejectedAt": shown(row["rejected_at"]),
                **({"replayedAt": shown(again)} if (again := replays.get(row["position"])) else {}),
                **line,
                "bytes": row["bytes"],
            }
        )
    return found


def listed(rows: pl.DataFrame, customers: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Events as OpenMeter lists them. The event is as it was sent; without a time, it has the log's."""
    payers = {subject: customer for customer, subjects in customers.items() for subject in subjects}
    found = []
    for row in rows.iter_rows(named=True):
        event = json.loads(row["event"], parse_float=Decimal, parse_int=Decimal)
        event.pop("tenant", None)
        event.setdefault("time", None)
        event["time"] = event["time"] or shown(row["time"])
        found.append(
            {
                "event": event,
                **({"customerId": payers[row["subject"]]} if row["subject"] in payers else {}),
                "ingestedAt": shown(row["appended_at"]),
                "storedAt": shown(row["stored_at"]),
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
    r"""The counts as OpenMetrics. It has no escape for a carriage return, which is written as a backslash and an r.

    >>> open_metrics(pl.DataFrame({"subject": ["a"], "events": [2]})).splitlines()[2]
    'openmeter_events_total{subject="a"} 2.0'
    """
    lines = ["# HELP openmeter_events Number of ingested events", "# TYPE openmeter_events counter"]
    for subject, events in rows.iter_rows():
        label = subject.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n").replace("\r", r"\\r")
        lines.append(f'openmeter_events_total{{subject="{label}"}} {events}.0')
    return "\n".join([*lines, "# EOF", ""])


def shown(at: datetime) -> str:
    """An instant of UTC as RFC 3339 has it."""
    return f"{at.replace(tzinfo=None).isoformat()}Z"
