"""What becomes of late usage: differences to what a billed period came to, by each customer's policy. Core.

Owns that each difference goes one way: on the run's invoice, into the write-offs, or into a new invoice of its period.
A period is decided on as a whole, because one difference may be another's cause: usage that makes up for a minimum.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import NamedTuple

import polars as pl

from invoicing.invoices.lines import lines_of
from invoicing.ledger.days import closed_period, month_end, open_day
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, Journal, entries_of
from schemas.identity import digests
from schemas.invoice import DRAFTED, HEADS, Basis, Columns, InvoiceKind
from schemas.plan import LateUsage

LATE: Columns = {
    "customer": pl.String,
    "usage_period": pl.String,
    "policy": pl.String,  # schemas.plan.LateUsage
    "meters": pl.List(pl.String),
    "events": pl.Int64,
}
"""Whose usage of billed periods arrived since these were last rated, one row a customer and period."""

TAKEN_BACK: Columns = {
    "id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "usage_period": pl.String,  # the invoice's period
    "customer_name": pl.String,
    "series": pl.String,
}
"""Invoices of billed periods that can be taken back as a whole."""

_OF_PERIOD = ["customer", "currency", "usage_period"]


class Decided(NamedTuple):
    """Where the lines of a run go."""

    lines: pl.DataFrame
    """Columns DRAFTED: those of the run's own invoices."""
    written_off: pl.DataFrame
    """Columns DRAFTED; a document is a customer's period and currency."""
    rebilled: pl.DataFrame
    """Columns TAKEN_BACK: the invoices that are credited and billed again."""
    late: pl.DataFrame
    """Columns LATE: of what arrived late, that which changes what is owed."""


def decided(lines: pl.DataFrame, late: pl.DataFrame, taken_back: pl.DataFrame, *, run_period: str) -> Decided:
    """The lines of a run (columns DRAFTED), each difference of a period with late usage by its customer's policy.

    1. Billed again is a period with an invoice that can be taken back; without one, it is adjusted.
    2. Written off is a period that would come to more; where it comes to less, that is credited.
    3. All else stays on the run's invoices; those on which nothing is left are none.
    """
    known = late.select("customer", "usage_period", "policy")
    lines = lines.join(known, on=["customer", "usage_period"], how="left", maintain_order="left")
    difference = pl.col("policy").is_not_null() & (pl.col("usage_period") < run_period)
    touched = lines.filter(difference)
    # 1: billed again
    again = touched.filter(pl.col("policy") == LateUsage.REBILL)
    rebilled = taken_back.join(again, on=_OF_PERIOD, how="semi", maintain_order="left")
    # 2: written off
    sums = pl.col("amount_minor").sum().over(_OF_PERIOD)
    written_off = touched.filter((pl.col("policy") == LateUsage.WRITE_OFF) & (sums > 0))
    # 3: the rest
    elsewhere = pl.concat([rebilled.select(_OF_PERIOD), written_off.select(_OF_PERIOD).unique()])
    moved = difference & pl.struct(_OF_PERIOD).is_in(elsewhere.select(pl.struct(_OF_PERIOD)).to_series().implode())
    rest = lines.filter(~moved).filter(pl.col("amount_minor").ne(0).any().over("document"))
    written_off = written_off.sort(*_OF_PERIOD, maintain_order=True).with_columns(
        document=pl.struct(_OF_PERIOD).rle_id().cast(pl.Int64)
    )
    found = late.join(touched, on=["customer", "usage_period"], how="semi", maintain_order="left")
    return Decided(rest.select(*DRAFTED), written_off.select(*DRAFTED), rebilled, found)


def billed_again(
    rebilled: pl.DataFrame, old_lines: pl.DataFrame, charges: pl.DataFrame, booked: pl.DataFrame,
    bases: Mapping[str, Basis],
) -> pl.DataFrame:  # fmt: skip
    """The lines (columns DRAFTED) of the invoices that take the place of others; a document is a row of `rebilled`.

    `old_lines` (columns LINES) are those of the others, `charges` (columns CHARGED) what is rated now, and `booked`
    what was billed on all other invoices. What the old ones had of their own period is as it is rated now; what they
    had of other periods, such as a fee in advance or an adjustment, moves over as it is.
    """
    places = rebilled.with_row_index("place").select(pl.col("place").cast(pl.Int64), "id", *_OF_PERIOD)
    parts = [pl.DataFrame(schema=DRAFTED)]
    for (period,), own in places.group_by("usage_period", maintain_order=True):
        keys = own.select("customer", "currency", "place")
        of_period = charges.filter(pl.col("period") == period).join(keys, on=["customer", "currency"], how="semi")
        lines = lines_of(
            of_period, booked.join(own, on=_OF_PERIOD, how="semi"), run_period=str(period),
            bases={str(period): bases[str(period)]},
        )  # fmt: skip
        lines = lines.join(keys, on=["customer", "currency"], how="left", maintain_order="left")
        parts.append(lines.with_columns(document="place").select(*DRAFTED))
    moved = old_lines.rename({"customer": "payer"}).join(
        places.select("place", "customer", "currency", own_period="usage_period", invoice_id="id"),
        on="invoice_id", how="inner", maintain_order="left",
    ).filter(pl.col("usage_period") != pl.col("own_period"))  # fmt: skip
    parts.append(moved.with_columns(document="place").select(pl.col(name).cast(kind) for name, kind in DRAFTED.items()))
    found = pl.concat(parts).sort("document", maintain_order=True)
    return found.filter(pl.col("amount_minor").ne(0).any().over("document"))


def rebill_heads(
    rebilled: pl.DataFrame, documents: pl.Series, *, tenant: str, bases: Mapping[str, Basis]
) -> pl.DataFrame:
    """The heads (columns HEADS) of the invoices that take the place of others, of those that have lines."""
    basis = [bases[period] for period in rebilled["usage_period"]]
    names = ("cut", "book", "book_version", "book_digest", "contracts_digest")
    heads = rebilled.with_row_index("document").with_columns(
        digests("rebill", tenant, pl.col("id")).alias("id"),
        *[pl.Series(name, [getattr(each, name) for each in basis], HEADS[name]) for name in names],
        tenant=pl.lit(tenant), kind=pl.lit(InvoiceKind.REBILL.value), period="usage_period",
    )  # fmt: skip
    known = documents.unique().implode()
    return heads.select(pl.col(name).cast(kind) for name, kind in HEADS.items()).filter(pl.col("document").is_in(known))


def with_document_ids(written_off: pl.DataFrame, *, tenant: str, run_period: str) -> pl.DataFrame:
    """What is written off with the `document_id` that it is posted under: one a customer, period and currency."""
    parts = ("late usage", tenant, pl.col("customer"), pl.col("currency"), pl.col("usage_period"), run_period)
    return written_off.with_columns(digests(*parts).alias("document_id"))


def write_off_journal(
    written_off: pl.DataFrame, *, tenant: str, closed_through: date | None, booked_at: datetime
) -> Journal:
    """The entries P33 of what is not billed: columns of `written_off` are those of TAXED; one entry a period.

    Columns also have `document_id`, of `with_document_ids`.

    4090 discounts 500, 4010 usage revenue -500: the usage is shown, and that nobody pays for it. They are dated as the
    invoice of the period would be.
    """
    groups = written_off.group_by("document_id", *_OF_PERIOD, maintain_order=True).agg(pl.sum("net_minor"))
    ends = [month_end(period) for period in groups["usage_period"]]
    closed = [closed_period(period, closed_through) for period in groups["usage_period"]]
    documents = groups.select(
        "customer", "document_id", tenant=pl.lit(tenant), template=pl.lit("P33"),
        document_kind=pl.lit("late usage"), document_version=pl.lit(1, pl.Int64), part=pl.lit(1, pl.Int64),
        relates_to=pl.lit(None, pl.String), relates_to_period=pl.Series(closed, dtype=pl.String),
        effective_at=pl.Series([open_day(end, closed_through) for end in ends], dtype=pl.Date),
        description=pl.format("Late usage of {} written off for {}", "usage_period", "customer"),
    ).select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items())  # fmt: skip
    amounts = groups.select(
        pl.int_range(pl.len()).alias("document"), "currency", amount=pl.lit("written_off"), dimension=pl.lit(""),
        amount_minor="net_minor",
    ).select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items())  # fmt: skip
    return entries_of(documents, amounts, booked_at=booked_at)
