"""Credit notes are written: numbered, posted, applied to their invoices and told of, in the caller's transaction.

A shell. Owns that a note has its number, its journal entry, its application and its event, or none of them; and that
two who credit an invoice come one after the other.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.credit_notes import store
from invoicing.credit_notes.entries import journal
from invoicing.credit_notes.notes import Credit, Row, credit_of
from invoicing.invoices.store import change, take_numbers
from invoicing.ledger.store import post
from invoicing.outbox.store import emit
from invoicing.periods.store import closings
from invoicing.recognition.store import reverse_deferred
from schemas.credit_note import CREDIT_NOTES, CREDIT_SERIES, Wanted
from schemas.domain_event import CreditNoteData, DomainEvent, EventType, InvoiceData
from schemas.invoice import INVOICES


def credit(
    connection: sa.Connection,
    tenant: str,
    wanted: Mapping[str, Wanted],
    *,
    at: datetime,
    by: str,
    series: str = CREDIT_SERIES,
) -> pl.DataFrame:
    """Credit invoices, by their ids, and return the notes (columns `schemas.credit_note.CREDIT_NOTES`).

    In this order: (1) lock the invoices, by id, so that nobody else credits or settles them; (2) take of them what is
    wanted; (3) take numbers, and others who number wait from here on; (4) give back what is unearned before what was
    earned; (5) post; (6) write the notes, and what they settle of the invoices; (7) emit, last. Raises LookupError for
    an invoice that is not there and NotCreditableError for what is not left of one.
    """
    if not wanted:
        return pl.DataFrame()
    # 1: lock
    found = store.to_credit(connection, tenant, list(wanted))
    for missing in set(wanted) - set(found):
        raise LookupError(f"tenant {tenant} has no invoice {missing}")
    # 2: take
    revenues = {line["id"]: str(line["revenue"]) for each in found.values() for line in each.lines}
    written = [
        credit_of(each.invoice, each.lines, each.earlier, each.notes_before, wanted[invoice_id], at=at)
        for invoice_id, each in ((invoice_id, found[invoice_id]) for invoice_id in wanted)
    ]
    # 3: number
    last = take_numbers(connection, tenant, series, len(written))
    numbered = [
        each.note | {"series": series, "number": f"{series}-{number:06d}"}
        for number, each in enumerate(written, start=last + 1)
    ]
    # 4: deferred first
    written = [_with_earned(connection, tenant, each, revenues, at) for each in written]
    # 5: post
    closed = max((closing.through for closing in closings(connection, tenant)), default=None)
    entries = journal(
        numbered, [line for each in written for line in each.lines], {key: each.invoice for key, each in found.items()},
        revenues, related={key: each.entry_id for key, each in found.items() if each.entry_id}, closed_through=closed,
        booked_at=at,
    )  # fmt: skip
    post(connection, entries.entries, entries.postings)
    entry_of = dict(entries.entries.select("document_id", "id").iter_rows())
    notes = [note | {"entry_id": entry_of.get(note["id"])} for note in numbered]
    # 6: write
    store.write(connection, written, notes, at)
    reasons = {each.invoice["id"]: note["number"] for each, note in zip(written, notes, strict=True)}
    for each in written:
        changed = pl.DataFrame([each.invoice], schema=INVOICES)
        change(connection, changed, by=by, reason=f"credit note {reasons[each.invoice['id']]}", at=at)
    # 7: emit
    emit(connection, tenant, [event for each, note in zip(written, notes, strict=True) for event in _told(each, note)])
    return pl.DataFrame(notes, schema=CREDIT_NOTES)


def _with_earned(
    connection: sa.Connection, tenant: str, credit: Credit, revenues: Mapping[str, str], at: datetime
) -> Credit:
    """The note with what was earned of the lines in advance that it takes back; their schedules shrink."""
    advance = credit.advance(revenues)
    found: dict[str, int] = {}
    if advance:
        taken = pl.DataFrame(list(advance.items()), {"line_id": pl.String, "credit_minor": pl.Int64}, orient="row")
        parts = reverse_deferred(
            connection, tenant, taken, document_id=credit.note["id"], as_of=at.date(), at=at
        )  # fmt: skip
        found = dict(parts.select("line_id", "recognised_minor").iter_rows())
    lines = (line | {"earned_minor": found.get(line["invoice_line_id"], 0)} for line in credit.lines)
    return replace(credit, lines=tuple(lines))


def _told(credit: Credit, note: Row) -> list[DomainEvent]:
    """What happened: a note, and an invoice that is paid from now on."""
    at = note["issued_at"]
    said = CreditNoteData(**{name: note[name] for name in CreditNoteData.model_fields})
    events = [DomainEvent(EventType.CREDIT_NOTE_CREATED, note["id"], 1, at, said)]
    if credit.paid:
        paid = InvoiceData(**{name: credit.invoice[name] for name in InvoiceData.model_fields})
        events.append(
            DomainEvent(EventType.INVOICE_PAID, credit.invoice["id"], credit.invoice["version"] + 1, at, paid)
        )
    return events
