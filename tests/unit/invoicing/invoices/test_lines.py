"""What becomes a line, what becomes an invoice, and how it is numbered and taxed."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from invoicing.invoices.drafts import Drafts
from invoicing.invoices.lines import lines_of
from schemas.invoice import BOOKED, CHARGED, DRAFTED, INVOICES, LINES, Basis
from schemas.plan import TaxMode
from tests.documents.drafts import charged, drafts_of, issued, tax_rule, was_booked

BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book digest", contracts_digest="contracts digest")
TURNS = {"charge": "turns", "description": "Turns", "meter": "turns"}


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
    own = {**TURNS, "customer": customer, "period": period, "amount_minor": minor, "slices": [flat], **other}
    return charged(BASIS, **own)


def billed(customer: str, period: str, minor: int, **other: Any) -> dict[str, Any]:
    own = {**TURNS, "customer": customer, "usage_period": period, "amount_minor": minor, **other}
    return was_booked(**own)


def run(charges: list[dict[str, Any]], booked: list[dict[str, Any]] | None = None) -> Drafts:
    bases = {"2013-01": BASIS, "2013-02": BASIS}
    return drafts_of(charges, booked, bases=bases, run_period="2013-02", customer_names={"UA": "United"})


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
    for charges in ([charge("UA", "2013-02", 100)], []):
        frames = pl.DataFrame(charges, schema=CHARGED), pl.DataFrame(schema=BOOKED)
        lines = lines_of(*frames, run_period="2013-02", bases={"2013-02": BASIS})
        assert dict(lines.schema) == DRAFTED
        assert dict(run(charges).invoices.schema) == INVOICES
        assert dict(run(charges).lines.schema) == LINES
        assert dict(issued(run(charges)).invoices.schema) == INVOICES


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
    assert issued(run(charges), last_number=999998).invoices.select("customer", "number").rows() == [
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
    rule = tax_rule("VAT", "8.875")
    charges = [
        charge("UA", "2013-02", subtotal - 1, tax_rule=rule),
        charge("UA", "2013-02", 1, charge="b", tax_rule=rule),
    ]
    drafts = run(charges)
    taxed = drafts.invoices.row(0, named=True)
    assert (taxed["tax_minor"], taxed["total_minor"]) == (tax, subtotal + tax)
    group = {"name": "VAT", "rate_percent": "8.875", "mode": "exclusive", "base_minor": subtotal, "tax_minor": tax}
    assert json.loads(taxed["taxes"]) == [group]
    assert drafts.lines["tax_minor"].sum() == tax


def test_a_price_with_tax_in_it_is_parted() -> None:
    """100.00 with 21 % in it is 82.64 and 17.36; a line beside it without tax has none."""
    inclusive = tax_rule("VAT", "21", TaxMode.INCLUSIVE)
    drafts = run([charge("UA", "2013-02", 10000, tax_rule=inclusive), charge("UA", "2013-02", 500, charge="b")])
    assert drafts.lines.select("amount_minor", "net_minor", "tax_minor").rows() == [(10000, 8264, 1736), (500, 500, 0)]
    head = drafts.invoices.row(0, named=True)
    assert (head["subtotal_minor"], head["tax_minor"], head["total_minor"]) == (8764, 1736, 10500)
    assert json.loads(head["taxes"])[0]["base_minor"] == 8264
    assert json.loads(drafts.lines["taxes"][0])[0]["mode"] == "inclusive"


def test_what_progressive_invoices_billed_leaves_a_remainder() -> None:
    """Usage of the own period that was billed in part is a line of what is left; a fee is adjusted as any other."""
    charges = [charge("UA", "2013-02", 900), charge("UA", "2013-02", 80, charge="fee", kind="fee", revenue="fees")]
    parts = [billed("UA", "2013-02", 500), billed("UA", "2013-02", 100, charge="fee", revenue="fees")]
    drafts = run(charges, parts)
    assert drafts.lines.select("kind", "description", "amount_minor").rows() == [
        ("remainder", "Turns", 400),
        ("adjustment", "Adjustment for 2013-02: Turns", -20),
    ]


def test_an_adjustment_is_of_the_revenue_that_was_billed() -> None:
    """What was billed in advance stays unearned when it is corrected after its month has begun."""
    now = charge("UA", "2013-01", 40, kind="fee", revenue="fees")
    drafts = run([now], [billed("UA", "2013-01", 100, revenue="advance")])
    assert drafts.lines.select("revenue", "amount_minor").rows() == [("advance", -60)]


def test_the_content_digest_is_of_what_is_billed() -> None:
    """Number and instant of issue leave the digest as it is; a price, a slice or a name changes it."""
    drafts = run([charge("UA", "2013-02", 100)])
    digest = drafts.invoices["content_digest"].item()
    later = issued(drafts, last_number=9, at=datetime(2014, 1, 1, tzinfo=UTC))
    assert later.invoices["content_digest"].item() == digest
    changes: list[dict[str, Any]] = [{"slices": []}, {"description": "Landings"}, {"meter": None}]
    for changed in changes:
        assert run([charge("UA", "2013-02", 100, **changed)]).invoices["content_digest"].item() != digest


def test_an_invoice_of_nothing_due_is_paid() -> None:
    """Lines that cancel, or credit, leave nothing to pay; any other invoice is open."""
    drafts = run([charge("AA", "2013-02", 100), charge("UA", "2013-02", -5)], [billed("B6", "2013-01", 100)])
    assert drafts.invoices["state"].unique().to_list() == ["draft"]
    done = issued(drafts).invoices
    assert done.select("customer", "state", "payment_status").rows() == [
        ("AA", "open", "pending"),
        ("B6", "paid", "succeeded"),
        ("UA", "paid", "succeeded"),
    ]


def test_charges_of_a_period_that_was_not_rated_are_refused() -> None:
    """A charge without the basis of its period would be a line that nobody can rate again."""
    with pytest.raises(ValueError, match="charges of 2012-12; allowed: the rated periods 2013-01, 2013-02"):
        run([charge("UA", "2012-12", 100)])


def test_a_charge_that_stands_twice_is_refused() -> None:
    """Two rows for one charge of a customer and period could not both be compared with what is booked."""
    with pytest.raises(ValueError, match="allowed: one row a customer, period and charge"):
        run([charge("UA", "2013-02", 100), charge("UA", "2013-02", 200)])
