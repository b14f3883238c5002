"""Quantities as whole numbers of billionths, in 128 bits: where divisions are exact and rounded as the law says. Core.

polars divides decimals half to even, and adds and multiplies 128-bit integers without a look at overflow. So every
module that calculates in billionths refuses first what could need more than 17 whole digits.
"""

from decimal import Context, Decimal, Inexact, InvalidOperation

import polars as pl

from schemas.exact import WHOLE_DIGITS_MAX
from schemas.money import QUANTITY

BILLION = 10**9
LIMIT = 10**WHOLE_DIGITS_MAX * BILLION
"""Billionths of the least quantity that is too large to be priced."""
ZERO = pl.lit(0, pl.Int128)
_EXACT = Context(prec=76, traps=[Inexact, InvalidOperation])


def whole(number: Decimal, decimals: int = 9) -> int:
    """A number in units of its last decimal, exactly. Raises decimal.Inexact for what has more decimals.

    >>> whole(Decimal("2.5")), whole(Decimal("1e-12"), 12)
    (2500000000, 1)
    """
    scaled = number.scaleb(decimals, _EXACT)
    return int(scaled.to_integral_exact(context=_EXACT))


def quantity_of(billionths: pl.Expr) -> pl.Expr:
    """So many billionths as a QUANTITY.

    >>> pl.select(quantity_of(pl.lit(-1500000000, pl.Int128))).item()
    Decimal('-1.500000000')
    """
    return billionths.cast(pl.Decimal(38, 0)) * pl.lit(Decimal("0.000000001"), QUANTITY)


def nearest(numerator: pl.Expr, denominator: pl.Expr) -> pl.Expr:
    """A quotient of Int128, the denominator above 0, as a whole number; halves go away from zero.

    >>> halves = pl.lit(pl.Series([-3, -1, 1, 4], dtype=pl.Int128))
    >>> pl.select(nearest(halves, pl.lit(2, pl.Int128))).to_series().to_list()
    [-2, -1, 1, 2]
    """
    size = numerator.abs()
    return numerator.sign() * (size // denominator + (size % denominator * 2 >= denominator).cast(pl.Int128))


def refuse_overflow(billionths: pl.Series, what: str) -> None:
    """Raises OverflowError unless each number is of at most 17 whole digits.

    A sum of 10 ** 11 numbers of 17 whole digits fits in 128 bits: so what is looked at once before and once after it
    was added up cannot have gone around in between.
    """
    extremes = [abs(int(number)) for number in (billionths.min(), billionths.max()) if isinstance(number, int)]
    if extremes and max(extremes) >= LIMIT:
        raise OverflowError(f"{what} needs more than {WHOLE_DIGITS_MAX} whole digits: {max(extremes) // BILLION}")
