"""Exact amounts and minor units of many currencies in one column. Core."""

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import polars as pl

from schemas.money import AMOUNT, MINOR_UNITS, rounded_minor
from schemas.plan import Policies

Kind = tuple[int, str]
"""Decimals of the minor unit, and where a half goes: policy `rounding`."""


class Money(NamedTuple):
    """How the money of bills is rounded."""

    kinds: list[Kind]
    places: pl.Series
    """By bill: the place in the list of kinds."""

    @classmethod
    def of(cls, bills: pl.DataFrame, policies: Sequence[Policies]) -> "Money":
        """How the money of bills (columns rating.chain.BILLS) is rounded."""
        used = bills.select("currency", "policies").unique(maintain_order=True).with_row_index("case")
        found = [(MINOR_UNITS[currency], policies[place].rounding.value) for _, currency, place in used.rows()]
        kinds: list[Kind] = list(dict.fromkeys(found))
        case = bills.select("currency", "policies").join(
            used, on=["currency", "policies"], how="left", maintain_order="left"
        )["case"]
        places = pl.Series("money", [kinds.index(kind) for kind in found], dtype=pl.UInt32)
        return cls(kinds, places.gather(case))


def minor_of(amount: pl.Expr, kinds: Sequence[Kind]) -> pl.Expr:
    """An exact amount (AMOUNT) in minor units (Int64), rounded as the column `money` says."""
    if not kinds:
        return pl.lit(None, pl.Int64)
    found = _rounded(amount, kinds[0])
    for number, kind in enumerate(kinds[1:], 1):
        found = pl.when(pl.col("money") == number).then(_rounded(amount, kind)).otherwise(found)
    return found


def exact_of(minor: pl.Expr, kinds: Sequence[Kind]) -> pl.Expr:
    """Whole minor units as an exact amount (AMOUNT); overflow is an error."""
    units = pl.Series([Decimal(1).scaleb(-decimals) for decimals, _ in kinds], dtype=AMOUNT)
    return minor.cast(pl.Decimal(38, 0)) * pl.lit(units).gather(pl.col("money"))


def _rounded(amount: pl.Expr, kind: Kind) -> pl.Expr:
    decimals, rounding = kind
    return rounded_minor(amount, decimals, "half_even" if rounding == "half_even" else "half_up")
