"""Money: currencies with their minor units, and the one function that rounds.

Owns the invariant that an amount is rounded once, here, half away from zero, from an exact decimal to a whole number
of minor units (cents, yen, fils). Nothing else in Meterline rounds money, and no float comes near it.
"""

from decimal import Decimal

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


def rounded_minor(amount: pl.Expr, minor_units: int) -> pl.Expr:
    """An exact decimal amount as a whole number of minor units (Int64), rounded half away from zero.

    >>> exact = pl.Series(["0.125", "-0.125", "2.004"]).cast(AMOUNT)
    >>> pl.select(rounded_minor(pl.lit(exact), 2)).to_series().to_list()
    [13, -13, 200]
    """
    rounded = amount.round(minor_units, mode="half_away_from_zero")
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


def minor_of(amount: str, currency: str) -> int:
    """An amount in units of a currency as a whole number of minor units. Raises ValueError for one that is none.

    >>> minor_of("12.5", "USD"), minor_of("-7", "JPY")
    (1250, -7)
    """
    units = MINOR_UNITS.get(currency)
    if units is None:
        raise ValueError(f"currency {currency!r}; allowed: one of {', '.join(MINOR_UNITS)}")
    try:
        scaled = Decimal(amount).scaleb(units)
    except ArithmeticError:
        raise ValueError(f"amount {amount!r}; allowed: a number such as 12.50") from None
    if not scaled.is_finite() or scaled != int(scaled) or abs(scaled) >= 2**63:
        raise ValueError(f"amount {amount}; allowed: at most {units} decimals of {currency}, and 64 bits")
    return int(scaled)


def major(minor: int, minor_units: int) -> Decimal:
    """A whole number of minor units as a decimal amount of the currency.

    >>> major(-1205, 2)
    Decimal('-12.05')
    >>> major(7, 0)
    Decimal('7')
    """
    return Decimal(minor).scaleb(-minor_units)
