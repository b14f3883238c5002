"""Stored events as lists: the newest ones, and how many each subject has had."""

import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from aggregation.plan import Statement
from schemas.usage_query import Instant, InvalidQueryError

LIST_MAX = 100


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
        event["time"] = event["time"] or shown(row["time"])
        found.append(
            {
                "event": event,
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
    r"""The counts as OpenMetrics.

    >>> open_metrics(pl.DataFrame({"subject": ["a"], "events": [2]})).splitlines()[2]
    'openmeter_events_total{subject="a"} 2.0'
    """
    lines = ["# HELP openmeter_events Number of ingested events", "# TYPE openmeter_events counter"]
    for subject, events in rows.iter_rows():
        label = subject.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        lines.append(f'openmeter_events_total{{subject="{label}"}} {events}.0')
    return "\n".join([*lines, "# EOF", ""])


def shown(at: datetime) -> str:
    """An instant of the engine as RFC 3339 has it."""
    return f"{at.replace(tzinfo=None).isoformat()}Z"
