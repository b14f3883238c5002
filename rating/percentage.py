"""Percentages of single events: which events are free, what the others pay for, and what their bounds change. Core.

Decides by the order of time; ties stand in the order of the log. Events of value 0 or below cost nothing and move
nothing, and so do those that `included` units cover whole.

    free_events 2, free_amount 100      event        1     2     3     4
                                        value       30    50    90    10
                                        free units  30    50     0     0      two events are free; so 80 units
                                        fees                     1     1
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import polars as pl

from rating.billionths import ZERO, refuse_overflow, whole
from rating.buckets import USED
from rating.running import CONVERSION, convert, refuse_large, running
from rating.traits import looks_at_events
from schemas.charges import Charge, PercentageCharge
from schemas.invoice import Columns
from schemas.money import AMOUNT

EVENTS: Columns = {**USED, "billable": pl.Int128, "fees": pl.Int64, "bounded": AMOUNT}
"""Columns of what was used, by event: `billionths` are the paid units, converted; `billable` are the free ones too."""

_AMOUNT_MAX = 10**38
_LIMITS: Columns = {
    "term": pl.UInt32,
    "free_events": pl.Int128,
    "free_amount": pl.Int128,
    "rate": pl.Int128,  # in 10 ** -12: an amount in 10 ** -21 is billionths * rate
    "fixed": pl.Int128,  # amounts in 10 ** -21
    "minimum": pl.Int128,
    "maximum": pl.Int128,
}
_RUN = ["run", "group", "bucket_at"]
_KEYS = ["segment", "group", "cell", "bucket_at"]


def paid_events(rows: pl.DataFrame, segments: pl.DataFrame, terms: Sequence[Charge]) -> pl.DataFrame:
    """What was used (columns EVENTS), of claimed rows with `bucket_at`, a row an event, with `position`.

    The free allowance is that of a run and group, and of each bucket by itself with `take: each`. Raises ValueError for
    a row that adds up several events, OverflowError where an amount needs more than 17 whole digits.
    """
    if not rows.height:
        return pl.DataFrame(schema=EVENTS)
    several = rows.filter(pl.col("count") > 1)
    if several.height:
        raise ValueError(
            f"charge {several['charge'][0]}: a row of usage has {several['count'][0]} events; allowed: one"
        )
    refuse_overflow(rows["quantity"].to_physical(), "a quantity of usage")
    wanted = segments.select("segment", "run", "trial", "unpriced", *CONVERSION)
    events = rows.with_columns(value=pl.col("quantity").to_physical()).filter(pl.col("value") > ZERO)
    events = events.join(wanted, on="segment").join(_limits(terms), on="term")
    return pl.concat([_charged(events.filter(~pl.col("trial"))), _tried(events.filter("trial"))])


def has_bounds(charge: Charge) -> bool:
    """Whether the events of a charge have a least or a largest cost."""
    return isinstance(charge, PercentageCharge) and (charge.event_minimum, charge.event_maximum) != (None, None)


def _charged(events: pl.DataFrame) -> pl.DataFrame:
    # 1. units that are priced
    ordered = events.sort(*_RUN, "at", "position")
    ordered = ordered.hstack(running(ordered, _RUN, "value"))
    refuse_large(ordered, "total")
    priced = [(convert(pl.col(name)) - pl.col("unpriced")).clip(lower_bound=ZERO) for name in ("after", "before")]
    ordered = ordered.with_columns(value=priced[0] - priced[1]).filter(pl.col("value") > ZERO)
    # 2. free ones
    ordered = ordered.with_columns(running(ordered, _RUN, "value"), one=pl.lit(1, pl.Int128))
    ordered = ordered.with_columns(number=running(ordered, _RUN, "one")["after"])
    among_first = (pl.col("number") <= pl.col("free_events")).fill_null(value=True)
    within = (pl.col("after") <= pl.col("free_amount")).fill_null(value=True)
    limited = pl.col("free_events").is_not_null() | pl.col("free_amount").is_not_null()
    most = [pl.min_horizontal(name, "free_amount") for name in ("after", "before")]
    ordered = ordered.with_columns(
        fee=~(limited & among_first & within),
        paid=pl.col("value") - pl.when(limited & among_first).then(most[0] - most[1]).otherwise(ZERO),
    )
    # 3. bounds
    _refuse_large_costs(ordered)
    cost = pl.col("paid") * pl.col("rate") + pl.col("fixed")
    clamped = pl.min_horizontal(pl.max_horizontal(cost, "minimum"), "maximum")
    changed = pl.when("fee").then(clamped - cost).otherwise(ZERO)
    return _added_up(ordered.with_columns(changed=changed))


def _tried(events: pl.DataFrame) -> pl.DataFrame:
    """What a trial's events come to: nothing is free, because nothing is paid."""
    summed = _added_up(events.with_columns(paid="value", fee=pl.lit(value=False), changed=ZERO))
    traits = events.select("segment", *CONVERSION).unique()
    converted = summed.join(traits, on="segment")
    refuse_large(converted, "billionths")
    return converted.with_columns(convert(pl.col(name)).alias(name) for name in ("billionths", "billable")).select(
        *EVENTS
    )


def _added_up(events: pl.DataFrame) -> pl.DataFrame:
    bounded = pl.when((pl.col("minimum").is_not_null() | pl.col("maximum").is_not_null()).first())
    largest = events["changed"].abs().max()
    if isinstance(largest, int) and largest * events.height >= _AMOUNT_MAX:
        raise OverflowError("what the bounds of events change needs more than 17 whole digits")
    amount = pl.col("changed").sum().cast(pl.Decimal(38, 0)) * pl.lit(Decimal("1e-21"), AMOUNT)
    found = events.group_by(_KEYS).agg(
        billionths=pl.col("paid").sum(),
        billable=pl.col("value").sum(),
        fees=pl.col("fee").sum().cast(pl.Int64),
        bounded=bounded.then(amount),
    )
    return found.select(*EVENTS)


def _refuse_large_costs(events: pl.DataFrame) -> None:
    largest = events.group_by("rate", "fixed").agg(pl.col("paid").max())
    if any(paid * rate + fixed >= _AMOUNT_MAX for rate, fixed, paid in largest.iter_rows()):
        raise OverflowError("the cost of an event needs more than 17 whole digits")


def _limits(terms: Sequence[Charge]) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for place, charge in enumerate(terms):
        if looks_at_events(charge):
            assert isinstance(charge, PercentageCharge)
            rows.append(
                {
                    "term": place,
                    "free_events": charge.free_events,
                    "free_amount": _scaled(charge.free_amount, 9),
                    "rate": whole(charge.rate_percent, 10),
                    "fixed": _scaled(charge.fixed, 21),
                    "minimum": _scaled(charge.event_minimum, 21),
                    "maximum": _scaled(charge.event_maximum, 21),
                }
            )
    return pl.DataFrame(rows, schema=_LIMITS)


def _scaled(price: Any, decimals: int) -> int | None:
    return None if price is None else whole(price, decimals)
