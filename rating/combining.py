"""How rows of usage become one number: by the aggregation of their meter, over all subjects of a customer. Core.

Owns that the order of rows changes nothing, and that two subjects are as one that used it all: an average is that of
all values, and a user of two subjects is one user.
"""

from collections.abc import Sequence

import polars as pl

from rating.billionths import ZERO, refuse_overflow
from schemas.money import average
from schemas.tables import LATEST_ORDER

ADDITIVE = frozenset({"SUM", "COUNT"})
"""Aggregations whose values of two stretches of time add up to the value of both."""


def combined(usage: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Columns keys and `billionths` (Int128): one row for each combination of keys that has usage, in no order.

    `usage` has the columns of rating.frames.USAGE that its aggregations need, and `aggregation`, the same for all rows
    of a combination. SUM and COUNT add, MIN and MAX take the extreme, AVG divides the sum of the sums by that of the
    counts (rounded to 9 decimals, half away from zero), LATEST takes the quantity that is last in LATEST_ORDER,
    UNIQUE_COUNT counts the distinct strings. Raises OverflowError for what needs more than 17 whole digits.
    """
    kinds = usage["aggregation"].unique().to_list()
    parts = [pl.LazyFrame(schema={**{key: usage.schema[key] for key in keys}, "billionths": pl.Int128})]
    for kind in kinds:
        rows = usage.lazy() if len(kinds) == 1 else usage.lazy().filter(aggregation=kind)
        value = value_of(kind).cast(pl.Int128).fill_null(ZERO)
        parts.append(rows.group_by(*keys).agg(billionths=value))
    _refuse_large(usage, kinds)
    found = pl.concat(pl.collect_all(parts))
    refuse_overflow(found["billionths"], "a quantity of a customer")
    return found


def value_of(aggregation: str) -> pl.Expr:
    """The value of rows of usage as billionths. Raises ValueError for an aggregation that there is not."""
    quantity = pl.col("quantity").to_physical()
    match aggregation:
        case "SUM" | "COUNT":
            return quantity.sum()
        case "MIN":
            return quantity.min()
        case "MAX":
            return quantity.max()
        case "AVG":
            return average(pl.col("sum").sum(), pl.col("count").sum()).to_physical()
        case "LATEST":
            order = [pl.col("latest").struct.field(name) for name in LATEST_ORDER]
            return quantity.sort_by([*order, quantity]).last()
        case "UNIQUE_COUNT":
            uniques = pl.col("uniques").explode(empty_as_null=False, keep_nulls=False)
            return uniques.n_unique().cast(pl.Int128) * pl.lit(10**9, pl.Int128)
    raise ValueError(f"aggregation {aggregation!r}; allowed: SUM, COUNT, MIN, MAX, AVG, LATEST, UNIQUE_COUNT")


def _refuse_large(usage: pl.DataFrame, kinds: Sequence[str]) -> None:
    if set(kinds) - {"UNIQUE_COUNT", "AVG"}:
        refuse_overflow(usage["quantity"].to_physical(), "a quantity of usage")
    if "AVG" in kinds:
        refuse_overflow(usage["sum"].to_physical(), "the sum of an average's values")
