"""Invoices become journal entries. Core.

Decides which template an invoice is posted by: one entry an invoice, whatever kinds of revenue it has. Owns that the
entry is dated in the invoice's period, or on the first open day after it, and then names the period.
"""

from datetime import date, datetime, timedelta

import polars as pl

from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, Journal, entries_of
from schemas.invoice import InvoiceKind, Revenue
from schemas.plan import TaxMode

_TAX = pl.List(pl.Struct({
    "name": pl.String, "rate_percent": pl.String, "mode": pl.String, "base_minor": pl.Int64, "tax_minor": pl.Int64,
}))  # fmt: skip


def journal(
    invoices: pl.DataFrame, lines: pl.DataFrame, *, booked_at: datetime, closed_through: date | None = None
) -> Journal:
    """The entries of these invoices (columns `schemas.invoice.INVOICES`, issued) and their lines (columns `LINES`).

    An invoice of 120.00 with 20.00 tax in it, in minor units:

        1100 receivable       12000
        4010 usage revenue   -10000
        2000 tax payable      -2000, of the tax "VAT 20%"

    The template: P07 for a progressive invoice, P04 where a price includes tax, P03 where all lines are in advance,
    P06 where all are for what is missing up to a commitment; P02 for all others. A periodic invoice and the one that
    takes its place are dated the last day of their period, any other one the day of its issue. An invoice whose
    postings cancel has no entry.
    """
    amounts = _amounts(invoices, lines)
    own = invoices.select("id", "kind", "taxes").join(
        lines.group_by(pl.col("invoice_id").alias("id")).agg(pl.col("revenue").unique()),
        on="id", how="left", maintain_order="left",
    )  # fmt: skip
    all_of = [
        (pl.col("revenue").list.len() == 1) & (pl.col("revenue").list.first() == each)
        for each in (Revenue.ADVANCE.value, Revenue.COMMITMENT.value)
    ]
    template = (
        pl.when(pl.col("kind") == InvoiceKind.PROGRESSIVE).then(pl.lit("P07"))
        .when(pl.col("taxes").str.contains(f'"mode":"{TaxMode.INCLUSIVE}"', literal=True)).then(pl.lit("P04"))
        .when(all_of[0]).then(pl.lit("P03")).when(all_of[1]).then(pl.lit("P06")).otherwise(pl.lit("P02"))
    )  # fmt: skip
    of_period = pl.col("kind").is_in([InvoiceKind.PERIODIC.value, InvoiceKind.REBILL.value])
    month_end = (pl.col("period") + "-01").str.to_date("%Y-%m-%d").dt.month_end()
    day = pl.when(of_period).then(month_end).otherwise(pl.col("issued_at").dt.date())
    closed = pl.lit(value=False) if closed_through is None else day <= closed_through
    open_day = pl.lit(None if closed_through is None else closed_through + timedelta(days=1), pl.Date)
    documents = invoices.select(
        "tenant", "customer",
        own.select(template.alias("template")).to_series(),
        pl.lit("invoice").alias("document_kind"),
        pl.col("id").alias("document_id"),
        *[pl.lit(1, pl.Int64).alias(name) for name in ("document_version", "part")],
        pl.lit(None, pl.String).alias("relates_to"),
        pl.when(closed).then(day.dt.to_string("%Y-%m")).otherwise(pl.lit(None, pl.String)).alias("relates_to_period"),
        pl.when(closed).then(open_day).otherwise(day).alias("effective_at"),
        pl.format("Invoice for {} to {}", pl.col("period"), pl.col("customer_name")).alias("description"),
    ).select(*DOCUMENTS)  # fmt: skip
    return entries_of(documents, amounts, booked_at=booked_at)


def void_journal(
    invoice: pl.DataFrame, lines: pl.DataFrame, *, effective_at: date, reason: str, booked_at: datetime
) -> Journal:
    """P30, the mirror of an invoice's entry (a frame of one row, and its lines), dated as that entry is."""
    document = invoice.select(
        "tenant", "customer",
        pl.lit("P30").alias("template"),
        pl.lit("void").alias("document_kind"),
        pl.col("id").alias("document_id"),
        *[pl.lit(1, pl.Int64).alias(name) for name in ("document_version", "part")],
        *[pl.lit(None, pl.String).alias(name) for name in ("relates_to", "relates_to_period")],
        pl.lit(effective_at).alias("effective_at"),
        pl.format("Invoice {} void: {}", pl.col("number"), pl.lit(reason)).alias("description"),
    ).select(*DOCUMENTS)  # fmt: skip
    return entries_of(document, _amounts(invoice, lines), booked_at=booked_at)


def taxes_of(invoice: pl.DataFrame) -> list[tuple[str, int]]:
    """The taxes of an invoice (a frame of one row) by the dimension of their postings."""
    listed = _taxes(invoice.select(pl.lit(0).alias("document"), "currency", "taxes"))
    return listed.select("dimension", "amount_minor").rows()


def _amounts(invoices: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """Total, revenue by its kind, and tax by rate, of each invoice (columns AMOUNTS)."""
    numbered = invoices.select(pl.int_range(pl.len()).alias("document"), "id", "currency", "total_minor", "taxes")
    totals = numbered.select(
        "document", "currency", amount=pl.lit("total"), dimension=pl.lit(""), amount_minor="total_minor"
    )
    owners = numbered.select("document", "currency", invoice_id="id")
    revenue = (
        lines.join(owners, on="invoice_id", how="inner")
        .group_by("document", "currency", "revenue")
        .agg(pl.sum("net_minor").alias("amount_minor"))
        .select("document", "currency", "amount_minor", amount="revenue", dimension=pl.lit(""))
    )
    parts = (totals, revenue, _taxes(numbered))
    frames = [each.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()) for each in parts]
    return pl.concat(frames).sort("document", "amount", "dimension", maintain_order=True)


def _taxes(invoices: pl.DataFrame) -> pl.DataFrame:
    """The taxes of invoices, whose number is in `document`, as amounts."""
    taxed = invoices.filter(pl.col("taxes") != "[]").with_columns(pl.col("taxes").str.json_decode(_TAX))
    rate = pl.col("taxes").struct
    return taxed.explode("taxes").select(
        "document", "currency", amount=pl.lit("tax"), amount_minor=rate.field("tax_minor"),
        dimension=pl.format("{} {}%", rate.field("name"), rate.field("rate_percent")),
    )  # fmt: skip
