"""Prices parts: what every charge of every customer sells, step by step, at which price. Core.

Decides what a slice is. Owns the invariant that the amount of a part is the sum of its slices, exactly. Parts are
taken by the shape of what prices them (rating/prices.py): a few queries, however many charges and customers there are.
"""

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import polars as pl

from rating.frames import SLICES
from rating.prices import FLAT, UNPRICED, Term, tables_of
from rating.tiers import FREE, NO_AMOUNT, NOTHING, Step, steps_of, trial_step
from schemas.money import AMOUNT

PARTS_AT_ONCE = 1 << 16
"""So many parts with all of their steps stay in the processor's cache: a third faster than all parts at once."""
NO_PARTS = pl.DataFrame(schema={"part": pl.UInt32, "amount": AMOUNT})


class Priced(NamedTuple):
    """What pricing parts gives."""

    slices: pl.DataFrame
    """Columns rating.frames.SLICES, sorted by part and then lowest tier first. A part that sells and owes nothing has
    none."""
    amounts: pl.Series
    """The exact amount of each part (AMOUNT), in the order of the parts: the sum of its slices."""


def slices_of(parts: pl.DataFrame, terms: Sequence[Term]) -> Priced:
    """The slices and amounts of parts (columns rating.frames.PARTS; others are left alone).

    A part of a flat charge gets no slice and 0: see rating.flat.flat_slices. Raises polars' error where an amount needs
    more than 17 whole digits. `before`, `quantity` and `total` are not below 0.
    """
    tables, places = tables_of(terms)
    row = pl.lit(places.first).gather(pl.col("term")) + pl.col("cell").cast(pl.UInt32)
    parts = parts.with_row_index("part").with_columns(after=pl.col("before") + pl.col("quantity"), price_row=row)
    table = pl.when("trial").then(len(tables)).otherwise(pl.lit(places.table).gather("price_row"))
    parts = parts.with_columns(table=table, at=pl.lit(places.at).gather("price_row"))
    assert UNPRICED not in parts["table"], "usage that a matrix has no price for is not a part"
    runs_on = bool((parts["before"] > 0).any())
    steps = [*(steps_of(table, runs_on=runs_on) for table in tables), [trial_step()]]
    priced = [_priced(few, steps) for few in parts.iter_slices(PARTS_AT_ONCE)] or [_priced(parts, steps)]
    return Priced(pl.concat(each.slices for each in priced), pl.concat(each.amounts for each in priced))


def _priced(parts: pl.DataFrame, steps: Sequence[Sequence[Step]]) -> Priced:
    """The slices and amounts of parts that name the steps that price them, in their column `table`."""
    used = parts["table"].unique().sort().to_list()
    slices, amounts = [pl.DataFrame(schema=SLICES)], []
    for number in used:
        own = parts if len(used) == 1 else parts.filter(pl.col("table") == number)
        sold, amount = _sold(own, [] if number == FLAT else steps[number])
        slices += sold
        amounts.append(amount)
    in_order = pl.concat(slices).sort("part", maintain_order=True)
    return Priced(in_order, pl.concat([NO_PARTS, *amounts]).sort("part")["amount"])


def _sold(parts: pl.DataFrame, steps: Sequence[Step]) -> tuple[list[pl.DataFrame], pl.DataFrame]:
    """The slices of each step, and the amount of each part. Steps are columns, so no part is looked up again."""
    columns: dict[str, pl.Expr] = {}
    for number, step in enumerate(steps):
        columns |= {f"quantity_{number}": step.quantity, f"amount_{number}": step.amount}
        columns |= {} if step.flat is None else {f"flat_{number}": step.flat}
    wide = parts.with_columns(**columns)
    slices = []
    for number, step in enumerate(steps):
        quantity, amount = pl.col(f"quantity_{number}"), pl.col(f"amount_{number}")
        flat = FREE if step.flat is None else pl.col(f"flat_{number}")
        sold = (quantity > NOTHING) | (amount != NO_AMOUNT)
        sold = sold if step.flat is None else sold | (flat > FREE)
        own = wide.lazy().filter(sold)
        slices.append(
            own.select(
                "part",
                label=step.label,
                up_to=step.up_to,
                quantity=quantity,
                unit_price=step.unit_price,
                flat=flat,
                amount=amount,
            )
        )
    total = reduce(pl.Expr.add, [pl.col(f"amount_{number}") for number in range(len(steps))], NO_AMOUNT)
    return pl.collect_all(slices), wide.select("part", amount=total)
