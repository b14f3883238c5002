"""What happens in wallets as documents of the ledger. Core.

A burn settles an invoice that is posted in full: paid credits go from prepaid credits to the receivable (P23), and
promotional ones from discounts to it (P24), because they cost nothing and so were no liability.
Owns that the books hold as prepaid credits what is left of paid lots.
"""

from datetime import date

import polars as pl

from invoicing.ledger.dating import dated
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS
from invoicing.wallets.lots import MoveKind
from schemas.identity import digests
from schemas.invoice import Columns

Documents = tuple[pl.DataFrame, pl.DataFrame]

TEMPLATES = {"paid": "P23", "promotional": "P24"}
"""How the credits of each kind of lot are burned."""


BURNS: Columns = {
    "invoice_id": pl.String,
    "kind": pl.String,  # paid or promotional
    "burned_minor": pl.Int64,
    "entry_id": pl.String,  # the entry that posts it
}
"""Columns of what invoices have burned, a row for each entry; those that burned nothing have none."""


def burns_of(made: pl.DataFrame, lots: pl.DataFrame, tenant: str) -> pl.DataFrame:
    """What invoices have burned of each kind by all their moves (columns `lots.WANTED`) of these lots.

    Columns BURNS, and wallet_id, customer, currency and version. A return makes a new version of the invoice's burn;
    nothing is said of a kind whose credits all came back.
    """
    owners = lots.select(pl.col("id").alias("lot_id"), "wallet_id", "customer", "currency", pl.col("kind").alias("of"))
    returns = pl.col("document_id").filter(pl.col("kind") == MoveKind.RETURN.value).n_unique()
    versions = made.group_by("invoice_id").agg((returns + 1).cast(pl.Int64).alias("version"))
    sums = (
        made.join(owners, on="lot_id")
        .group_by("invoice_id", "wallet_id", "customer", "currency", pl.col("of").alias("kind"))
        .agg((-pl.col("amount_minor").sum()).alias("burned_minor"))
    )
    known = sums.filter(pl.col("burned_minor") > 0).join(versions, on="invoice_id").sort("invoice_id", "kind")
    template = pl.col("kind").replace_strict(TEMPLATES, return_dtype=pl.String)
    identity = (tenant, template, pl.col("invoice_id"), pl.col("version").cast(pl.String), "1")
    return known.with_columns(digests(*identity).alias("entry_id"))


def burn_documents(burns: pl.DataFrame, *, tenant: str, day: date, closed_through: date | None) -> Documents:
    """What burning does to the books, an entry for each invoice and kind of credits, in their order.

    Dated the day, or the first open one.
    `burns` has invoice_id, version, wallet_id, customer, currency, kind and burned_minor, above zero.
    """
    rows = burns.with_columns(
        pl.col("kind").replace_strict(TEMPLATES).alias("template"),
        pl.lit("wallet burn").alias("document_kind"),
        pl.col("invoice_id").alias("document_id"),
        pl.col("version").alias("document_version"),
        *dated(pl.lit(day), closed_through),
        pl.format("Credits burned by invoice {}", "invoice_id").alias("description"),
        pl.col("burned_minor").alias("amount_minor"),
        pl.lit(["burned", "tender"]).alias("amount"),
    )
    return _documents(rows, tenant)


def top_up_document(
    *,
    tenant: str,
    reference: str,
    wallet_id: str,
    customer: str,
    currency: str,
    paid_minor: int,
    invoiced: bool,
    day: date,
    closed_through: date | None,
) -> Documents:
    """A lot that was paid for: P22, from the gateway's clearing account, or from the receivable of its invoice.

    Dated the day, or the first open one.
    """
    row = pl.DataFrame(
        {
            "template": ["P22"], "document_kind": ["top-up"], "document_id": [reference], "document_version": [1],
            "description": [f"Credits of {customer}"], "customer": [customer], "currency": [currency],
            "wallet_id": [wallet_id], "amount_minor": [paid_minor],
            "amount": [["invoiced" if invoiced else "payment", "credits"]],
        }
    )  # fmt: skip
    return _documents(row.with_columns(dated(pl.lit(day), closed_through)), tenant)


def breakage_documents(expiries: pl.DataFrame, *, tenant: str, closed_through: date | None) -> Documents:
    """What expired of paid lots becomes revenue: P25, dated the day it expired, or the first open day if that is later.

    `expiries` has lot_id, sequence, wallet_id, customer, currency, expires_on and amount_minor, above zero.
    """
    rows = expiries.with_columns(
        *dated(pl.col("expires_on"), closed_through),
        pl.lit("P25").alias("template"),
        pl.lit("wallet move").alias("document_kind"),
        pl.col("lot_id").alias("document_id"),
        pl.col("sequence").alias("document_version"),
        pl.lit("Credits expired").alias("description"),
        pl.lit(["expired"]).alias("amount"),
    )
    return _documents(rows, tenant)


def _documents(rows: pl.DataFrame, tenant: str) -> Documents:
    documents = rows.with_columns(
        pl.lit(tenant).alias("tenant"), pl.lit(1).alias("part"), pl.lit(None).alias("relates_to")
    )
    amounts = rows.with_row_index("document").explode("amount")
    # a wallet splits prepaid credits and discounts; a payment by its payout, which is not known yet
    split = pl.when(pl.col("amount") == "payment").then(pl.lit("")).otherwise("wallet_id").alias("dimension")
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.with_columns(split).select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
