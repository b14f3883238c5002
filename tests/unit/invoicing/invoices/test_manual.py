"""Invoices that somebody writes: what is wrong with one, and what its lines come to."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.invoices.manual import head_of, invoices_of, lines_of, parse_invoices
from schemas.configuration import ConfigurationError
from schemas.invoice import DRAFTED, HEADS
from schemas.money import MINOR_UNITS
from schemas.plan import Rounding, TaxRule

WRITTEN = """
reference: setup-7
customer: acme
currency: EUR
period: 2026-03
lines:
  - {description: Onboarding, quantity: 1.5, unit_price: 333.333, service_start: 2026-03-02, service_end: 2026-03-04}
  - {description: Goodwill, amount: -20, revenue: usage}
  - {id: next-year, description: Next year, amount: 1200.50, revenue: advance, service_end: 2027-04-01}
"""


def faults(text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as error:
        parse_invoices(text, "f")
    return [f"{fault.key} {fault.value} {fault.allowed}" for fault in error.value.faults]


def test_lines_are_quantities_at_prices_or_amounts() -> None:
    """Each is rounded once, says which service it is for, and explains itself; frames have the declared columns."""
    [invoice] = parse_invoices(WRITTEN, "f")
    rule = TaxRule(mode="exclusive", name="VAT", rate_percent=Decimal(19))
    lines = lines_of(invoice, [rule, None, rule], Rounding.HALF_UP)
    assert dict(lines.schema) == DRAFTED
    assert dict(head_of(invoice, tenant="t", customer_name="Acme").schema) == HEADS
    told = lines.select("charge", "quantity", "amount_minor", "revenue", "service_start", "service_end").rows()
    assert [(name, str(quantity), minor, revenue, str(start), str(end)) for name, quantity, minor, revenue, start, end in told] == [
        ("line 1", "1.500000000", 50000, "fees", "2026-03-02", "2026-03-04"),
        ("line 2", "1.000000000", -2000, "subtotal", "2026-03-01", "2026-04-01"),
        ("next-year", "1.000000000", 120050, "advance", "2026-03-01", "2027-04-01"),
    ]  # fmt: skip
    explained = orjson.loads(lines["explanation"][0])
    assert (explained["reference"], explained["document"]) == ("setup-7", invoice.digest)
    assert explained["slices"] == [
        {"label": "", "up_to": None, "quantity": "1.5", "unit_price": "333.333", "flat": "0", "amount": "499.9995"}
    ]
    assert lines["tax_rule"].to_list()[1] is None


@pytest.mark.parametrize(
    ("amount", "currency", "rounding", "minor"),
    [("0.125", "EUR", Rounding.HALF_UP, 13), ("-0.125", "EUR", Rounding.HALF_UP, -13),
     ("0.125", "EUR", Rounding.HALF_EVEN, 12), ("1.5", "JPY", Rounding.HALF_UP, 2),
     ("0.00005", "CLF", Rounding.HALF_UP, 1), ("0.0005", "KWD", Rounding.HALF_EVEN, 0)],
)  # fmt: skip
def test_a_line_is_rounded_to_the_minor_unit_of_any_currency(
    amount: str, currency: str, rounding: Rounding, minor: int
) -> None:
    """A half goes away from zero, or to the even neighbour where the book says so."""
    line = f"{{description: x, unit_price: {amount}}}"
    [invoice] = parse_invoices(
        f"{{reference: r, customer: c, currency: {currency}, period: 2026-03, lines: [{line}]}}", "f"
    )
    assert lines_of(invoice, [None], rounding)["amount_minor"].to_list() == [minor]


def test_every_fault_of_every_invoice_is_told_at_once() -> None:
    """A fault names its key, its value and what is allowed; faults of single keys do not hide those between keys."""
    told = faults("""
invoices:
  - {reference: a, customer: c, currency: XXX, period: 2026-13, lines: [{description: x}], extra: 1}
  - reference: a
    customer: c
    currency: EUR
    period: 2026-03
    lines:
      - {id: l, description: "", unit_price: 1, amount: 1}
      - {id: l, description: x, amount: 1.005}
      - {description: x, amount: 1, quantity: 2, tax_code: reduced, taxed: false}
      - {description: x, amount: 1, service_start: 2026-03-02, service_end: 2026-03-02}
      - {description: x, amount: 1, tax: {mode: exclusive, name: VAT}}
      - {description: x, amount: 1e3}
      - {description: x, quantity: 99999999999999999, unit_price: 99999999999999999}
""")
    for part in (
        "invoices[0].currency 'XXX' allowed: an ISO 4217 code",
        "invoices[0].period '2026-13' String should match",
        "invoices[0].extra 1 Extra inputs",
        "invoices[0].lines[0] 'none of them' allowed: exactly one of unit_price, amount",
        "invoices[1].reference 'a' allowed: a reference once",
        "invoices[1].lines[0].description '' String should have at least 1 character",
        "invoices[1].lines[0] 'unit_price and amount' allowed: exactly one of",
        "invoices[1].lines[1].id 'l' allowed: an id once",
        "invoices[1].lines[1].amount 1.005 allowed: at most 2 decimals of EUR",
        "invoices[1].lines[2].quantity 2 allowed: with unit_price",
        "invoices[1].lines[2] 'tax_code and taxed: false' allowed: at most one of",
        "invoices[1].lines[3].service_end '2026-03-02' allowed: a day after 2026-03-02",
        "invoices[1].lines[4].tax.rate_percent 'missing' allowed: name and rate_percent, or rates",
        "invoices[1].lines[5].amount '1e3' allowed: a plain decimal number",
        "invoices[1].lines '99999999999999998",
    ):
        assert any(each.startswith(part) for each in told), (part, told)
    assert faults("invoices: []") == ["invoices  allowed: a list of 1 to 1000 invoices"]


def test_the_same_content_has_the_same_digest() -> None:
    """However it is written; and a reference is one id for each tenant."""
    one = invoices_of([{"reference": "r", "customer": "c", "currency": "EUR", "period": "2026-03", "lines": [{"description": "x", "amount": "1.50"}]}], "f")[0]  # fmt: skip
    [other] = parse_invoices(
        "{lines: [{amount: 1.5, description: x}], reference: r, customer: c, period: 2026-03, currency: EUR}", "f"
    )
    assert one.digest == other.digest
    assert one.id_of("a") == other.id_of("a") != other.id_of("b")


def test_the_invoice_that_is_shown_is_legal() -> None:
    """Whoever copies it from docs/manual-invoices.md can keep it."""
    page = (Path(__file__).parents[4] / "docs/manual-invoices.md").read_text()
    shown = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    [invoice] = parse_invoices(shown, "manual-invoices.md")
    assert [str(line.exact) for line in invoice.lines] == ["900.000", "1200.00", "-20.00"]


@given(
    st.decimals(0, 10**6, places=9), st.decimals(-(10**5), 10**5, places=12), st.sampled_from(["JPY", "EUR", "KWD", "CLF"]),
    st.sampled_from(list(Rounding)),
)  # fmt: skip
def test_a_line_is_its_exact_product_rounded_once(
    quantity: Decimal, price: Decimal, currency: str, rounding: Rounding
) -> None:
    """Against fractions; and the amount that is kept beside it is exact."""
    line = {"description": "x", "quantity": quantity, "unit_price": price}
    head = {"reference": "r", "customer": "c", "currency": currency, "period": "2026-03"}
    [invoice] = invoices_of([{**head, "lines": [line]}], "f")
    lines = lines_of(invoice, [None], rounding)
    exact = Fraction(quantity) * Fraction(price)
    scaled = abs(exact) * 10 ** MINOR_UNITS[currency]
    whole, rest = divmod(scaled, 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (rounding is Rounding.HALF_UP or whole % 2 == 1))
    assert lines["amount_minor"].item() == (whole + up) * (-1 if exact < 0 else 1)
    assert Fraction(lines["amount"].item()) == exact
