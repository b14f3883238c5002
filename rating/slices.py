"""The four charge models as polars expressions: which slices of a quantity are sold, and at what price. Core.

Owns exactness: every expression stays in Decimal or in its 128-bit integers, so a result is exact or an error. polars
multiplies decimals at the larger of both scales and cuts off what is beyond; so a whole number of billionths is
multiplied by the price of one billionth, where nothing is beyond. What needs more than 17 whole digits raises polars'
own error.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from schemas.charges import Charge, FlatCharge, GraduatedCharge, PackageCharge, Tier, VolumeCharge
from schemas.money import AMOUNT, PRICE, QUANTITY
from schemas.plan import ZeroUsageFlat

ZERO = pl.lit(Decimal(0), QUANTITY)
ONE = pl.lit(Decimal(1), QUANTITY)
EXACT = Context(prec=76, traps=[Inexact, InvalidOperation])
TERMS = {"up_to": QUANTITY, "unit_price": PRICE, "flat": PRICE, "billionth_price": AMOUNT, "flat_amount": AMOUNT}
"""Columns of the terms that a slice is sold on: those of its explanation, and those that its amount is made of."""


class Step(NamedTuple):
    """One possible slice of a charge: its terms, what of the quantity it sells, and whether it is sold at all."""

    up_to: Decimal | None
    unit_price: Decimal
    flat: Decimal
    quantity: pl.Expr  # of type QUANTITY; meaningful where the step is sold
    sold: pl.Expr  # of type Boolean


def billable(quantity: pl.Expr) -> pl.Expr:
    """The quantity that is rated: not below 0, and 0 where nothing was used.

    >>> used = pl.Series(["-3", "2.5", None]).cast(QUANTITY)
    >>> pl.select(billable(pl.lit(used))).to_series().to_list()
    [Decimal('0E-9'), Decimal('2.500000000'), Decimal('0E-9')]
    """
    return quantity.fill_null(ZERO).clip(lower_bound=ZERO)


def steps_of(charge: Charge, quantity: pl.Expr, zero_usage_flat: ZeroUsageFlat) -> list[Step]:
    """The possible slices of a charge, lowest tier first. `quantity` is a billable one, of type QUANTITY.

    The steps of a package charge sell packages, and those of a flat charge sell one unit.
    """
    match charge:
        case FlatCharge():
            return [Step(None, charge.amount, Decimal(0), ONE, pl.lit(value=True))]
        case GraduatedCharge():
            return graduated_steps(quantity, charge.tiers, zero_usage_flat)
        case VolumeCharge():
            return volume_steps(quantity, charge.tiers, zero_usage_flat)
        case PackageCharge():
            return [Step(None, charge.price, Decimal(0), packages(quantity, charge), pl.lit(value=True))]


def graduated_steps(quantity: pl.Expr, tiers: Sequence[Tier], zero_usage_flat: ZeroUsageFlat) -> list[Step]:
    """The part of a quantity that falls in each tier, lowest tier first. Sold parts add up to the quantity, exactly.

    A tier is open below and closed above, so the unit on a bound is sold at the lower tier's price: contracts say
    "the first 100 units", and the 100th unit is one of them. A tier is sold, and its flat amount owed, when it is
    entered by any fraction; at zero usage the policy decides about the first tier.

        tiers up to 100, up to 500, without end

        quantity |  step 1   step 2   step 3
             100 |     100
             101 |     100        1
             750 |     100      400      250
    """
    return [
        Step(
            tier.up_to,
            tier.unit_price,
            tier.flat,
            quantity=_at_most(quantity, tier.up_to) - pl.lit(start, QUANTITY),
            sold=_entered(quantity, start, zero_usage_flat),
        )
        for start, tier in _with_starts(tiers)
    ]


def volume_steps(quantity: pl.Expr, tiers: Sequence[Tier], zero_usage_flat: ZeroUsageFlat) -> list[Step]:
    """The whole quantity, sold in the tier that it falls in, with the flat amount of that tier alone.

    The amount is not monotone: where the next tier is cheaper, one unit more may cost less.

        tiers up to 15 for 10.00, without end for 5.00

        quantity |  step 1   step 2
              15 |      15            = 150.00
              16 |               16   =  80.00
    """
    return [
        Step(
            tier.up_to,
            tier.unit_price,
            tier.flat,
            quantity=quantity,
            sold=_entered(quantity, start, zero_usage_flat) & _not_beyond(quantity, tier.up_to),
        )
        for start, tier in _with_starts(tiers)
    ]


def packages(quantity: pl.Expr, charge: PackageCharge) -> pl.Expr:
    """How many packages a billable quantity takes, as QUANTITY. Free units come off before packages are made.

    The division is done on the decimals' own integers (billionths), where it is exact.

    >>> charge = PackageCharge(id="sms", model="package", meter="sms", size=10, price=1, free_units=10)
    >>> used = pl.Series(["0", "10", "10.001", "121"]).cast(QUANTITY)
    >>> [int(count) for count in pl.select(packages(pl.lit(used), charge)).to_series()]
    [0, 0, 1, 12]
    """
    size = int(charge.size.scaleb(9, EXACT))
    paid = (quantity - pl.lit(charge.free_units, QUANTITY)).clip(lower_bound=ZERO).to_physical()
    begun = paid + pl.lit(size - 1, pl.Int128) if charge.round == "up" else paid
    return (begun // pl.lit(size, pl.Int128)).cast(QUANTITY)


def terms_of(steps: Sequence[Step]) -> pl.DataFrame:
    """The terms of the steps (columns TERMS), one row a step."""
    rows = [(step.up_to, step.unit_price, step.flat, step.unit_price.scaleb(-9, EXACT), step.flat) for step in steps]
    return pl.DataFrame(rows, schema=TERMS, orient="row")


def slice_amount(quantity: pl.Expr, billionth_price: pl.Expr, flat_amount: pl.Expr) -> pl.Expr:
    """`quantity * unit price + flat` as AMOUNT, exactly: 9 + 12 decimals. Takes a QUANTITY and two AMOUNTs.

    Four times as fast as the product at the scale of an amount, which polars makes with a division of 256 bits.

    >>> smallest = pl.lit(Decimal("1e-9"), QUANTITY), pl.lit(Decimal("1e-12") * Decimal("1e-9"), AMOUNT)
    >>> pl.select(slice_amount(*smallest, pl.lit(Decimal(0), AMOUNT))).item()
    Decimal('1E-21')
    """
    return quantity.to_physical().cast(pl.Decimal(38, 0)) * billionth_price + flat_amount


def _with_starts(tiers: Sequence[Tier]) -> list[tuple[Decimal, Tier]]:
    starts = [Decimal(0), *(tier.up_to for tier, _ in pairwise(tiers) if tier.up_to is not None)]
    return list(zip(starts, tiers, strict=True))


def _entered(quantity: pl.Expr, start: Decimal, zero_usage_flat: ZeroUsageFlat) -> pl.Expr:
    if start == 0 and zero_usage_flat is ZeroUsageFlat.FIRST_TIER:
        return pl.lit(value=True)
    return quantity > pl.lit(start, QUANTITY)


def _at_most(quantity: pl.Expr, up_to: Decimal | None) -> pl.Expr:
    return quantity if up_to is None else quantity.clip(upper_bound=pl.lit(up_to, QUANTITY))


def _not_beyond(quantity: pl.Expr, up_to: Decimal | None) -> pl.Expr:
    return pl.lit(value=True) if up_to is None else quantity <= pl.lit(up_to, QUANTITY)
