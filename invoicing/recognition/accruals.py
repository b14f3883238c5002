"""Usage that was used and not billed at a month's end, as revenue of that month. Core.

Usage is recognised when it is used: an invoice in arrears is dated the last day of its period, so it needs no schedule.
What has no invoice yet at a month's end is accrued (P01: unbilled receivable to usage revenue, net, no tax), and taken
back by its invoice, which recognises it for good. Owns that what was accrued and taken back adds up to zero.
"""

from datetime import date

import polars as pl

from invoicing.bookings.documents import AMOUNTS, DOCUMENTS
from invoicing.digests import digests
from schemas.invoice import Columns

UNBILLED: Columns = {"customer": pl.String, "currency": pl.String, "amount_minor": pl.Int64}
"""Columns of what customers have used of a period and are not billed for, net of tax; a row a customer and currency."""

ACCRUED: Columns = {**UNBILLED, "version": pl.Int64}
"""Columns of what is accrued for them, by so many entries."""


def accrued(posted: pl.DataFrame, *, tenant: str, period: str) -> pl.DataFrame:
    """What is accrued for a period (columns ACCRUED), from all that was posted on unbilled receivable."""
    own = posted.filter(pl.col("document_id") == _document_ids(posted, tenant, period))
    return own.group_by("customer", "currency", maintain_order=True).agg(
        pl.col("amount_minor").sum(), pl.len().cast(pl.Int64).alias("version")
    )


def accruals(
    unbilled: pl.DataFrame, known: pl.DataFrame, *, tenant: str, period: str, effective_at: date
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and amounts (P01) that bring what is accrued for the customers of `unbilled` to what it says.

    `known` is what is accrued so far (columns ACCRUED). An entry posts the difference, under the next version of its
    document; a customer without a difference has none.
    """
    both = unbilled.join(known, on=["customer", "currency"], how="left", suffix="_before").sort("customer", "currency")
    changes = both.with_columns(
        pl.col("amount_minor") - pl.col("amount_minor_before").fill_null(0), pl.col("version").fill_null(0)
    ).filter(pl.col("amount_minor") != 0)
    documents = changes.with_columns(
        _document_ids(changes, tenant, period).alias("document_id"),
        pl.lit(tenant).alias("tenant"),
        pl.lit("P01").alias("template"),
        pl.lit("accrual").alias("document_kind"),
        (pl.col("version") + 1).alias("document_version"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.lit(None).alias("relates_to_period"),
        pl.lit(effective_at).alias("effective_at"),
        pl.lit(f"Usage of {period} that is not billed").alias("description"),
    )
    amounts = changes.with_columns(
        pl.int_range(pl.len()).alias("document"), pl.lit("subtotal").alias("amount"), pl.lit("").alias("dimension")
    )
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )


def _document_ids(rows: pl.DataFrame, tenant: str, period: str) -> pl.Series:
    return digests(rows, "accrual", tenant, period, pl.col("customer"), pl.col("currency"))
