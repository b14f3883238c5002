"""How an invoice is posted: template P02."""

from datetime import UTC, date, datetime

import polars as pl

from invoicing.ledger.journal import Journal, journal
from schemas.identity import digest
from schemas.invoice import INVOICES
from schemas.journal import ENTRIES, POSTINGS

BOOKED_AT = datetime(2013, 3, 1, tzinfo=UTC)


def post(*amounts: tuple[int, int], period: str = "2013-02") -> Journal:
    rows = [
        {
            "id": f"invoice {place}", "tenant": "default", "customer": "UA", "customer_name": "United",
            "period": period, "currency": "USD", "subtotal_minor": subtotal, "tax_minor": tax,
            "total_minor": subtotal + tax,
        }
        for place, (subtotal, tax) in enumerate(amounts)
    ]  # fmt: skip
    return journal(pl.DataFrame(rows, schema=INVOICES), booked_at=BOOKED_AT)


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


def test_the_content_digest_is_not_of_the_instant_of_posting() -> None:
    """Posting the same invoice later is the same content; another amount is not."""
    content = post((100, 0)).entries["content_digest"].item()
    assert post((101, 0)).entries["content_digest"].item() != content
    frames = post()
    assert (dict(frames.entries.schema), dict(frames.postings.schema)) == (ENTRIES, POSTINGS)
