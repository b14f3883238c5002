"""From gross amounts to what is owed: discounts, spends, commitments, rounding, credits and the tax base. Core.

Decides the order of these steps, once, in `chain`. Owns the invariants that an amount is rounded once, and that after
it everything is whole minor units, so that what is taken off a plan or a contract adds up over its lines, exactly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import polars as pl

from rating.beside import Beside, with_beside
from rating.discounts import APPLIED, NO_AMOUNT, Level, above_maximum, at, discounted
from rating.minor import Money, minor_of
from rating.prices import Term
from rating.shared import credited, shared
from rating.spends import below_minimum, committed
from schemas.invoice import Columns
from schemas.money import AMOUNT
from schemas.plan import Policies, PrepaidTax

CHARGED: Columns = {
    "bill": pl.UInt32,  # the row of the bills frame
    "term": pl.UInt32,  # the place in the list of terms
    "gross": AMOUNT,  # what the slices of all parts add up to
    "numerator": pl.Int64,  # the fraction of the full period that the charge is in force for
    "denominator": pl.Int64,
}
"""Columns of a frame of charge rows with their gross amounts, sorted by bill. The row number is that of ROWS."""

BILLS: Columns = {
    "owner": pl.UInt32,  # whose prepaid credits pay: bills of an owner follow each other in the order of time
    "currency": pl.String,
    "plan": pl.UInt32,  # the place in the list of levels; null where the plan says nothing about its sum
    "contract": pl.UInt32,  # likewise
    "policies": pl.UInt32,  # the place in the list of policies
    "numerator": pl.Int64,  # the fraction of the full period that the plan is in force for
    "denominator": pl.Int64,
    "prepaid_minor": pl.Int64,  # prepaid credits that the owner has, not below 0
}
"""Columns of a bills frame: one row a customer and billing period."""

LINES: Columns = {
    "bill": pl.UInt32,
    "row": pl.UInt32,  # the charge row that it is of; null for a line of a plan or a contract
    "kind": pl.String,  # charge, minimum_spend, overage or commitment
    "level": pl.String,  # charge, plan or contract
    "gross": AMOUNT,
    "discount": AMOUNT,  # of the charge, and percentages of plan and contract; not above 0
    "amount": AMOUNT,  # gross + discount, exact
    "amount_minor": pl.Int64,  # rounded, once
    "shared_minor": pl.Int64,  # the line's share of what plan and contract take off; not above 0
    "credit_minor": pl.Int64,  # paid by prepaid credits; not above 0
    "net_minor": pl.Int64,  # amount + shared + credit
    "tax_base_minor": pl.Int64,
    "beside": pl.UInt32,  # the place in the list of what is beside the charges; null for others
}
"""Columns of the lines of the chain, sorted by bill: charges, each before what it adds; then plan's; contract's."""


class Chained(NamedTuple):
    """What the chain gives."""

    lines: pl.DataFrame
    """Columns LINES."""
    applied: pl.DataFrame
    """Columns rating.discounts.APPLIED, sorted by line: each discount and maximum that took something off a line."""


def chain(
    rows: pl.DataFrame,
    bills: pl.DataFrame,
    terms: Sequence[Term],
    levels: Sequence[Level],
    policies: Sequence[Policies],
    buckets: pl.DataFrame | None = None,
    beside: Sequence[Beside] = (),
) -> Chained:
    """The lines of charge rows (columns CHARGED) and bills (columns BILLS), with what was taken off each.

    `buckets` has the columns row, bucket_at and amount (AMOUNT) of the parts of charges with a commitment per bucket.

    The order is that of docs/pricing.md, each step taking what the one before it gives: (5) discounts of the charge,
    then percentages of plan and contract, because a percentage is of what is left; (6) the maximum, so that a discount
    is not lost to it; (7) the minimum, of what is left after discounts; (8) the commitment, which a minimum counts
    towards. Then each line is rounded, once. (9) What plan and contract say of sums is said of rounded lines, because
    those are what a customer adds up; then come SLA credits and manual lines. (10) Credits pay what is left; (11) tax
    is on what is left, of which credits that were taxed when they were bought are no part.
    """
    money = Money.of(bills, policies)
    bills = bills.with_row_index("bill").with_columns(money=money.places)
    prorated = at([each.maximum_proration == "prorated" for each in policies], "policies", pl.Boolean)
    bills = bills.with_columns(maximum_prorated=prorated)
    of_bill = [bills[name].gather(rows["bill"]) for name in ("plan", "contract", "money", "maximum_prorated")]
    rows = rows.hstack(of_bill).with_row_index("line")
    # 5. discounts
    net, taken = discounted(rows, terms, levels)
    rows = rows.with_columns(net=net)
    # 6. maximum
    net, over = above_maximum(rows, terms)
    rows = rows.with_columns(net=net)
    # 7. minimum
    minimums = below_minimum(rows, terms)
    # 8. commitment, and rounding
    added = [*minimums, *committed(rows, minimums, terms, buckets)]
    lines, own = _after_their_rows(_with_added(rows, added), pl.concat([taken, over]))
    lines = lines.with_columns(amount_minor=minor_of(pl.col("amount"), money.kinds))
    lines = lines.with_columns(left=pl.col("amount_minor"))
    # 9. plan, then contract
    applied = [own]
    for name in ("plan", "contract"):
        lines, off = shared(lines, bills, name, terms, levels, money.kinds)
        applied.append(off)
    lines = with_beside(lines, beside, terms, money)
    lines = lines.with_columns(shared_minor=pl.col("left") - pl.col("amount_minor"))
    # 10. prepaid credits
    lines = lines.with_columns(credit_minor=credited(lines, bills))
    # 11. tax base
    lines = lines.with_columns(net_minor=pl.col("left") + pl.col("credit_minor"))
    at_top_up = pl.Series([each.prepaid_tax is PrepaidTax.AT_TOP_UP for each in policies], dtype=pl.Boolean)
    lowered = pl.lit(at_top_up.gather(bills["policies"])).gather(pl.col("bill"))
    base = pl.when(lowered).then(pl.col("net_minor")).otherwise(pl.col("left"))
    return _in_order(lines.with_columns(tax_base_minor=base), pl.concat(applied))


def _with_added(rows: pl.DataFrame, added: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The charge rows as lines, and the lines that they add after them."""
    lines = rows.select(
        "bill",
        "term",
        "money",
        "gross",
        row=pl.col("line"),
        kind=pl.lit("charge"),
        level=pl.lit("charge"),
        order=pl.lit(0, pl.UInt32),
        discount=pl.col("net") - pl.col("gross"),
        amount=pl.col("net"),
    )
    for number, extra in enumerate(added, 1):
        of_row = [rows[name].gather(extra["row"]) for name in ("bill", "term", "money")]
        more = extra.hstack(of_row).with_columns(
            gross=pl.col("amount"), level=pl.lit("charge"), order=pl.lit(number, pl.UInt32), discount=NO_AMOUNT
        )
        lines = lines.vstack(more.select(lines.columns))
    return lines


def _after_their_rows(lines: pl.DataFrame, applied: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The lines of charges in the order of the invoice, because what is shared out by remainders looks at it."""
    if not (lines["order"] > 0).any():
        return lines, applied
    order = lines.select("row", "order").with_row_index("line").sort("row", "order")["line"]
    return lines[order], _renumbered(applied, order)


def _renumbered(applied: pl.DataFrame, order: pl.Series) -> pl.DataFrame:
    """What was taken off lines, after the lines have been put in an order."""
    return applied.with_columns(line=pl.lit(order.arg_sort().cast(pl.UInt32)).gather(pl.col("line")))


def _in_order(lines: pl.DataFrame, applied: pl.DataFrame) -> Chained:
    """Lines sorted as LINES says, and what was taken off them by their new numbers."""
    if (lines["order"] > 0).any():
        rank = lines.select(
            pl.col("level").replace_strict({"charge": 0, "plan": 1, "contract": 2}, return_dtype=pl.UInt8)
        )
        keys = lines.select("bill", rank["level"], "row", "order").with_row_index("line")
        order = keys.sort("bill", "level", "row", "order")["line"]
        lines = lines[order]
        applied = _renumbered(applied, order)
    return Chained(lines.select(*LINES), applied.sort("line", maintain_order=True).select(*APPLIED))
