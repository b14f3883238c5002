"""Digests of natural keys for whole columns at once. Core.

Owns that a column's digest is the one that `schemas.identity.digest` gives for each row.
"""

import polars as pl
import polars_hash

DIGITS = 32


def digests(rows: pl.DataFrame, *parts: str | pl.Expr) -> pl.Series:
    """`schemas.identity.digest` of each row: a text is the same part for all rows, an expression is one a row.

    >>> from schemas.identity import digest
    >>> rows = pl.DataFrame({"customer": ["UA", "Ærø"], "month": [1, 12]})
    >>> digests(rows, "wallet", pl.col("customer"), pl.col("month"))[1] == digest("wallet", "Ærø", 12)
    True
    """
    texts = [pl.lit(part) if isinstance(part, str) else part.cast(pl.String) for part in parts]
    pieces = [piece for text in texts for piece in (text.str.len_bytes().cast(pl.String) + ":", text)]
    return (
        rows.select(pl.concat_str(pieces).alias("key"))
        .select(polars_hash.col("key").chash.sha2_256().str.head(DIGITS))
        .to_series()
    )
