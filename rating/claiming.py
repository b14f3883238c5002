"""Which usage belongs to which segment, group and matrix cell. Core.

Decides what a charge takes of its customer's usage: the rows of its meter, at an instant that the segment holds
(half-open), that pass its filters.
"""

from collections.abc import Sequence

import polars as pl

from rating.billionths import quantity_of
from rating.combining import combined
from rating.traits import Sieve
from schemas.charges import Allowed
from schemas.invoice import Columns
from schemas.money import QUANTITY

UNASSIGNED: Columns = {"subject": pl.String, "meter": pl.String, "quantity": QUANTITY, "reason": pl.String}
"""Columns of usage that a charge leaves out because no cell takes it, sorted."""


def claimed(usage: pl.DataFrame, segments: pl.DataFrame, sieves: Sequence[Sieve]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The usage of some segments, with the columns segment, term, group and cell; and what no cell took (UNASSIGNED).

    `usage` has a place a row, `segments` the columns segment, place, meter, from_at, to_at and those of the traits.
    """
    wanted = segments.select("segment", "place", "meter", "term", "from_at", "to_at", "sieve", "aggregation", "charge")
    rows = usage.join(wanted, on=["place", "meter"], how="inner")
    held = rows.filter(pl.col("at") >= pl.col("from_at"), pl.col("at") < pl.col("to_at")).drop("from_at", "to_at")
    sifted = [_sifted(of_sieve, sieves[number]) for (number,), of_sieve in _by_sieve(held)]
    if not sifted:
        sifted = [held.with_columns(group=pl.lit(""), cell=pl.lit(0, pl.Int32))]
    taken = pl.concat(sifted)
    in_no_cell = taken.filter(pl.col("cell").is_null()).with_columns(
        reason=pl.format("no cell of charge {} takes it", "charge")
    )
    return taken.filter(pl.col("cell").is_not_null()), _unassigned(in_no_cell)


def _by_sieve(held: pl.DataFrame) -> list[tuple[tuple[int], pl.DataFrame]]:
    parts = held.partition_by("sieve", as_dict=True, include_key=False, maintain_order=True)
    return sorted(parts.items(), key=lambda part: part[0])


def _sifted(rows: pl.DataFrame, sieve: Sieve) -> pl.DataFrame:
    """The rows that pass the filters, with their group and cell."""
    lacking = [name for name in sieve.dimensions if f"dimension.{name}" not in rows.columns]
    if lacking:
        raise ValueError(f"usage lacks the columns of dimensions that charges ask for: {', '.join(lacking)}")
    passing = rows.filter(_meets(dict(sieve.filters)))
    group = pl.lit("")
    if sieve.group_by:
        group = pl.struct(_value(name).alias(name) for name in sieve.group_by).struct.json_encode()
    cell = pl.lit(0 if not sieve.cells else len(sieve.cells) if sieve.cells_for_all else None, pl.Int32)
    for number, when in reversed(list(enumerate(sieve.cells))):
        cell = pl.when(_meets(dict(when))).then(pl.lit(number, pl.Int32)).otherwise(cell)
    return passing.with_columns(group=group, cell=cell)


def _meets(allowed: Allowed) -> pl.Expr:
    return pl.all_horizontal(pl.lit(value=True), *(_value(name).is_in(list(some)) for name, some in allowed.items()))


def _value(dimension: str) -> pl.Expr:
    return pl.col(f"dimension.{dimension}").fill_null("")


def _unassigned(rows: pl.DataFrame) -> pl.DataFrame:
    found = combined(rows, ["subject", "meter", "reason", "aggregation"])
    return found.select("subject", "meter", quantity_of(pl.col("billionths")).alias("quantity"), "reason").sort(
        "subject", "meter", "reason"
    )
