"""Invoices are issued: numbered, posted and told of, in the caller's transaction.

A shell. Owns that an invoice has its number, its journal entry and its event, or none of them.
"""

from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.invoices import store
from invoicing.invoices.drafts import Drafts, finalised
from invoicing.invoices.entries import journal
from invoicing.invoices.lifecycle import booked_on
from invoicing.ledger.store import post
from invoicing.outbox.events import finalized, paid
from invoicing.outbox.store import emit_frame
from invoicing.rendering.store import seller_at
from invoicing.settlement.credit import applications_of, journal_of_credit, with_credit
from invoicing.settlement.postings import joined
from invoicing.settlement.store import add_applications, closed_through, spendable_credit
from schemas.invoice import INVOICES, State


def issue(connection: sa.Connection, drafts: Drafts, *, at: datetime, stored_by: str | None = None) -> pl.DataFrame:
    """Issue the drafts of one tenant, and return the invoices (columns `schemas.invoice.INVOICES`).

    `stored_by` names who finalises drafts that are stored; without it, they are new. In this order: (1) apply what
    customers have in credit, before it is said what is due; others who spend it wait from here on; (2) take numbers, a
    series at a time, in the drafts' order; others who number wait from here on; (3) write invoices and lines, and what
    settles them; (4) post their entries, and those of the credit after them; (5) emit, last, because whoever emits for
    the tenant waits for the commit.
    """
    if drafts.invoices.is_empty():
        return drafts.invoices
    [tenant] = drafts.invoices["tenant"].unique()
    seller = seller_at(connection, tenant, at)
    # 1: apply credit
    owing = drafts.invoices.filter(pl.col("total_minor") > pl.col("settled_minor"))["customer"].unique()
    credit = spendable_credit(connection, tenant, owing.to_list())
    credited = drafts.invoices.with_columns(applied_minor=pl.lit(0, pl.Int64))
    if credit.height:  # few have any, and each step takes its time where one invoice is issued
        credited = with_credit(drafts.invoices, credit).with_columns(pl.col("settled_minor") + pl.col("applied_minor"))
    # 2: number
    issued = pl.concat([
        finalised(own, last_number=store.take_numbers(connection, tenant, str(series), own.height), issued_at=at,
                  due_days=seller.due_days if seller else None)
        for (series,), own in credited.group_by("series", maintain_order=True)
    ]).select(*(pl.col(name).cast(kind) for name, kind in INVOICES.items()), "applied_minor")  # fmt: skip
    # 3: write
    if stored_by is None:
        store.write(connection, issued, drafts.lines)
    else:
        store.change(connection, issued, by=stored_by, reason="finalised", at=at)
        issued = issued.with_columns(pl.col("version") + 1)
    if credit.height:
        add_applications(connection, applications_of(issued, at=at))
    # 4: post
    closed = closed_through(connection, tenant)
    entries = journal(issued, drafts.lines, booked_at=at, closed_through=closed)
    if credit.height:
        entries = joined(entries, journal_of_credit(issued, booked_on(at.date(), closed), booked_at=at))
    post(connection, entries.entries, entries.postings)
    # 5: emit
    at_once = issued.filter(pl.col("state") == State.PAID.value)
    told = finalized(issued)
    emit_frame(connection, pl.concat([told, paid(at_once)]) if at_once.height else told)
    return issued.select(*INVOICES)
