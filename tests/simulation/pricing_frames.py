"""Usage and segments as rating takes them, written shortly: one month of 31 days, instants as hours of it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl
from pydantic import TypeAdapter

from rating.frames import SEGMENTS, USAGE
from rating.levels import CARRIED
from rating.quantities import Quantities, quantities
from schemas.charges import Charge
from schemas.tables import LATEST, LATEST_ORDER

START = datetime(2026, 1, 1, tzinfo=UTC)
HOURS = 31 * 24
CHARGE: TypeAdapter[Charge] = TypeAdapter(Charge)
LATEST_STRUCT = pl.Struct([field for field in LATEST.inner.fields if field.name in LATEST_ORDER])  # type: ignore[union-attr]
SCHEMA: dict[str, Any] = {**USAGE, "latest": LATEST_STRUCT}


class Use(NamedTuple):
    """A row of usage: so many hours after START."""

    hour: Any = 0
    quantity: Any = 1
    subject: str = "s"
    meter: str = "m"
    more: dict[str, Any] | None = None


class Cut(NamedTuple):
    """A segment from an hour to an hour."""

    term: int = 0
    start: Any = 0
    end: Any = HOURS
    run: int = 0
    trial: bool = False
    slot: int = 0
    place: int = 0
    period: tuple[int, int] = (0, HOURS)


def at(hour: Any) -> datetime:
    """The instant so many hours after START, to the microsecond."""
    return START + timedelta(microseconds=int(hour * 3_600_000_000))


def standard(**keys: Any) -> dict[str, Any]:
    """A charge of the meter `m` with one price."""
    return {"id": "c", "model": "standard", "meter": "m", "unit_price": 1, **keys}


def usage_of(uses: Sequence[Use]) -> pl.DataFrame:
    """A usage frame. `more` has further columns; dimensions by their names in `dimension.`."""
    rows = [
        {
            "subject": use.subject, "meter": use.meter, "at": at(use.hour), "count": 1,
            "quantity": None if use.quantity is None else Decimal(use.quantity), **(use.more or {}),
        }
        for use in uses
    ]  # fmt: skip
    dimensions = {name: pl.String for row in rows for name in row if name.startswith("dimension.")}
    others = {"position": pl.UInt64} if any("position" in row for row in rows) else {}
    return pl.DataFrame(rows, schema={**SCHEMA, **dimensions, **others})


def segments_of(cuts: Sequence[Cut]) -> pl.DataFrame:
    """A segments frame, in the order of the cuts."""
    rows = [
        {
            "place": cut.place, "slot": cut.slot, "term": cut.term, "period_start": at(cut.period[0]),
            "period_end": at(cut.period[1]), "from_at": at(cut.start), "to_at": at(cut.end), "numerator": 1,
            "denominator": 1, "run": cut.run, "trial": cut.trial,
        }
        for cut in cuts
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SEGMENTS)


def carried_of(*rows: tuple[Any, ...]) -> pl.DataFrame:
    """Levels that recurring charges start with: place, charge, group, cell and quantity."""
    return pl.DataFrame(rows, schema=CARRIED, orient="row")


def found(
    uses: Sequence[Use],
    cuts: Sequence[Cut],
    charges: Sequence[dict[str, Any]],
    aggregation: str = "SUM",
    places: dict[str, int] | None = None,
    **more: Any,
) -> Quantities:
    """The quantities of some usage of the meter `m` (and `n`, of the same aggregation)."""
    owned = {"s": 0, "t": 0} if places is None else places
    subjects = pl.DataFrame(
        {"subject": list(owned), "place": list(owned.values())}, schema={"subject": pl.String, "place": pl.UInt32}
    )
    terms = [CHARGE.validate_python(charge) for charge in charges]
    meters = {"m": aggregation, "n": aggregation}
    return quantities(usage_of(uses), subjects, segments_of(cuts), terms, meters, **more)
