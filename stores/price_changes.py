"""The changes of price books in PostgreSQL: who applied which version, when. What is written stays.

Works in the transaction of the connection it is given; the caller commits.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa


def note_change(
    connection: sa.Connection, tenant: str, *, book: str, version: int, digest: str, by: str, at: datetime
) -> None:
    """Write down that a version was applied, after the highest version below it."""
    connection.execute(
        sa.text(
            "INSERT INTO price_book_changes (tenant, book, from_version, to_version, digest, applied_by, applied_at)"
            " SELECT :tenant, :book, max(version), :version, :digest, :by, :at FROM price_books"
            " WHERE tenant = :tenant AND book = :book AND version < :version"
        ),
        {"tenant": tenant, "book": book, "version": version, "digest": digest, "by": by, "at": at},
    )


def changes_of(connection: sa.Connection, tenant: str, book: str | None) -> list[dict[str, Any]]:
    """The changes of a book, or of all, oldest first.

    Each has book, from_version (None for the first), to_version, digest, applied_by and applied_at.
    """
    only = "" if book is None else " AND book = :book"
    rows = connection.execute(
        sa.text(
            "SELECT book, from_version, to_version, digest, applied_by, applied_at FROM price_book_changes"  # noqa: S608
            f" WHERE tenant = :tenant{only} ORDER BY ordinal"
        ),
        {"tenant": tenant} | ({} if book is None else {"book": book}),
    )
    return [dict(row) for row in rows.mappings()]
