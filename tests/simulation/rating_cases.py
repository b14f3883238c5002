"""Events of the oracle of rating as the rater takes them: a usage frame, with a row an event."""

from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import polars as pl

from schemas.charge import INSTANT
from schemas.money import QUANTITY
from schemas.tables import LATEST
from tests.oracles.rating.kinds import Event

_EXACT = Context(prec=60)


def decimal(number: Fraction) -> Decimal:
    """A number of few decimals, exactly."""
    return _EXACT.divide(Decimal(number.numerator), Decimal(number.denominator))


def usage_of(events: Sequence[Event], dimensions: Sequence[str] = ("region", "size")) -> pl.DataFrame:
    """A row an event, in the order given."""
    latest: Any = LATEST.inner  # type: ignore[attr-defined]
    schema = {
        "subject": pl.String, "meter": pl.String, "at": INSTANT, "count": pl.Int64, "position": pl.UInt64,
        "uniques": pl.List(pl.String), "quantity": QUANTITY, "sum": QUANTITY, "latest": latest,
        **{f"dimension.{name}": pl.String for name in dimensions},
    }  # fmt: skip
    return pl.DataFrame([_row(event, dimensions) for event in events], schema=schema)


def _row(event: Event, dimensions: Sequence[str]) -> dict[str, Any]:
    value = None if isinstance(event.value, str) else decimal(event.value)
    return {
        "subject": event.subject, "meter": event.meter, "at": event.at, "count": 1, "position": event.position,
        "uniques": [event.value] if isinstance(event.value, str) else None, "quantity": value, "sum": value,
        "latest": {"time": event.at, "appended_at": event.at, "partition": 0, "offset": event.position, "line": 0,
                   "value": value},
        **{f"dimension.{name}": event.dimensions.get(name) for name in dimensions},
    }  # fmt: skip
