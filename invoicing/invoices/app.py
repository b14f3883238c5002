"""Invoices are issued: numbered, posted, scheduled and told of, in the caller's transaction.

A shell. Owns that an invoice has its number, its journal entry, the schedules of what it bills in advance and its
event, or none of them; and that what was accrued of a period is taken back by who is billed for it.
"""

from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.accruals.store import release
from invoicing.invoices import store
from invoicing.invoices.drafts import Drafts, finalised
from invoicing.invoices.entries import journal
from invoicing.ledger.store import closings, post
from invoicing.outbox.events import finalized
from invoicing.outbox.store import emit_frame
from invoicing.recognition.rows import in_advance
from invoicing.recognition.schedules import Method
from invoicing.recognition.store import schedule_lines
from invoicing.rendering.store import seller_at
from schemas.invoice import INVOICES, InvoiceKind


def issue(connection: sa.Connection, drafts: Drafts, *, at: datetime, stored_by: str | None = None) -> pl.DataFrame:
    """Issue the drafts of one tenant, and return the invoices (columns `schemas.invoice.INVOICES`).

    `stored_by` names who finalises drafts that are stored; without it, they are new. In this order: (1) take numbers,
    a series at a time, in the drafts' order; others who number wait from here on; (2) write invoices and lines; (3)
    post their entries; (4) schedule what they bill in advance; (5) take back what was accrued of their periods; (6)
    emit, last, because whoever emits for the tenant waits for the commit.
    """
    if drafts.invoices.is_empty():
        return drafts.invoices
    [tenant] = drafts.invoices["tenant"].unique()
    seller = seller_at(connection, tenant, at)
    # 1: number
    issued = pl.concat([
        finalised(own, last_number=store.take_numbers(connection, tenant, str(series), own.height), issued_at=at,
                  due_days=seller.due_days if seller else None)
        for (series,), own in drafts.invoices.group_by("series", maintain_order=True)
    ]).select(pl.col(name).cast(kind) for name, kind in INVOICES.items())  # fmt: skip
    # 2: write
    if stored_by is None:
        store.write(connection, issued, drafts.lines)
    else:
        store.change(connection, issued, by=stored_by, reason="finalised", at=at)
        issued = issued.with_columns(pl.col("version") + 1)
    # 3: post
    closed = [closing.through for closing in closings(connection, tenant)]
    entries = journal(issued, drafts.lines, booked_at=at, closed_through=max(closed, default=None))
    post(connection, entries.entries, entries.postings)
    # 4: schedule
    schedule_lines(connection, in_advance(issued, drafts.lines), Method.DAY, scheduled_at=at)
    # 5: take back
    periodic = issued.filter(pl.col("kind") == InvoiceKind.PERIODIC)
    for (period,), own in periodic.group_by("period", maintain_order=True):
        last = pl.select(pl.lit(f"{period}-01").str.to_date("%Y-%m-%d").dt.month_end()).item()
        release(connection, tenant, str(period), own, effective_at=last, booked_at=at)
    # 6: emit
    emit_frame(connection, finalized(issued))
    return issued
