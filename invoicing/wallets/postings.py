"""What happens in wallets as documents of the ledger. Core.

A burn settles an invoice that is posted in full: paid credits go from prepaid credits to the receivable (P23, tender),
promotional ones are a discount on it (P05). Or the credits pay for usage that no invoice has (P23, P24).
Owns that the books hold as prepaid credits what is left of paid lots.
"""

from datetime import date

import polars as pl

from invoicing.bookings.documents import AMOUNTS, DOCUMENTS

Documents = tuple[pl.DataFrame, pl.DataFrame]

_TENDER = {"P23": ("paid_minor", ("burned", "tender")), "P05": ("promotional_minor", ("discount", "total"))}
_USAGE = {"P23": ("paid_minor", ("burned", "subtotal")), "P24": ("promotional_minor", ("burned",))}


def burn_documents(burns: pl.DataFrame, *, tenant: str, effective_at: date, as_tender: bool = True) -> Documents:
    """What burning does to the books, for each invoice.

    `burns` has invoice_id, version, wallet_id, customer, currency, paid_minor and promotional_minor: what the
    invoice has burned of each kind.
    """
    parts = []
    for template, (column, names) in (_TENDER if as_tender else _USAGE).items():
        own = burns.filter(pl.col(column) > 0).with_columns(
            pl.lit(template).alias("template"),
            pl.col(column).alias("amount_minor"),
            pl.lit(list(names)).alias("amount"),
        )
        parts.append(own)
    rows = (
        pl.concat(parts)
        .sort("invoice_id", "template")
        .with_columns(
            pl.lit("wallet burn").alias("document_kind"),
            pl.col("invoice_id").alias("document_id"),
            pl.col("version").alias("document_version"),
            pl.format("Credits burned by invoice {}", pl.col("invoice_id")).alias("description"),
        )
    )
    return _documents(rows, tenant, effective_at)


def top_up_document(
    *,
    tenant: str,
    lot_id: str,
    wallet_id: str,
    customer: str,
    currency: str,
    paid_minor: int,
    invoiced: bool,
    day: date,
) -> Documents:
    """A lot that was paid for: P22, from the gateway's clearing account, or from the receivable of its invoice."""
    row = pl.DataFrame(
        {
            "template": ["P22"], "document_kind": ["top-up"], "document_id": [lot_id], "document_version": [1],
            "description": [f"Credits of {customer}"], "customer": [customer], "currency": [currency],
            "wallet_id": [wallet_id], "amount_minor": [paid_minor],
            "amount": [["invoiced" if invoiced else "payment", "credits"]],
        }
    )  # fmt: skip
    return _documents(row, tenant, day)


def breakage_documents(expiries: pl.DataFrame, *, tenant: str, opens: date | None) -> Documents:
    """What expired unused becomes revenue: P25, dated the day it expired, or the first open day if that is later.

    `expiries` has lot_id, sequence, wallet_id, customer, currency, paid_minor and expires_on.
    """
    rows = expiries.filter(pl.col("paid_minor") > 0).with_columns(
        pl.lit("P25").alias("template"),
        pl.lit("wallet move").alias("document_kind"),
        pl.col("lot_id").alias("document_id"),
        pl.col("sequence").alias("document_version"),
        pl.lit("Credits expired").alias("description"),
        pl.col("paid_minor").alias("amount_minor"),
        pl.lit(["expired"]).alias("amount"),
    )
    day = pl.max_horizontal("expires_on", pl.lit(opens or date.min))
    return _documents(rows.with_columns(day.alias("effective_at")), tenant, None)


def _documents(rows: pl.DataFrame, tenant: str, effective_at: date | None) -> Documents:
    dated = rows if effective_at is None else rows.with_columns(pl.lit(effective_at).alias("effective_at"))
    documents = dated.with_columns(
        pl.lit(tenant).alias("tenant"),
        pl.lit(1).alias("part"),
        pl.lit(None).alias("relates_to"),
        pl.lit(None).alias("relates_to_period"),
    )
    amounts = rows.with_row_index("document").explode("amount").with_columns(pl.col("wallet_id").alias("dimension"))
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
