"""The short way to quantities: segments that are alone in their period, of charges without special features. Core.

Decides nothing that the long way would not: it is for the millions of customers whose charges are one number each. A
segment is found by place and meter in a table, without a join; usage that has one row for each is not even added up.
"""

from dataclasses import dataclass

import polars as pl

from rating.billionths import ZERO, quantity_of, refuse_overflow
from rating.combining import combined
from rating.running import CONVERSION, convert, refuse_large
from schemas.money import QUANTITY

_ENTRIES_MAX = 64
"""A table has at most so many entries for each segment; where it would have more, all go the long way."""
_NO_LINE = 2**32 - 1
_BY_QUANTITY = frozenset({"SUM", "COUNT", "MIN", "MAX", "LATEST"})


@dataclass(frozen=True)
class Plain:
    """Segments that go the short way, and how usage finds them."""

    segments: pl.DataFrame
    meters: list[str]
    """By code."""
    table: pl.Series
    """At place * number of meters + code the row of `segments`, or null."""


def plain_of(metered: pl.DataFrame, traits: pl.DataFrame) -> Plain:
    """The segments that go the short way. Of charges of one customer on one meter, one does.

    `metered` has the columns of rating.frames.SEGMENTS, and `line`, the same for all segments of a place, period and
    slot, which are together.
    """
    meters = sorted(traits.filter("plain")["meter"].unique())
    codes = traits["meter"].replace_strict(meters, range(len(meters)), default=None, return_dtype=pl.UInt32)
    line = pl.col("line")
    alone = (line != line.shift(1, fill_value=_NO_LINE)) & (line != line.shift(-1, fill_value=_NO_LINE))
    lone = metered.filter(alone & ~pl.col("trial") & pl.lit(traits["plain"]).gather(pl.col("term")))
    size = (int(str(lone["place"].max())) + 1) * len(meters) if lone.height else 0
    table = _nulls(size if size <= _ENTRIES_MAX * (lone.height + 1024) else 0)
    if not table.len():
        return Plain(metered.clear(), [], table)
    keys = _keys(lone["place"], codes.gather(lone["term"]), len(meters))
    rows = _count(lone.height)
    table = table.scatter(keys, rows)
    last = table.gather(keys) == rows
    if not last.all():
        lone, keys = lone.filter(last), keys.filter(last)
        table = table.scatter(keys, _count(lone.height))
    return Plain(lone, meters, table)


def plain_quantities(placed: pl.DataFrame, plain: Plain, traits: pl.DataFrame) -> pl.DataFrame:
    """The plain segments with `quantity`, their billable units (QUANTITY). `placed` is usage with a place a row."""
    segments, at = plain.segments, placed["at"]
    codes = placed["meter"].cast(pl.Enum(plain.meters), strict=False).to_physical()
    keys = _keys(placed["place"], codes, len(plain.meters))
    row = plain.table.gather(keys.set(keys >= plain.table.len(), None)).alias("row")
    held = row.is_not_null()
    first, last = segments.select(pl.col("from_at").max(), pl.col("to_at").min()).row(0)
    if not at.is_between(first, last, closed="left").all():
        held &= (at >= segments["from_at"].gather(row)) & (at < segments["to_at"].gather(row))
    usage = placed.with_columns(row)
    found = _by_segment(usage if held.all() else usage.filter(held), segments, traits)
    refuse_overflow(found.to_physical(), "a quantity of a customer")
    used = segments.with_columns(found.alias("quantity"))
    return _priced(used.with_columns(pl.col("quantity").clip(lower_bound=pl.lit(0, QUANTITY))), traits)


def _by_segment(usage: pl.DataFrame, segments: pl.DataFrame, traits: pl.DataFrame) -> pl.Series:
    """The QUANTITY of each segment; 0 where nothing was used. `usage` has the segment's row number."""
    kinds = traits.filter("plain")["aggregation"].unique().to_list()
    rows = _nulls(segments.height).scatter(usage["row"], _count(usage.height))
    if _BY_QUANTITY.issuperset(kinds) and rows.len() - rows.null_count() == usage.height:
        return usage["quantity"].gather(rows).fill_null(0)
    kind = traits["aggregation"].gather(segments["term"].gather(usage["row"])).alias("aggregation")
    sums = combined(usage.with_columns(kind if len(kinds) > 1 else pl.lit(kinds[0]).alias("aggregation")), ["row"])
    zeros = pl.Series("quantity", [0], dtype=pl.Int128).new_from_index(0, segments.height)
    found = zeros.scatter(sums["row"], sums["billionths"]).to_frame()
    return found.select(quantity_of(pl.col("quantity"))).to_series()


def _priced(used: pl.DataFrame, traits: pl.DataFrame) -> pl.DataFrame:
    """After the conversion and the units that are not priced: a segment that is alone takes them whole."""
    as_it_is = (pl.col("times") == pl.col("by")) & (pl.col("step") == 1) & (pl.col("unpriced") == ZERO)
    if traits.filter("plain").select(as_it_is.all()).item():
        return used
    own = used.with_columns(
        pl.lit(traits[name]).gather(pl.col("term")).alias(name) for name in (*CONVERSION, "unpriced")
    )
    own = own.with_columns(pl.col("quantity").to_physical())
    refuse_large(own, "quantity")
    quantity = (convert(pl.col("quantity")) - pl.col("unpriced")).clip(lower_bound=ZERO)
    return own.with_columns(quantity=quantity_of(quantity)).select(used.columns)


def _keys(places: pl.Series, codes: pl.Series, meters: int) -> pl.Series:
    """Where places and meters stand in the table. A place is below 2 ** 32, so 64 bits hold the product."""
    return places.cast(pl.UInt64) * meters + codes.cast(pl.UInt64)


def _nulls(size: int) -> pl.Series:
    return pl.Series("row", [None], dtype=pl.UInt32).new_from_index(0, size)


def _count(size: int) -> pl.Series:
    return pl.int_range(size, dtype=pl.UInt32, eager=True)
