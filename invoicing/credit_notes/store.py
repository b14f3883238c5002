"""Credit notes in PostgreSQL: what they are about, what they took, and those that are written.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. The database holds its own rules of notes and speaks up at the commit at the latest.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.credit_notes.notes import Credit, Row
from schemas.credit_note import CREDIT_NOTES, CREDITED
from schemas.identity import digest
from schemas.invoice import INVOICES, LINES, ApplicationKind, Columns
from stores.postgres import copy_in

_JSON = {"taxes", "tax_rule", "explanation"}  # read as text: parsed JSON would make floats of numbers
_UUID = {"entry_id"}


@dataclass(frozen=True)
class ToCredit:
    """An invoice that is locked, with its lines and what notes took of them."""

    invoice: Row
    lines: tuple[Row, ...]
    earlier: tuple[Row, ...]
    notes_before: int
    entry_id: str | None
    """The entry that posted it."""


def to_credit(connection: sa.Connection, tenant: str, ids: Sequence[str]) -> dict[str, ToCredit]:
    """Those of these invoices that are there; nobody else changes or credits them until the commit."""
    keys: dict[str, Any] = {"tenant": tenant, "ids": sorted(set(ids))}
    lock = "SELECT id FROM invoices WHERE tenant = :tenant AND id = ANY (:ids) ORDER BY id FOR UPDATE"
    connection.execute(sa.text(lock), keys)
    invoices = _rows(connection, INVOICES, "invoices WHERE tenant = :tenant AND id = ANY (:ids)", keys)
    lines = _rows(connection, LINES, "invoice_lines WHERE invoice_id = ANY (:ids) ORDER BY invoice_id, position", keys)
    where = """credit_note_lines WHERE credit_note_id IN (SELECT id FROM credit_notes WHERE invoice_id = ANY (:ids))"""
    owners = {line["id"]: line["invoice_id"] for line in lines}
    earlier = _rows(connection, CREDITED, where, keys)
    counts = "SELECT invoice_id, count(*) FROM credit_notes WHERE invoice_id = ANY (:ids) GROUP BY 1"
    before = dict(tuple(row) for row in connection.execute(sa.text(counts), keys))
    query = """SELECT document_id, replace(CAST(id AS text), '-', '') FROM journal_entries WHERE tenant = :tenant
               AND document_id = ANY (:ids) AND document_kind = 'invoice'"""
    posted = dict(tuple(row) for row in connection.execute(sa.text(query), keys))
    lines_of = _grouped((line["invoice_id"], line) for line in lines)
    taken = _grouped((owners[row["invoice_line_id"]], row) for row in earlier)
    return {
        row["id"]: ToCredit(row, tuple(lines_of.get(row["id"], ())), tuple(taken.get(row["id"], ())),
                            before.get(row["id"], 0), posted.get(row["id"]))
        for row in invoices
    }  # fmt: skip


def locked_version(connection: sa.Connection, tenant: str, invoice_id: str) -> int:
    """The version of an invoice, which nobody else changes or credits until the commit."""
    query = "SELECT version FROM invoices WHERE tenant = :tenant AND id = :id FOR UPDATE"
    return int(connection.execute(sa.text(query), {"tenant": tenant, "id": invoice_id}).scalar_one())


def write(connection: sa.Connection, written: Sequence[Credit], notes: Sequence[Row], at: datetime) -> None:
    """Add numbered notes (rows of CREDIT_NOTES) with their lines, and apply them to their invoices."""
    applied = [
        {
            "id": digest("application", note["tenant"], "credit note", note["id"]), "tenant": note["tenant"],
            "invoice_id": note["invoice_id"], "kind": ApplicationKind.CREDIT_NOTE.value,
            "amount_minor": note["applied_minor"], "reference": note["id"], "entry_id": note["entry_id"],
            "applied_at": at,
        }
        for note in notes if note["applied_minor"]
    ]  # fmt: skip
    if applied:
        connection.execute(
            sa.text("""INSERT INTO applications VALUES (:id, :tenant, :invoice_id, :kind, :amount_minor, :reference,
                       CAST(:entry_id AS uuid), :applied_at)"""),
            applied,
        )
    copy_in(connection, "credit_notes", pl.DataFrame(notes, schema=CREDIT_NOTES))
    lines = [line for each in written for line in each.lines]
    copy_in(connection, "credit_note_lines", pl.DataFrame(lines, schema=CREDITED))


def notes_of(
    connection: sa.Connection,
    tenant: str,
    *,
    customer: str | None = None,
    invoice_id: str | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """The credit notes that all given conditions hold for, by number (columns CREDIT_NOTES).

    `after` is the number of the last one of the page before.
    """
    place = "(length(number), number)"
    conditions = {
        "customer = :customer": customer, "invoice_id = :invoice_id": invoice_id,
        f"{place} > (length(:after), :after)": after,
    }  # fmt: skip
    wanted = " AND ".join(["tenant = :tenant", *(sql for sql, value in conditions.items() if value is not None)])
    keys = {"tenant": tenant, "customer": customer, "invoice_id": invoice_id, "after": after, "limit": limit}
    return _frame(connection, CREDIT_NOTES, f"credit_notes WHERE {wanted} ORDER BY {place} LIMIT :limit", keys)


def note(connection: sa.Connection, tenant: str, id_or_number: str) -> pl.DataFrame:
    """The credit note with this id or number: a frame of one row. Raises LookupError when the tenant has none."""
    where = "credit_notes WHERE tenant = :tenant AND (id = :key OR number = :key)"
    found = _frame(connection, CREDIT_NOTES, where, {"tenant": tenant, "key": id_or_number})
    if found.is_empty():
        raise LookupError(
            f"tenant {tenant} has no credit note {id_or_number}; give an id or a number such as CN-000001"
        )
    return found


def lines_of(connection: sa.Connection, note_id: str) -> pl.DataFrame:
    """The lines of a credit note in order (columns CREDITED)."""
    return _frame(
        connection, CREDITED, "credit_note_lines WHERE credit_note_id = :id ORDER BY position", {"id": note_id}
    )


def _rows(connection: sa.Connection, schema: Columns, where: str, keys: Mapping[str, Any]) -> list[Row]:
    columns = ", ".join(
        f"CAST({name} AS text) AS {name}" if name in _JSON
        else f"replace(CAST({name} AS text), '-', '') AS {name}" if name in _UUID else name
        for name in schema
    )  # fmt: skip
    query = f"SELECT {columns} FROM {where}"  # noqa: S608  names of ours
    return [dict(row) for row in connection.execute(sa.text(query), dict(keys)).mappings()]


def _frame(connection: sa.Connection, schema: Columns, where: str, keys: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(_rows(connection, schema, where, keys), schema=schema)


def _grouped(pairs: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for key, row in pairs:
        groups.setdefault(key, []).append(row)
    return groups
