"""Taxed lines become invoices: first drafts, then numbered and final. Core.

Owns the invariants that the lines of an invoice add up to its subtotal and its tax, that its id and content do not
depend on when it is issued or what number it gets, and that an invoice of which nothing is due is paid at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from invoicing.invoices.explanation import canonical
from schemas.identity import digests, sha256_of
from schemas.invoice import HEADS, INVOICES, LINES, Basis, InvoiceKind, PaymentStatus, State
from schemas.money import MINOR_UNITS

_BASIS = ("cut", "book", "book_version", "book_digest", "contracts_digest")
_GOES_ON = {"number", "state", "payment_status", "settled_minor", "due_on", "issued_at", "version", "content_digest"}
"""What of an invoice its content digest does not cover: it changes after the draft."""


@dataclass(frozen=True)
class Drafts:
    """Invoices (columns `schemas.invoice.INVOICES`) and their lines (columns `LINES`)."""

    invoices: pl.DataFrame
    lines: pl.DataFrame


def periodic_heads(
    lines: pl.DataFrame, *, tenant: str, run_period: str, basis: Basis, customer_names: Mapping[str, str], series: str
) -> pl.DataFrame:
    """The heads (columns `schemas.invoice.HEADS`) of a run's invoices, one a document of its lines."""
    heads = lines.select("document", "customer", "currency").unique("document", keep="first", maintain_order=True)
    names = [customer_names.get(customer, customer) for customer in heads["customer"]]
    parts = ("invoice", tenant, pl.col("customer"), run_period, pl.col("currency"))
    return heads.with_columns(
        digests(*parts).alias("id"),
        pl.Series("customer_name", names, pl.String),
        tenant=pl.lit(tenant), kind=pl.lit(InvoiceKind.PERIODIC.value), period=pl.lit(run_period),
        series=pl.lit(series), **{name: pl.lit(getattr(basis, name), HEADS[name]) for name in _BASIS},
    ).select(pl.col(name).cast(kind) for name, kind in HEADS.items())  # fmt: skip


def progressive_heads(heads: pl.DataFrame, issued: pl.DataFrame) -> pl.DataFrame:
    """The heads of a run's invoices (columns `schemas.invoice.HEADS`) as those of progressive ones.

    `issued` says how many a customer had in the period by now: columns customer, currency, invoices. Each one has an id
    of its own, which is that of the next one as long as this one is not issued.
    """
    counted = heads.join(issued, on=["customer", "currency"], how="left", maintain_order="left")
    ordinal = (pl.col("invoices").fill_null(0) + 1).cast(pl.String)
    named = (pl.col("tenant"), "progressive", pl.col("customer"), pl.col("period"), pl.col("currency"), ordinal)
    numbered = counted.with_columns(digests("invoice", *named).alias("id"), kind=pl.lit(InvoiceKind.PROGRESSIVE.value))
    return numbered.select(pl.col(name).cast(kind) for name, kind in HEADS.items())


def drafted(lines: pl.DataFrame, groups: pl.DataFrame, heads: pl.DataFrame) -> Drafts:
    """The drafts of documents: taxed lines (columns `schemas.invoice.TAXED`), TAX_GROUPS and HEADS.

    Each line's id is a digest of its invoice, kind, period and charge, which no two lines of an invoice share. Digests
    come last, because they cover everything.
    """
    sums = lines.group_by("document").agg(
        pl.sum("net_minor").alias("subtotal_minor"), pl.sum("tax_minor").alias("tax_minor")
    )
    invoices = heads.join(sums, on="document", how="left", maintain_order="left")
    invoices = invoices.join(groups, on="document", how="left", maintain_order="left").with_columns(
        pl.col("taxes").fill_null("[]"),
        (pl.col("subtotal_minor") + pl.col("tax_minor")).alias("total_minor"),
        pl.col("currency").replace_strict(MINOR_UNITS, return_dtype=pl.Int64).alias("minor_units"),
        state=pl.lit(State.DRAFT.value), payment_status=pl.lit(PaymentStatus.PENDING.value),
        number=pl.lit(None, pl.String), due_on=pl.lit(None, pl.Date), issued_at=pl.lit(None, INVOICES["issued_at"]),
        settled_minor=pl.lit(0), version=pl.lit(1),
    )  # fmt: skip
    owners = invoices.select("document", "tenant", invoice_id="id")
    placed = lines.join(owners, on="document", how="inner", maintain_order="left").with_columns(
        digests("invoice line", *map(pl.col, ("invoice_id", "kind", "usage_period", "charge"))).alias("id"),
        pl.int_range(1, pl.len() + 1).over("document").alias("position"),
    )
    placed = placed.select(pl.col(name).cast(kind) for name, kind in LINES.items())
    assert not placed["id"].is_duplicated().any(), "two lines of an invoice have one name"
    return Drafts(_with_digests(invoices, placed), placed)


def finalised(
    drafts: pl.DataFrame, *, last_number: int, issued_at: datetime, due_days: int | None = None
) -> pl.DataFrame:
    """Drafts of one series as invoices that are issued: numbered on from `last_number`, in their order.

    They are due so many days after their issue; never where the seller says no days.
    """
    numbers = pl.int_range(last_number + 1, last_number + 1 + pl.len()).cast(pl.String).str.zfill(6)
    due = pl.lit(issued_at.date()) + pl.duration(days=due_days) if due_days is not None else pl.lit(None, pl.Date)
    nothing_due = pl.col("total_minor") <= pl.col("settled_minor")
    return drafts.with_columns(
        (pl.col("series") + "-" + numbers).alias("number"),
        pl.lit(issued_at).cast(INVOICES["issued_at"]).alias("issued_at"),
        due.cast(pl.Date).alias("due_on"),
        pl.when(nothing_due).then(pl.lit(State.PAID.value)).otherwise(pl.lit(State.OPEN.value)).alias("state"),
        pl.when(nothing_due)
        .then(pl.lit(PaymentStatus.SUCCEEDED.value))
        .otherwise(pl.lit(PaymentStatus.PENDING.value))
        .alias("payment_status"),
    )


def _with_digests(invoices: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The invoices with the digest of everything that is billed and why."""
    covered = [name for name in INVOICES if name not in _GOES_ON]
    said = [name for name in LINES if name != "tenant"]
    texts = lines.select("invoice_id", canonical(said, decimals=("quantity", "amount")).alias("text"))
    bodies = texts.group_by("invoice_id", maintain_order=True).agg(pl.col("text").str.join("\n").alias("body"))
    whole = invoices.join(bodies, left_on="id", right_on="invoice_id", how="left", maintain_order="left")
    digested = whole.select((canonical(covered) + "\n" + pl.col("body")).alias("text"))
    content = digested.select(sha256_of(pl.col("text"))).to_series()
    return invoices.with_columns(content.alias("content_digest")).select(
        pl.col(name).cast(kind) for name, kind in INVOICES.items()
    )
