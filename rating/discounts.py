"""Discounts on the exact amounts of charge rows: steps 5 and 6 of the chain. Core.

Decides what is left of a gross amount before it is rounded. Rows without discounts cost one look at their flags.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from rating.exact import times
from rating.prices import EXACT, Term
from schemas.charges import Commitment, Discount
from schemas.invoice import Columns
from schemas.money import AMOUNT

NO_AMOUNT = pl.lit(Decimal(0), AMOUNT)
APPLIED: Columns = {"line": pl.UInt32, "level": pl.String, "step": pl.String, "id": pl.String, "amount": AMOUNT}
"""Columns of what was taken off a line: `step` is discount or maximum_spend, the amount is below 0."""
_HUNDRED_PERCENT = pl.lit(10**12, pl.Int128)


class Level(NamedTuple):
    """What a plan or a contract says about the sum of its charges."""

    discounts: tuple[Discount, ...] = ()
    minimum_spend: Decimal | None = None
    maximum_spend: Decimal | None = None
    commitment: Commitment | None = None


class Off(NamedTuple):
    """A discount as it applies to a row: a percentage of what is left, or an amount."""

    level: str
    id: str
    percent: Decimal | None
    amount: Decimal | None


def discounted(rows: pl.DataFrame, terms: Sequence[Term], levels: Sequence[Level]) -> tuple[pl.Series, pl.DataFrame]:
    """What is left of the gross amount of each row, and what each discount took off (columns APPLIED).

    The discounts of the charge come first, then the percentages of its plan, then those of its contract, in the order
    that they are written. A plan's or contract's amount is shared out later, in minor units.
    """
    percents = [any(discount.percent is not None for discount in level.discounts) for level in levels]
    own = [any(discount.units is None for discount in term.charge.discounts) for term in terms]
    flags = [at(own, "term"), *(at([*percents, False], name) for name in ("plan", "contract"))]
    wanted = pl.any_horizontal(flag.fill_null(value=False) for flag in flags)
    touched = rows.filter(wanted).select("line", "term", "plan", "contract", left="gross")
    if touched.is_empty():
        return rows["gross"], pl.DataFrame(schema=APPLIED)
    keys = ["term", "plan", "contract"]
    cases = touched.select(keys).unique(maintain_order=True).with_row_index("case")
    offs = [list(_offs(terms[term], plan, contract, levels)) for _, term, plan, contract in cases.rows()]
    touched = touched.join(cases, on=keys, how="left", nulls_equal=True, maintain_order="left")
    applied = []
    for number in range(max(map(len, offs))):
        case = [each[number] if number < len(each) else Off("", "", Decimal(0), None) for each in offs]
        off = _off(case)
        touched = touched.with_columns(off=off, left=pl.col("left") - off)
        told = {"level": at([each.level for each in case], "case"), "id": at([each.id for each in case], "case")}
        taken = touched.filter(pl.col("off") != NO_AMOUNT)
        applied.append(taken.select("line", step=pl.lit("discount"), amount=NO_AMOUNT - pl.col("off"), **told))
    left = rows["gross"].scatter(touched["line"], touched["left"])
    return left, pl.concat(applied).select(*APPLIED)


def above_maximum(rows: pl.DataFrame, terms: Sequence[Term]) -> tuple[pl.Series, pl.DataFrame]:
    """What is left of each row's `net` below its charge's maximum spend, and what is above it (columns APPLIED)."""
    maxima = [term.charge.maximum_spend for term in terms]
    if all(maximum is None for maximum in maxima):
        return rows["net"], pl.DataFrame(schema=APPLIED)
    maximum = at(maxima, "term", AMOUNT)
    maximum = pl.when("maximum_prorated").then(in_force(maximum)).otherwise(maximum)
    left = pl.min_horizontal("net", maximum)
    over = rows.select("line", left=left, amount=left - pl.col("net")).filter(pl.col("amount") < NO_AMOUNT)
    step = pl.lit("maximum_spend")
    told = over.select("line", "amount", level=pl.lit("charge"), step=step, id=step)
    return rows["net"].scatter(over["line"], over["left"]), told.select(*APPLIED)


def in_force(amount: pl.Expr) -> pl.Expr:
    """An amount (AMOUNT) by the fraction of the full period that it is in force for, rounded to 21 decimals."""
    whole = pl.col("numerator") == pl.col("denominator")
    part = times(amount, pl.col("numerator").cast(pl.Int128), pl.col("denominator").cast(pl.Int128))
    return pl.when(whole).then(amount).otherwise(part)


def at(values: Sequence[Any], place: str, dtype: Any = None) -> pl.Expr:
    """The value at each row's place in a list; null where there is no place."""
    return pl.lit(pl.Series(values, dtype=dtype)).gather(pl.col(place))


def _offs(term: Term, plan: int | None, contract: int | None, levels: Sequence[Level]) -> Iterator[Off]:
    for each in term.charge.discounts:
        if each.units is None:
            yield Off("charge", each.id, each.percent, plain(each.amount))
    for name, place in (("plan", plan), ("contract", contract)):
        for each in levels[place].discounts if place is not None else ():
            if each.percent is not None and applies(each, term):
                yield Off(name, each.id, each.percent, None)


def applies(discount: Discount, term: Term) -> bool:
    """Whether a plan's or contract's discount is on a charge."""
    return not discount.charges or term.charge.id in discount.charges


def plain(amount: Any) -> Decimal | None:
    """A price of a book in one currency."""
    assert amount is None or isinstance(amount, Decimal), "an amount of a book in several currencies"
    return amount


def _off(case: Sequence[Off]) -> pl.Expr:
    """What a discount of each case takes off `left`: not below 0, and at most what is left."""
    left = pl.col("left").clip(lower_bound=NO_AMOUNT)
    percents = [None if each.percent is None else int(each.percent.scaleb(10, EXACT)) for each in case]
    of_left = times(left, at(percents, "case", pl.Int128), _HUNDRED_PERCENT)
    amounts = [each.amount for each in case]
    fixed = pl.min_horizontal(left, at(amounts, "case", AMOUNT))
    return pl.when(at([each.percent is not None for each in case], "case")).then(of_left).otherwise(fixed)
