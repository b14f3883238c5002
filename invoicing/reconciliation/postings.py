"""What a payout settles as documents of the ledger. Core.

Owns that the clearing account of a payout returns to zero: each matched row takes off exactly what its entry put on it.
"""

from datetime import date

import polars as pl

from invoicing.bookings.documents import AMOUNTS, DOCUMENTS


def settlement_documents(
    matches: pl.DataFrame, *, tenant: str, payout: str, effective_at: date
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """P10 for each matched row (columns `matching.MATCHES`): cash its net, payment fees its fee, clearing its gross.

    A refund is below zero throughout. A fee of the gateway itself has no gross, and lessens cash alone.
    """
    matched = matches.filter(pl.col("outcome") == "matched").sort("file_row")
    documents = matched.with_columns(
        pl.lit(tenant).alias("tenant"),
        pl.lit("P10").alias("template"),
        pl.lit("payout row").alias("document_kind"),
        pl.col("file_row").alias("document_id"),
        pl.lit(1).alias("document_version"),
        pl.lit(1).alias("part"),
        pl.col("entry_id").alias("relates_to"),
        pl.lit(None).alias("relates_to_period"),
        pl.lit(effective_at).alias("effective_at"),
        pl.format("Payout {}: {}", pl.lit(payout), pl.col("reference")).alias("description"),
    )
    amounts = (
        matched.with_row_index("document")
        .unpivot(
            ["net_minor", "fee_minor", "gross_minor"], index=["document", "currency"], variable_name="amount",
            value_name="amount_minor",
        )
        .with_columns(pl.col("amount").str.strip_suffix("_minor"), pl.lit(payout).alias("dimension"))
        .sort("document", maintain_order=True)
    )  # fmt: skip
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
