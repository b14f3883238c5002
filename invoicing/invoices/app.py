"""Invoices are issued: numbered, settled, posted, scheduled and told of, in the caller's transaction.

A shell. Owns that an invoice has its number, its journal entry, what its customer's credit settles of it, the schedules
of what it bills in advance and its events, or none of them; and that what was accrued of a period is taken back by who
is billed for it.
"""

from collections import Counter
from datetime import date, datetime
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa

from invoicing.accruals.store import release
from invoicing.invoices import store
from invoicing.invoices.drafts import Drafts, finalised
from invoicing.invoices.entries import journal
from invoicing.invoices.lifecycle import booked_on
from invoicing.ledger.dating import last_day_of
from invoicing.ledger.store import hold, post
from invoicing.outbox.events import finalized, paid
from invoicing.outbox.store import emit_frame
from invoicing.periods.store import closed_through
from invoicing.recognition.rows import in_advance
from invoicing.recognition.schedules import Method
from invoicing.recognition.store import schedule_lines
from invoicing.rendering.store import seller_at
from invoicing.settlement.credit import (
    applications_of,
    applications_of_burns,
    journal_of_credit,
    with_burns,
    with_credit,
)
from invoicing.settlement.postings import joined
from invoicing.settlement.store import add_applications, spendable_credit
from invoicing.wallets.lots import INVOICES as BURNING
from invoicing.wallets.store import burn_many
from schemas.invoice import INVOICES, InvoiceKind, Revenue, State
from stores.postgres import as_tenant


class _Settled(NamedTuple):
    """Drafts of which credit and prepaid credits settle a part."""

    invoices: pl.DataFrame
    """Columns INVOICES and applied_minor, what of it is credit."""
    burns: pl.DataFrame
    """Columns `invoicing.wallets.postings.BURNS`."""


def issue(connection: sa.Connection, drafts: Drafts, *, at: datetime, stored_by: str | None = None) -> pl.DataFrame:
    """Issue the drafts of one tenant, and return the invoices (columns `schemas.invoice.INVOICES`).

    `stored_by` names who finalises drafts that are stored; without it, they are new. In this order: (1) take numbers,
    a series at a time, in the drafts' order; others who number wait from here on; (2) settle: by what customers have in
    credit, then by what they prepaid, before it is said what is due; others who spend it wait from here on; (3) write
    invoices and lines, and what settles them; (4) post their entries, and those of the credit after them; (5) schedule
    what they bill in advance; (6) take back what was accrued of their periods; (7) emit, last, because whoever emits
    for the tenant waits for the commit.
    """
    if drafts.invoices.is_empty():
        return drafts.invoices
    [tenant] = drafts.invoices["tenant"].unique()
    seller = seller_at(connection, tenant, at)
    # 1: number
    by_series = Counter(drafts.invoices["series"].to_list())
    last = {series: store.take_numbers(connection, tenant, series, count) for series, count in by_series.items()}
    # 2: settle
    settled, closed = _settled(connection, tenant, drafts.invoices, at)
    issued = pl.concat([
        finalised(own, last_number=last[own["series"][0]], issued_at=at, due_days=seller.due_days if seller else None)
        for own in _parted(settled.invoices, "series")
    ])  # fmt: skip
    # 3: write
    if stored_by is None:
        store.write(connection, issued, drafts.lines)
    else:
        store.change(connection, issued, by=stored_by, reason="finalised", at=at)
        issued = issued.with_columns(pl.col("version") + 1)
    by_credit = issued["applied_minor"].sum() > 0
    applied = [applications_of(issued, at=at)] if by_credit else []
    applied += [applications_of_burns(settled.burns, tenant, at=at)] if settled.burns.height else []
    if applied:
        add_applications(connection, pl.concat(applied))
    # 4: post
    entries = journal(issued, drafts.lines, booked_at=at, closed_through=closed)
    if by_credit:
        entries = joined(entries, journal_of_credit(issued, booked_on(at.date(), closed), booked_at=at))
    post(connection, entries.entries, entries.postings)
    # 5: schedule
    if (drafts.lines["revenue"] == Revenue.ADVANCE).any():
        schedule_lines(connection, in_advance(issued, drafts.lines), Method.DAY, scheduled_at=at)
    # 6: take back
    if (issued["kind"] == InvoiceKind.PERIODIC).any():
        for own in _parted(issued.filter(pl.col("kind") == InvoiceKind.PERIODIC), "period"):
            period = own["period"][0]
            release(connection, tenant, period, own, effective_at=last_day_of(period), booked_at=at)
    # 7: emit
    told = finalized(issued)
    if (issued["state"] == State.PAID).any():
        told = pl.concat([told, paid(issued.filter(pl.col("state") == State.PAID))])
    emit_frame(connection, told)
    return issued.select(*INVOICES)


def _settled(
    connection: sa.Connection, tenant: str, invoices: pl.DataFrame, at: datetime
) -> tuple[_Settled, date | None]:
    """What credit, and then prepaid credits, settle, and through which day the books are closed.

    Few have any, and each step costs where one invoice is issued. From here on nobody else posts for the tenant, so
    that the day stays.
    """
    due = pl.max_horizontal(pl.col("total_minor"), 0) - pl.col("settled_minor")
    plain = invoices.with_columns(applied_minor=pl.lit(0, pl.Int64))
    owing = plain.filter(due > 0)["customer"].unique().to_list()
    credit = spendable_credit(connection, tenant, owing)
    if credit.height:
        plain = with_credit(invoices, credit).with_columns(pl.col("settled_minor") + pl.col("applied_minor"))
    with as_tenant(connection, tenant):
        hold(connection, tenant)
        asked = plain.filter(due > 0).select("customer", "currency", invoice_id="id", due_minor=due)
        burns = burn_many(connection, tenant, asked.select(*BURNING), at=at)
        closed = closed_through(connection, tenant)
    return _Settled(with_burns(plain, burns) if burns.height else plain, burns), closed


def _parted(invoices: pl.DataFrame, column: str) -> list[pl.DataFrame]:
    """The invoices by a column, in their order; most often it says the same of all."""
    if (invoices[column] == invoices[column][0]).all():
        return [invoices]
    return invoices.partition_by(column, maintain_order=True)
