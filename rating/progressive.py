"""Progressive billing: whose usage has come to so much that it is billed while the period runs. Core.

Decides what it takes: a threshold that lies above what was billed of the period, and not above what its usage comes to
by now. So the same state never asks for a second invoice, and usage that jumps over several thresholds asks for one.
"""

from collections.abc import Mapping
from decimal import Decimal

import polars as pl

from rating.discounts import plain
from rating.prices import EXACT
from rating.terms import Terms
from schemas.invoice import Columns
from schemas.money import MINOR_UNITS
from schemas.plan import ProgressiveBilling

SUMS: Columns = {"customer": pl.String, "currency": pl.String, "rated_minor": pl.Int64, "billed_minor": pl.Int64}
"""Columns of a frame of what usage of the period comes to by now, and what was billed of it: a row each."""

_DECIMALS = 12  # of a price: thresholds are whole numbers of 10^-12, exactly


def agreed(terms: Terms) -> ProgressiveBilling | None:
    """What holds: the contract's, which may be that there is none, or else the plan's."""
    own = terms.contract.progressive_billing if terms.contract else None
    found = own if own is not None else terms.plan.progressive_billing
    return found if found and (found.thresholds or found.then_every is not None) else None


def crossed(
    sums: pl.DataFrame, by_customer: Mapping[str, ProgressiveBilling | None], default: ProgressiveBilling | None
) -> pl.DataFrame:
    """Whose usage is to be billed now: columns customer and currency, of the rows of `sums` (columns SUMS).

    `by_customer` has what is agreed with each customer with a contract; `default` is for all others.

        thresholds 200 and 500, then every 500

        billed | usage comes to   199.99   200   499.99   500   999.99   1000   1750
             0 |                      -   yes      yes   yes      yes    yes    yes
           200 |                      -     -        -   yes      yes    yes    yes
           620 |                      -     -        -     -        -    yes    yes
    """
    kinds = list(dict.fromkeys([default, *by_customer.values()]))
    places = {kind: place for place, kind in enumerate(kinds)}
    own = pl.DataFrame(
        {"customer": list(by_customer), "kind": [places[kind] for kind in by_customer.values()]},
        schema={"customer": pl.String, "kind": pl.Int64},
    )
    told = sums.join(own, on="customer", how="left", maintain_order="left").with_columns(pl.col("kind").fill_null(0))
    found = [
        of_kind.filter(
            _reached(kind, pl.col("rated_minor"), MINOR_UNITS[str(currency)])
            > _scaled(pl.col("billed_minor").clip(lower_bound=0), MINOR_UNITS[str(currency)])
        )
        for (place, currency), of_kind in told.group_by("kind", "currency", maintain_order=True)
        if (kind := kinds[int(str(place))]) is not None
    ]
    schema = {name: SUMS[name] for name in ("customer", "currency")}
    return pl.concat([pl.DataFrame(schema=schema), *(each.select(*schema) for each in found)])


def _reached(billing: ProgressiveBilling, minor: pl.Expr, units: int) -> pl.Expr:
    """The highest threshold that an amount is not below, in 10^-12; 0 where it is below all."""
    amount, nothing = _scaled(minor, units), pl.lit(0, pl.Int128)
    steps = [_whole(plain(threshold)) for threshold in billing.thresholds]
    reached = nothing
    for step in steps:
        reached = pl.when(amount >= step).then(pl.lit(step, pl.Int128)).otherwise(reached)
    if billing.then_every is None:
        return reached
    last, every = steps[-1] if steps else 0, _whole(plain(billing.then_every))
    beyond = last + (amount - last) // pl.lit(every, pl.Int128) * every
    return pl.when(amount >= last).then(beyond).otherwise(reached)


def _scaled(minor: pl.Expr, units: int) -> pl.Expr:
    return minor.cast(pl.Int128) * pl.lit(10 ** (_DECIMALS - units), pl.Int128)


def _whole(amount: Decimal | None) -> int:
    assert amount is not None, "a threshold is a number"
    return int(amount.scaleb(_DECIMALS, EXACT))
