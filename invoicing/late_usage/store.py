"""Late usage in PostgreSQL: invoices that may be billed again, those that were, and what was written off.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits.
"""

from datetime import datetime

import polars as pl
import sqlalchemy as sa

from invoicing.late_usage.policies import TAKEN_BACK
from schemas.identity import digests
from schemas.invoice import LINES
from stores.postgres import copy_in

_COPIED = (
    "customer", "usage_period", "charge", "currency", "description", "model", "meter", "quantity", "amount",
    "amount_minor", "net_minor", "tax_rule", "revenue", "service_start", "service_end",
)  # fmt: skip
_JSON = {"taxes", "tax_rule", "explanation"}


def taken_back(connection: sa.Connection, tenant: str, late: pl.DataFrame) -> pl.DataFrame:
    """The invoices of these customers and periods that can be credited as a whole (columns TAKEN_BACK).

    Nobody else changes them until the commit. Those are left out that somebody credited before, because what they gave
    would be billed again, and those that are written off or come to nothing.
    """
    query = """
        SELECT i.id, i.customer, i.currency, i.period, i.customer_name, i.series FROM invoices i
        JOIN unnest(CAST(:customers AS text[]), CAST(:periods AS text[])) AS late (customer, period)
            ON i.customer = late.customer AND i.period = late.period
        WHERE i.tenant = :tenant AND i.kind IN ('periodic', 'rebill') AND i.state IN ('open', 'paid')
            AND i.total_minor > 0 AND NOT EXISTS (SELECT FROM credit_notes n WHERE n.invoice_id = i.id)
        ORDER BY i.id FOR UPDATE OF i"""
    keys = {"tenant": tenant, "customers": late["customer"].to_list(), "periods": late["usage_period"].to_list()}
    rows = connection.execute(sa.text(query), keys)
    found = pl.DataFrame([tuple(row) for row in rows], schema=TAKEN_BACK, orient="row")
    return found.sort("usage_period", "customer", "currency")


def hold(connection: sa.Connection, tenant: str, invoice_ids: list[str]) -> None:
    """Wait for those who change or credit these invoices; they wait until this transaction ends."""
    query = "SELECT id FROM invoices WHERE tenant = :tenant AND id = ANY (:ids) ORDER BY id FOR UPDATE"
    connection.execute(sa.text(query), {"tenant": tenant, "ids": invoice_ids})


def lines_of(connection: sa.Connection, invoice_ids: list[str]) -> pl.DataFrame:
    """The lines of several invoices (columns `schemas.invoice.LINES`)."""
    columns = ", ".join(f"CAST({name} AS text)" if name in _JSON else name for name in LINES)
    where = "invoice_id = ANY (:ids) ORDER BY array_position(:ids, invoice_id), position"
    query = f"SELECT {columns} FROM invoice_lines WHERE {where}"  # noqa: S608  names of ours
    rows = connection.execute(sa.text(query), {"ids": invoice_ids})
    return pl.DataFrame([tuple(row) for row in rows], schema=LINES, orient="row")


def note_rebills(connection: sa.Connection, rebills: pl.DataFrame) -> None:
    """Note which invoices were credited and billed again: the columns of the table invoice_rebills."""
    copy_in(connection, "invoice_rebills", rebills)


def write_off(
    connection: sa.Connection, written_off: pl.DataFrame, *, tenant: str, run_period: str, cut: int, at: datetime
) -> None:
    """Add what is not billed: columns of `written_off` are those of TAXED, and entry_id."""
    named = map(pl.col, ("customer", "usage_period", "charge", "currency"))
    rows = written_off.select(
        digests("write-off", tenant, run_period, *named).alias("id"),
        pl.lit(tenant).alias("tenant"), pl.lit(run_period).alias("run_period"), pl.lit(cut).alias("cut"), *_COPIED,
        "entry_id", pl.lit(at).alias("written_off_at"),
    )  # fmt: skip
    copy_in(connection, "usage_write_offs", rows)
