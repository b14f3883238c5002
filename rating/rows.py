"""Charge rows: what of a customer's period is billed as one amount, metered and flat, with its parts priced. Core.

Decides which parts make a row. Owns the invariant that a row's gross amount is the sum of its slices.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from rating.customers import Customers
from rating.flat import price
from rating.frames import PARTS, ROWS
from rating.quantities import quantities
from schemas.charges import FlatCharge
from schemas.invoice import Columns
from schemas.money import AMOUNT, QUANTITY

CHARGE_ROWS: Columns = {
    **ROWS,
    "term": pl.UInt32,  # of its last segment
    "numerator": pl.Int64,  # the share of the full period that the charge was in force
    "denominator": pl.Int64,
    "gross": AMOUNT,
}
"""Columns of a frame of priced charge rows, sorted by place, period_start, slot and group."""


@dataclass(frozen=True)
class Priced:
    """What the usage and the flat charges of customers come to, before the chain of discounts and minima."""

    rows: pl.DataFrame
    """Columns CHARGE_ROWS."""
    parts: pl.DataFrame
    """Columns rating.frames.PARTS, and amount (AMOUNT)."""
    slices: pl.DataFrame
    """Columns rating.frames.SLICES."""
    unassigned: pl.DataFrame
    """Usage that no cell of a matrix takes: columns rating.claiming.UNASSIGNED."""
    carried: pl.DataFrame
    """What recurring charges end with: columns rating.levels.CARRIED."""


def priced_rows(
    usage: pl.DataFrame, customers: Customers, aggregations: Mapping[str, str], carried: pl.DataFrame | None = None
) -> Priced:
    """The priced rows of all customers. Takes and raises what `rating.quantities.quantities` does."""
    charges = [term.charge for term in customers.charges]
    used = quantities(usage, customers.subjects, customers.segments, charges, aggregations, carried=carried)
    rows, parts = _with_flat(used.rows, used.parts, customers)
    amounts = price(parts, customers.segments, customers.charges)
    parts = parts.with_columns(amounts.amounts.alias("amount"))
    if parts.height == rows.height:  # a part a row, and rows are numbered in their order
        gross = parts["amount"].alias("gross")
    else:
        gross = parts.group_by("row", maintain_order=True).agg(gross=pl.col("amount").sum())["gross"]
    rows = _in_force(rows.with_columns(gross), parts, customers.segments).select(*CHARGE_ROWS)
    return Priced(rows, parts, amounts.slices, used.unassigned, used.carried)


def _in_force(rows: pl.DataFrame, parts: pl.DataFrame, segments: pl.DataFrame) -> pl.DataFrame:
    """The rows with `term`, `numerator` and `denominator`: by a join, or without where no charge has two segments."""
    key = ("place", "period_start", "slot")
    paid = pl.when("trial").then(0).otherwise("numerator")
    again = pl.all_horizontal(pl.col(name) == pl.col(name).shift(1) for name in key)
    if parts.height == rows.height and not segments.select(again.any()).item():
        own = segments.select("term", "denominator", numerator=paid)
        return rows.hstack([own[name].gather(parts["segment"]) for name in own.columns])
    in_force = segments.group_by(key, maintain_order=True).agg(
        pl.col("term").last(), numerator=paid.sum(), denominator=pl.col("denominator").first()
    )
    return rows.join(in_force, on=key, how="left", maintain_order="left")


def _with_flat(rows: pl.DataFrame, parts: pl.DataFrame, customers: Customers) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows and parts of metered charges together with those of flat ones, numbered anew where there are any."""
    flat = pl.Series([isinstance(term.charge, FlatCharge) for term in customers.charges], dtype=pl.Boolean)
    if not flat.any():
        return rows, parts
    segments = customers.segments.with_row_index("segment").filter(pl.lit(flat).gather(pl.col("term")))
    own = segments.group_by("place", "period_start", "slot", maintain_order=True).agg(pl.col("period_end").first())
    one = pl.lit(Decimal(1), QUANTITY)
    own = own.with_columns(group=pl.lit(""), quantity=one).select(*ROWS)
    both = pl.concat([rows.with_columns(flat=False), own.with_columns(flat=True)]).with_row_index("old")
    both = both.sort("place", "period_start", "slot", "group").with_row_index("row")
    renumbered = both.sort("old")["row"]
    of_own = segments.join(
        own.with_row_index("number", rows.height), on=["place", "period_start", "slot"], maintain_order="left"
    )
    defaults: Mapping[str, object] = {"cell": 0, "before": 0, "quantity": 1, "total": 1, "opens": True}
    of_own = of_own.with_columns(row=pl.col("number")).select(
        pl.col(name).cast(kind)
        if name in {"row", "segment", "term", "trial"}
        else pl.lit(defaults.get(name), kind).alias(name)
        for name, kind in PARTS.items()
    )
    joined = pl.concat([parts, of_own]).with_columns(pl.lit(renumbered).gather(pl.col("row")).alias("row"))
    return both.select(*ROWS), joined.sort("row", maintain_order=True)
