"""Credit that is applied to many invoices at once says what it says of one."""

from datetime import UTC, date, datetime

import polars as pl

from invoicing.invoices import lifecycle
from invoicing.invoices.drafts import finalised
from invoicing.invoices.lifecycle import Booking
from invoicing.settlement.credit import CREDIT, applications_of, journal_of_credit, with_credit
from invoicing.settlement.postings import journal_of_posts
from tests.simulation.issued import drafts_of

NOW = datetime(2026, 2, 10, tzinfo=UTC)
TODAY = Booking(date(2026, 2, 10), "2026-01")


def test_credit_goes_to_invoices_in_their_order_until_it_is_used_up() -> None:
    """To those of its customer and currency alone, and to none that is below zero."""
    drafts = pl.concat([
        drafts_of([70], [50], [20], customer="a", tax=None, kind="manual").invoices,
        drafts_of([-9], [10], customer="a", tax=None, kind="manual", currency="USD").invoices,
        drafts_of([40], customer="b", tax=None, kind="manual").invoices,
    ])  # fmt: skip
    credit = pl.DataFrame([("a", "EUR", 100), ("a", "USD", 4), ("c", "EUR", 7)], schema=CREDIT, orient="row")
    assert with_credit(drafts, credit)["applied_minor"].to_list() == [70, 30, 0, 0, 4, 0]


def test_many_at_once_are_posted_as_one_is() -> None:
    """Entry, postings, digest and application are those of the state machine's step."""
    [draft] = finalised(drafts_of([10_000]).invoices, last_number=0, issued_at=NOW).to_dicts()
    step = lifecycle.apply_credit(draft, 500, TODAY, now=NOW)
    one = journal_of_posts(step.posts, tenant="default", customer="c0", currency="EUR", booked_at=NOW)
    issued = finalised(drafts_of([10_000]).invoices, last_number=0, issued_at=NOW)
    issued = issued.with_columns(pl.lit(500).alias("applied_minor"), pl.col("version") + 1)
    many = journal_of_credit(issued, TODAY, booked_at=NOW)
    assert (many.entries.rows(), many.postings.rows()) == (one.entries.rows(), one.postings.rows())
    [applied] = applications_of(issued, at=NOW).to_dicts()
    [single] = step.applications
    assert (applied["kind"], applied["amount_minor"], applied["reference"], applied["entry_id"]) == (
        single.kind, single.amount_minor, single.reference, single.entry_id,
    )  # fmt: skip
