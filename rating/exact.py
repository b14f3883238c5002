"""Exact amounts times fractions: divided once, rounded once, to the 21 decimals of an amount. Core.

Owns that a product that needs more decimals is rounded half away from zero, and that nothing wraps around: whole
numbers of 128 bits are used where their bounds are known, and decimals, which refuse to overflow, where they are not.
"""

from decimal import Decimal

import polars as pl

from schemas.money import AMOUNT

FRACTION_MAX = 4 * 10**8
"""Numerators and denominators of proration are below it: a leap year has 31,622,400 seconds."""
SMALLEST = pl.lit(Decimal("1e-21"), AMOUNT)
_WHOLE = pl.Decimal(38, 0)


def times(amount: pl.Expr, numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    """`amount * numerator / denominator` as AMOUNT, rounded half away from zero. The fraction's parts are Int128.

    The amount is `h * denominator + l` of its smallest units, so that the product is `h * numerator`, which is exact,
    and `l * numerator / denominator`. The numerator is at most 10^26 and the denominator 10^12, and above 0.

    >>> half = pl.lit(pl.Series(["1e-21", "-1e-21", "7"]).cast(AMOUNT))
    >>> pl.select(times(half, pl.lit(1, pl.Int128), pl.lit(2, pl.Int128))).to_series().to_list()
    [Decimal('1E-21'), Decimal('-1E-21'), Decimal('3.500000000000000000000')]
    """
    units = amount.to_physical()
    size, sign = units.abs(), units.sign() * numerator.sign()
    whole = (size // denominator).cast(_WHOLE) * numerator.abs().cast(_WHOLE)
    return (
        sign.cast(_WHOLE) * (whole + divided(size % denominator * numerator.abs(), denominator).cast(_WHOLE)) * SMALLEST
    )


def divided(number: pl.Expr, divisor: pl.Expr) -> pl.Expr:
    """A whole number, not below 0, by another one, rounded half up. Both are Int128.

    >>> pl.select(divided(pl.lit(5, pl.Int128), pl.lit(2, pl.Int128))).item()
    3
    """
    rest = number % divisor
    return number // divisor + (rest >= divisor - rest).cast(pl.Int128)


def in_units(units: pl.Expr) -> pl.Expr:
    """A whole number of an amount's smallest units, 10^-21, as AMOUNT.

    >>> pl.select(in_units(pl.lit(2 * 10**21, pl.Int128))).item()
    Decimal('2.000000000000000000000')
    """
    return units.cast(_WHOLE) * SMALLEST


def refuse_overflow(amounts: pl.Series, what: str) -> None:
    """Raises OverflowError unless any sum of the amounts (AMOUNT) has at most 17 whole digits.

    group_by adds decimals as 128-bit integers without a look at overflow; so this looks for it.
    """
    extremes = [abs(amount) for amount in (amounts.min(), amounts.max()) if isinstance(amount, Decimal)]
    if extremes and max(extremes) * len(amounts) >= 10**17:
        raise OverflowError(f"{what} may need more than 17 whole digits: {len(amounts)} of up to {max(extremes)}")
