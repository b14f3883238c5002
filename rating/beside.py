"""Lines beside the charges of a bill: SLA credits and manual lines. Core.

Decides what they come to. They stand after what plan and contract say of sums: no minimum makes up for a credit.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from rating.discounts import NO_AMOUNT
from rating.exact import times
from rating.minor import Kind, Money, exact_of, minor_of
from rating.prices import EXACT, Term
from schemas.invoice import Columns
from schemas.money import AMOUNT

_HUNDRED_PERCENT = pl.lit(10**12, pl.Int128)


class Beside(NamedTuple):
    """A line beside the charges: of an amount, or a credit of so many percent of what is left of some charges."""

    bill: int
    kind: str
    amount: Decimal | None = None
    percent: Decimal | None = None
    charges: tuple[str, ...] = ()  # all, if there are none


def with_beside(lines: pl.DataFrame, beside: Sequence[Beside], terms: Sequence[Term], money: Money) -> pl.DataFrame:
    """The lines, and those beside them at the end; `beside` is the line's place in the list, null for the others.

    A credit of nothing gives no line.
    """
    lines = lines.with_columns(beside=pl.lit(None, pl.UInt32))
    if not beside:
        return lines
    amounts = {number: each.amount for number, each in enumerate(beside) if each.amount is not None}
    of_amount = pl.DataFrame({"beside": list(amounts), "amount": list(amounts.values())}, _AMOUNTS)
    of_percent = _credits(lines, beside, terms, money.kinds)
    more = pl.concat([of_amount, of_percent]).sort("beside")
    places = pl.Series([each.bill for each in beside], dtype=pl.UInt32).gather(more["beside"])
    words = pl.Series([each.kind for each in beside], dtype=pl.String).gather(more["beside"])
    more = more.with_columns(
        bill=places,
        kind=words,
        money=money.places.gather(places),
        gross="amount",
        level=pl.lit("contract"),
        order=pl.lit(100, pl.UInt32) + pl.col("beside"),
        discount=NO_AMOUNT,
        term=pl.lit(None, pl.UInt32),
        row=pl.lit(None, pl.UInt32),
    ).with_columns(amount_minor=minor_of(pl.col("amount"), money.kinds))
    return lines.vstack(more.with_columns(left="amount_minor").select(lines.columns))


_AMOUNTS: Columns = {"beside": pl.UInt32, "amount": AMOUNT}


def _credits(
    lines: pl.DataFrame, beside: Sequence[Beside], terms: Sequence[Term], kinds: Sequence[Kind]
) -> pl.DataFrame:
    """What credits of percentages come to, of the lines of charges: those that a charge's own chain adds as well."""
    credits_ = [(number, each) for number, each in enumerate(beside) if each.percent is not None]
    if not credits_:
        return pl.DataFrame(schema=_AMOUNTS)
    percents: list[Any] = [each.percent and int(each.percent.scaleb(10, EXACT)) for _, each in credits_]
    numbers, bills = [number for number, _ in credits_], [each.bill for _, each in credits_]
    schema: Columns = {"beside": pl.UInt32, "bill": pl.UInt32, "percent": pl.Int128}
    own = pl.DataFrame({"beside": numbers, "bill": bills, "percent": percents}, schema=schema)
    pairs = [
        (number, place)
        for number, each in credits_
        for place, term in enumerate(terms)
        if not each.charges or term.charge.id in each.charges
    ]
    on = pl.DataFrame(pairs, schema={"beside": pl.UInt32, "term": pl.UInt32}, orient="row")
    of_charges = (
        lines.filter(level="charge").drop("beside").join(own, on="bill").join(on, on=["beside", "term"], how="semi")
    )
    sums = of_charges.group_by("beside", "percent", "money").agg(pl.col("left").sum())
    worth = times(exact_of(pl.col("left"), kinds), pl.col("percent"), _HUNDRED_PERCENT)
    return sums.select("beside", amount=NO_AMOUNT - worth).filter(pl.col("amount") < NO_AMOUNT)
