"""Buckets: how a segment's quantity is made of windows of UTC. Core.

Decides which windows are a segment's: all that overlap it, those that it cuts too. A window without usage counts as 0.
What was given back in one hour pays for another in sums and averages, and does not lower a peak.
"""

import polars as pl

from rating.billionths import ZERO, nearest
from rating.combining import combined
from rating.traits import WINDOW_US
from schemas.invoice import Columns

USED: Columns = {
    "segment": pl.UInt32,
    "group": pl.String,
    "cell": pl.Int32,
    "bucket_at": pl.Datetime("us", "UTC"),  # of take: each; else null
    "billionths": pl.Int128,  # not below 0, before the unit conversion
}
"""Columns of a frame of what was used: a row for each segment, group, cell and bucket."""

_KEYS = ("segment", "group", "cell")


def windowed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with `bucket_at`, the start of the `window` of UTC that holds `at`; null without window."""
    starts = [pl.when(pl.col("window") == window).then(_start(width)) for window, width in WINDOW_US.items()]
    return rows.with_columns(bucket_at=pl.coalesce(starts))


def taken(rows: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """What was used (columns USED) of claimed rows with `bucket_at`, by `take` of the segments' terms.

    usage of an hour    10:00    11:00    12:00    13:00
    (SUM)                 | 3 + 4  |  none  |  9 - 2 |
    take                  max 7, sum 14, average 14 / 3, percentile 50 number 2 of 0, 7, 7: 7
    """
    windows = combined(rows, [*_KEYS, "bucket_at"])
    windows = windows.join(segments.select("segment", "take", "window", "percentile", "from_at", "to_at"), on="segment")
    parts = [windows.clear().select(*USED)]
    for (take,), of_take in windows.partition_by("take", as_dict=True).items():
        if take in {"whole", "each"}:
            parts.append(of_take.select(*USED))
        else:
            found = of_take.group_by(_KEYS).agg(billionths=_put_together(str(take)))
            parts.append(found.with_columns(bucket_at=pl.lit(None, USED["bucket_at"])).select(*USED))
    return pl.concat(parts).with_columns(pl.col("billionths").clip(lower_bound=ZERO))


def windows_of() -> pl.Expr:
    """How many windows overlap a segment, of its columns window, from_at and to_at.

    >>> from datetime import UTC, datetime
    >>> start, end = datetime(2026, 1, 1, 10, 59, tzinfo=UTC), datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
    >>> segment = pl.DataFrame({"window": ["minute", "hour", "day"], "from_at": start, "to_at": end})
    >>> segment.select(windows_of().alias("count"))["count"].to_list()
    [61, 2, 1]
    """
    width = pl.col("window").replace_strict(WINDOW_US, return_dtype=pl.Int64)
    first = pl.col("from_at").dt.timestamp("us").floordiv(width)
    last = (pl.col("to_at").dt.timestamp("us") - 1).floordiv(width)
    return (last - first + 1).cast(pl.Int128)


def _start(width: int) -> pl.Expr:
    instant = pl.col("at").dt.timestamp("us").floordiv(pl.lit(width, pl.Int64)) * pl.lit(width, pl.Int64)
    return instant.cast(USED["bucket_at"])


def _put_together(take: str) -> pl.Expr:
    value = pl.col("billionths")
    match take:
        case "sum":
            return value.sum()
        case "max":
            return value.max()
        case "average":
            return nearest(value.sum(), windows_of().first())
        case "percentile":
            return _percentile()
    raise AssertionError(take)


def _percentile() -> pl.Expr:
    """Number ceil(percent / 100 * n) of all n windows, ascending: those without usage are 0, so they come first."""
    hundred = pl.lit(100 * 10**10, pl.Int128)
    count = windows_of().first()
    number = ((pl.col("percentile").first() * count + hundred - 1) // hundred).clip(lower_bound=pl.lit(1, pl.Int128))
    place = number - (count - pl.len().cast(pl.Int128)) - 1
    found = pl.col("billionths").clip(lower_bound=ZERO).sort().get(place.clip(lower_bound=ZERO).cast(pl.Int64))
    return pl.when(place >= ZERO).then(found).otherwise(ZERO)
