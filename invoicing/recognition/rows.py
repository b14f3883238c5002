"""Schedules as rows of their table, and months that are due as documents of the ledger. Core.

Owns the identity of a recognition: the line and the month, on which rests that a month of a line is recognised once.
"""

from datetime import date

import polars as pl

from invoicing.ledger.dating import dated
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS
from invoicing.recognition.schedules import SERVICE
from schemas.invoice import Columns

LINES: Columns = {
    "tenant": pl.String,
    "invoice_id": pl.String,
    "line_id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "net_minor": pl.Int64,
    "service_start": pl.Date,
    "service_end": pl.Date,  # not part of the service
    "feature": pl.String,  # the dimension that the invoice's posting on unearned revenue has
}
"""Columns of a frame of lines that are billed in advance. The two days may be instants: `pl.Datetime("us", "UTC")`."""

SCHEDULES: Columns = {
    "tenant": pl.String,
    "line_id": pl.String,
    "version": pl.Int64,
    "invoice_id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "feature": pl.String,
    "amount_minor": pl.Int64,
    "method": pl.String,
    "starts_at": pl.Datetime("us", "UTC"),
    "ends_at": pl.Datetime("us", "UTC"),
    "time_zone": pl.String,
    "months": pl.List(pl.Date),  # their first days
    "amounts_minor": pl.List(pl.Int64),  # of these months; they add up to amount_minor
    "rewrites_from": pl.Date,
    "reason": pl.String,
}
"""Columns of a frame of schedules: the table's, without the instant of writing."""

DUE: Columns = {
    "line_id": pl.String,
    "version": pl.Int64,
    "customer": pl.String,
    "currency": pl.String,
    "feature": pl.String,
    "month": pl.Date,
    "amount_minor": pl.Int64,
}
"""Columns of a frame of months of lines that are to be recognised."""

EVER = date(1, 1, 1)
"""A month before all months: from there on the first version of a schedule is written."""


def services(lines: pl.DataFrame, method: str, time_zone: str) -> pl.DataFrame:
    """Lines (columns LINES) with their service periods as instants (columns `schedules.SERVICE`, and those of LINES).

    A day begins at its midnight in the time zone; where clocks skip it, at the first instant after it.

    >>> row = ("default", "i", "l", "UA", "USD", 1, date(2026, 6, 15), date(2026, 10, 13), "")
    >>> starts = services(pl.DataFrame([row], schema=LINES, orient="row"), "day", "Europe/Berlin")["starts_at"]
    >>> starts.dt.to_string("%Y-%m-%d %H:%M").item()
    '2026-06-14 22:00'
    """
    instants = []
    for bound, name in (("service_start", "starts_at"), ("service_end", "ends_at")):
        instant = pl.col(bound)
        if lines.schema[bound] == pl.Date:
            local = instant.cast(pl.Datetime("us"))
            zoned = [local.dt.offset_by(skipped).dt.replace_time_zone(time_zone, ambiguous="earliest",
                     non_existent="null") for skipped in ("0m", "30m", "1h", "1d")]  # fmt: skip
            instant = pl.coalesce(zoned).dt.convert_time_zone("UTC")
        instants.append(instant.cast(SERVICE[name]).alias(name))
    return lines.with_columns(
        *instants, pl.col("net_minor").alias("amount_minor"), pl.lit(str(method)).alias("method")
    ).drop("net_minor", "service_start", "service_end")


def in_advance(invoices: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """Of the lines of invoices, those that are for service to come (columns LINES).

    `invoices` has id, tenant, customer and currency; `lines` has id, invoice_id, revenue, net_minor, service_start and
    service_end. Their postings on unearned revenue are split by nothing.
    """
    owners = invoices.select(pl.col("id").alias("invoice_id"), "tenant", "customer", "currency")
    own = lines.filter(pl.col("revenue") == "advance").select(
        "invoice_id", pl.col("id").alias("line_id"), "net_minor", "service_start", "service_end"
    )
    both = own.join(owners, on="invoice_id", maintain_order="left").with_columns(pl.lit("").alias("feature"))
    return both.select(pl.col(name).cast(kind) for name, kind in LINES.items())


def packed(lines: pl.DataFrame, months: pl.DataFrame) -> pl.DataFrame:
    """Schedules (columns SCHEDULES) of lines that have all other columns, with their months (columns FUTURE or MONTHS).

    A line without months has empty lists.
    """
    lists = months.sort("line_id", "month").group_by("line_id", maintain_order=True).agg(
        pl.col("month").alias("months"), pl.col("amount_minor").alias("amounts_minor")
    )  # fmt: skip
    both = lines.join(lists, on="line_id", how="left", maintain_order="left")
    return both.with_columns(pl.col("months", "amounts_minor").fill_null([])).select(
        pl.col(name).cast(kind) for name, kind in SCHEDULES.items()
    )


def unpacked(schedules: pl.DataFrame) -> pl.DataFrame:
    """The months of schedules: line_id, month, amount_minor."""
    lists = schedules.select(
        "line_id", pl.col("months").alias("month"), pl.col("amounts_minor").alias("amount_minor")
    ).filter(pl.col("month").list.len() > 0)
    return lists.explode("month", "amount_minor")


def recognitions(due: pl.DataFrame, *, tenant: str, closed_through: date | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and amounts that recognise these months of lines (columns DUE), in their order: P16, one entry each.

    An entry is dated its month's last day; where that is closed, the first open day, and it names the month.
    """
    ends, month = pl.col("month").dt.month_end(), pl.col("month").dt.strftime("%Y-%m")
    documents = due.with_columns(dated(ends, closed_through)).with_columns(
        pl.lit(tenant).alias("tenant"),
        pl.lit("P16").alias("template"),
        pl.lit("schedule row").alias("document_kind"),
        pl.format("{} {}", "line_id", month).alias("document_id"),
        pl.lit(1).alias("document_version"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.format("Revenue of {} of line {}", month, pl.col("line_id")).alias("description"),
    )
    amounts = due.select(
        pl.int_range(pl.len()).alias("document"),
        pl.lit("recognised").alias("amount"),
        "currency",
        pl.col("feature").alias("dimension"),
        "amount_minor",
    )
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
