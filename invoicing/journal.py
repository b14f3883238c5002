"""Invoices become journal entries and postings. Core.

Decides which account takes which amount, by the template; owns the invariant that an entry's postings sum to zero.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from invoicing.explanation import canonical
from schemas.identity import content_digest, digest
from schemas.journal import ENTRIES, P02, POSTINGS, Leg


@dataclass(frozen=True)
class Journal:
    """Journal entries (columns `schemas.journal.ENTRIES`) and their postings (columns `POSTINGS`)."""

    entries: pl.DataFrame
    postings: pl.DataFrame


def journal(invoices: pl.DataFrame, *, booked_at: datetime) -> Journal:
    """The entries of these invoices (columns `schemas.invoice.INVOICES`) by template P02, one an invoice.

    An invoice of 120.00 with 20.00 tax in it, in minor units:

        1100 receivable       12000
        4010 usage revenue   -10000
        2000 tax payable      -2000

    Postings of zero are left out; an invoice of zero, whose lines cancel, has no entry. The entry is dated the last
    day of the invoice's period.
    """
    keyed = invoices.with_columns(
        pl.Series("entry_id", [digest(P02.code, invoice_id) for invoice_id in invoices["id"]], pl.String)
    )
    postings = _postings(keyed)
    entries = keyed.select(
        pl.col("entry_id").alias("id"),
        "tenant",
        pl.lit(P02.code).alias("template"),
        pl.col("id").alias("document_id"),
        (pl.col("period") + "-01").str.to_date("%Y-%m-%d").dt.month_end().alias("effective_at"),
        pl.lit(booked_at).cast(ENTRIES["booked_at"]).alias("booked_at"),
        pl.format(P02.description.format(period="{}", customer="{}"), pl.col("period"), pl.col("customer_name")).alias(
            "description"
        ),
    ).join(postings, left_on="id", right_on="entry_id", how="semi", maintain_order="left")
    return Journal(_with_digests(entries, postings).select(*ENTRIES), postings)


def _postings(invoices: pl.DataFrame) -> pl.DataFrame:
    legs = [
        invoices.select(
            "entry_id",
            pl.lit(place).alias("leg"),
            _account(leg).cast(pl.Int64).alias("account"),
            "customer",
            "currency",
            (pl.col(leg.column) * leg.sign).alias("amount_minor"),
        )
        for place, leg in enumerate(P02.legs)
    ]
    order = invoices.select("entry_id").with_row_index("place")
    return (
        pl.concat(legs)
        .filter(pl.col("amount_minor") != 0)
        .join(order, on="entry_id")
        .sort("place", "leg")
        .with_columns(pl.int_range(1, pl.len() + 1).over("entry_id").alias("position"))
        .select(pl.col(name).cast(kind) for name, kind in POSTINGS.items())
    )


def _account(leg: Leg) -> pl.Expr:
    account = pl.lit(leg.account.value)
    if leg.account_if_negative is None:
        return account
    return pl.when(pl.col(leg.column) < 0).then(pl.lit(leg.account_if_negative.value)).otherwise(account)


def _with_digests(entries: pl.DataFrame, postings: pl.DataFrame) -> pl.DataFrame:
    covered = [name for name in ENTRIES if name not in {"booked_at", "content_digest"}]
    texts = postings.select("entry_id", canonical(list(POSTINGS)).alias("text"))
    bodies = texts.group_by("entry_id", maintain_order=True).agg(pl.col("text").str.join("\n").alias("body"))
    whole = entries.join(bodies, left_on="id", right_on="entry_id", maintain_order="left").select(
        canonical(covered) + "\n" + pl.col("body")
    )
    digests = [content_digest(text.encode()) for text in whole.to_series()]
    return entries.with_columns(pl.Series("content_digest", digests, pl.String))
