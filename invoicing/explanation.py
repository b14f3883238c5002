"""The explanation of an invoice line as JSON, and the texts that digests are made of. Core.

Owns the canonical form: decimals are texts without trailing zeros, keys stand in a fixed order, nothing is left out.
A change of this form would change the digest of every invoice; a golden test holds it.
"""

import polars as pl

_SLICE = ("up_to", "quantity", "unit_price", "flat", "amount")
_BASIS = ("book", "book_version", "book_digest", "contracts_digest", "cut")


def decimal_text(amount: pl.Expr) -> pl.Expr:
    """A decimal as the shortest text that is exactly it.

    >>> from schemas.money import PRICE
    >>> prices = pl.Series(["0.50", "-100", "0"]).cast(PRICE)
    >>> pl.select(decimal_text(pl.lit(prices))).to_series().to_list()
    ['0.5', '-100', '0']
    """
    text = amount.cast(pl.String)
    fraction = text.str.contains(".", literal=True)
    return pl.when(fraction).then(text.str.strip_chars_end("0").str.strip_chars_end(".")).otherwise(text)


def explained(lines: pl.DataFrame) -> pl.DataFrame:
    """The lines with their `explanation` as JSON text.

    Takes the columns of a line, the basis of its rating, its slices, and what was booked before and is rated after. A
    usage line tells its basis and slices; an adjustment also tells both amounts that it is the difference of.
    """
    slices = pl.col("slices").list.eval(
        pl.struct(
            pl.element().struct.field("label"),
            *[decimal_text(pl.element().struct.field(name)).alias(name) for name in _SLICE],
        )
    )
    common = [pl.col("usage_period"), *map(pl.col, _BASIS), slices.alias("slices")]
    usage = pl.struct(*common).struct.json_encode()
    adjustment = pl.struct(*common, _state("before"), _state("after")).struct.json_encode()
    return lines.with_columns(pl.when(pl.col("kind") == "usage").then(usage).otherwise(adjustment).alias("explanation"))


def canonical(columns: list[str], decimals: tuple[str, ...] = ()) -> pl.Expr:
    """The row as canonical JSON text of these columns, for a digest."""
    return pl.struct(
        *[decimal_text(pl.col(name)).alias(name) if name in decimals else pl.col(name) for name in columns]
    ).struct.json_encode()


def _state(moment: str) -> pl.Expr:
    return pl.struct(
        decimal_text(pl.col(f"{moment}_quantity")).alias("quantity"),
        decimal_text(pl.col(f"{moment}_amount")).alias("amount"),
        pl.col(f"{moment}_amount_minor").alias("amount_minor"),
    ).alias(moment)
