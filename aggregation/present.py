"""Answers as bodies: JSON as OpenMeter's SDKs read it, and CSV. Owns that a value keeps every digit.

In JSON a value is a number without needless zeros (`12.5`, `1`), or, where asked for, the same as a string. In CSV it
has six decimals, as OpenMeter writes it, and more where it needs them.
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

from aggregation.answer import Answer
from aggregation.windows import shown
from schemas.event import number_text
from schemas.identity import content_digest
from schemas.meter import Meter, MeterTimes

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CSV_DECIMALS = 6
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def json_body(answered: Answer, *, strings: bool) -> bytes:
    """The answer to a query as compact JSON."""
    query = answered.scope.query
    rows = []
    for row in _rows(answered):
        subject, dimensions = row["subject"], row["dimensions"]
        value = number_text(row["value"])
        rows.append(
            {
                "value": value if strings else orjson.Fragment(value),
                "windowStart": row["start"],
                "windowEnd": row["end"],
                "subject": subject,
                **({"customerId": row["customer"]} if query.by_customer else {}),
                "groupBy": dimensions,
            }
        )
    head = {
        "from": _instant(query.start),
        "to": _instant(query.end),
        "windowSize": query.window_size.value if query.window_size else None,
    }
    return orjson.dumps({**{name: value for name, value in head.items() if value is not None}, "data": rows})


def csv_body(answered: Answer) -> str:
    """The answer to a query as CSV. A text that a spreadsheet would take for a formula gets an apostrophe."""
    query = answered.scope.query
    text = _Text()
    writer = csv.writer(text, lineterminator="\r\n")  # it puts quotes around what has a part of its line end
    whose = {"subject": query.by_subject, "customer_id": query.by_customer}
    named = [name for name, asked in whose.items() if asked]
    writer.writerow(["window_start", "window_end", *named, *query.dimensions, "value"])
    for row in _rows(answered):
        keys = [*(row[name.removesuffix("_id")] or "" for name in named), *row["dimensions"].values()]
        writer.writerow([row["start"], row["end"], *map(_plain, keys), csv_number(row["value"])])
    return "".join(text)


class _Text(list[str]):
    """The rows that a CSV writer writes, each with a line feed behind it."""

    def write(self, row: str) -> None:
        """Add a row."""
        self.append(row.removesuffix("\r\n") + "\n")


def csv_number(value: Decimal) -> str:
    """A value with at least six decimals.

    >>> csv_number(Decimal("300.000000000")), csv_number(Decimal("0.000000001"))
    ('300.000000', '0.000000001')
    """
    whole, _, decimals = number_text(value).partition(".")
    return f"{whole}.{decimals:0<{_CSV_DECIMALS}}"


def meter_body(meter: Meter, times: MeterTimes) -> dict[str, Any]:
    """A meter as OpenMeter shows it, and what of its definition is ours. One that was withdrawn has `deletedAt`."""
    return {
        "name": meter.slug,
        "description": "",
        "metadata": {},
        **meter.written(),
        "id": meter_id(meter.slug, times.created_at),
        "createdAt": _instant(times.created_at),
        "updatedAt": _instant(times.updated_at),
        **({"deletedAt": _instant(times.withdrawn_at)} if times.withdrawn_at else {}),
    }


def meter_id(slug: str, created_at: datetime) -> str:
    """A ULID that is made of when the meter came into force, and of its slug.

    >>> meter_id("calls", datetime(2026, 1, 31, tzinfo=UTC))
    '01KG8NJW00YHQNK47BZBEAP6CH'
    """
    millis = (created_at - _EPOCH) // timedelta(milliseconds=1)
    number = (millis << 80) | int(content_digest(slug.encode())[:20], 16)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def _rows(answered: Answer) -> Iterator[dict[str, Any]]:
    query, zone = answered.scope.query, answered.scope.query.zone
    bounds = {*answered.rows["window_start"], *answered.rows["window_end"]}
    texts = {bound: shown(bound, zone) for bound in bounds}
    for row in answered.rows.iter_rows(named=True):
        yield {
            "start": texts[row["window_start"]],
            "end": texts[row["window_end"]],
            "subject": row.get("subject"),
            "customer": row.get("customer"),
            "dimensions": {name: row[f"dimension {name}"] for name in query.dimensions},
            "value": row["value"],
        }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
