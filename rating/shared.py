"""What plans and contracts say of sums: steps 9 and 10 of the chain, in whole minor units. Core.

Owns the invariant that what is taken off a sum is shared out to its lines exactly. Bills whose plan and contract say
nothing about sums are left alone: only the others are looked at.
"""

from collections.abc import Sequence

import polars as pl

from rating.allocation import allocated
from rating.discounts import APPLIED, NO_AMOUNT, Level, applies, at, in_force
from rating.exact import times
from rating.minor import Kind, exact_of, minor_of
from rating.prices import Term
from rating.spends import BILLIONTHS, factors_of
from schemas.charges import Discount
from schemas.money import AMOUNT

LEFT = pl.col("left")


def shared(
    lines: pl.DataFrame,
    bills: pl.DataFrame,
    name: str,
    terms: Sequence[Term],
    levels: Sequence[Level],
    kinds: Sequence[Kind],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lines after what the level `name` (plan or contract) says of their sum, and what was taken off (APPLIED).

    `left` is what is left of a line in minor units. What is added is a line at the end. In this order: fixed discounts,
    maximum, minimum, commitment; as of a charge.
    """
    fixed = [[each for each in level.discounts if each.amount is not None] for level in levels]
    says = [
        bool(amounts) or any(each is not None for each in (level.minimum_spend, level.maximum_spend, level.commitment))
        for amounts, level in zip(fixed, levels, strict=True)
    ]
    own = bills.filter(at(says, name, pl.Boolean).fill_null(value=False))
    own = own.select("bill", "money", "numerator", "denominator", "maximum_prorated", at=name)
    if own.is_empty():
        return lines, pl.DataFrame(schema=APPLIED)
    of_bill = own.drop("money")
    wanted = lines.with_row_index("line").select("line", "bill", "term", "money", "left")
    wanted = wanted.join(of_bill, on="bill", how="inner", maintain_order="left")
    applied = []
    for number in range(max(map(len, fixed))):
        case = [each[number] if number < len(each) else None for each in fixed]
        amount = minor_of(at([None if each is None else each.amount for each in case], "at", AMOUNT), kinds)
        wanted = wanted.with_columns(wanted=amount.fill_null(0), eligible=_eligible(wanted, case, terms))
        wanted = _taken(wanted)
        ids = at([None if each is None else each.id for each in case], "at", pl.String)
        applied.append(_told(wanted, name, pl.lit("discount"), ids, kinds))
    # maximum
    maximum = at([level.maximum_spend for level in levels], "at", AMOUNT)
    maximum = minor_of(pl.when("maximum_prorated").then(in_force(maximum)).otherwise(maximum), kinds)
    over = (_sum(LEFT).over("bill") - maximum).clip(lower_bound=0).fill_null(0)
    wanted = _taken(wanted.with_columns(wanted=over, eligible=pl.lit(value=True)))
    step = pl.lit("maximum_spend")
    applied.append(_told(wanted, name, step, step, kinds))
    lines = lines.with_columns(left=lines["left"].scatter(wanted["line"], wanted["left"]))
    # minimum and commitment
    sums = wanted.group_by("bill").agg(_sum(LEFT))
    own = own.join(sums, on="bill", how="left", maintain_order="left").with_columns(LEFT.fill_null(0))
    added = _added(own, levels, kinds)
    for order, (kind, minor) in enumerate(added, 1):
        lines = lines.vstack(_lines(own.with_columns(left=minor), name, kind, order, kinds).select(lines.columns))
    return lines, pl.concat(applied)


def credited(lines: pl.DataFrame, bills: pl.DataFrame) -> pl.Series:
    """What prepaid credits pay of each line, in minor units, not above 0: at most what is left of a bill.

    An earlier bill of an owner comes before a later one.
    """
    nothing = pl.repeat(0, len(lines), dtype=pl.Int64, eager=True)
    paying = bills.filter(pl.col("prepaid_minor") > 0)
    if paying.is_empty():
        return nothing
    owed = lines.group_by("bill").agg(owed=_sum(LEFT).clip(lower_bound=0))
    paying = paying.join(owed, on="bill", how="inner", maintain_order="left")
    before = pl.col("owed").cum_sum().over("owner") - pl.col("owed")
    paying = paying.select("bill", wanted=(pl.col("prepaid_minor") - before).clip(lower_bound=0))
    own = lines.with_row_index("line").select("line", "bill", "left")
    own = own.join(paying, on="bill", how="inner", maintain_order="left")
    if own.is_empty():
        return nothing
    own = _taken(own.with_columns(eligible=pl.lit(value=True)))
    return nothing.scatter(own["line"], -own["off"])


def _taken(lines: pl.DataFrame) -> pl.DataFrame:
    """Columns off, and left without it: what is `wanted` of each bill, at most what is left of its eligible lines."""
    weight = pl.when(pl.col("eligible") & (LEFT > 0)).then(LEFT).otherwise(0)
    there = _sum(pl.when("eligible").then(LEFT).otherwise(0)).over("bill").clip(lower_bound=0)
    lines = lines.with_columns(weight=weight, wanted=pl.min_horizontal("wanted", there))
    lines = lines.with_columns(off=allocated(pl.col("wanted"), pl.col("weight"), "bill"))
    return lines.with_columns(left=LEFT - pl.col("off"))


def _sum(minor: pl.Expr) -> pl.Expr:
    """A sum of minor units that raises where it does not fit 64 bits: polars adds without a look at overflow."""
    return minor.cast(pl.Int128).sum().cast(pl.Int64)


def _eligible(lines: pl.DataFrame, case: Sequence[Discount | None], terms: Sequence[Term]) -> pl.Series:
    """Whether a discount is on each line; one without a list of charges is also on what a plan adds."""
    pairs = lines.select("at", "term").unique(maintain_order=True)
    on = [
        (each := case[place]) is not None and (not each.charges or (term is not None and applies(each, terms[term])))
        for place, term in pairs.rows()
    ]
    pairs = pairs.with_columns(eligible=pl.Series(on, dtype=pl.Boolean))
    joined = lines.select("at", "term").join(
        pairs, on=["at", "term"], how="left", nulls_equal=True, maintain_order="left"
    )
    return joined["eligible"]


def _told(lines: pl.DataFrame, name: str, step: pl.Expr, identity: pl.Expr, kinds: Sequence[Kind]) -> pl.DataFrame:
    taken = lines.filter(pl.col("off") > 0)
    amount = exact_of(-pl.col("off"), kinds)
    return taken.select("line", level=pl.lit(name), step=step, id=identity, amount=amount).select(*APPLIED)


def _added(own: pl.DataFrame, levels: Sequence[Level], kinds: Sequence[Kind]) -> list[tuple[str, pl.Series]]:
    """The kinds of lines that a level adds, with what each bill owes of it in minor units."""
    missing = minor_of(in_force(at([level.minimum_spend for level in levels], "at", AMOUNT)), kinds) - LEFT
    minimum = own.select(left=missing.fill_null(0).clip(lower_bound=0))["left"]
    agreed = [level.commitment for level in levels]
    owed = minor_of(in_force(at([None if each is None else each.amount for each in agreed], "at", AMOUNT)), kinds)
    costs = own.with_columns(above=LEFT + minimum - owed)
    above = exact_of(pl.col("above").clip(lower_bound=0), kinds)
    over = minor_of(times(above, at(factors_of(agreed), "at", pl.Int128), BILLIONTHS), kinds)
    true_up = at([each is not None and each.true_up for each in agreed], "at")
    under = pl.when(true_up).then((-pl.col("above")).clip(lower_bound=0))
    told = costs.select(overage=over.fill_null(0), commitment=under.fill_null(0))
    return [("minimum_spend", minimum), ("overage", told["overage"]), ("commitment", told["commitment"])]


def _lines(own: pl.DataFrame, name: str, kind: str, order: int, kinds: Sequence[Kind]) -> pl.DataFrame:
    """Lines of their own for what bills owe to a level."""
    amount = exact_of(LEFT, kinds)
    return own.filter(LEFT != 0).select(
        "bill",
        "money",
        "left",
        term=pl.lit(None, pl.UInt32),
        row=pl.lit(None, pl.UInt32),
        kind=pl.lit(kind),
        level=pl.lit(name),
        order=pl.lit(order, pl.UInt32),
        gross=amount,
        discount=NO_AMOUNT,
        amount=amount,
        amount_minor=LEFT,
    )
