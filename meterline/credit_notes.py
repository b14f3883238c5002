"""Credit notes as commands, and what the commands and the HTTP API share: writing one, showing one.

Owns that a dry run does all that the real one does, the database's checks as well, and takes it back.
"""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa
from pydantic import ValidationError

from invoicing.credit_notes import store
from invoicing.credit_notes.app import credit
from invoicing.invoices.store import invoice as invoice_of
from invoicing.invoices.store import lines_of as invoice_lines
from invoicing.rendering.as_text import render_text
from invoicing.rendering.store import seller_at
from invoicing.rendering.stored import credit_note_of
from meterline.formats import DEFAULT_FORMAT, DEFAULT_LOCALE, ENDINGS, FORMATS
from meterline.output import File, Output, Table, Text
from meterline.rendering import buyer_of, rendered
from meterline.system import System
from schemas.configuration import ConfigurationError, faults_of
from schemas.credit_note import NewCreditNote
from schemas.document import Document
from schemas.domain_event import instant_text
from schemas.money import MINOR_UNITS, major
from schemas.tenant import DEFAULT_TENANT

_SHOWN = {
    name: name
    for name in (
        "id", "number", "series", "invoice_id", "customer", "reason", "comment", "currency", "minor_units",
        "subtotal_minor", "tax_minor", "total_minor", "applied_minor",
    )
} | {"credited_minor": "excess_minor"}  # fmt: skip

_CHECKED_NOW = "SET CONSTRAINTS check_ledger_at_commit, check_at_commit, credit_note_checked IMMEDIATE"
"""What a commit checks of the books, while it can still be told. Not all there is: the answer is not stored yet."""


def parsed(fields: Any) -> NewCreditNote:
    """What is asked for. Raises ConfigurationError that names every fault."""
    try:
        return NewCreditNote.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, "credit note")) from None


def write_note(
    connection: sa.Connection, tenant: str, wanted: NewCreditNote, *, now: datetime, by: str, dry_run: bool = False
) -> dict[str, Any]:
    """Credit an invoice, and return the note as the API shows it; of a dry run, nothing is left but what is returned.

    What a dry run shows has no number, id and instant: those are given when it is real. Raises LookupError where the
    tenant has no such invoice, NotCreditableError for what is not left of it.
    """
    invoice_id = invoice_of(connection, tenant, wanted.invoice)["id"].item()
    with connection.begin_nested() as trial:
        note = credit(connection, tenant, {invoice_id: wanted}, at=now, by=by)
        connection.exec_driver_sql(_CHECKED_NOW)
        shown = note_document(connection, note)
        if dry_run:
            trial.rollback()
    return shown | dict.fromkeys(("id", "number", "issued_at")) if dry_run else shown


def note_document(connection: sa.Connection, note: pl.DataFrame) -> dict[str, Any]:
    """A credit note (a frame of one row) with its lines and its invoice, as the API shows it."""
    row = note.row(0, named=True)
    invoice = invoice_of(connection, row["tenant"], row["invoice_id"])
    about = invoice.row(0, named=True)
    billed = {line["id"]: line for line in invoice_lines(connection, row["invoice_id"]).iter_rows(named=True)}
    lines = [
        {
            "position": line["position"], "invoice_line": billed[line["invoice_line_id"]]["position"],
            "description": billed[line["invoice_line_id"]]["description"], "net_minor": line["net_minor"],
            "tax_minor": line["tax_minor"], "taxes": _taxes(line["taxes"]),
        }
        for line in store.lines_of(connection, row["id"]).iter_rows(named=True)
    ]  # fmt: skip
    due = max(about["total_minor"], 0) - about["settled_minor"]
    of_invoice = {"number": about["number"], "state": about["state"], "due_minor": due, "version": about["version"]}
    return summary(row) | {"lines": lines, "invoice": of_invoice}


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """A row of credit notes, as the API lists it."""
    shown = {shown: row[name] for shown, name in _SHOWN.items()}
    return shown | {"taxes": _taxes(row["taxes"]), "issued_at": instant_text(row["issued_at"])}


def document(connection: sa.Connection, note: pl.DataFrame) -> Document:
    """A credit note (a frame of one row) as the document that is rendered."""
    row = note.row(0, named=True)
    invoice = invoice_of(connection, row["tenant"], row["invoice_id"])
    lines = invoice_lines(connection, row["invoice_id"])
    seller = seller_at(connection, row["tenant"], row["issued_at"])
    credited = store.lines_of(connection, row["id"])
    return credit_note_of(
        note, credited, invoice, lines, seller, buyer_of(connection, row["tenant"], invoice, row["issued_at"])
    )


def create_credit_note(
    app: System, *, invoice: str, reason: str, comment: str = "", lines: list[str] | None = None,
    net: str | None = None, gross: str | None = None, by: str = "command line", dry_run: bool = False,
) -> Iterator[Output]:  # fmt: skip
    """Credit an invoice: all that is left, lines (`2`, or `2=5.00` net), or an amount, in units of the currency."""
    with app.database.begin() as connection:
        currency = invoice_of(connection, DEFAULT_TENANT, invoice)["currency"].item()
        amounts = {"net_minor": net, "gross_minor": gross}
        fields = {name: _minor(text, currency) for name, text in amounts.items() if text is not None}
        wanted = {"invoice": invoice, "reason": reason, "comment": comment, **fields}
        if lines:
            wanted["lines"] = [_line(text, currency) for text in lines]
        note = write_note(
            connection, DEFAULT_TENANT, parsed(wanted), now=datetime.now(UTC), by=by, dry_run=dry_run
        )  # fmt: skip
    yield _table("Nothing is written: it would be" if dry_run else f"Credit note {note['number']}", [note])
    about = note["invoice"]
    due = f"{major(about['due_minor'], note['minor_units']):f} {note['currency']}"
    yield Text(text=f"invoice {about['number']} {'would be' if dry_run else 'is'} {about['state']}; due: {due}")


def list_credit_notes(
    app: System, *, customer: str | None = None, invoice: str | None = None, limit: int = 100
) -> Iterator[Output]:
    """The credit notes of a customer or an invoice, or all, by number."""
    with app.database.connect() as connection:
        about = invoice_of(connection, DEFAULT_TENANT, invoice)["id"].item() if invoice else None
        found = store.notes_of(connection, DEFAULT_TENANT, customer=customer, invoice_id=about, limit=limit)
        numbers = {row["id"]: invoice_of(connection, DEFAULT_TENANT, row["invoice_id"])["number"].item()
                   for row in found.iter_rows(named=True)}  # fmt: skip
    notes = [summary(row) | {"invoice": {"number": numbers[row["id"]]}} for row in found.iter_rows(named=True)]
    yield _table("Credit notes", notes)


def show_credit_note(
    app: System, *, number: str, form: str = DEFAULT_FORMAT, locale: str = DEFAULT_LOCALE
) -> Iterator[Output]:
    """A credit note in a format."""
    if form not in FORMATS:
        raise ValueError(f"format {form!r}; allowed: {', '.join(FORMATS)}")
    with app.database.connect() as connection:
        shown = document(connection, store.note(connection, DEFAULT_TENANT, number))
    if form == "text":
        yield Text(text=render_text(shown))
        return
    content = base64.b64encode(rendered(shown, form, locale)).decode()
    yield File(name=f"{shown.number}.{ENDINGS[form]}", content=content)


CREDIT_NOTE_OPERATIONS = (create_credit_note, list_credit_notes, show_credit_note)


def _taxes(text: str | None) -> list[dict[str, Any]]:
    """Taxes as the API shows them, which is as they are stored; a line's have no base."""
    found: list[dict[str, Any]] = json.loads(text or "[]")
    return found


def _line(text: str, currency: str) -> dict[str, int]:
    """A line as the command line names it: `2`, or `2=5.00`."""
    position, _, amount = text.partition("=")
    if not (position.isascii() and position.isdigit() and len(position) < 10):
        raise ValueError(f"line {text!r}; allowed: a position such as 2, or with a net amount, 2=5.00")
    line = {"position": int(position)}
    return line | {"net_minor": _minor(amount, currency)} if amount else line


def _minor(text: str, currency: str) -> int:
    """An amount in units of a currency as whole minor units.

    >>> _minor("5.00", "EUR"), _minor("-7", "JPY")
    (500, -7)
    """
    try:
        exact = Decimal(text).scaleb(MINOR_UNITS[currency])
    except ArithmeticError:
        exact = Decimal("NaN")
    if not exact.is_finite() or exact != exact.to_integral_value() or abs(exact) > 2**62:
        raise ValueError(f"amount {text!r}; allowed: at most {MINOR_UNITS[currency]} decimals of {currency}")
    return int(exact)


def _table(title: str, notes: list[dict[str, Any]]) -> Table:
    amounts = ("subtotal_minor", "tax_minor", "total_minor", "credited_minor")
    rows = [
        [note["number"] or "", note["invoice"]["number"], note["customer"], note["reason"], note["currency"]]
        + [f"{major(note[name], note['minor_units']):,f}" for name in amounts]
        for note in notes
    ]
    names = ("subtotal", "tax", "total", "to credit")
    columns = ("number", "invoice", "customer", "reason", "currency", *names)
    return Table(title=title, columns=columns, rows=rows, numbers=names)
