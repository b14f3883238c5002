"""Money: currencies with their minor units, and the one function that rounds.

Owns the invariant that an amount is rounded once, here, from an exact decimal to a whole number of minor units (cents,
yen, fils): half away from zero, or half to even where a price book says so. Nothing else in Meterline rounds money, and
no float comes near it.
"""

from decimal import Decimal
from typing import Literal

import polars as pl

QUANTITY = pl.Decimal(38, 9)
"""A metered quantity: 29 whole digits and 9 decimals."""

PRICE = pl.Decimal(38, 12)
"""A unit price: up to 12 decimals."""

AMOUNT = pl.Decimal(38, 21)
"""A quantity times a price, exactly: 9 + 12 decimals, 17 whole digits."""

MINOR_UNITS = {
    "AED": 2, "AUD": 2, "BHD": 3, "BRL": 2, "CAD": 2, "CHF": 2, "CLF": 4, "CLP": 0, "CNY": 2, "CZK": 2, "DKK": 2,
    "EUR": 2, "GBP": 2, "HKD": 2, "HUF": 2, "IDR": 2, "ILS": 2, "INR": 2, "ISK": 0, "JOD": 3, "JPY": 0, "KRW": 0,
    "KWD": 3, "MXN": 2, "MYR": 2, "NOK": 2, "NZD": 2, "OMR": 3, "PHP": 2, "PLN": 2, "RON": 2, "SAR": 2, "SEK": 2,
    "SGD": 2, "THB": 2, "TND": 3, "TRY": 2, "TWD": 2, "UAH": 2, "USD": 2, "UYW": 4, "VND": 0, "ZAR": 2,
}  # fmt: skip
"""Decimals of each currency's minor unit (ISO 4217, table A.1)."""


def rounded_minor(amount: pl.Expr, minor_units: int, rounding: Literal["half_up", "half_even"] = "half_up") -> pl.Expr:
    """An exact decimal amount as a whole number of minor units (Int64), rounded half away from zero, or to even.

    >>> exact = pl.Series(["0.125", "-0.125", "2.004"]).cast(AMOUNT)
    >>> pl.select(rounded_minor(pl.lit(exact), 2)).to_series().to_list()
    [13, -13, 200]
    >>> pl.select(rounded_minor(pl.lit(exact), 2, "half_even")).to_series().to_list()
    [12, -12, 200]
    """
    rounded = amount.round(minor_units, mode="half_to_even" if rounding == "half_even" else "half_away_from_zero")
    return rounded.cast(pl.Decimal(38, minor_units)).to_physical().cast(pl.Int64)


def average(total: pl.Expr, count: pl.Expr) -> pl.Expr:
    """A sum (QUANTITY) by the number of its terms, as a QUANTITY rounded half away from zero; null for no terms.

    In whole billionths: polars' own division rounds a half to the even neighbour.

    >>> totals = pl.Series(["2", "-0.000000005", "0"]).cast(QUANTITY)
    >>> pl.select(average(pl.lit(totals), pl.lit(pl.Series([3, 10, 0])))).to_series().to_list()
    [Decimal('0.666666667'), Decimal('-1E-9'), None]
    """
    billionths = total.to_physical()
    terms = pl.when(count > 0).then(count.cast(pl.Int128))
    size = billionths.abs()
    rounded = size // terms + (size % terms * 2 >= terms).cast(pl.Int128)
    return (billionths.sign() * rounded).cast(pl.Decimal(38, 0)) * pl.lit(Decimal("0.000000001"), QUANTITY)


def major(minor: int, minor_units: int) -> Decimal:
    """A whole number of minor units as a decimal amount of the currency.

    >>> major(-1205, 2)
    Decimal('-12.05')
    >>> major(7, 0)
    Decimal('7')
    """
    return Decimal(minor).scaleb(-minor_units)
