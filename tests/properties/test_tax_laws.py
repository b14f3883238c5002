"""Laws of taxes: the rater's are the oracle's, to the cent of each line and rate."""

from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.tax import taxed
from schemas.plan import TaxRule
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Row
from tests.oracles.rating.tax import taxes_of
from tests.strategies.charges import tax_rules

CODES = ("one", "two", "three")
AT = datetime(2026, 1, 1, tzinfo=UTC)
BASES = st.one_of(st.integers(-400, 400), st.integers(-(10**7), 10**7))


def row_of(code: str, base: int) -> Row:
    """A row of the one invoice."""
    return Row("a", AT, AT, AT, "c", "usage", "charge", "USD", tax_base_minor=base, tax_code=code)


@settings(max_examples=150)
@given(
    st.lists(tax_rules(), min_size=3, max_size=3),
    st.lists(st.tuples(st.sampled_from(CODES), BASES), max_size=6),
    st.sampled_from(["rate_group", "line", "invoice"]),
    st.sampled_from(["half_up", "half_even"]),
)
def test_taxes_are_the_oracles_by_line_and_rate(rules: list[Any], lines: Any, position: str, rounding: str) -> None:
    """Of lines above and below zero, with rates in prices and on top, that several rules share: each one to the cent."""
    taxes = dict(zip(CODES, rules, strict=True))
    plan = {"id": "p", "charges": [{"id": "c", "model": "flat", "amount": 1}]}
    policies = {"tax_position": position, "rounding": rounding}
    book = PriceBook.model_validate(
        {"book": "b", "version": 1, "effective_at": "2026-01-01", "currency": "USD", "taxes": taxes,
         "policies": policies, "plans": [plan]}
    )  # fmt: skip
    rows = [row_of(code, base) for code, base in lines]
    totals = taxes_of(rows, book)
    numbered = [(0, CODES.index(code), base) for code, base in lines]
    frame = pl.DataFrame(
        numbered, schema={"invoice": pl.UInt32, "tax_rule": pl.UInt32, "tax_base_minor": pl.Int64}, orient="row"
    )
    listed: list[TaxRule] = [book.taxes[code] for code in CODES]
    found = taxed(frame, listed, book.policies.tax_position, book.policies.rounding)
    told: list[list[Any]] = [[] for _ in rows]
    for line, name, percent, tax in found.taxes.rows():
        told[line].append((name, Fraction(percent), tax))
    assert told == [[tuple(tax) for tax in row.taxes] for row in rows]
    by_rate: dict[Any, int] = {}
    for mode, name, percent, tax in found.totals.select("mode", "name", "rate_percent", "tax_minor").rows():
        by_rate[mode, name, Fraction(percent)] = by_rate.get((mode, name, Fraction(percent)), 0) + tax
    assert by_rate == {(tax.mode, tax.name, tax.rate_percent): tax.tax_minor for tax in totals}
