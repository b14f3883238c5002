"""The charge models, by published examples of other billing engines."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from rating.slices import billable, slice_amount, steps_of, terms_of
from schemas.money import AMOUNT, QUANTITY, rounded_minor
from schemas.price_book import Charge, GraduatedCharge, PackageCharge, VolumeCharge, ZeroUsageFlat

FIRST_TIER, NONE = ZeroUsageFlat.FIRST_TIER, ZeroUsageFlat.NONE


def tiers(*each: tuple[Any, Any, Any]) -> list[dict[str, Any]]:
    return [{"up_to": up_to, "unit_price": price, "flat": flat} for up_to, price, flat in each]


def graduated(*each: tuple[Any, Any, Any]) -> GraduatedCharge:
    return GraduatedCharge.model_validate({"id": "c", "model": "graduated", "meter": "m", "tiers": tiers(*each)})


def volume(*each: tuple[Any, Any, Any]) -> VolumeCharge:
    return VolumeCharge.model_validate({"id": "c", "model": "volume", "meter": "m", "tiers": tiers(*each)})


def package(**terms: Any) -> PackageCharge:
    return PackageCharge.model_validate({"id": "c", "model": "package", "meter": "m", **terms})


def sold(charge: Charge, used: str, policy: ZeroUsageFlat = FIRST_TIER) -> list[tuple[Decimal, Decimal]]:
    """Quantity and amount of each slice that is sold."""
    frame = pl.DataFrame({"quantity": pl.Series([used]).cast(QUANTITY)})
    steps = steps_of(charge, billable(pl.col("quantity")), policy)
    terms = terms_of(steps)
    found = []
    for step, price, flat in zip(steps, terms["billionth_price"], terms["flat_amount"], strict=True):
        amount = slice_amount(step.quantity, pl.lit(price, AMOUNT), pl.lit(flat, AMOUNT))
        found += frame.filter(step.sold).select(step.quantity.alias("sold"), amount.alias("amount")).rows()
    return found


def total(charge: Charge, used: str, policy: ZeroUsageFlat = FIRST_TIER) -> Decimal:
    return sum((amount for _, amount in sold(charge, used, policy)), Decimal(0))


@pytest.mark.parametrize(
    ("used", "parts"), [("100", ["100"]), ("101", ["100", "1"]), ("750", ["100", "400", "250"]), ("0.5", ["0.5"])]
)
def test_the_unit_on_a_bound_is_the_lower_tiers(used: str, parts: list[str]) -> None:
    """Tiers are open below and closed above."""
    charge = graduated((100, 3, 0), (500, 2, 0), (None, 1, 0))
    assert [part for part, _ in sold(charge, used)] == [Decimal(part) for part in parts]


def test_any_fraction_enters_a_tier() -> None:
    """5 units owe the first tier's flat amount only; 5.001 units owe the second's as well."""
    charge = graduated((5, 1, 10), (None, 2, 20))
    assert total(charge, "5") == Decimal(15)
    assert total(charge, "5.001") == Decimal("35.002")


@pytest.mark.parametrize("model", [graduated, volume])
def test_zero_usage_owes_the_first_flat_by_policy(model: Any) -> None:
    """Without usage the first tier's flat amount is owed, or nothing, as the book says."""
    charge = model((10, 1, 7), (None, 2, 9))
    assert sold(charge, "0", FIRST_TIER) == [(Decimal(0), Decimal(7))]
    assert sold(charge, "-4", FIRST_TIER) == [(Decimal(0), Decimal(7))]
    assert sold(charge, "0", NONE) == []


@pytest.mark.parametrize(("used", "amount"), [("15", "150"), ("15.000000001", "75.000000005"), ("16", "80")])
def test_volume_sells_all_in_one_tier(used: str, amount: str) -> None:
    """The whole quantity has the price of its tier: 15 units cost 150, 16 cost 80."""
    charge = volume((15, 10, 0), (None, 5, 0))
    assert sold(charge, used) == [(Decimal(used), Decimal(amount))]


def test_volume_leaves_no_hole_between_whole_bounds() -> None:
    """A fraction between the bounds 100 and 101 falls in the second tier."""
    assert total(volume((100, 2, 0), (200, 1, 3), (None, 0, 0)), "100.5") == Decimal("103.5")


@pytest.mark.parametrize(
    ("used", "rounding", "count"),
    [
        ("121", "up", 12),
        ("121", "down", 11),
        ("10", "up", 0),
        ("10.000000001", "up", 1),
        ("0", "up", 0),
        ("-5", "up", 0),
    ],
)
def test_free_units_come_off_before_packages(used: str, rounding: str, count: int) -> None:
    """121 units, 10 free, in tens: 111 are packed into 12 packages, or 11 full ones."""
    charge = package(size=10, price=3, free_units=10, round=rounding)
    assert sold(charge, used) == [(Decimal(count), Decimal(3 * count))]


def test_packages_of_large_quantities_are_counted_exactly() -> None:
    """The division has no rounding, where a float would have lost the last unit."""
    charge = package(size=3, price="0.000000000001")
    assert sold(charge, "30000000000000001") == [(Decimal(10**16 + 1), Decimal("10000.000000000001"))]


def test_a_price_may_be_a_fraction_of_a_cent() -> None:
    """30 units at 0.05 cents are 1.5 cents exactly, and 2 cents when rounded, once."""
    exact = total(graduated((None, "0.0005", 0)), "30")
    assert exact == Decimal("0.015")
    assert pl.select(rounded_minor(pl.lit(exact, AMOUNT), 2)).item() == 2


def test_an_amount_that_does_not_fit_is_an_error() -> None:
    """More than 17 whole digits raise; nothing wraps around or is cut off."""
    with pytest.raises(pl.exceptions.PolarsError):
        total(graduated((None, 10**9, 0)), str(10**9))
