"""Flat charges: fractions of a period, divided once."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.flat import flat_slices, price
from rating.frames import PARTS
from rating.models import Priced
from rating.prices import Term
from schemas.charges import FlatCharge, StandardCharge

D = Decimal
FRACTIONS = {"numerator": pl.Int64, "denominator": pl.Int64}
SEGMENTS = {"part": pl.UInt32, "row": pl.UInt32, "term": pl.UInt32, **FRACTIONS, "trial": pl.Boolean}


def flat(amount: Any) -> Term:
    return Term(FlatCharge(id="base", model="flat", amount=amount))


def priced(terms: list[Term], *segments: tuple[int, int, int, int], trial: tuple[bool, ...] = ()) -> Priced:
    """Segments as (row, term, numerator, denominator)."""
    rows = [(part, *segment, trial[part] if trial else False) for part, segment in enumerate(segments)]
    return flat_slices(pl.DataFrame(rows, schema=SEGMENTS, orient="row"), terms)


def test_a_whole_period_costs_the_amount() -> None:
    """One slice: the whole amount once, at its price."""
    found = priced([flat(10)], (0, 0, 31, 31))
    assert found.amounts.to_list() == [10]
    assert found.slices.rows() == [(0, "", None, 1, 10, 0, 10)]


def test_a_part_of_a_period_costs_its_fraction() -> None:
    """14 of 31 days of 10.00 are 4.52, and the fraction is told to 9 decimals (Kill Bill)."""
    found = priced([flat(10)], (0, 0, 14, 31))
    assert found.amounts.to_list() == [D("4.516129032258064516129")]
    assert found.slices["quantity"].to_list() == [D("0.451612903")]


def test_a_change_of_price_within_a_period() -> None:
    """A price version on the 15th: 14 days at 10.00, then 17 at 20.00; the sum is divided once."""
    #   1st ............ 15th ............... 32nd
    #    [ 14 days at 10 ][ 17 days at 20      )
    found = priced([flat(10), flat(20)], (0, 0, 14, 31), (0, 1, 17, 31))
    assert sum(found.amounts) == D("15.483870967741935483871")
    assert found.amounts.to_list() == found.slices["amount"].to_list()


def test_an_empty_segment_has_no_slice() -> None:
    """Under the proration `none` a segment may have nothing: the other has it all."""
    found = priced([flat(10), flat(20)], (0, 0, 1, 1), (0, 1, 0, 1), (1, 1, 1, 1))
    assert found.amounts.to_list() == [10, 0, 20]
    assert found.slices["part"].to_list() == [0, 2]


def test_a_trial_is_free() -> None:
    """14 of 30 days of trial, and the others at the price."""
    found = priced([flat(30)], (0, 0, 14, 30), (0, 0, 16, 30), trial=(True, False))
    assert found.amounts.to_list() == [0, 16]
    assert found.slices.select("label", "unit_price").rows() == [("trial", 0), ("", 30)]


def test_the_largest_amount_and_fraction_fit() -> None:
    """17 whole digits over the seconds of a leap year, to the last decimal."""
    year = 31_622_400
    found = priced([flat("99999999999999999.999999999999")], (0, 0, year, year), (1, 0, year - 1, year))
    exact = D("99999999999999999.999999999999")
    assert found.amounts[0] == exact
    assert abs(Fraction(found.amounts[1]) - Fraction(exact) * (year - 1) / year) <= Fraction(1, 2 * 10**21)


def test_a_fraction_out_of_bounds_is_a_fault_of_ours() -> None:
    """No period has 400 million seconds."""
    with pytest.raises(AssertionError):
        priced([flat(1)], (0, 0, 1, 4 * 10**8))


def test_flat_and_metered_parts_are_priced_together() -> None:
    """Parts of both, in their order; fractions come from the segments."""
    terms = [flat(10), Term(StandardCharge(id="s", model="standard", meter="m", unit_price=3))]
    exact = {"before": 0, "cell": 0, "opens": True, "trial": False}
    rows = [
        {"row": 0, "segment": 0, "term": 0, "quantity": 1, "total": 1, **exact},
        {"row": 1, "segment": 2, "term": 1, "quantity": 2, "total": 2, **exact},
        {"row": 2, "segment": 1, "term": 0, "quantity": 1, "total": 1, **exact},
    ]
    parts = pl.DataFrame([{name: row.get(name) for name in PARTS} for row in rows], schema=PARTS)
    segments = pl.DataFrame({"numerator": [1, 1, 1], "denominator": [2, 1, 1]}, schema=FRACTIONS)
    found = price(parts, segments, terms)
    assert found.amounts.to_list() == [5, 6, 10]
    assert found.slices["part"].to_list() == [0, 1, 2]
    assert price(parts[1:2], segments, terms).amounts.to_list() == [6]


def test_a_flat_part_on_trial_has_one_slice() -> None:
    """Its fraction of the period; it is no unit that is sold for nothing beside it."""
    row = {
        "row": 0,
        "segment": 0,
        "term": 0,
        "cell": 0,
        "before": 0,
        "quantity": 1,
        "total": 1,
        "opens": False,
        "trial": True,
    }
    parts = pl.DataFrame([{name: row.get(name) for name in PARTS}], schema=PARTS)
    segments = pl.DataFrame({"numerator": [1], "denominator": [2]}, schema=FRACTIONS)
    found = price(parts, segments, [flat(10)])
    assert found.slices.select("label", "quantity", "amount").rows() == [("trial", Decimal("0.5"), 0)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=6), st.decimals(0, 10**6, places=12))
def test_segments_add_up_to_the_row(numerators: list[int], amount: Decimal) -> None:
    """However a row is cut, it costs what it costs whole; no segment is below zero."""
    whole = max(sum(numerators), 1)
    cut = priced([flat(amount)], *[(0, 0, numerator, whole) for numerator in numerators])
    assert sum(cut.amounts) == priced([flat(amount)], (0, 0, sum(numerators), whole)).amounts[0]
    assert min(cut.amounts) >= 0
