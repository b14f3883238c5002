"""What a payout settles as documents of the ledger. Core.

Owns that the clearing account of a payout returns to zero: each matched row takes off exactly what its entry put on it,
under the same dimension.
"""

from datetime import date

import polars as pl

from invoicing.ledger.dating import dated
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS

AMOUNT_NAMES = ("net", "fee", "gross")


def settlement_documents(
    matches: pl.DataFrame, *, tenant: str, payout: str, settled_on: date, closed_through: date | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """P10 for each matched row (columns `matching.MATCHES`): cash its net, payment fees its fee, clearing its gross.

    A refund is below zero throughout. A fee of the gateway itself has no gross, and lessens cash alone. Dated the day
    of the settlement, or the first open one.
    """
    matched = matches.filter(pl.col("outcome") == "matched").sort("file_row")
    documents = matched.with_columns(
        *dated(pl.lit(settled_on), closed_through),
        pl.lit(tenant).alias("tenant"),
        pl.lit("P10").alias("template"),
        pl.lit("payout row").alias("document_kind"),
        pl.col("file_row").alias("document_id"),
        pl.lit(1).alias("document_version"),
        pl.lit(1).alias("part"),
        pl.col("entry_id").alias("relates_to"),
        pl.format("Payout {}: {}", pl.lit(payout), pl.col("reference")).alias("description"),
    )
    amounts = (
        matched.with_row_index("document")
        .unpivot(
            [f"{name}_minor" for name in AMOUNT_NAMES], index=["document", "currency", "dimension"],
            variable_name="amount", value_name="amount_minor",
        )
        .with_columns(pl.col("amount").str.strip_suffix("_minor"))
        .sort("document", maintain_order=True)
    )  # fmt: skip
    return (
        documents.select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items()),
        amounts.select(pl.col(name).cast(kind) for name, kind in AMOUNTS.items()),
    )
