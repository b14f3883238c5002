"""The charge models as polars columns: what each step of a charge sells of a part, and at what price. Core.

A part sells the range (before, after] of its run, where after = before + quantity. So every step takes what the
running total sells with the part, less what it sold before it: parts at the same terms add up to the whole.

Owns exactness: every column is a Decimal or its 128-bit integers, so a result is exact or an error. polars multiplies
decimals at the larger of both scales and cuts off what is beyond; so a whole number of billionths is multiplied by the
price of one billionth, where nothing is beyond. What needs more than 17 whole digits raises polars' own error.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import polars as pl

from rating.prices import EXACT, PriceRow, Rung, Shape, Table
from schemas.money import AMOUNT, PRICE, QUANTITY

NOTHING = pl.lit(Decimal(0), QUANTITY)
FREE = pl.lit(Decimal(0), PRICE)
NO_AMOUNT = pl.lit(Decimal(0), AMOUNT)
BEFORE, AFTER, AT = pl.col("before"), pl.col("after"), pl.col("at")


UNUSED = pl.col("opens") & (pl.col("total") == NOTHING)
"""Whether a part stands for a run without usage."""


class Step(NamedTuple):
    """One possible slice of a part. Expressions over a parts frame with `after`, and `at`: the part's price row."""

    quantity: pl.Expr  # QUANTITY; 0 where the step sells nothing
    amount: pl.Expr  # AMOUNT; 0 where it neither sells nor owes
    unit_price: pl.Expr = FREE
    flat: pl.Expr | None = None  # PRICE, 0 where it is not owed; None: never owed
    up_to: pl.Expr = pl.lit(None, QUANTITY)
    label: pl.Expr = pl.lit("")


class Sold(NamedTuple):
    """What a step sells with a part and before it, and whether its flat amount is owed by then."""

    after: pl.Expr
    before: pl.Expr
    owed: pl.Expr
    owed_before: pl.Expr


def steps_of(table: Table, *, runs_on: bool) -> list[Step]:
    """The steps of the parts that a table prices, lowest tier first. `runs_on`: whether `before` is ever above 0."""
    match table.shape.model:
        case "tiers":
            steps = tier_steps(table.shape, table.rows, runs_on=runs_on)
        case "volume":
            steps = [volume_step(table.shape, table.rows)]
        case "package":
            steps = [package_step(table.shape, table.rows)]
    return steps + event_steps(table.rows) if table.shape.events else steps


def tier_steps(shape: Shape, rows: Sequence[PriceRow], *, runs_on: bool) -> list[Step]:
    """The part of a range that falls in each tier. What the tiers sell adds up to the quantity, exactly.

    A tier is open below and closed above, so the unit on a bound is sold at the lower tier's price: contracts say
    "the first 100 units", and the 100th unit is one of them. A tier's flat amount is owed by the part that enters it
    by any fraction; that of the first tier also by the part that opens a run without usage, where zero usage owes it.

        tiers up to 100, up to 500, without end

        range       |  step 1   step 2   step 3
        (0, 100]    |     100
        (0, 101]    |     100        1
        (90, 750]   |      10      400      250
    """
    label = of_row([row.label for row in rows], pl.String)
    start, steps = NOTHING, []
    for number in range(shape.tiers):
        rungs = [row.rungs[number] for row in rows]
        end = None if number == shape.tiers - 1 else of_row([rung.up_to for rung in rungs], QUANTITY)
        sold = Sold(
            after=_within(AFTER, start, end, number),
            before=_within(BEFORE, start, end, number) if runs_on else NOTHING,
            owed=start < AFTER,
            owed_before=start < BEFORE,
        )
        if number == 0 and shape.zero_owes:
            sold = sold._replace(owed=sold.owed | UNUSED)
        up_to = pl.lit(None, QUANTITY) if end is None else end
        steps.append(_step(rungs, AT, sold, up_to=up_to, label=label))
        start = NOTHING if end is None else end
    return steps


def volume_step(shape: Shape, rows: Sequence[PriceRow]) -> Step:
    """The whole quantity, sold in the tier that the run's total falls in, with the flat amount of that tier alone.

    The amount is not monotone: where the next tier is cheaper, one unit more may cost less.

        tiers up to 15 for 10.00, without end for 5.00

        total |  step
           15 |    15   = 150.00
           16 |    16   =  80.00
    """
    ends = [of_row([row.rungs[number].up_to for row in rows], QUANTITY) for number in range(shape.tiers - 1)]
    beyond = pl.sum_horizontal(pl.lit(0, pl.UInt32), *[(pl.col("total") > end).cast(pl.UInt32) for end in ends])
    rungs = [rung for row in rows for rung in row.rungs]
    rung = AT * pl.lit(shape.tiers, pl.UInt32) + beyond
    owed = NOTHING < AFTER
    sold = Sold(AFTER, BEFORE, owed=owed | UNUSED if shape.zero_owes else owed, owed_before=NOTHING < BEFORE)
    return _step(rungs, rung, sold, up_to=of_row([each.up_to for each in rungs], QUANTITY, rung))


def package_step(shape: Shape, rows: Sequence[PriceRow]) -> Step:
    """The packages that the running total takes with the part, less those that it took before."""
    size = of_row([int(row.size.scaleb(9, EXACT)) for row in rows], pl.Int128)
    free = of_row([row.free_units for row in rows], QUANTITY)
    after, before = (packages(total, size, free, down=shape.down) for total in (AFTER, BEFORE))
    no = pl.lit(value=False)
    return _step([row.rungs[0] for row in rows], AT, Sold(after, before, no, no))


def packages(quantity: pl.Expr, size: pl.Expr, free_units: pl.Expr, *, down: bool = False) -> pl.Expr:
    """How many packages a billable quantity takes, as QUANTITY. Free units come off before packages are made.

    The division is done on the decimals' own integers (billionths, and so is `size`, an Int128), where it is exact.

    >>> used = pl.Series(["0", "10", "10.001", "121"]).cast(QUANTITY)
    >>> taken = packages(pl.lit(used), pl.lit(10 * 10**9, pl.Int128), pl.lit(Decimal(10), QUANTITY))
    >>> [int(count) for count in pl.select(taken).to_series()]
    [0, 0, 1, 12]
    """
    paid = (quantity - free_units).clip(lower_bound=NOTHING).to_physical()
    begun = paid if down else paid + size - pl.lit(1, pl.Int128)
    return (begun // size).cast(QUANTITY)


def event_steps(rows: Sequence[PriceRow]) -> list[Step]:
    """What a percentage charge has beside its percentage: a fee an event, and what bounds an event's amount change."""
    bounds = Step(NOTHING, pl.col("bounded").fill_null(NO_AMOUNT), label=pl.lit("event bounds"))
    fixed, no = [row.fixed for row in rows], pl.lit(value=False)
    if not any(fixed):
        return [bounds]
    fees = pl.when(of_row(fixed, PRICE) > FREE).then(pl.col("fees").cast(QUANTITY)).fill_null(NOTHING)
    fee = _step([Rung(None, price) for price in fixed], AT, Sold(fees, NOTHING, no, no), label=pl.lit("fee"))
    return [fee, bounds]


def trial_step() -> Step:
    """All of the quantity, for nothing."""
    return Step(pl.col("quantity"), NO_AMOUNT, label=pl.lit("trial"))


def of_row(values: Sequence[Any], dtype: Any, at: pl.Expr = AT) -> pl.Expr:
    """The value at each part's place in a column of the table; a plain constant where all values are the same."""
    if all(value == values[0] for value in values):
        return pl.lit(values[0], dtype)
    return pl.lit(pl.Series(values, dtype=dtype)).gather(at)


def amount_of(quantity: pl.Expr, billionth_price: pl.Expr) -> pl.Expr:
    """`quantity * unit price` as AMOUNT, exactly: 9 + 12 decimals. Takes a QUANTITY and an AMOUNT.

    Four times as fast as the product at the scale of an amount, which polars makes with a division of 256 bits.

    >>> smallest = pl.lit(Decimal("1e-9"), QUANTITY), pl.lit(Decimal("1e-12") * Decimal("1e-9"), AMOUNT)
    >>> pl.select(amount_of(*smallest)).item()
    Decimal('1E-21')
    """
    return quantity.to_physical().cast(pl.Decimal(38, 0)) * billionth_price


def _step(rungs: Sequence[Rung], at: pl.Expr, sold: Sold, **words: pl.Expr) -> Step:
    """The step that sells at a tier of each row: its price and flat amount, and where tiers have caps at most those."""
    billionth_price = of_row([rung.unit_price.scaleb(-9, EXACT) for rung in rungs], AMOUNT, at)
    quantity = sold.after if sold.before is NOTHING else sold.after - sold.before
    amount = amount_of(quantity, billionth_price)
    flat = None
    if any(rung.flat for rung in rungs):
        flats = [rung.flat for rung in rungs]
        owed_now = sold.owed & ~sold.owed_before
        flat = pl.when(owed_now).then(of_row(flats, PRICE, at)).otherwise(FREE)
        amount += _where(owed_now, flats, at)
    if any(rung.cap is not None for rung in rungs):
        flats = [rung.flat for rung in rungs]
        cap = of_row([rung.cap for rung in rungs], AMOUNT, at)
        after = amount_of(sold.after, billionth_price) + _where(sold.owed, flats, at)
        before = amount_of(sold.before, billionth_price) + _where(sold.owed_before, flats, at)
        amount = pl.min_horizontal(after, cap) - pl.min_horizontal(before, cap)
    price = of_row([rung.unit_price for rung in rungs], PRICE, at)
    return Step(quantity, amount, price, flat, **words)


def _where(owed: pl.Expr, flats: Sequence[Decimal], at: pl.Expr) -> pl.Expr:
    return pl.when(owed).then(of_row(flats, AMOUNT, at)).otherwise(NO_AMOUNT)


def _within(total: pl.Expr, start: pl.Expr, end: pl.Expr | None, number: int) -> pl.Expr:
    """How much of a running total falls in a tier."""
    up_to_end = total if end is None else pl.min_horizontal(total, end)
    return up_to_end if number == 0 else up_to_end - pl.min_horizontal(total, start)
