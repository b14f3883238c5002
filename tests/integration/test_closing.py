"""The end of a month, over real stores: what is looked at before the books are closed, and what is told of it."""

from datetime import UTC, date, datetime

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.outbox import store as outbox
from invoicing.periods.store import close_period, reopen_period
from meterline.closing import CLOSING_CHECKS
from meterline.operations import outputs_of
from meterline.system import System
from schemas.domain_event import StoredEvent
from schemas.tables import PROGRESS
from stores.clickhouse import insert
from tests.integration.test_price_simulation import app as priced  # noqa: F401  a fixture
from tests.simulation.books import post
from tests.simulation.issued import stored

MARCH, APRIL = date(2026, 3, 31), date(2026, 4, 30)
CHECKS = dict(CLOSING_CHECKS)
BILLED, DRAFTS, CUTS = "months are billed", "no drafts are left", "usage is stored up to every cut"
ACCRUALS, AUDIT = "accruals of billed months are taken back", "the audit of the books is clean"
RUN = """
    INSERT INTO bill_runs (tenant, period, cut, book, book_version, book_digest, contracts_digest, state, started_at,
        posted_at)
    SELECT 'default', :period, :cut, b.book, b.version, b.digest, c.digest, 'posted', now(), now()
    FROM price_books b, contracts c"""


def run(app: System, period: str, cut: int) -> None:
    """Note that a month was billed."""
    with app.database.begin() as connection:
        connection.execute(sa.text(RUN), {"period": period, "cut": cut})


def point(app: System, name: str, through: date = MARCH) -> str:
    return CHECKS[name](app, "default", through)


def progress(app: System, partition: int, epoch: int) -> None:
    row = dict.fromkeys(PROGRESS.frame, 0) | {
        "log_id": app.log.log_id, "partition": partition, "epoch": epoch, "appended_at": datetime(2026, 4, 1, tzinfo=UTC),
        "first_offset": epoch,
    }  # fmt: skip
    insert(app.clickhouse, PROGRESS, pl.DataFrame([row], schema=PROGRESS.frame), f"progress {partition} {epoch}")


def test_a_month_is_closed_when_it_is_billed_and_clean(priced: System) -> None:  # noqa: F811
    """Each point is open until what it asks for is done; a month before the first run, or behind a closing, is no matter."""
    assert point(priced, BILLED) == "not billed: 2026-03"
    assert point(priced, BILLED, date(2025, 12, 31)) == ""  # before the first contract
    assert [point(priced, each) for each in (DRAFTS, CUTS, ACCRUALS, AUDIT)] == [""] * 4
    # accruals of a month that is billed meanwhile
    [*_] = outputs_of(priced, "accrue_revenue", {"through": "2026-03-31"})
    assert point(priced, ACCRUALS) == ""
    run(priced, "2026-03", 7)
    assert point(priced, ACCRUALS).startswith("accrued and billed: 2026-03; ")
    assert point(priced, ACCRUALS, date(2026, 2, 28)) == ""
    [*_] = outputs_of(priced, "accrue_revenue", {"through": "2026-03-31"})
    assert point(priced, ACCRUALS) == ""
    # months behind the run
    assert point(priced, BILLED) == ""
    assert point(priced, BILLED, date(2026, 5, 30)) == "not billed: 2026-04"
    assert point(priced, BILLED, date(2026, 6, 30)) == "not billed: 2026-04, 2026-05, 2026-06"
    with priced.database.begin() as connection:
        close_period(connection, "default", APRIL)
    assert point(priced, BILLED, date(2026, 5, 31)) == "not billed: 2026-05"
    # the cut, in the log's partitions
    assert point(priced, CUTS) == "stored up to cut 0: 2026-03 (cut 7)"
    progress(priced, 0, 6)
    assert point(priced, CUTS) == "stored up to cut 6: 2026-03 (cut 7)"
    assert point(priced, CUTS, date(2026, 2, 28)) == ""
    progress(priced, 0, 7)
    assert point(priced, CUTS) == ""


def test_drafts_and_broken_promises_keep_the_books_open(database: sa.Engine) -> None:
    """A draft of a month that is over; and what the audit finds, by its name."""
    system = System(database, None, None, None)  # type: ignore[arg-type]
    stored(database, [10_000], tenant="default")
    stored(database, [10_000], tenant="other")
    assert point(system, DRAFTS, date(2026, 1, 31)) == "drafts of 2026-01 c0"
    assert point(system, DRAFTS, date(2026, 1, 30)) == ""
    with database.begin() as connection:
        post(connection, "P01", "z", date(2026, 1, 1), subtotal=1)
    assert point(system, AUDIT) == "unbilled receivables are what is accrued"
    [*_, failure] = outputs_of(system, "close_books", {"through": "2026-01-31", "anyway": False})
    assert f"not closed: {DRAFTS}; {AUDIT}" in str(failure)


def told(database: sa.Engine) -> list[StoredEvent]:
    with database.connect() as connection:
        return outbox.events_after(connection, "default", 0, 100)


def test_a_closing_and_its_openings_are_told_once_each(database: sa.Engine) -> None:
    """With their transaction or not at all; a closing that was one before is told no more."""
    system = System(database, None, None, None)  # type: ignore[arg-type]
    at = datetime(2026, 2, 1, tzinfo=UTC)
    with database.connect() as connection:
        assert close_period(connection, "default", MARCH)  # and is not committed
    assert told(database) == []
    for _ in range(2):
        [*_, last] = outputs_of(system, "close_books", {"through": "2026-01-31", "anyway": False, "by": "Ada"})
        assert "the books are closed through 2026-01-31" in str(last)
    for why in ("a lost payment file", "another one"):
        [*_] = outputs_of(system, "reopen_books", {"through": "2026-01-31", "by": "Ada", "why": why})
    with database.begin() as connection:
        close_period(connection, "default", MARCH)
        with pytest.raises(LookupError):
            reopen_period(connection, "default", APRIL, by="Ada", why="x", opened_at=at, until=at)
    events = [(each.type.removeprefix("ledger."), each.object_id, each.version, each.data) for each in told(database)]
    assert events == [
        ("period_closed", "2026-01-31", 1, '{"through":"2026-01-31","closedBy":"Ada"}'),
        ("period_reopened", "2026-01-31", 1, '{"through":"2026-01-31","reopenedBy":"Ada","reason":"a lost payment file"}'),
        ("period_reopened", "2026-01-31", 2, '{"through":"2026-01-31","reopenedBy":"Ada","reason":"another one"}'),
        ("period_closed", "2026-03-31", 1, '{"through":"2026-03-31","closedBy":null}'),
    ]  # fmt: skip
