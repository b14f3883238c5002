"""What becomes a line, what becomes an invoice, and how it is numbered and taxed."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from invoicing.assemble import Assembled, assemble
from schemas.invoice import BOOKED, CHARGED, INVOICES, LINES, Basis, Tax

BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book digest", contracts_digest="contracts digest")


def charge(customer: str, period: str, minor: int, **other: Any) -> dict[str, Any]:
    amount = Decimal(minor).scaleb(-2)
    flat = {
        "label": "",
        "up_to": None,
        "quantity": Decimal(1),
        "unit_price": amount,
        "flat": Decimal(0),
        "amount": amount,
    }
    return {
        "customer": customer, "period": period, "charge": "turns", "description": "Turns", "model": "standard",
        "meter": "turns", "quantity": Decimal(1), "slices": [flat], "amount": amount, "amount_minor": minor,
        "currency": "USD", **vars(BASIS), **other,
    }  # fmt: skip


def billed(customer: str, period: str, minor: int, **other: Any) -> dict[str, Any]:
    return {
        "customer": customer, "usage_period": period, "charge": "turns", "currency": "USD", "description": "Turns",
        "model": "standard", "meter": "turns", "quantity": Decimal(1), "amount": Decimal(minor).scaleb(-2),
        "amount_minor": minor, **other,
    }  # fmt: skip


def run(charges: list[dict[str, Any]], booked: list[dict[str, Any]] | None = None, **other: Any) -> Assembled:
    arguments: dict[str, Any] = {
        "tenant": "default", "run_period": "2013-02", "bases": {"2013-01": BASIS, "2013-02": BASIS},
        "customer_names": {"UA": "United"}, "tax": None, "next_number": 1,
        "issued_at": datetime(2013, 3, 1, tzinfo=UTC), **other,
    }  # fmt: skip
    return assemble(pl.DataFrame(charges, schema=CHARGED), pl.DataFrame(booked, schema=BOOKED), **arguments)


def test_the_charges_of_the_own_period_are_usage_lines() -> None:
    """Each charge is one line, in the order of the plan, and zero lines stay beside others."""
    assembled = run([charge("UA", "2013-02", 100, charge="b"), charge("UA", "2013-02", 0, charge="a")])
    assert assembled.lines.select("position", "kind", "charge", "amount_minor").rows() == [
        (1, "usage", "b", 100),
        (2, "usage", "a", 0),
    ]
    assert assembled.invoices.select("customer_name", "subtotal_minor", "total_minor").rows() == [("United", 100, 100)]


def test_frames_have_exactly_the_declared_columns() -> None:
    """Columns, their order and their types are those of the schemas, with rows and without."""
    for assembled in (run([charge("UA", "2013-02", 100)]), run([])):
        assert dict(assembled.invoices.schema) == INVOICES
        assert dict(assembled.lines.schema) == LINES


def test_late_usage_is_an_adjustment_of_the_difference() -> None:
    """An earlier period's line holds the difference in money and quantity, and tells both amounts."""
    #   billed 2013-01: 1 for 1.00      rated now: 5 for 5.00      adjustment: 4 for 4.00
    late = charge("UA", "2013-01", 500, quantity=Decimal(5))
    [line] = run([late], [billed("UA", "2013-01", 100)]).lines.rows(named=True)
    assert (line["kind"], line["description"]) == ("adjustment", "Adjustment for 2013-01: Turns")
    assert (line["quantity"], line["amount"], line["amount_minor"]) == (4, 4, 400)
    explanation = json.loads(line["explanation"])
    assert explanation["before"] == {"quantity": "1", "amount": "1", "amount_minor": 100}
    assert explanation["after"] == {"quantity": "5", "amount": "5", "amount_minor": 500}
    assert [rated["amount"] for rated in explanation["slices"]] == ["5"]


def test_a_charge_that_is_gone_is_taken_back() -> None:
    """A booked charge that is no longer rated is adjusted to zero, named once however often it was adjusted."""
    gone = billed("UA", "2013-01", 100, description="Adjustment for 2013-01: Turns")
    [line] = run([], [gone]).lines.rows(named=True)
    assert (line["description"], line["amount_minor"]) == ("Adjustment for 2013-01: Turns", -100)
    assert json.loads(line["explanation"])["book"] == "airports"


def test_what_was_not_rated_again_stays_as_it_was_booked() -> None:
    """A booked charge of a period that this run did not rate is not taken back."""
    assert run([], [billed("UA", "2012-12", 100)]).lines.is_empty()


def test_an_unchanged_period_gives_no_lines() -> None:
    """Rated and booked the same: nothing to adjust and no invoice."""
    assembled = run([charge("UA", "2013-01", 100)], [billed("UA", "2013-01", 100)])
    assert assembled.invoices.is_empty()
    assert assembled.lines.is_empty()


def test_customers_who_owe_nothing_get_no_invoice_and_no_number() -> None:
    """Numbers go on without gaps over the customers who do have an invoice."""
    charges = [charge("AA", "2013-02", 100), charge("B6", "2013-02", 0), charge("UA", "2013-02", 300)]
    assert run(charges, next_number=999999).invoices.select("customer", "number").rows() == [
        ("AA", "INV-999999"),
        ("UA", "INV-1000000"),
    ]


def test_lines_that_cancel_are_an_invoice_of_zero() -> None:
    """A customer whose adjustment eats up the usage sees both lines and a total of zero."""
    assembled = run([charge("UA", "2013-02", 100)], [billed("UA", "2013-01", 100)])
    assert assembled.invoices.select("subtotal_minor", "tax_minor", "total_minor").row(0) == (0, 0, 0)
    assert assembled.lines["amount_minor"].to_list() == [100, -100]


def test_a_customer_has_one_invoice_for_each_currency() -> None:
    """Currencies never mix, and minor units are the currency's own."""
    charges = [charge("UA", "2013-02", 100), charge("UA", "2013-02", 7, currency="JPY")]
    assert run(charges).invoices.select("currency", "minor_units", "total_minor").rows() == [
        ("JPY", 0, 7),
        ("USD", 2, 100),
    ]


@pytest.mark.parametrize(("subtotal", "tax"), [(10, 1), (-10, -1), (9999, 887), (5, 0), (6, 1)])
def test_tax_is_rounded_once_half_away_from_zero(subtotal: int, tax: int) -> None:
    """The tax is that of the subtotal, not the sum of taxes on lines: 8.875 % of 0.10 in two lines is 0.01."""
    charges = [charge("UA", "2013-02", subtotal - 1), charge("UA", "2013-02", 1, charge="b")]
    taxed = run(charges, tax=Tax("VAT", Decimal("8.875"))).invoices.row(0, named=True)
    assert (taxed["tax_minor"], taxed["total_minor"]) == (tax, subtotal + tax)
    assert json.loads(taxed["tax"]) == {"name": "VAT", "rate_percent": "8.875"}


def test_the_content_digest_is_of_what_is_billed() -> None:
    """Number and instant of issue leave the digest as it is; a price, a slice or a name changes it."""
    digest = run([charge("UA", "2013-02", 100)]).invoices["content_digest"].item()
    later = run([charge("UA", "2013-02", 100)], next_number=9, issued_at=datetime(2014, 1, 1, tzinfo=UTC))
    assert later.invoices["content_digest"].item() == digest
    changes: list[dict[str, Any]] = [{"slices": []}, {"description": "Landings"}, {"meter": None}]
    for changed in changes:
        assert run([charge("UA", "2013-02", 100, **changed)]).invoices["content_digest"].item() != digest


def test_charges_of_a_period_that_was_not_rated_are_refused() -> None:
    """A charge without the basis of its period would be a line that nobody can rate again."""
    with pytest.raises(ValueError, match="charges of 2012-12; allowed: the rated periods 2013-01, 2013-02"):
        run([charge("UA", "2012-12", 100)])


def test_a_charge_that_stands_twice_is_refused() -> None:
    """Two rows for one charge of a customer and period could not both be compared with what is booked."""
    with pytest.raises(ValueError, match="allowed: one row a customer, period and charge"):
        run([charge("UA", "2013-02", 100), charge("UA", "2013-02", 200)])


@pytest.mark.parametrize("rate", ["-1", "100.5", "NaN", "0.00000000001"])
def test_a_rate_that_is_none_is_refused(rate: str) -> None:
    """A tax rate lies between 0 and 100 percent and has at most 10 decimals."""
    with pytest.raises(ValueError, match="allowed: 0 to 100, with at most 10 decimals"):
        Tax("VAT", Decimal(rate))
