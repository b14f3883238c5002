"""Schedules as rows of their tables, and months that are due as documents of the ledger. Core.

Owns the identity of a schedule (tenant, line, version) and of its rows (schedule, month), on which rests that a month
of a line is recognised once.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from invoicing.bookings.documents import AMOUNTS, DOCUMENTS
from invoicing.digests import digests
from invoicing.recognition.schedules import SERVICE
from schemas.invoice import Columns

LINES: Columns = {**SERVICE, "customer": pl.String, "currency": pl.String}
"""Columns of a frame of lines that are billed in advance."""

SCHEDULES: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "line_id": pl.String,
    "version": pl.Int64,
    "customer": pl.String,
    "currency": pl.String,
    "amount_minor": pl.Int64,
    "method": pl.String,
    "starts_at": pl.Datetime("us", "UTC"),
    "ends_at": pl.Datetime("us", "UTC"),
    "time_zone": pl.String,
    "rewrites_from": pl.Date,
    "reason": pl.String,
    "scheduled_at": pl.Datetime("us", "UTC"),
    "content_digest": pl.String,
}
"""Columns of a schedules frame."""

ROWS: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "schedule_id": pl.String,
    "position": pl.Int32,
    "month": pl.Date,
    "amount_minor": pl.Int64,
}
"""Columns of the rows of schedules."""

_CONTENT = ("line_id", "customer", "currency", "amount_minor", "method", "starts_at", "ends_at", "time_zone", "reason")


@dataclass(frozen=True)
class Schedules:
    """Schedules (columns SCHEDULES) and their rows (columns ROWS)."""

    heads: pl.DataFrame
    rows: pl.DataFrame


def schedules(
    lines: pl.DataFrame, months: pl.DataFrame, *, tenant: str, time_zone: str, scheduled_at: datetime
) -> Schedules:
    """The schedules of lines (columns LINES, and version, rewrites_from, reason), whose months are these."""
    heads = lines.with_columns(
        pl.lit(tenant).alias("tenant"), pl.lit(time_zone).alias("time_zone"), pl.lit(scheduled_at).alias("scheduled_at")
    )
    heads = heads.with_columns(
        digests(heads, "recognition schedule", tenant, pl.col("line_id"), pl.col("version")).alias("id"),
        digests(heads, *[pl.col(name) for name in _CONTENT]).alias("content_digest"),
    )
    owners = heads.select("line_id", pl.col("id").alias("schedule_id"), "tenant")
    rows = months.join(owners, on="line_id", how="inner", maintain_order="left")
    rows = rows.with_columns(digests(rows, "recognition row", pl.col("schedule_id"), pl.col("month")).alias("id"))
    return Schedules(
        heads.select(pl.col(name).cast(kind) for name, kind in SCHEDULES.items()),
        rows.select(pl.col(name).cast(kind) for name, kind in ROWS.items()),
    )


def recognitions(due: pl.DataFrame, *, tenant: str, closed_through: date | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and amounts that recognise these months of lines: P16, whose document is the schedule's row.

    An entry is dated its month's last day; where that is closed, the first open day, and it names the month.
    """
    ends = pl.col("month").dt.month_end()
    opens = pl.lit(date.min if closed_through is None else closed_through + timedelta(days=1))
    period = pl.col("month").dt.strftime("%Y-%m")
    documents = due.select(
        pl.lit(tenant).alias("tenant"),
        pl.lit("P16").alias("template"),
        pl.lit("schedule row").alias("document_kind"),
        pl.col("id").alias("document_id"),
        pl.lit(1).alias("document_version"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.when(ends < opens).then(period).alias("relates_to_period"),
        pl.max_horizontal(ends, opens).alias("effective_at"),
        pl.format("Revenue of {} of line {}", period, pl.col("line_id")).alias("description"),
        "customer",
    )
    amounts = due.select(
        pl.int_range(pl.len()).alias("document"),
        pl.lit("recognised").alias("amount"),
        "currency",
        pl.lit("").alias("dimension"),
        "amount_minor",
    )
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
