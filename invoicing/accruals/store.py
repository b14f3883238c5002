"""Accruals in PostgreSQL: posted at a month's end, and taken back by the invoice.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever accrues for a tenant holds its ledger from the first look on.
"""

from datetime import date, datetime

import polars as pl
import sqlalchemy as sa

from invoicing.accruals.documents import ACCRUED, UNBILLED, accruals, changes_of
from invoicing.ledger.journal import entries_of
from invoicing.ledger.store import hold, post
from invoicing.periods.store import closed_through
from stores.postgres import as_tenant, insert


def accrue(
    connection: sa.Connection, tenant: str, period: str, unbilled: pl.DataFrame, *, through: date, booked_at: datetime
) -> int:
    """Accrue what customers owe of a period and are not billed for (columns `documents.UNBILLED`), by P01.

    Dated `through`, the period's last day, or the first open day. A run again posts what differs, and takes back what
    is not in the frame. Returns how many entries were new.
    """
    hold(connection, tenant)
    changes = changes_of(unbilled, accrued(connection, tenant, period))
    return _post(connection, tenant, period, changes, through, booked_at)


def release(
    connection: sa.Connection,
    tenant: str,
    period: str,
    billed: pl.DataFrame,
    *,
    effective_at: date,
    booked_at: datetime,
) -> int:
    """Take back what is accrued of a period for whom is billed for it now (`customer`, `currency`), by P01 below zero.

    Belongs into the transaction that posts their invoices, dated as these are. Returns how many entries were new.
    """
    hold(connection, tenant)
    owners = ["customer", "currency"]
    known = accrued(connection, tenant, period, billed["customer"].unique().to_list())
    own = known.join(billed.select(owners).unique(), on=owners, how="semi")
    changes = changes_of(pl.DataFrame(schema=UNBILLED), own)
    return _post(connection, tenant, period, changes, effective_at, booked_at)


def accrued(connection: sa.Connection, tenant: str, period: str, customers: list[str] | None = None) -> pl.DataFrame:
    """What is accrued of a period now (columns `documents.ACCRUED`), for some customers or all.

    What was taken back has zero, and its version.
    """
    query = """
        SELECT customer, currency, amount, feature, CAST(sum(amount_minor) AS bigint),
            max(max(version)) OVER (PARTITION BY customer, currency)
        FROM accruals WHERE tenant = :tenant AND period = :period
            AND (CAST(:customers AS text[]) IS NULL OR customer = ANY (:customers))
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    with as_tenant(connection, tenant):
        rows = connection.execute(sa.text(query), {"tenant": tenant, "period": period, "customers": customers})
        return pl.DataFrame([tuple(row) for row in rows], schema=ACCRUED, orient="row")


def open_periods(connection: sa.Connection, tenant: str) -> list[str]:
    """The periods of which something is accrued, earliest first."""
    query = """SELECT period FROM (
                   SELECT period FROM accruals WHERE tenant = :tenant
                   GROUP BY period, customer, currency, amount, feature HAVING sum(amount_minor) <> 0) AS parts
               GROUP BY period ORDER BY period"""
    with as_tenant(connection, tenant):
        return list(connection.execute(sa.text(query), {"tenant": tenant}).scalars())


def _post(
    connection: sa.Connection, tenant: str, period: str, changes: pl.DataFrame, day: date, booked_at: datetime
) -> int:
    if changes.is_empty():
        return 0
    closed = closed_through(connection, tenant)
    documents, amounts = accruals(changes, tenant=tenant, period=period, day=day, closed_through=closed)
    journal = entries_of(documents, amounts, booked_at=booked_at)
    new = post(connection, journal.entries, journal.postings)
    ids = documents.select(
        "customer", pl.lit(journal.entries["id"]).alias("entry_id"), pl.int_range(pl.len()).alias("document")
    )
    of_changes = amounts.with_row_index("at").join(ids, on="document", maintain_order="left")["entry_id"]
    rows = changes.with_columns(of_changes, tenant=pl.lit(tenant), period=pl.lit(period))
    with as_tenant(connection, tenant):
        insert(connection, "accruals", rows)
    return new
