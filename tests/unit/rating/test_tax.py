"""Taxes, by published examples and by the law that lines, rates and invoice add up."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rating.tax import TAXED, TAXES, Taxed, taxed
from schemas.plan import Rounding, TaxPosition, TaxRule

LINE, GROUP, INVOICE = TaxPosition.LINE, TaxPosition.RATE_GROUP, TaxPosition.INVOICE
LINES = {"invoice": pl.UInt32, "tax_rule": pl.UInt32, "tax_base_minor": pl.Int64}


def rule(mode: str, *rates: Any, compound: bool = False) -> TaxRule:
    """Rates named by their percentage; the last one may be compound."""
    listed: list[dict[str, Any]] = [{"name": str(rate), "rate_percent": rate} for rate in rates]
    if compound:
        listed[-1]["compound"] = True
    return TaxRule.model_validate({"mode": mode, "rates": tuple(listed)})


def tax(rules: TaxRule | list[TaxRule], *lines: Any, **policies: Any) -> Taxed:
    """Lines are minor units of invoice 0 and rule 0, or (invoice, rule, minor units)."""
    rows = [line if isinstance(line, tuple) else (0, 0, line) for line in lines]
    frame = pl.DataFrame(rows, schema=LINES, orient="row")
    return taxed(frame, rules if isinstance(rules, list) else [rules], **policies)


def of_lines(found: Taxed) -> list[int]:
    return found.lines["tax_minor"].to_list()


def test_several_rates_are_rounded_each() -> None:
    """99.99 at 8.875, 2.125 and 0.5 percent: 8.87 + 2.12 + 0.50 = 11.49."""
    found = tax(rule("exclusive", "8.875", "2.125", "0.5"), 9999)
    assert found.taxes["tax_minor"].to_list() == [887, 212, 50]
    assert found.lines.row(0) == (9999, 1149, 11148)
    assert (found.lines.schema, found.taxes.schema) == (TAXED, TAXES)


def test_a_tax_in_the_price_is_what_its_rounded_net_leaves() -> None:
    """100.00 with 21 percent in it: 82.64 + 17.36. On top of 82.64 there would be 17.35."""
    found = tax(rule("inclusive", 21), 10000)
    assert found.lines.row(0) == (8264, 1736, 10000)
    assert found.totals.rows() == [(0, "inclusive", "21", 21, 8264, 1736)]
    assert of_lines(tax(rule("exclusive", 21), 8264)) == [1735]


@pytest.mark.parametrize(
    ("position", "rounding", "total"),
    [
        (LINE, Rounding.HALF_EVEN, 488),
        (LINE, Rounding.HALF_UP, 492),
        (GROUP, Rounding.HALF_UP, 490),
        (INVOICE, Rounding.HALF_UP, 490),
    ],
)
def test_where_tax_is_rounded(position: TaxPosition, rounding: Rounding, total: int) -> None:
    """Four lines of 17.50 at 7 percent: 4.88 a line with halves to even, 4.90 an invoice (Stax)."""
    found = tax(rule("exclusive", 7), *[1750] * 4, position=position, rounding=rounding)
    assert sum(of_lines(found)) == total
    assert found.totals["tax_minor"].to_list() == [total]


def test_what_is_rounded_together_goes_to_the_largest_remainders() -> None:
    """1.225 four times are 4.90: the first two lines get the odd cents."""
    assert of_lines(tax(rule("exclusive", 7), *[1750] * 4)) == [123, 123, 122, 122]


def test_a_compound_rate_is_on_the_taxes_before_it() -> None:
    """100.00 with 5 percent and 9.975 percent of 105.00; in the price likewise."""
    found = tax(rule("exclusive", 5, "9.975", compound=True), 10000)
    assert found.totals.select("base_minor", "tax_minor").rows() == [(10000, 500), (10500, 1047)]
    assert tax(rule("inclusive", 5, "9.975", compound=True), 11547).lines.row(0) == (10000, 1547, 11547)


def test_rates_of_several_rules_are_one_rate_of_the_invoice() -> None:
    """Half a cent of VAT by each of two rules is one cent of VAT, where each alone would be one."""
    rules = [rule("exclusive", 10), rule("exclusive", 2, 10)]
    found = tax(rules, (0, 0, 5), (0, 1, 5), (1, 0, 5))
    assert found.totals.select("invoice", "name", "tax_minor").rows() == [(0, "10", 1), (0, "2", 0), (1, "10", 1)]


def test_an_invoice_is_rounded_as_a_whole() -> None:
    """Two rates of 0.4 cents each are no cent by rate, and one by invoice."""
    rules = [rule("exclusive", 4), rule("exclusive", 8)]
    lines = [(0, 0, 10), (0, 1, 5)]
    assert of_lines(tax(rules, *lines)) == [0, 0]
    assert of_lines(tax(rules, *lines, position=INVOICE)) == [1, 0]


def test_lines_without_a_rule_have_no_tax() -> None:
    """And no lines have no taxes."""
    assert tax(rule("exclusive", 7), (0, None, 100), (0, 0, 100)).lines.rows() == [(100, 0, 100), (100, 7, 107)]
    assert tax([], (0, None, 100)).lines.rows() == [(100, 0, 100)]
    assert tax(rule("inclusive", 7)).lines.schema == TAXED


def test_bases_that_do_not_fit_are_an_error() -> None:
    """More than 20 digits of minor units together."""
    with pytest.raises(OverflowError):
        tax(rule("exclusive", 7), *[9 * 10**18] * 12)


RULES = [
    rule("exclusive", "8.875", "2.125", "0.5"),
    rule("exclusive", 5, "9.975", compound=True),
    rule("inclusive", 21),
    rule("inclusive", 5, "9.975", compound=True),
    rule("exclusive", "2.125"),
]
LISTED = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(-(10**6), 10**6)), max_size=8)


@settings(max_examples=60)
@given(LISTED, st.sampled_from(list(TaxPosition)), st.sampled_from(list(Rounding)))
def test_lines_rates_and_invoices_add_up(lines: list[Any], position: TaxPosition, rounding: Rounding) -> None:
    """Each line is within two cents a rate of its exact tax, and a credit takes back what was taxed."""
    found = tax(RULES, *lines, position=position, rounding=rounding)
    assert sum(of_lines(found)) == found.taxes["tax_minor"].sum() == found.totals["tax_minor"].sum()
    assert (found.lines["net_minor"] + found.lines["tax_minor"]).equals(found.lines["gross_minor"])
    for (_, place, base), taxes in zip(lines, of_lines(found), strict=True):
        rates = [each.rate_percent / 100 for each in RULES[place].all_rates]
        whole = rates[0] + rates[1] * (1 + rates[0]) if RULES[place].all_rates[-1].compound else sum(rates, Decimal(0))
        exact = base * whole / (1 + whole) if RULES[place].mode == "inclusive" else base * whole
        assert abs(taxes - exact) < 2 * len(rates)
    back = tax(
        RULES, *[(invoice, place, -base) for invoice, place, base in lines], position=position, rounding=rounding
    )
    assert of_lines(back) == [-each for each in of_lines(found)]
