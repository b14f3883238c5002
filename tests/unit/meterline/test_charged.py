"""Charges that wait to be billed: ranges of customers, in memory or in files."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import meterline.charged
from meterline.charged import Charged, Customers
from schemas.invoice import CHARGED, Basis
from tests.documents.drafts import charged

BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book", contracts_digest="contracts")


def frame(*customers: str) -> pl.DataFrame:
    rows = [charged(BASIS, customer=each, period="2013-02", charge="turns", amount_minor=1) for each in customers]
    return pl.DataFrame(rows, schema=CHARGED)


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=5), st.integers(1, 4), st.integers(0, 12))
def test_every_charge_is_in_one_range(chunks: list[list[str]], at_once: int, in_memory: int) -> None:
    """Whatever was kept in files, the ranges together have all charges, in the order of customers."""
    with pytest.MonkeyPatch.context() as patch, Charged() as kept:
        patch.setattr(meterline.charged, "ROWS_IN_MEMORY_MAX", in_memory)
        for chunk in chunks:
            kept.add(frame(*chunk))
        ranges = list(kept.ranges(at_once))
        found = [kept.of(each)["customer"].to_list() for each in ranges]
    assert sorted(name for each in found for name in each) == sorted(name for chunk in chunks for name in chunk)
    assert all(len(set(each)) <= at_once for each in found)
    assert [name.encode() for each in found for name in sorted(set(each))] == sorted(
        {name.encode() for chunk in chunks for name in chunk}
    )
    assert (ranges[0].above, ranges[-1].up_to) == (None, None)


def test_one_range_has_all_there_could_be() -> None:
    """Without a charge there is one range without bounds: what was booked may still have to be taken back."""
    with Charged() as kept:
        assert list(kept.ranges()) == [Customers()]
        assert kept.of(Customers()).is_empty()
        kept.add(frame("UA"))
        assert kept.periods == {"2013-02"}
