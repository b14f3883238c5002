"""Late usage is posted by policy, in the transaction of the run that found it.

A shell. Owns that what is written off is posted and counts as booked, that an invoice which is billed again is credited
as a whole, and that each is told, or none of it is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.credit_notes.app import credit
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.store import take_numbers
from invoicing.late_usage import store
from invoicing.late_usage.policies import with_document_ids, write_off_journal
from invoicing.ledger.store import post
from invoicing.outbox.store import emit
from invoicing.periods.store import closings
from schemas.credit_note import CREDIT_SERIES, Reason, Wanted
from schemas.domain_event import DomainEvent, EventType, LateUsageData
from schemas.identity import digest
from schemas.invoice import INVOICE_SERIES, Run

_REBILLED = Wanted(reason=Reason.REBILL, comment="")


@dataclass(frozen=True)
class Late:
    """What a run does about late usage, beside its own invoices."""

    found: pl.DataFrame
    """Columns `invoicing.late_usage.policies.LATE`."""
    written_off: pl.DataFrame
    """Columns TAXED."""
    rebilled: pl.DataFrame
    """Columns TAKEN_BACK."""
    replaced_by: Mapping[str, str]
    """The invoice that takes the place of each."""
    drafts: Drafts
    """Those invoices."""


def settle(connection: sa.Connection, run: Run, late: Late, *, at: datetime) -> None:
    """Post what is written off and billed again. Before the run's own invoices are issued, and `tell` after them.

    In this order: (1) take hold of the invoices, then of the numbers, as everybody does, so that nobody waits for us
    in a circle; (2) post what is written off; (3) credit, and issue what takes the place.
    """
    # 1: hold
    store.hold(connection, run.tenant, late.rebilled["id"].to_list())
    if late.written_off.height or late.rebilled.height:
        for series in sorted(
            {CREDIT_SERIES, *late.drafts.invoices["series"], *late.rebilled["series"], INVOICE_SERIES}
        ):
            take_numbers(connection, run.tenant, series, 0)
    # 2: write off
    if late.written_off.height:
        _write_off(connection, run, late.written_off, at)
    # 3: bill again
    if late.rebilled.height:
        wanted = dict.fromkeys(late.rebilled["id"], _REBILLED)
        notes = credit(connection, run.tenant, wanted, at=at, by=f"bill {run.period}")
        issue(connection, late.drafts, at=at)
        rebills = notes.select(
            "tenant", "invoice_id", pl.col("id").alias("credit_note_id"),
            pl.Series("replaced_by", [late.replaced_by.get(invoice) for invoice in notes["invoice_id"]], pl.String),
            pl.lit(run.period).alias("run_period"), pl.lit(at).alias("rebilled_at"),
        )  # fmt: skip
        store.note_rebills(connection, rebills)


def tell(connection: sa.Connection, run: Run, late: Late, *, at: datetime) -> None:
    """Tell of usage that arrived late, one event a customer and period. Last in a transaction."""
    events = []
    for row in late.found.iter_rows(named=True):
        said = LateUsageData(
            period=row["usage_period"], cut=run.basis.cut, customer=row["customer"], policy=row["policy"],
            meters=tuple(row["meters"]), events=row["events"],
        )  # fmt: skip
        about = digest("late usage", run.tenant, row["customer"], row["usage_period"])
        events.append(DomainEvent(EventType.USAGE_LATE, about, run.basis.cut, at, said))
    emit(connection, run.tenant, events)


def _write_off(connection: sa.Connection, run: Run, written_off: pl.DataFrame, at: datetime) -> None:
    closed = max((closing.through for closing in closings(connection, run.tenant)), default=None)
    named = with_document_ids(written_off, tenant=run.tenant, run_period=run.period)
    journal = write_off_journal(named, tenant=run.tenant, closed_through=closed, booked_at=at)
    post(connection, journal.entries, journal.postings)
    entries = journal.entries.select("document_id", entry_id="id")
    known = named.join(entries, on="document_id", how="left", maintain_order="left")
    store.write_off(connection, known, tenant=run.tenant, run_period=run.period, cut=run.basis.cut, at=at)
