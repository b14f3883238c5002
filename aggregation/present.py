"""Answers as bodies: JSON as OpenMeter's SDKs read it, and CSV. Owns that a value keeps every digit.

In JSON a value is a number without needless zeros (`12.5`, `1`), or, where asked for, the same as a string. In CSV it
has six decimals, as OpenMeter writes it, and more where it needs them.
"""

import csv
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from aggregation.answer import Answer
from aggregation.windows import shown
from schemas.event import number_text
from schemas.identity import content_digest
from schemas.meter import Meter

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
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
    writer = csv.writer(text, lineterminator="\n")
    subject = ["subject"] if query.by_subject else []
    writer.writerow(["window_start", "window_end", *subject, *query.dimensions, "value"])
    for row in _rows(answered):
        keys = [*([row["subject"]] if query.by_subject else []), *row["dimensions"].values()]
        writer.writerow([row["start"], row["end"], *map(_plain, keys), csv_number(row["value"])])
    return "".join(text)


class _Text(list[str]):
    """What a CSV writer writes."""

    write = list.append


def csv_number(value: Decimal) -> str:
    """A value with at least six decimals.

    >>> csv_number(Decimal("300.000000000")), csv_number(Decimal("0.000000001"))
    ('300.000000', '0.000000001')
    """
    whole, _, decimals = number_text(value).partition(".")
    return f"{whole}.{decimals:0<{_CSV_DECIMALS}}"


def meter_body(meter: Meter) -> dict[str, Any]:
    """A meter as OpenMeter shows it."""
    optional = {"valueProperty": meter.value_property, "groupBy": meter.group_by or None}
    return {
        "id": meter_id(meter.slug),
        "slug": meter.slug,
        "name": meter.slug,
        "description": meter.description,
        "aggregation": meter.aggregation.value,
        "eventType": meter.event_type,
        **{name: value for name, value in optional.items() if value is not None},
        "metadata": {},
        "createdAt": "1970-01-01T00:00:00Z",
        "updatedAt": "1970-01-01T00:00:00Z",
    }


def meter_id(slug: str) -> str:
    """The id of a meter, in the form of a ULID: a digest of its slug, which never changes.

    >>> len(meter_id("calls"))
    26
    """
    number = int(content_digest(slug.encode())[:32], 16)
    return "".join(_CROCKFORD[number >> 5 * place & 31] for place in range(25, -1, -1))


def _rows(answered: Answer) -> Iterator[dict[str, Any]]:
    query, zone = answered.scope.query, answered.scope.query.zone
    bounds = {*answered.rows["window_start"], *answered.rows["window_end"]}
    texts = {bound: shown(bound, zone) for bound in bounds}
    for row in answered.rows.iter_rows(named=True):
        yield {
            "start": texts[row["window_start"]],
            "end": texts[row["window_end"]],
            "subject": row.get("subject"),
            "dimensions": {name: row[f"dimension {name}"] for name in query.dimensions},
            "value": row["value"],
        }


def _instant(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _plain(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
