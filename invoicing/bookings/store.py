"""The door to the books: documents are posted here, and nowhere else in these parts.

A shell. It works in the transaction of the connection it is given, and the caller commits. Posting the same documents
again posts nothing; the same document with other content is an error.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
import psycopg
import sqlalchemy as sa

from invoicing import store
from invoicing.bookings.documents import Entries, entries_of, mirrored
from schemas.invoice import INVOICES, LINES, Columns
from schemas.journal import ENTRIES, POSTINGS

POSTED: Columns = {
    "entry_id": pl.String,
    "template": pl.String,
    "document_id": pl.String,
    "effective_at": pl.Date,
    "customer": pl.String,
    "currency": pl.String,
    "amount_minor": pl.Int64,
}
"""Columns of what was posted on an account."""

OtherContentError = store.OtherContentError
_COPY_ROWS = 50_000


def post(connection: sa.Connection, documents: pl.DataFrame, amounts: pl.DataFrame, *, booked_at: datetime) -> int:
    """Post documents (columns DOCUMENTS and AMOUNTS of `invoicing.bookings.documents`); how many were new.

    Raises `invoicing.store.OtherContentError` when a document was posted with other content.
    """
    return _post(connection, entries_of(documents, amounts, booked_at=booked_at))


def reverse(
    connection: sa.Connection, entry_ids: Sequence[str], *, effective_at: date, reason: str, booked_at: datetime
) -> int:
    """Take posted entries back with entries that mirror them, each once; how many were new."""
    keys = {"ids": sorted(entry_ids)}
    entries = _read(
        connection,
        f"SELECT {', '.join(ENTRIES)} FROM journal_entries WHERE id = ANY (:ids) ORDER BY id",  # noqa: S608
        ENTRIES, keys,
    )  # fmt: skip
    postings = _read(
        connection,
        f"SELECT {', '.join(POSTINGS)} FROM postings WHERE entry_id = ANY (:ids) ORDER BY entry_id, position",  # noqa: S608
        POSTINGS, keys,
    )  # fmt: skip
    mirror = mirrored(entries, postings, effective_at=effective_at, reason=reason, booked_at=booked_at)
    return _post(connection, mirror)


def closed_through(connection: sa.Connection, tenant: str) -> date | None:
    """The last day that is closed, or None."""
    query = sa.text("SELECT max(through) FROM closed_periods WHERE tenant = :tenant")
    closed: date | None = connection.execute(query, {"tenant": tenant}).scalar_one()
    return closed


def balances(
    connection: sa.Connection, tenant: str, account: int, *, through: date = date.max
) -> dict[tuple[str, str], int]:
    """The balance of an account by customer and currency, of entries dated until a day; none of zero."""
    query = """
        SELECT p.customer, p.currency, CAST(sum(p.amount_minor) AS bigint) FROM postings p
        JOIN journal_entries e ON e.id = p.entry_id
        WHERE e.tenant = :tenant AND p.account = :account AND e.effective_at <= :through
        GROUP BY 1, 2 HAVING sum(p.amount_minor) <> 0"""
    rows = connection.execute(sa.text(query), {"tenant": tenant, "account": account, "through": through})
    return {(customer, currency): minor for customer, currency, minor in rows}


def postings_on(connection: sa.Connection, tenant: str, account: int, *, through: date) -> pl.DataFrame:
    """What entries dated until a day did to an account (columns POSTED), without entries that take one another back."""
    query = """
        SELECT e.id, e.template, e.document_id, e.effective_at, p.customer, p.currency, p.amount_minor
        FROM postings p JOIN journal_entries e ON e.id = p.entry_id
        WHERE e.tenant = :tenant AND p.account = :account AND e.effective_at <= :through
            AND NOT EXISTS (SELECT FROM journal_entries other WHERE other.document_id = e.id)
            AND NOT EXISTS (SELECT FROM journal_entries other WHERE other.id = e.document_id)
        ORDER BY e.id, p.position"""
    return _read(connection, query, POSTED, {"tenant": tenant, "account": account, "through": through})


def copy_in(connection: sa.Connection, table: str, rows: pl.DataFrame) -> None:
    """Append a frame to a table whose columns have the frame's names, in the connection's transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    command = f"COPY {table} ({', '.join(rows.columns)}) FROM STDIN (FORMAT csv)"
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        for part in rows.iter_slices(_COPY_ROWS):
            copy.write(part.write_csv(include_header=False))


def posted_ids(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    """Which of these entry ids are posted."""
    query = sa.text("SELECT id FROM journal_entries WHERE id = ANY (:ids)")
    return set(connection.execute(query, {"ids": list(ids)}).scalars())


def _post(connection: sa.Connection, journal: Entries) -> int:
    if journal.entries.is_empty():
        return 0
    posted = store.post(
        connection, pl.DataFrame(schema=INVOICES), pl.DataFrame(schema=LINES), journal.entries, journal.postings
    )
    return posted.entries


def _read(connection: sa.Connection, query: str, schema: Columns, keys: dict[str, Any]) -> pl.DataFrame:
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
