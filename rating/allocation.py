"""Shares of whole amounts: the largest remainder method, vectorised over all groups. Core.

Owns the invariant that shares add up to what is shared out, exactly, and that the same rows get the same shares:
remainders that are equal are served in the order of rows.
"""

from collections.abc import Sequence

import polars as pl


def allocated(amount: pl.Expr, weight: pl.Expr, group: str) -> pl.Expr:
    """Each row's share (Int64) of a group's amount, in proportion to the row's weight.

    `amount` is a whole number, the same for all rows of a group, and may be below 0; `weight` is a whole number not
    below 0. Both are Int64. What rounding down leaves goes to the rows with the largest remainders, one each. A group
    without any weight gets 0 shares, whatever its amount.

    >>> rows = pl.DataFrame({"invoice": [1, 1, 1, 2, 2], "off": [100, 100, 100, -5, -5], "weight": [1, 1, 1, 0, 9]})
    >>> rows.select(allocated(pl.col("off"), pl.col("weight"), "invoice")).to_series().to_list()
    [34, 33, 33, 0, -5]
    """
    weight = weight.cast(pl.Int128)
    whole = weight.sum().over(group)
    size = amount.abs().cast(pl.Int128)
    product = size * weight
    divisor = pl.when(whole > 0).then(whole).otherwise(pl.lit(1, pl.Int128))
    return (amount.sign() * filled(product // divisor, product % divisor, size, group)).cast(pl.Int64)


def filled(floors: pl.Expr, remainders: pl.Expr, total: pl.Expr, group: str | Sequence[str]) -> pl.Expr:
    """Shares rounded down, and one more for those with the largest remainders, so that a group's make its total.

    >>> rows = pl.DataFrame({"group": [1, 1, 1], "floor": [3, 3, 3], "rest": [1, 8, 8], "total": [10, 10, 10]})
    >>> rows.select(filled(*map(pl.col, ("floor", "rest", "total")), "group")).to_series().to_list()
    [3, 4, 3]
    """
    left = total - floors.sum().over(group)
    served = remainders.rank("ordinal", descending=True).over(group) <= left
    return floors + (served & (remainders > 0)).cast(pl.Int64)
