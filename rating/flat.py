"""Prices flat charges: amounts times fractions of a period, divided once. Core.

Owns the invariant that the segments of a charge row add up to the row's exact amount, which is rounded once to the 21
decimals of an amount: so a row that is cut into pieces costs what it costs whole, where terms do not change.
"""

from collections.abc import Sequence

import polars as pl

from rating.exact import FRACTION_MAX, divided, in_units
from rating.frames import SLICES
from rating.models import Priced, slices_of
from rating.prices import Term
from schemas.charges import FlatCharge
from schemas.money import PRICE, QUANTITY

_WHOLE_FRACTION = pl.lit(10**9, pl.Int128)
_PER_UNIT = pl.lit(10**9, pl.Int128)  # an amount has 9 decimals more than a price


def price(parts: pl.DataFrame, segments: pl.DataFrame, terms: Sequence[Term]) -> Priced:
    """The slices and amounts of all parts (rating.frames.PARTS), metered and flat; `segments` has their fractions."""
    flat = pl.Series([isinstance(term.charge, FlatCharge) for term in terms], dtype=pl.Boolean)
    is_flat = pl.lit(flat).gather(pl.col("term"))
    metered = slices_of(parts.with_columns(trial=pl.col("trial") & ~is_flat), terms)
    numbered = parts.select("row", "segment", "term", "trial").with_row_index("part")
    of_flat = numbered.filter(is_flat)
    if of_flat.is_empty():
        return metered
    fractions = [segments[name].gather(of_flat["segment"]) for name in ("numerator", "denominator")]
    priced = flat_slices(of_flat.hstack(fractions), terms)
    slices = pl.concat([metered.slices, priced.slices]).sort("part", maintain_order=True)
    return Priced(slices, metered.amounts.scatter(of_flat["part"], priced.amounts))


def flat_slices(segments: pl.DataFrame, terms: Sequence[Term]) -> Priced:
    """The slices and amounts of the segments of flat charges: one slice each, none where the fraction is 0.

    `segments` has the columns part, row, term, numerator, denominator and trial; rows of one charge row follow each
    other and share their denominator. `part` is what the slices say of it.

    A row's amount is the sum of `amount * numerator` over its segments, divided once. A segment gets what the running
    sum is worth with it, less what it was worth before. A slice's quantity is the fraction, to 9 decimals, for reading:

        31 days, 10.00 until the 15th and 20.00 from then on

        segment |  quantity       unit_price   amount
              1 |  0.451612903         10.00    4.516129032258064516129
              2 |  0.548387097         20.00   10.967741935483870967742
    """
    prices = [term.charge.amount if isinstance(term.charge, FlatCharge) else None for term in terms]
    price = pl.lit(pl.Series(prices, dtype=PRICE)).gather(pl.col("term"))
    price = pl.when("trial").then(pl.lit(0, PRICE)).otherwise(price)
    numerator, denominator = (pl.col(name).cast(pl.Int128) for name in ("numerator", "denominator"))
    worth = pl.col("unit_price").to_physical() * numerator
    lone = segments["row"].n_unique() == segments.height  # a segment a row: nothing runs on, and windows are slow
    running_worth = worth if lone else worth.cum_sum().over("row")
    segments = segments.with_columns(unit_price=price).with_columns(worth=running_worth)
    _in_bounds(segments, lone=lone)
    running = _divided_to_units(pl.col("worth"), denominator)
    segments = segments.with_columns(running=running)
    before = pl.lit(0, pl.Int128) if lone else pl.col("running").shift(1, fill_value=0).over("row")
    segments = segments.with_columns(amount=in_units(pl.col("running") - before))
    slices = (
        segments.lazy()
        .filter(pl.col("numerator") > 0)
        .select(
            "part",
            label=pl.when("trial").then(pl.lit("trial")).otherwise(pl.lit("")),
            up_to=pl.lit(None, QUANTITY),
            quantity=_fraction(numerator, denominator),
            unit_price="unit_price",
            flat=pl.lit(0, PRICE),
            amount="amount",
        )
    )
    return Priced(slices.select(*SLICES).collect(), segments["amount"])


def _in_bounds(segments: pl.DataFrame, *, lone: bool) -> None:
    """Fractions are none below 0 and small enough for 128 bits: a fault of ours else."""
    assert segments["unit_price"].null_count() == 0, "a segment of a charge that is not flat"
    whole = segments["numerator"] if lone else segments.select(pl.col("numerator").sum().over("row"))["numerator"]
    for numbers, least in ((segments["numerator"], 0), (segments["denominator"], 1), (whole, 0)):
        assert numbers.is_between(least, FRACTION_MAX - 1).all(), f"a fraction beyond {FRACTION_MAX}"


def _divided_to_units(worth: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    """Units of a price times a numerator, divided, in an amount's smallest units: the whole ones, and the rest."""
    return worth // denominator * _PER_UNIT + divided(worth % denominator * _PER_UNIT, denominator)


def _fraction(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    billionths = divided(numerator * _WHOLE_FRACTION, denominator)
    return billionths.cast(pl.Decimal(38, 0)) * pl.lit("0.000000001").cast(QUANTITY)
