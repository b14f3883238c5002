"""Documents of one amount each, posted as parts of the code do it, and what accounts hold afterwards."""

from datetime import UTC, date, datetime

import polars as pl
import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, entries_of

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def post(
    connection: sa.Connection,
    template: str,
    document: str,
    day: date,
    *,
    customer: str = "UA",
    tenant: str = "default",
    dimension: str = "",
    **amounts: int,
) -> str:
    """Post a document in US dollars, its amounts in cents; returns the entry's id."""
    head = {
        "tenant": tenant, "template": template, "document_kind": "test", "document_id": document, "document_version": 1,
        "part": 1, "effective_at": day, "description": document, "customer": customer,
    }  # fmt: skip
    rows = [(0, name, "USD", dimension, minor) for name, minor in amounts.items()]
    documents = pl.DataFrame([head], schema=DOCUMENTS)
    journal = entries_of(documents, pl.DataFrame(rows, schema=AMOUNTS, orient="row"), booked_at=NOW)
    store.post(connection, journal.entries, journal.postings)
    return str(journal.entries["id"].item())


def balances(
    connection: sa.Connection,
    account: int,
    *,
    tenant: str = "default",
    by: str = "customer",
    through: date | None = None,
) -> dict[str, int]:
    """What an account has by customer or dimension, in cents; none of zero."""
    found = store.balances(connection, tenant, by=[by], effective_through=through).filter(pl.col("account") == account)
    return dict(found.select(by, "balance_minor").iter_rows())
