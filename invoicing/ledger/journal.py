"""Documents become journal entries and postings. Core.

Decides which account takes which amount, by the document's template; owns the invariants that an entry's postings sum
to zero, and that an entry's id follows from its document.
"""

from dataclasses import dataclass
from datetime import date, datetime
from functools import cache

import numpy as np
import polars as pl

from invoicing.ledger.chain import content_digests
from invoicing.ledger.few import FEW, entries_of_few
from schemas.identity import digests
from schemas.invoice import Columns
from schemas.journal import ENTRIES, POSTINGS, REVERSAL
from schemas.templates import PENDING, TEMPLATES, Leg

DOCUMENTS: Columns = {
    name: kind for name, kind in ENTRIES.items() if name not in {"id", "booked_at", "content_digest"}
} | {"customer": pl.String}
"""Columns of a documents frame: what its entry says of a document, and whose it is (empty: nobody's)."""

AMOUNTS: Columns = {
    "document": pl.Int64,  # the row number of its document
    "amount": pl.String,  # as the legs of the template name it
    "currency": pl.String,
    "dimension": pl.String,  # for the legs that are split by one
    "amount_minor": pl.Int64,
}
"""Columns of an amounts frame. An amount may stand several times, for instance once a tax rate."""

ID_PARTS = ("tenant", "template", "document_id", "document_version", "part")


@dataclass(frozen=True)
class Journal:
    """Journal entries (columns `schemas.journal.ENTRIES`) and their postings (columns `POSTINGS`)."""

    entries: pl.DataFrame
    postings: pl.DataFrame


def entries_of(documents: pl.DataFrame, amounts: pl.DataFrame, *, booked_at: datetime) -> Journal:
    """The entries of documents (columns `DOCUMENTS`) with their amounts (columns `AMOUNTS`), by their templates.

    Postings of zero are left out, and a document without any posting has no entry. Raises ValueError when the amounts
    of a document do not cancel over its template's legs, or their signs are none that it takes.
    """
    if documents.height <= FEW:
        few = entries_of_few(documents, amounts, booked_at=booked_at)
        if few is not None:
            return Journal(*few)
    return bulk_entries_of(documents, amounts, booked_at=booked_at)


def bulk_entries_of(documents: pl.DataFrame, amounts: pl.DataFrame, *, booked_at: datetime) -> Journal:
    """The same, always by frames."""
    postings = _postings(documents, amounts)
    _refuse_signs(documents, amounts)
    _refuse_unbalanced(documents, postings)
    numbered = documents.with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("document"))
    kept = numbered.join(postings, on="document", how="semi", maintain_order="left")
    postings = postings.with_columns(pl.Series("entry", np.searchsorted(kept["document"], postings["document"])))
    entries = kept.select(
        digests(*[pl.col(name).cast(pl.String) for name in ID_PARTS]).alias("id"),
        *[name for name in DOCUMENTS if name != "customer"],
        pl.lit(booked_at).cast(ENTRIES["booked_at"]).alias("booked_at"),
    )
    return _digested(entries, postings)


def reversal(
    entry: pl.DataFrame, postings: pl.DataFrame, *, effective_at: date, reason: str, booked_at: datetime
) -> Journal:
    """The entry that takes an entry (a frame of one row) back: the same postings on their other sides.

    Its document is the entry that it reverses, so that an entry is reversed once.
    """
    [original] = entry.rows(named=True)
    mirrored = entry.select(
        "tenant", "template",
        pl.lit(REVERSAL).alias("document_kind"),
        pl.col("id").alias("document_id"),
        pl.lit(1, pl.Int64).alias("document_version"),
        pl.lit(1, pl.Int64).alias("part"),
        pl.col("id").alias("relates_to"),
        pl.lit(None, pl.String).alias("relates_to_period"),
        pl.lit(effective_at).alias("effective_at"),
        pl.lit(f"Reversal of {original['description']}: {reason}").alias("description"),
        pl.lit(booked_at).cast(ENTRIES["booked_at"]).alias("booked_at"),
    ).with_columns(digests(*[pl.col(name).cast(pl.String) for name in ID_PARTS]).alias("id"))  # fmt: skip
    lines = postings.sort("position").with_columns(-pl.col("amount_minor"), pl.lit(0, pl.Int64).alias("entry"))
    return _digested(mirrored, lines)


def _refuse_signs(documents: pl.DataFrame, amounts: pl.DataFrame) -> None:
    """Raises ValueError for an amount below zero in a document that takes none there.

    A document is below zero as a whole, or not at all; only signed legs may differ. The database holds the same.
    """
    codes = documents.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("document"), "template")
    rules = legs().group_by("template", "amount", "takes_negative").agg(pl.col("signed").all())
    plain = amounts.join(codes, on="document", maintain_order="left").join(
        rules.filter(~pl.col("signed")), on=["template", "amount"], maintain_order="left"
    )
    negative = plain.filter(pl.col("amount_minor") < 0)
    if negative.is_empty():
        return
    wrong = negative.filter(~pl.col("takes_negative"))
    if wrong.is_empty():
        mixed = plain.filter(pl.col("amount_minor") > 0).join(negative, on=["document", "currency"], how="semi")
        wrong = negative.join(mixed, on=["document", "currency"], how="semi")
    for document, amount, minor in wrong.select("document", "amount", "amount_minor").head(1).iter_rows():
        row = documents.row(document, named=True)
        allowed = "zero or more" if not TEMPLATES[row["template"]].takes_negative else "all amounts of one sign"
        raise ValueError(
            f"{row['document_kind']} {row['document_id']}: {amount} is {minor} minor units; allowed for "
            f"{row['template']}: {allowed}"
        )


def _refuse_unbalanced(documents: pl.DataFrame, postings: pl.DataFrame) -> None:
    """Raises ValueError that names a document whose postings (with their `document`) do not sum to zero."""
    sums = postings.group_by("document", "currency", maintain_order=True).agg(pl.col("amount_minor").sum())
    for document, currency, minor in sums.filter(pl.col("amount_minor") != 0).head(1).iter_rows():
        row = documents.row(document, named=True)
        template = TEMPLATES[row["template"]]
        sides = (" + ".join(dict.fromkeys(leg.amount for leg in template.legs if leg.side == side)) for side in (1, -1))
        raise ValueError(
            f"{row['document_kind']} {row['document_id']}: its amounts differ by {minor} minor units of {currency}; "
            f"{template.code} needs {' = '.join(sides)}"
        )


@cache
def legs() -> pl.DataFrame:
    """All legs of all templates: template, leg (its number), and the fields of `Leg` (split: its dimension)."""
    rows = [
        (code, place, *_leg(leg), template.takes_negative)
        for code, template in TEMPLATES.items()
        for place, leg in enumerate(template.legs)
    ]
    names = ("template", "leg", "amount", "account", "account_if_negative", "side", "signed", "split", "takes_negative")
    return pl.DataFrame(rows, schema=names, orient="row")


def _leg(leg: Leg) -> tuple[str, int, int, int, bool, str]:
    other = leg.account_if_negative or leg.account
    return leg.amount, leg.account.value, other.value, leg.side, leg.signed, leg.dimension


def _postings(documents: pl.DataFrame, amounts: pl.DataFrame) -> pl.DataFrame:
    """The postings with their `document`, those of a document in the order of its legs, numbered from 1."""
    known = documents.select(pl.int_range(pl.len()).alias("document"), "template", "customer")
    negative = pl.col("amount_minor") < 0
    split = pl.col("split")
    return (
        amounts.filter(pl.col("amount_minor") != 0)
        .join(known, on="document", maintain_order="left")
        .join(legs(), on=["template", "amount"], maintain_order="left")
        .sort("document", "leg", maintain_order=True)
        .select(
            "document",
            pl.int_range(1, pl.len() + 1).over("document").alias("position"),
            pl.when(negative).then("account_if_negative").otherwise("account").alias("account"),
            "customer",
            "currency",
            pl.when(split == "")
            .then(pl.lit(""))
            .when(split == PENDING)
            .then(pl.lit(PENDING))
            .otherwise("dimension")
            .alias("dimension"),
            pl.col("amount_minor") * pl.col("side"),
        )
    )


def _digested(entries: pl.DataFrame, postings: pl.DataFrame) -> Journal:
    """The two frames, with the digest of what the entries say; `postings` name the row number of their `entry`."""
    entries = entries.with_columns(content_digests(entries, postings).alias("content_digest"))
    ids = entries["id"].gather(postings["entry"])
    return Journal(
        entries.select(pl.col(name).cast(kind) for name, kind in ENTRIES.items()),
        postings.with_columns(ids.alias("entry_id")).select(pl.col(name).cast(kind) for name, kind in POSTINGS.items()),
    )
