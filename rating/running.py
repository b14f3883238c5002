"""Running totals: what a part sells is what the running total sells with it, less what it sold before. Core.

Decides how conversions and units that are not priced go on through the segments of a run. So a period cut in two sells
what it would have sold whole: 1.5 and 1.5 packs of a unit that is rounded up are 2 and 1, not 2 and 2.
"""

from collections.abc import Sequence

import polars as pl

from rating.billionths import LIMIT, ZERO, refuse_overflow

CONVERSION = ("times", "by", "step", "round")
"""Columns of rating.traits.TRAITS that `convert` reads."""


def running(ordered: pl.DataFrame, keys: Sequence[str], value: str) -> pl.DataFrame:
    """Columns after, before and total (Int128) of a value's running total over rows of equal keys, which are together.

    >>> sold = pl.DataFrame({"run": [1, 1, 2], "sold": pl.Series([5, 2, 4], dtype=pl.Int128)})
    >>> running(sold, ["run"], "sold").rows()
    [(5, 0, 7), (7, 5, 7), (4, 0, 4)]
    """
    opens = pl.any_horizontal(pl.col(key).ne_missing(pl.col(key).shift(1)) for key in keys)
    marked = ordered.select(*keys, value=pl.col(value).cast(pl.Int128)).select(
        value="value", opens=opens | (pl.int_range(pl.len()) == 0), until=pl.col("value").cum_sum()
    )
    number = pl.col("opens").cum_sum() - 1
    base = (pl.col("until") - pl.col("value")).filter("opens").gather(number)
    ends = pl.col("opens").shift(-1, fill_value=True)
    return marked.select(
        after=pl.col("until") - base,
        before=pl.col("until") - pl.col("value") - base,
        total=pl.col("until").filter(ends).gather(number) - base,
    )


def convert(billionths: pl.Expr) -> pl.Expr:
    """Billionths of the meter's unit, not below 0, as billionths of the price's, by the columns CONVERSION.

    >>> traits = {"times": [1, 1], "by": [3, 3], "step": [1, 10**9], "round": ["half_up", "up"]}
    >>> frame = pl.DataFrame(traits, schema_overrides=dict.fromkeys(("times", "by", "step"), pl.Int128))
    >>> frame.select(convert(pl.lit(5, pl.Int128)).alias("converted"))["converted"].to_list()
    [2, 2000000000]
    """
    product = billionths * pl.col("times")
    rest = product % pl.col("by")
    up = pl.when(pl.col("round") == "up").then(rest > ZERO).otherwise(rest * 2 >= pl.col("by"))
    up = (pl.col("round") != "down") & up
    return (product // pl.col("by") + up.cast(pl.Int128)) * pl.col("step")


def refuse_large(frame: pl.DataFrame, column: str) -> None:
    """Raises OverflowError where a column of billionths needs more than 17 whole digits, before or after `convert`.

    What passes fits in 128 bits at every step of it.
    """
    refuse_overflow(frame[column], "a quantity of a charge")
    for largest, times, by, step in (
        frame.group_by("times", "by", "step")
        .agg(pl.col(column).max())
        .select(column, "times", "by", "step")
        .iter_rows()
    ):
        if -(-largest * times // by) * step >= LIMIT:
            raise OverflowError("a quantity needs more than 17 whole digits in the unit of its price")


def sold(used: pl.DataFrame) -> pl.DataFrame:
    """The parts of what was used, sorted by run, group and time: `used` with before, quantity, total and opens.

    The four are billionths, but `opens`. `used` has the columns billionths, run, segment, group, cell, bucket_at,
    trial, matrix, unpriced and CONVERSION. Segments of a trial sell their own converted usage and move nothing. The
    running total is of a run and group; of each bucket of `take: each` by itself. Cells are converted each by itself;
    the units that are not priced are those of the whole matrix, first of the earlier segment, then of the first cell.
    """
    refuse_overflow(used["billionths"], "a quantity of a charge")
    by_cell = used.sort("run", "group", "cell", "bucket_at", "segment").with_columns(
        moved=pl.when("trial").then(ZERO).otherwise("billionths")
    )
    totals = running(by_cell, ["run", "group", "cell", "bucket_at"], "moved")
    by_cell = by_cell.hstack(totals)
    refuse_large(by_cell.with_columns(largest=pl.max_horizontal("total", "billionths")), "largest")
    by_cell = by_cell.with_columns(convert(pl.col(name)).alias(name) for name in ("after", "before", "total"))
    by_cell = by_cell.with_columns(shown=convert(pl.col("billionths")))
    ordered = pl.concat([by_cell.filter(~pl.col("matrix")), _over_cells(by_cell.filter("matrix"))])
    ordered = ordered.sort("run", "group", "bucket_at", "segment", "cell")
    ordered = ordered.with_columns(
        (pl.col(name) - pl.col("unpriced")).clip(lower_bound=ZERO) for name in ("after", "before", "total")
    )
    charged = ordered.select("run", "group", "bucket_at", charged=~pl.col("trial"))
    earlier = running(charged, ["run", "group", "bucket_at"], "charged")["before"]
    trial = pl.col("trial")
    return ordered.with_columns(
        before=pl.when(trial).then(ZERO).otherwise("before"),
        quantity=pl.when(trial).then("shown").otherwise(pl.col("after") - pl.col("before")),
        total=pl.when(trial).then("shown").otherwise("total"),
        opens=~trial & (earlier == 0),
    ).drop("moved", "after", "shown")


def _over_cells(by_cell: pl.DataFrame) -> pl.DataFrame:
    """The converted parts of matrix charges with totals that run on from cell to cell."""
    ordered = by_cell.with_columns(moved=pl.col("after") - pl.col("before")).sort(
        "run", "group", "bucket_at", "segment", "cell"
    )
    totals = running(ordered, ["run", "group", "bucket_at"], "moved")
    return ordered.with_columns(totals)
