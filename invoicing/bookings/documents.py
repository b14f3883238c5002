"""Documents and their amounts become journal entries and postings, by the templates that these parts use. Core.

Owns that an entry's postings sum to zero, and that its id follows from its document, so a document is posted once.
"""

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from invoicing.digests import digests
from invoicing.explanation import canonical
from schemas.identity import content_digest
from schemas.invoice import Columns
from schemas.journal import ENTRIES, POSTINGS

DOCUMENTS: Columns = {
    "tenant": pl.String,
    "template": pl.String,
    "document_kind": pl.String,
    "document_id": pl.String,
    "document_version": pl.Int64,
    "part": pl.Int64,  # from 1
    "relates_to": pl.String,  # the id of an earlier entry, or null
    "relates_to_period": pl.String,  # the closed period that the entry is for, or null
    "effective_at": pl.Date,
    "description": pl.String,
    "customer": pl.String,  # empty: nobody's
}
"""Columns of a documents frame, one entry each."""

AMOUNTS: Columns = {
    "document": pl.Int64,  # the row number of its document
    "amount": pl.String,  # as the legs of the template name it
    "currency": pl.String,
    "dimension": pl.String,
    "amount_minor": pl.Int64,
}
"""Columns of an amounts frame."""

LEGS: dict[str, tuple[tuple[int, str, int], ...]] = {
    "P01": ((1150, "subtotal", 1), (4010, "subtotal", -1)),
    "P03": ((1100, "total", 1), (2200, "advance", -1), (2000, "tax", -1)),
    "P05": ((4090, "discount", 1), (1100, "total", -1)),
    "P09": ((1010, "payment", 1), (1100, "payment", -1)),
    "P10": ((1000, "net", 1), (6200, "fee", 1), (1010, "gross", -1)),
    "P12": ((4000, "recognised", 1), (2200, "advance", 1), (2000, "tax", 1), (1100, "total", -1)),
    "P15": ((2100, "refund", 1), (1010, "refund", -1)),
    "P16": ((2200, "recognised", 1), (4000, "recognised", -1)),
    "P22": ((1010, "payment", 1), (1100, "invoiced", 1), (2150, "credits", -1), (2000, "tax", -1)),
    "P23": ((2150, "burned", 1), (4010, "subtotal", -1), (1100, "tender", -1)),
    "P24": ((4090, "burned", 1), (4010, "burned", -1)),
    "P25": ((2150, "expired", 1), (4900, "expired", -1)),
}
"""For each template its legs: the account, the document's amount, and whether it is a debit (1) or a credit (-1)."""

_ID = ("tenant", "template", "document_id", "document_version", "part")


@dataclass(frozen=True)
class Entries:
    """Journal entries (columns `schemas.journal.ENTRIES`) and their postings (columns `POSTINGS`)."""

    entries: pl.DataFrame
    postings: pl.DataFrame


def document_ids(documents: pl.DataFrame) -> pl.Series:
    """The ids of the entries of these documents."""
    return digests(documents, *[pl.col(name) for name in _ID])


def entries_of(documents: pl.DataFrame, amounts: pl.DataFrame, *, booked_at: datetime) -> Entries:
    """The entries of documents (columns DOCUMENTS) with their amounts (columns AMOUNTS).

    Postings of zero are left out, and a document without any has no entry. Raises ValueError for amounts that do not
    cancel.
    """
    known = documents.with_columns(document_ids(documents).alias("id")).with_row_index("document")
    known = known.with_columns(pl.col("document").cast(pl.Int64))
    rows = [(code, place, *leg) for code, legs in LEGS.items() for place, leg in enumerate(legs)]
    legs = pl.DataFrame(rows, schema=["template", "leg", "account", "amount", "side"], orient="row")
    owners = known.select("document", "template", "customer", pl.col("id").alias("entry_id"))
    since = pl.when(pl.col("document").ne_missing(pl.col("document").shift())).then("at").forward_fill()
    postings = (
        amounts.filter(pl.col("amount_minor") != 0)
        .join(owners, on="document", maintain_order="left")
        .join(legs, on=["template", "amount"], maintain_order="left")
        .sort("document", "leg", maintain_order=True)
        .with_row_index("at")
        .with_columns(
            pl.col("amount_minor") * pl.col("side"),
            (pl.col("at") - since + 1).alias("position"),
        )
    )
    sums = (
        postings.group_by("document", "currency").agg(pl.col("amount_minor").sum()).filter(pl.col("amount_minor") != 0)
    )
    if sums.height:
        wrong = documents.row(sums.row(0)[0], named=True)
        raise ValueError(f"{wrong['document_kind']} {wrong['document_id']}: its amounts do not cancel: {sums.row(0)}")
    entries = known.join(postings, on="document", how="semi", maintain_order="left").with_columns(
        pl.lit(booked_at).alias("booked_at")
    )
    return _digested(entries, postings.select(pl.col(name).cast(kind) for name, kind in POSTINGS.items()))


def mirrored(
    entries: pl.DataFrame, postings: pl.DataFrame, *, effective_at: date, reason: str, booked_at: datetime
) -> Entries:
    """The entries that take entries back: the same postings on their other sides. An entry is taken back once."""
    reversals = entries.with_columns(
        digests(entries, pl.col("tenant"), pl.col("template"), pl.col("id"), "1", "1").alias("id"),
        pl.col("id").alias("document_id"),
        pl.lit(effective_at).alias("effective_at"),
        pl.format("Reversal of {}: {}", pl.col("description"), pl.lit(reason)).alias("description"),
        pl.lit(booked_at).alias("booked_at"),
    )
    ids = reversals.select("id", pl.col("document_id").alias("entry_id"))
    other = postings.join(ids, on="entry_id", maintain_order="left").with_columns(-pl.col("amount_minor"))
    lines = other.with_columns(pl.col("id").alias("entry_id"))
    return _digested(reversals, lines.select(pl.col(name).cast(kind) for name, kind in POSTINGS.items()))


def _digested(entries: pl.DataFrame, postings: pl.DataFrame) -> Entries:
    covered = [name for name in ENTRIES if name not in {"booked_at", "content_digest"}]
    texts = postings.select("entry_id", canonical(list(POSTINGS)).alias("text"))
    bodies = texts.group_by("entry_id", maintain_order=True).agg(pl.col("text").str.join("\n").alias("body"))
    whole = entries.join(bodies, left_on="id", right_on="entry_id", maintain_order="left").select(
        canonical(covered) + "\n" + pl.col("body")
    )
    found = [content_digest(text.encode()) for text in whole.to_series()]
    digested = entries.with_columns(pl.Series("content_digest", found, pl.String))
    return Entries(digested.select(pl.col(name).cast(kind) for name, kind in ENTRIES.items()), postings)
