"""What was used and is not billed at a month's end, as revenue of that month. Core.

Usage is recognised when it is used, and what falls short of a commitment at the period's end: an invoice in arrears is
dated the last day of its period, so it needs no schedule. What has no invoice by then is accrued (P01: unbilled
receivable to revenue, net, no tax), and taken back by P01 below zero when its invoice is posted, on the invoice's day.
Not on the first day of the next month: an invoice may still be dated in the month itself, which would have the revenue
twice, or months later, and the months between would have too little. Owns that what was accrued and taken back adds up
to zero.
"""

from datetime import date

import polars as pl

from invoicing.ledger.dating import dated
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS
from schemas.invoice import Columns

UNBILLED: Columns = {
    "customer": pl.String,
    "currency": pl.String,
    "amount": pl.String,  # subtotal (usage), fees or commitment, as the legs of P01 name them
    "feature": pl.String,  # what the postings are split by; empty: nothing
    "amount_minor": pl.Int64,
}
"""Columns of what customers owe of a period and are not billed for, net of tax."""

ACCRUED: Columns = {**UNBILLED, "version": pl.Int64}
"""Columns of what is accrued for them, by the newest version of their document."""

_OWNER = ["customer", "currency"]
_PART = ["customer", "currency", "amount", "feature"]


def changes_of(unbilled: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """What must be posted (columns ACCRUED) so that what is accrued is what `unbilled` says, and nothing else.

    `known` is what is accrued so far (columns ACCRUED). A change has the next version of its customer and currency.

    >>> now = pl.DataFrame([("UA", "USD", "subtotal", "", 950)], schema=UNBILLED, orient="row")
    >>> before = pl.DataFrame([("UA", "USD", "subtotal", "", 700, 1)], schema=ACCRUED, orient="row")
    >>> changes_of(now, before).row(0)
    ('UA', 'USD', 'subtotal', '', 250, 2)
    """
    both = pl.concat([
        unbilled.select(*UNBILLED), known.select(*_PART, -pl.col("amount_minor")).select(*UNBILLED),
    ])  # fmt: skip
    versions = known.group_by(_OWNER).agg(pl.col("version").max())
    differences = both.group_by(_PART).agg(pl.col("amount_minor").sum()).filter(pl.col("amount_minor") != 0)
    numbered = differences.join(versions, on=_OWNER, how="left").with_columns(pl.col("version").fill_null(0) + 1)
    return numbered.sort(_PART).select(pl.col(name).cast(kind) for name, kind in ACCRUED.items())


def accruals(
    changes: pl.DataFrame, *, tenant: str, period: str, day: date, closed_through: date | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and amounts (P01) of changes (columns ACCRUED) in their order, an entry a customer and currency.

    Dated the day, or the first open one.
    """
    owners = changes.unique([*_OWNER, "version"], keep="first", maintain_order=True)
    documents = owners.with_columns(dated(pl.lit(day), closed_through)).with_columns(
        pl.lit(tenant).alias("tenant"),
        pl.lit("P01").alias("template"),
        pl.lit("accrual").alias("document_kind"),
        document_id(period).alias("document_id"),
        pl.col("version").alias("document_version"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.lit(f"Not billed of {period}").alias("description"),
    )
    numbers = owners.select(*_OWNER, pl.int_range(pl.len()).alias("document"))
    amounts = changes.join(numbers, on=_OWNER, maintain_order="left").with_columns(pl.col("feature").alias("dimension"))
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )


def document_id(period: str) -> pl.Expr:
    """How the document of a customer's accrual is called: no two alike, because both ends have a fixed length."""
    return pl.format("{} {} {}", pl.lit(period), "customer", "currency")
