"""Customer credit is applied to invoices, many at once. Core.

Owns that no more is applied than is due of an invoice, and no more in all than the customer has.
"""

from datetime import datetime
from typing import NamedTuple

import polars as pl

from invoicing.invoices.lifecycle import Booking
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, Journal, entries_of
from schemas.identity import digests
from schemas.invoice import ApplicationKind, Columns

CREDIT: Columns = {"customer": pl.String, "currency": pl.String, "credit_minor": pl.Int64}
"""Columns of a frame of credit: what a customer has, above zero."""

APPLICATIONS: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "invoice_id": pl.String,
    "kind": pl.String,  # ApplicationKind
    "amount_minor": pl.Int64,  # below zero where it takes back
    "reference": pl.String,
    "entry_id": pl.String,
    "applied_at": pl.Datetime("us", "UTC"),
}
"""Columns of an applications frame."""


class Credited(NamedTuple):
    """Invoices of which credit settles a part, the applications (columns APPLICATIONS), and their entries."""

    invoices: pl.DataFrame
    applications: pl.DataFrame
    journal: Journal


def with_credit(invoices: pl.DataFrame, credit: pl.DataFrame) -> pl.DataFrame:
    """The invoices (columns `schemas.invoice.INVOICES`) with `applied_minor`: what of the credit goes to each.

    In their order, until the credit (columns CREDIT) is used up:

        credit 100 |  due 70 -> 70,  due 50 -> 30,  due 20 -> 0
    """
    due = pl.max_horizontal(pl.col("total_minor"), 0) - pl.col("settled_minor")
    owed = invoices.join(credit, on=["customer", "currency"], how="left", maintain_order="left").with_columns(due=due)
    left = pl.col("credit_minor").fill_null(0) - (pl.col("due").cum_sum().over("customer", "currency") - pl.col("due"))
    applied = pl.min_horizontal("due", pl.max_horizontal(left, 0))
    return owed.with_columns(applied.alias("applied_minor")).drop("credit_minor", "due")


def applications_of(invoices: pl.DataFrame, *, at: datetime) -> pl.DataFrame:
    """The applications of credit to invoices with `applied_minor`, and the versions that they have from now on."""
    applied = invoices.filter(pl.col("applied_minor") > 0)
    entry = digests(pl.col("tenant"), "P14", pl.col("id"), pl.col("version").cast(pl.String), "1")
    return applied.with_columns(entry.alias("entry_id")).select(
        application_id("id", "entry_id").alias("id"), "tenant", pl.col("id").alias("invoice_id"),
        pl.lit(ApplicationKind.CUSTOMER_CREDIT.value).alias("kind"),
        pl.col("applied_minor").alias("amount_minor"), pl.col("customer").alias("reference"), "entry_id",
        pl.lit(at).alias("applied_at"),
    ).select(pl.col(name).cast(kind) for name, kind in APPLICATIONS.items())  # fmt: skip


def with_burns(invoices: pl.DataFrame, burns: pl.DataFrame) -> pl.DataFrame:
    """The invoices with what prepaid credits settled of them (columns `invoicing.wallets.postings.BURNS`)."""
    sums = burns.group_by(pl.col("invoice_id").alias("id")).agg(pl.sum("burned_minor"))
    both = invoices.join(sums, on="id", how="left", maintain_order="left")
    return both.with_columns(pl.col("settled_minor") + pl.col("burned_minor").fill_null(0)).drop("burned_minor")


def applications_of_burns(burns: pl.DataFrame, tenant: str, *, at: datetime) -> pl.DataFrame:
    """The applications of prepaid credits, one for each entry that burns some."""
    return burns.select(
        application_id("invoice_id", "entry_id").alias("id"), pl.lit(tenant).alias("tenant"), "invoice_id",
        pl.lit(ApplicationKind.WALLET.value).alias("kind"), pl.col("burned_minor").alias("amount_minor"),
        pl.format("{} credits", "kind").alias("reference"), "entry_id", pl.lit(at).alias("applied_at"),
    ).select(pl.col(name).cast(kind) for name, kind in APPLICATIONS.items())  # fmt: skip


def application_id(invoice: str, entry: str) -> pl.Expr:
    """The id of an application: an entry settles, or takes back, one amount of an invoice."""
    return digests("application", pl.col(invoice), pl.col(entry))


def journal_of_credit(invoices: pl.DataFrame, booking: Booking, *, booked_at: datetime) -> Journal:
    """P14 for each invoice (with `applied_minor`, and the version that it has from now on) that credit is applied to.

    2100 customer credit   3000
    1100 receivable       -3000
    """
    applied = invoices.filter(pl.col("applied_minor") > 0)
    documents = applied.select(
        "tenant", "customer",
        pl.lit("P14").alias("template"),
        pl.lit("application").alias("document_kind"),
        pl.col("id").alias("document_id"),
        pl.col("version").alias("document_version"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.lit(booking.relates_to_period).alias("relates_to_period"),
        pl.lit(booking.effective_at).alias("effective_at"),
        pl.format("Credit applied to invoice {}", "number").alias("description"),
    ).select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items())  # fmt: skip
    amounts = applied.select(
        pl.int_range(pl.len()).alias("document"), pl.lit("credit").alias("amount"), "currency",
        pl.lit("").alias("dimension"), pl.col("applied_minor").alias("amount_minor"),
    ).select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items())  # fmt: skip
    return entries_of(documents, amounts, booked_at=booked_at)
