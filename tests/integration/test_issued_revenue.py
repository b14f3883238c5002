"""What issuing an invoice does to revenue, in a real PostgreSQL."""

from datetime import UTC, date, datetime

import polars as pl
import sqlalchemy as sa

from invoicing import store
from invoicing.accruals.documents import UNBILLED
from invoicing.accruals.store import accrue
from invoicing.invoices.app import issue
from invoicing.invoices.store import invoice
from invoicing.recognition.store import recognise, schedule_of
from invoicing.settlement.app import Act, void
from invoicing.wallets.store import Lot, lots_of, top_up
from meterline.audit import _BOOK_CHECKS
from schemas.invoice import Revenue
from tests.documents.drafts import charged, drafts_of
from tests.integration.invoice_stage import issued
from tests.integration.test_ledger_rules import BASIS, NOW
from tests.simulation.books import balances


def test_what_is_billed_in_advance_is_scheduled_and_what_was_accrued_is_taken_back(database: sa.Engine) -> None:
    """In the transaction of the invoice: revenue counts once, and the audit's promises hold before and after."""
    usage = charged(BASIS, customer="UA", period="2013-02", charge="turns", amount_minor=1_000)
    seats = charged(BASIS, customer="UA", period="2013-03", charge="seats", kind="advance", revenue="advance",
                    amount_minor=3_100)  # fmt: skip
    drafts = drafts_of([usage, seats], bases=dict.fromkeys(("2013-02", "2013-03"), BASIS), run_period="2013-02")
    owed = pl.DataFrame([("UA", "USD", "subtotal", "", 900)], schema=UNBILLED, orient="row")
    with database.begin() as connection:
        store.apply_price_book(
            connection, "default", book="airports", version=1, digest="book", body="{}", applied_at=NOW
        )
        store.apply_contracts(connection, "default", digest="contracts", body="[]", applied_at=NOW)
        run = store.start_run(connection, "default", "2013-02", BASIS, started_at=NOW)
        store.finish_run(connection, run, {"2013-02": BASIS}, posted_at=NOW)
        assert accrue(connection, "default", "2013-02", owed, through=date(2013, 2, 28), booked_at=NOW) == 1
        [invoice] = issue(connection, drafts, at=NOW)["id"]
        assert [balances(connection, account) for account in (1150, 4010, 2200)] == [{}, {"UA": -1_000}, {"UA": -3_100}]
        assert schedule_of(connection, "default", invoice_id=invoice)["amount_minor"].to_list() == [3_100]
        recognise(connection, "default", date(2013, 3, 31), booked_at=NOW)
        assert [balances(connection, account) for account in (2200, 4000)] == [{}, {"UA": -3_100}]
        assert [connection.exec_driver_sql(check).scalar_one() for check in _BOOK_CHECKS.values()] == [0] * len(
            _BOOK_CHECKS
        )


def test_prepaid_credits_pay_for_an_invoice_and_come_back_with_its_void(database: sa.Engine) -> None:
    """Promotional credits first, then paid ones; a void gives both back, and what was billed in advance ends."""
    at = datetime(2026, 2, 3, tzinfo=UTC)
    with database.begin() as connection:
        top_up(connection, "acme", Lot("UA", "EUR", 300, "gift", promotional=True, priority=1), at=at)
        top_up(connection, "acme", Lot("UA", "EUR", 500, "pay_1"), at=at)
    lines = [(600, None, Revenue.USAGE), (590, None, Revenue.ADVANCE)]
    one = issued(database, lines, service_end=date(2026, 3, 1))
    with database.begin() as connection:
        read = invoice(connection, "acme", one).row(0, named=True)
        assert (read["settled_minor"], read["state"], read["payment_status"]) == (800, "open", "pending")
        assert [balances(connection, account, tenant="acme") for account in (1100, 2150, 4090, 2200)] == [
            {"UA": 390}, {}, {"UA": 300}, {"UA": -590},
        ]  # fmt: skip
        recognise(connection, "acme", date(2026, 1, 31), booked_at=at)  # 31 of 59 days
        void(connection, Act("acme", "a test", at), one, "a mistake")
        assert [balances(connection, account, tenant="acme") for account in (1100, 2150, 4000, 4010, 4090, 2200)] == [
            {}, {"UA": -500}, {}, {}, {}, {},
        ]  # fmt: skip
        assert lots_of(connection, "acme")["balance_minor"].sum() == 800
        assert [connection.exec_driver_sql(check).scalar_one() for check in _BOOK_CHECKS.values()] == [0] * len(
            _BOOK_CHECKS
        )
