"""Invoices are issued: numbered, posted and told of, in the caller's transaction.

A shell. Owns that an invoice has its number, its journal entry and its event, or none of them.
"""

from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.invoices import store
from invoicing.invoices.drafts import Drafts, finalised
from invoicing.invoices.entries import journal
from invoicing.ledger.store import closings, post
from invoicing.outbox.events import finalized
from invoicing.outbox.store import emit_frame
from invoicing.rendering.store import seller_at
from schemas.invoice import INVOICES


def issue(connection: sa.Connection, drafts: Drafts, *, at: datetime, stored_by: str | None = None) -> pl.DataFrame:
    """Issue the drafts of one tenant, and return the invoices (columns `schemas.invoice.INVOICES`).

    `stored_by` names who finalises drafts that are stored; without it, they are new. In this order: (1) take numbers,
    a series at a time, in the drafts' order; others who number wait from here on; (2) write invoices and lines; (3)
    post their entries; (4) emit, last, because whoever emits for the tenant waits for the commit.
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
    # 4: emit
    emit_frame(connection, finalized(issued))
    return issued
