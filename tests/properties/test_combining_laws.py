"""Laws of a customer's averages and latest values: several subjects together are as one subject that used it all."""

from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.books import Books
from rating.rater import Basis, Rater
from schemas.contract import parse_contracts
from schemas.money import QUANTITY, average
from schemas.price_book import parse_price_book
from schemas.tables import LATEST, LATEST_ORDER

BOOK = parse_price_book(
    """
book: b
version: 1
effective_at: 2013-01-01
currency: USD
plans:
  - id: p
    charges:
      - {id: mean, model: graduated, meter: mean, tiers: [{up_to: null, unit_price: 1, flat: 1}]}
      - {id: last, model: graduated, meter: last, tiers: [{up_to: null, unit_price: 1, flat: 1}]}
""",
    "book.yaml",
    ["mean", "last"],
)
CONTRACTS = parse_contracts(
    "contracts: [{customer: c, name: C, plan: p, starts_on: 2013-01-01, subjects: [s0, s1, s2, s3]}]", "contracts.yaml"
)
SCHEMA: dict[str, Any] = {
    "subject": pl.String, "meter": pl.String, "at": pl.Datetime("us", "UTC"), "quantity": QUANTITY, "uniques": pl.List(pl.String), "sum": QUANTITY,
    "count": pl.UInt64, "latest": pl.Struct(LATEST.inner.fields),
}  # fmt: skip
EXACT = Context(prec=40)
AT = datetime(2013, 1, 31, tzinfo=UTC)
places = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(0, 3))
totals = st.one_of(st.integers(0, 9).map(Decimal), st.decimals(0, 10**12, places=9))


def nearest(exact: Fraction) -> int:
    """So many billionths, half away from zero."""
    size = int(abs(exact) * 10**9 + Fraction(1, 2))
    return size if exact >= 0 else -size


def quantity_of(rows: list[dict[str, Any]], charge: str) -> Decimal:
    usage = pl.DataFrame([{"at": AT, **row} for row in rows], schema=SCHEMA)
    aggregations = {"mean": "AVG", "last": "LATEST"}
    basis = Basis(Books([BOOK]), CONTRACTS, aggregations, date(2013, 1, 1), date(2013, 2, 1))
    charges = Rater(basis).rate(usage).charges
    found: Decimal = charges.filter(charge=charge)["quantity"].item()
    return found


@given(st.lists(st.tuples(totals, st.integers(1, 9)), min_size=1, max_size=4))
def test_an_average_is_that_of_all_values(parts: list[tuple[Decimal, int]]) -> None:
    """Not the average of averages; and rounded once, half away from zero."""
    rows = [
        {"subject": f"s{number}", "meter": "mean", "quantity": total / count, "sum": total, "count": count}
        for number, (total, count) in enumerate(parts)
    ]
    exact = sum((Fraction(total) for total, _ in parts), Fraction(0)) / sum(count for _, count in parts)
    assert Fraction(quantity_of(rows, "mean")) * 10**9 == nearest(exact)


@given(st.lists(st.tuples(totals, places), min_size=1, max_size=4, unique_by=lambda row: row[1]))
def test_a_latest_value_is_that_of_all_subjects(parts: list[tuple[Decimal, tuple[int, ...]]]) -> None:
    """The one that is last in time, then in arrival."""
    rows = [
        {
            "subject": f"s{number}", "meter": "last", "quantity": value,
            "latest": dict(zip(
                (*LATEST_ORDER, "value"),
                (AT + timedelta(microseconds=place[0]), AT + timedelta(milliseconds=place[1]), *place[2:], value),
                strict=True,
            )),
        }
        for number, (value, place) in enumerate(parts)
    ]  # fmt: skip
    assert quantity_of(rows, "last") == max(parts, key=lambda row: row[1])[0]


@given(st.integers(-(10**38) + 1, 10**38 - 1), st.one_of(st.integers(1, 12), st.integers(1, 2**63)))
def test_an_average_is_exact_to_its_last_digit(billionths: int, count: int) -> None:
    """Any sum that a quantity holds by any count, against plain fractions."""
    total = pl.Series([EXACT.create_decimal(billionths).scaleb(-9, EXACT)], dtype=QUANTITY)
    found = pl.select(average(pl.lit(total), pl.lit(pl.Series([count], dtype=pl.UInt64)))).to_series()
    assert int(found.to_physical().item()) == nearest(Fraction(billionths, count * 10**9))


def test_a_sum_that_may_overflow_is_refused() -> None:
    """An average of values whose sum no quantity holds is an error, not a wrong number."""
    rows = [
        {"subject": f"s{number}", "meter": "mean", "quantity": 1, "sum": Decimal(10) ** 28 * 5, "count": 1}
        for number in range(2)
    ]
    with pytest.raises(OverflowError, match="the sum of an average's values"):
        quantity_of(rows, "mean")
