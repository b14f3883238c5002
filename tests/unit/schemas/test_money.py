"""Rounding, once and in one place."""

from decimal import Decimal

import polars as pl
import pytest

from schemas.money import AMOUNT, MINOR_UNITS, major, rounded_minor


@pytest.mark.parametrize(
    ("amount", "minor_units", "minor"),
    [
        ("1.5", 0, 2),
        ("-1.5", 0, -2),
        ("0.015", 2, 2),  # 30 units at 0.05 cents: 1.5 cents
        ("0.014999999999999999999", 2, 1),
        ("2.675", 2, 268),  # a binary float would say 267
        ("1.0005", 3, 1001),
        ("0.00005", 4, 1),
        ("0", 2, 0),
    ],
)
def test_amounts_round_half_away_from_zero(amount: str, minor_units: int, minor: int) -> None:
    """A half goes away from zero, at the currency's own number of decimals."""
    assert pl.select(rounded_minor(pl.lit(pl.Series([amount]).cast(AMOUNT)), minor_units)).item() == minor


def test_an_amount_beyond_64_bits_of_minor_units_is_an_error() -> None:
    """Too large an amount raises; it never wraps around."""
    largest = pl.lit(pl.Series(["9" * 17]).cast(AMOUNT))
    with pytest.raises(pl.exceptions.PolarsError):
        pl.select(rounded_minor(largest, 2))


def test_major_undoes_minor_for_every_currency() -> None:
    """Minor units come back as the amount that they stand for."""
    for minor_units in MINOR_UNITS.values():
        exact = Decimal(12345).scaleb(-minor_units)
        assert major(12345, minor_units) == exact
