"""What of a charge decides how its usage becomes quantities: the traits, one row a term. Core.

Prices play no part here. Terms that differ in prices alone take the same way, in the same pass.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import gcd
from typing import Any, NamedTuple

import polars as pl

from rating.billionths import BILLION, whole
from schemas.charges import Charge, FlatCharge, MatrixCharge, MeteredCharge, PercentageCharge
from schemas.invoice import Columns

TRAITS: Columns = {
    "term": pl.UInt32,
    "meter": pl.String,  # null for a flat charge
    "aggregation": pl.String,
    "sieve": pl.UInt32,  # the place in the list of sieves
    "scattered": pl.Boolean,  # by groups: a segment without usage has no part
    "matrix": pl.Boolean,
    "window": pl.String,  # null without buckets
    "take": pl.String,  # of buckets; "whole" without
    "percentile": pl.Int128,  # in 10 ** -10 percent
    "recurring": pl.Boolean,
    "events": pl.Boolean,  # a percentage that looks at each event
    "plain": pl.Boolean,  # one number for a segment, that only the meter and the segment decide
    "times": pl.Int128,  # a conversion is billionths * times / by, rounded, * step
    "by": pl.Int128,
    "step": pl.Int128,
    "round": pl.String,
    "unpriced": pl.Int128,  # billionths that are not priced, after the conversion
}
"""Columns of the traits. Row number n is of term n."""

WHOLE = "whole"
WINDOW_US = {"minute": 60_000_000, "hour": 3_600_000_000, "day": 86_400_000_000}
"""Microseconds of a window of UTC."""

_Values = tuple[tuple[str, tuple[str, ...]], ...]


class Sieve(NamedTuple):
    """Which usage a charge takes, and how it is split."""

    filters: _Values
    group_by: tuple[str, ...]
    cells: tuple[_Values, ...]
    """Of a matrix: the `when` of each cell."""
    cells_for_all: bool
    """Whether usage that no cell takes has a price."""

    @property
    def dimensions(self) -> list[str]:
        """The dimensions that it asks for, sorted."""
        named = [name for values in (self.filters, *self.cells) for name, _ in values]
        return sorted({*named, *self.group_by})


def traits_of(
    terms: Sequence[Charge], aggregations: Mapping[str, str], units: Sequence[Decimal]
) -> tuple[pl.DataFrame, list[Sieve]]:
    """The traits and the distinct sieves of some terms; `units` says what more is not priced, for each term (or empty).

    Raises ValueError for a meter without aggregation, and for keys that give no quantity together.
    """
    sieves: dict[Sieve, int] = {}
    rows: list[dict[str, Any]] = []
    for place, charge in enumerate(terms):
        if isinstance(charge, FlatCharge):
            rows.append({"term": place, "plain": False})
            continue
        aggregation = aggregations.get(charge.meter)
        if aggregation is None:
            raise ValueError(f"charge {charge.id}: meter {charge.meter} has no aggregation")
        sieve = sieve_of(charge)
        more = units[place] if units else Decimal(0)
        rows.append({"term": place, "sieve": sieves.setdefault(sieve, len(sieves)), **_row(charge, aggregation, more)})
    return pl.DataFrame(rows, schema=TRAITS), list(sieves)


def looks_at_events(charge: Charge) -> bool:
    """Whether a charge needs a row of usage for each event: a percentage with free or bounded events, or with a fee."""
    if not isinstance(charge, PercentageCharge):
        return False
    limits = (charge.free_events, charge.free_amount, charge.event_minimum, charge.event_maximum)
    return charge.fixed != 0 or any(limit is not None for limit in limits)


def _row(charge: MeteredCharge, aggregation: str, more: Decimal) -> dict[str, Any]:
    take = charge.buckets.take if charge.buckets else WHOLE
    events = looks_at_events(charge)  # type: ignore[arg-type]
    if events and (take not in {WHOLE, "each"} or charge.recurring):
        raise ValueError(f"charge {charge.id}: a percentage of single events goes with no take but each, nor recurring")
    if charge.recurring and (aggregation != "SUM" or take not in {WHOLE, "sum", "time_weighted"}):
        raise ValueError(f"charge {charge.id}: recurring goes with a SUM meter, and with take sum or time_weighted")
    if isinstance(charge, MatrixCharge) and (charge.recurring or take == "time_weighted"):
        raise ValueError(f"charge {charge.id}: a matrix goes with neither recurring nor time_weighted")
    if charge.recurring and take == "sum":
        take = WHOLE  # windows are not cut off at 0: what was given back in one of them lowers the level
    matrix = isinstance(charge, MatrixCharge)
    scattered = bool(charge.group_by)
    times, by, step = _conversion(charge)
    unpriced = sum((discount.units or Decimal(0) for discount in charge.discounts), charge.included + more)
    return {
        "meter": charge.meter,
        "aggregation": aggregation,
        "scattered": scattered,
        "matrix": matrix,
        "window": charge.buckets.window if charge.buckets and take != WHOLE else None,
        "take": take,
        "percentile": whole((charge.buckets and charge.buckets.percent) or Decimal(0), 10),
        "recurring": charge.recurring,
        "events": events,
        "plain": take == WHOLE and not (scattered or matrix or charge.filters or charge.recurring or events),
        "times": times,
        "by": by,
        "step": step,
        "round": charge.unit.round if charge.unit else "down",
        "unpriced": whole(unpriced),
    }


def _conversion(charge: MeteredCharge) -> tuple[int, int, int]:
    unit = charge.unit
    if unit is None:
        return 1, 1, 1
    times, by = BILLION, BILLION
    if unit.divide_by is not None:
        by = whole(unit.divide_by)
    elif unit.multiply_by is not None:
        times = whole(unit.multiply_by)
    by *= 10 ** (9 - unit.decimals)
    common = gcd(times, by)
    return times // common, by // common, 10 ** (9 - unit.decimals)


def sieve_of(charge: MeteredCharge) -> Sieve:
    """Which usage a charge takes, and how it is split."""
    cells: tuple[_Values, ...] = ()
    if isinstance(charge, MatrixCharge):
        cells = tuple(tuple(cell.when.items()) for cell in charge.cells)
    for_all = not isinstance(charge, MatrixCharge) or charge.default_price is not None
    return Sieve(tuple(charge.filters.items()), charge.group_by, cells, for_all)
