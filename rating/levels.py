"""Levels: quantities that last, as seats do. Recurring charges, and `take: time_weighted`. Core.

Decides what a level is: of a SUM or COUNT meter the running total of its values, of others the value that came last.
It goes on from one segment to the next; of a recurring charge from one period to the next, else each begins at 0.

    recurring seats, +2 on the 11th                      1 Jan      11 Jan               31 Jan
    carried over: 10                                       | level 10 |     level 12       |
    quantity: 12; time_weighted: (10 * 10 + 12 * 20) / 30 = 11.333333333
"""

import polars as pl

from rating.billionths import BILLION, ZERO, quantity_of, refuse_overflow
from rating.buckets import USED
from rating.combining import ADDITIVE, combined
from schemas.invoice import Columns
from schemas.money import QUANTITY

CARRIED: Columns = {
    "place": pl.UInt32,
    "charge": pl.String,  # its id: a plan may have it at another place in the next period
    "group": pl.String,
    "cell": pl.Int32,
    "quantity": QUANTITY,  # may be below 0
}
"""Columns of the levels of recurring charges at an instant: what a period ends with, and the next one starts with."""

_BILLION = pl.lit(BILLION, pl.Int128)
_SPAN = ["place", "charge", "group", "cell", "span"]
_PERIOD = ["place", "charge", "group", "cell", "period_start"]


def levels(rows: pl.DataFrame, segments: pl.DataFrame, carried: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What was used (columns USED) of claimed rows of charges that have a level, and what is carried on (CARRIED).

    `segments` are those of such charges, whether or not they have usage. A quantity without `time_weighted` is what the
    segment's values add up to; the first segment of a period has the level that the period starts with too. The
    time-weighted ones of a period's segments add up to that of the period: each is the running total, rounded, less
    the one before. Nothing is below 0.
    """
    segments = segments.with_columns(additive=pl.col("aggregation").is_in(ADDITIVE))
    grid = _grid(_moves(rows, segments), segments, carried)
    first = pl.int_range(pl.len()).over(_PERIOD) == 0
    whole = pl.col("rise") + pl.when(first).then(pl.col("start")).otherwise(ZERO)
    weighted = _weighted_before_rounding(grid)
    grid = grid.with_columns(
        billionths=pl.when(pl.col("take") == "time_weighted").then(weighted).otherwise(whole).clip(lower_bound=ZERO)
    )
    refuse_overflow(grid["billionths"], "the level of a recurring charge")
    shown = ~pl.col("scattered") | pl.col("moved") | (pl.col("billionths") > ZERO)
    used = grid.filter(shown).with_columns(bucket_at=pl.lit(None, USED["bucket_at"])).select(*USED)
    return used, _carried_on(grid)


def _moves(rows: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """For each segment, group and cell with usage: how the level moves in it, and what that weighs.

    A value counts from the start of its window on, so that a rollup says as much as its events.
    `rise` and the area under the values: whole units and billionths apart, because billionths times microseconds may
    need more than 128 bits. `last` and `first_at` are of meters whose values replace each other.
    """
    rows = rows.join(segments.select("segment", "from_at"), on="segment")
    rows = rows.with_columns(at=pl.max_horizontal(pl.coalesce("bucket_at", "at"), "from_at"))
    values = combined(rows, ["segment", "group", "cell", "at"])
    values = values.join(segments.select("segment", "to_at", "additive"), on="segment").sort("at")
    key = ["segment", "group", "cell"]
    until = pl.when("additive").then("to_at").otherwise(pl.col("at").shift(-1).over(key).fill_null(pl.col("to_at")))
    values = values.with_columns(lasted=(until - pl.col("at")).dt.total_microseconds().cast(pl.Int128))
    value = pl.col("billionths")
    return values.group_by(key, maintain_order=True).agg(
        rise=pl.when("additive").then(value).otherwise(ZERO).sum(),
        last=pl.when("additive").then(None).otherwise(value).last(),
        first_at=pl.col("at").first(),
        units_us=(value // _BILLION * pl.col("lasted")).sum(),
        billionths_us=(value % _BILLION * pl.col("lasted")).sum(),
        moved=pl.lit(value=True),
    )


def _grid(moves: pl.DataFrame, segments: pl.DataFrame, carried: pl.DataFrame) -> pl.DataFrame:
    """A row for each segment and each group and cell that its charge has at any time, with the level at its start."""
    owners = moves.join(segments.select("segment", "place", "charge"), on="segment")
    key = ["place", "charge", "group", "cell"]
    lone = segments.filter(~pl.col("scattered")).select("place", "charge", group=pl.lit(""), cell=pl.lit(0, pl.Int32))
    recurring = segments.filter("recurring").select("place", "charge").unique()
    brought = carried.join(recurring, on=["place", "charge"], how="semi")
    known = pl.concat([owners.select(key), lone.select(key), brought.select(key)]).unique()
    held = segments.with_columns(span=pl.when("recurring").then(None).otherwise("period_start"))
    grid = known.join(held, on=["place", "charge"]).join(moves, on=["segment", "group", "cell"], how="left")
    grid = grid.join(carried.select(*key, brought=pl.col("quantity").to_physical()), on=key, how="left")
    brought_billionths = pl.when("recurring").then("brought").fill_null(ZERO)
    zeros = ("rise", "units_us", "billionths_us")
    grid = grid.sort(*key, "segment").with_columns(
        pl.col(*zeros).fill_null(ZERO), pl.col("moved").fill_null(value=False), brought=brought_billionths
    )
    summed = (pl.col("rise").cum_sum().over(_SPAN) + pl.col("brought"), pl.col("last").forward_fill().over(_SPAN))
    grid = grid.with_columns(end=pl.when("additive").then(summed[0]).otherwise(summed[1].fill_null(ZERO)))
    refuse_overflow(grid["end"], "the level of a charge")
    before = pl.col("end").shift(1).over(_SPAN).fill_null(ZERO)
    return grid.with_columns(start=pl.when("additive").then(pl.col("end") - pl.col("rise")).otherwise(before))


def _weighted_before_rounding(grid: pl.DataFrame) -> pl.Series:
    """Of each row the running total of its period, by the period's length and rounded, less the one before."""
    kept_until = pl.when("additive").then("to_at").otherwise(pl.col("first_at").fill_null(pl.col("to_at")))
    kept = (kept_until - pl.col("from_at")).dt.total_microseconds().cast(pl.Int128)
    units = pl.col("units_us") + pl.col("start") // _BILLION * kept
    billionths = pl.col("billionths_us") + pl.col("start") % _BILLION * kept
    length = (pl.col("period_end") - pl.col("period_start")).dt.total_microseconds().cast(pl.Int128)
    areas = grid.select(*_PERIOD, units=units, billionths=billionths, length=length)
    running = areas.with_columns(pl.col("units", "billionths").cum_sum().over(_PERIOD))
    rest = pl.col("units") % pl.col("length") * _BILLION + pl.col("billionths")
    quotient = pl.col("units") // pl.col("length") * _BILLION + rest // pl.col("length")
    double = rest % pl.col("length") * 2
    up = (double > pl.col("length")) | ((double == pl.col("length")) & (quotient >= ZERO))
    totals = running.with_columns(total=quotient + up.cast(pl.Int128))
    return totals.select(pl.col("total") - pl.col("total").shift(1).over(_PERIOD).fill_null(ZERO)).to_series()


def _carried_on(grid: pl.DataFrame) -> pl.DataFrame:
    key = ["place", "charge", "group", "cell"]
    last = grid.filter("recurring").group_by(key, maintain_order=True).agg(pl.col("end").last())
    return last.filter(pl.col("end") != ZERO).select(*key, quantity_of(pl.col("end")).alias("quantity"))
