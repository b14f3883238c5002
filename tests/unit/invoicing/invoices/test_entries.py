"""How invoices are posted: which template, which accounts, which day."""

import json
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest

from invoicing.invoices.entries import journal
from invoicing.ledger.journal import Journal
from schemas.identity import digest
from schemas.invoice import INVOICES, LINES
from schemas.journal import ENTRIES, POSTINGS

BOOKED_AT = datetime(2013, 3, 1, tzinfo=UTC)


def post(
    *amounts: tuple[int, int],
    period: str = "2013-02",
    revenue: tuple[str, ...] = ("subtotal",),
    mode: str = "exclusive",
    closed_through: date | None = None,
    **head: Any,
) -> Journal:
    """Invoices of the given subtotals and taxes, whose lines share the subtotal among the kinds of revenue."""
    invoices, lines = [], []
    for place, (subtotal, tax) in enumerate(amounts):
        group = {"name": "VAT", "rate_percent": "20", "mode": mode, "base_minor": subtotal, "tax_minor": tax}
        invoices.append(
            {
                "id": f"invoice {place}", "tenant": "default", "customer": "UA", "customer_name": "United",
                "kind": "periodic", "period": period, "currency": "USD", "subtotal_minor": subtotal, "tax_minor": tax,
                "total_minor": subtotal + tax, "taxes": json.dumps([group], separators=(",", ":")) if tax else "[]",
                "issued_at": BOOKED_AT, **head,
            }
        )  # fmt: skip
        shares = [subtotal - 100 * (len(revenue) - 1), *[100] * (len(revenue) - 1)]
        lines += [
            {"invoice_id": f"invoice {place}", "net_minor": minor, "revenue": kind}
            for minor, kind in zip(shares, revenue, strict=True)
        ]
    frames = pl.DataFrame(invoices, schema=INVOICES), pl.DataFrame(lines, schema=LINES)
    return journal(*frames, booked_at=BOOKED_AT, closed_through=closed_through)


def test_an_invoice_in_arrears_is_debited_to_receivable() -> None:
    """120 = 100 + 20: the customer owes the gross amount, revenue takes the net, the state the tax."""
    posted = post((10000, 2000))
    assert posted.postings.select("position", "account", "amount_minor").rows() == [
        (1, 1100, 12000),
        (2, 4010, -10000),
        (3, 2000, -2000),
    ]
    [entry] = posted.entries.rows(named=True)
    assert entry["id"] == digest("default", "P02", "invoice 0", 1, 1)
    assert (entry["document_id"], entry["description"]) == ("invoice 0", "Invoice for 2013-02 to United")


def test_a_negative_invoice_is_customer_credit() -> None:
    """When adjustments outweigh the usage, we owe the customer."""
    assert post((-500, -100)).postings.select("account", "amount_minor").rows() == [
        (2100, -600),
        (4010, 500),
        (2000, 100),
    ]


def test_postings_of_zero_are_left_out() -> None:
    """Without tax an entry has two postings; an invoice of zero has no entry."""
    posted = post((0, 0), (100, 0))
    assert posted.entries["document_id"].to_list() == ["invoice 1"]
    assert posted.postings.select("position", "account").rows() == [(1, 1100), (2, 4010)]


def test_an_entry_is_dated_the_last_day_of_the_period() -> None:
    """Revenue belongs to the period of the run, also in a leap year and in December."""
    days = [post((1, 0), period=period).entries["effective_at"].item() for period in ("2012-02", "2013-12")]
    assert days == [date(2012, 2, 29), date(2013, 12, 31)]


@pytest.mark.parametrize(
    ("given", "template", "accounts"),
    [
        ({"revenue": ("advance",)}, "P03", [1100, 2200, 2000]),
        ({"revenue": ("commitment",)}, "P06", [1100, 4020, 2000]),
        ({"kind": "progressive"}, "P07", [1100, 4010, 2000]),
        ({"mode": "inclusive"}, "P04", [1100, 4010, 2000]),
        ({"revenue": ("subtotal", "fees", "advance", "commitment", "sla")}, "P02",
         [1100, 4010, 4000, 2200, 4020, 4095, 2000]),
    ],
)  # fmt: skip
def test_one_entry_has_every_kind_of_revenue(given: dict[str, Any], template: str, accounts: list[int]) -> None:
    """The template is that of what all lines are; where they differ, it is the one in arrears."""
    posted = post((10000, 2000), **given)
    assert posted.entries["template"].to_list() == [template]
    assert posted.postings["account"].to_list() == accounts
    assert posted.postings["amount_minor"].sum() == 0


def test_an_invoice_for_a_closed_period_is_dated_after_it() -> None:
    """It names the period that it is for; one of an open period, or of no period, does not."""
    late = post((100, 0), closed_through=date(2013, 3, 31)).entries.row(0, named=True)
    assert (late["effective_at"], late["relates_to_period"]) == (date(2013, 4, 1), "2013-02")
    open_one = post((100, 0), closed_through=date(2013, 1, 31)).entries.row(0, named=True)
    assert (open_one["effective_at"], open_one["relates_to_period"]) == (date(2013, 2, 28), None)
    manual = post((100, 0), kind="manual").entries.row(0, named=True)
    assert manual["effective_at"] == date(2013, 3, 1)


def test_the_content_digest_is_not_of_the_instant_of_posting() -> None:
    """Posting the same invoice later is the same content; another amount is not."""
    content = post((100, 0)).entries["content_digest"].item()
    assert post((101, 0)).entries["content_digest"].item() != content
    frames = post()
    assert (dict(frames.entries.schema), dict(frames.postings.schema)) == (ENTRIES, POSTINGS)
