"""A line that was billed in advance as revenue by month. Core.

Decides which month gets how much of a line; owns the invariant that the months add up to the line, to the minor unit.
Months are those of the seller's time zone. The methods and their published numbers, for 120.00 over the four months
from June 15, 12:00 to October 13, 12:00:

    method          Jun    Jul    Aug    Sep    Oct
    exact         15.50  31.00  31.00  30.00  12.50   by the second
    day           16.00  31.00  31.00  30.00  12.00   by the day; the first day counts, the last one does not
    even_months   30.00  30.00  30.00  30.00          the same for each month begun, counted from the first day
    prorated_ends 15.50  30.66  30.66  30.68  12.50   the ends by the second, the same for each month between

Where minor units do not divide: `exact` and `day` round what is recognised up to each month's end, half away from
zero, so a month is never more than one unit off; equal months are rounded towards zero, and the last of them takes the
rest, as published.
"""

from datetime import date, datetime, time
from enum import StrEnum
from zoneinfo import ZoneInfo

import polars as pl

from schemas.invoice import Columns


class Method(StrEnum):
    """How a line is spread over its months."""

    EXACT = "exact"
    DAY = "day"
    EVEN_MONTHS = "even_months"
    PRORATED_ENDS = "prorated_ends"


SERVICE: Columns = {
    "line_id": pl.String,  # of the invoice line; one row each
    "amount_minor": pl.Int64,  # net of tax; a discount is below zero
    "starts_at": pl.Datetime("us", "UTC"),
    "ends_at": pl.Datetime("us", "UTC"),  # not part of the service; not before starts_at
    "method": pl.String,  # Method
}
"""Columns of a frame of lines that were billed in advance, each with its service period."""

MONTHS: Columns = {
    "line_id": pl.String,
    "position": pl.Int32,  # of the month in the service period, from 1
    "month": pl.Date,  # its first day
    "amount_minor": pl.Int64,  # never zero
}
"""Columns of what is recognised of a line in a month, sorted as the lines were and by month."""

_SAFE = 2**62  # what 64 bits hold, with room for the rounding
_EPOCH = date(1970, 1, 1)


def schedule(lines: pl.DataFrame, time_zone: str) -> pl.DataFrame:
    """What each line (columns SERVICE) is recognised at in each month (columns MONTHS).

    A line without a length is recognised whole in the month it starts in. Months with nothing have no row. Instants
    are taken to the second. Raises ValueError for a line that ends before it starts, or has an unknown method.

    >>> from datetime import timedelta
    >>> noon = datetime.fromisoformat("2026-06-15T12:00:00+00:00")
    >>> row = ("line", 12_000, noon, noon + timedelta(days=120), "prorated_ends")
    >>> schedule(pl.DataFrame([row], schema=SERVICE, orient="row"), "UTC")["amount_minor"].to_list()
    [1550, 3066, 3066, 3068, 1250]
    """
    _refuse_unfit(lines)
    placed = lines.select(*SERVICE).with_row_index("place").filter(pl.col("amount_minor") != 0)
    placed = placed.with_columns(pl.col("starts_at", "ends_at").dt.truncate("1s").dt.convert_time_zone(time_zone))
    parts = [
        _spread(part, Method(str(method)), time_zone)
        for (method,), part in placed.group_by("method", maintain_order=True)
    ]
    if not parts:
        return pl.DataFrame(schema=MONTHS)
    rows = pl.concat(parts)
    if len(parts) > 1:
        rows = rows.sort("place", "position")
    return rows.select(*MONTHS)


def _refuse_unfit(lines: pl.DataFrame) -> None:
    backwards = lines.filter(pl.col("ends_at") < pl.col("starts_at"))
    if backwards.height:
        raise ValueError(f"line {backwards['line_id'][0]} ends before it starts; allowed: an end at or after its start")
    unknown = sorted(set(lines["method"].unique()) - set(Method))
    if unknown:
        raise ValueError(f"method {unknown[0]}; allowed: {', '.join(Method)}")


def _spread(lines: pl.DataFrame, method: Method, time_zone: str) -> pl.DataFrame:
    """The months of lines of one method. What holds for the whole line is worked out before there are rows a month."""
    measured = _measured(lines, method)
    lowest = int(measured["number"].min())  # type: ignore[arg-type]
    highest = int((measured["number"] + measured["steps"]).max())  # type: ignore[arg-type]
    months = pl.DataFrame({"number": range(lowest, highest + 1)}, schema={"number": pl.Int32})
    months = months.with_columns(
        pl.date(pl.col("number") // 12, pl.col("number") % 12 + 1, 1).alias("month"),
        pl.Series("opens", [_opens(number, method, time_zone) for number in months["number"]], pl.Int64),
    )
    kind = pl.Int64 if _fits(measured) else pl.Int128
    measured = measured.with_columns(pl.col("number") - lowest, pl.col("amount_minor").cast(kind).alias("amount"))
    if method is Method.PRORATED_ENDS:
        opens = pl.lit(months["opens"])
        first = opens.gather(pl.col("number") + 1).clip(upper_bound="end") - pl.col("start")
        last = pl.col("end") - opens.gather(pl.col("number") + pl.col("steps") - 1).clip("start")
        measured = measured.with_columns(first=_share(first), last=_share(last))
    rows = measured.with_columns(step=pl.int_ranges(0, "steps", dtype=pl.Int32)).explode("step")
    rows = rows.with_columns(pl.col("number") + pl.col("step"))
    return rows.select(
        "place",
        "line_id",
        (pl.col("step") + 1).alias("position"),
        pl.lit(months["month"]).gather(pl.col("number")).alias("month"),
        _amount(method, pl.lit(months["opens"])).cast(pl.Int64).alias("amount_minor"),
    ).filter(pl.col("amount_minor") != 0)


def _measured(lines: pl.DataFrame, method: Method) -> pl.DataFrame:
    """The lines with `start` and `end` in the method's unit, their first month's `number`, and how many `steps`."""
    start, end = pl.col("starts_at"), pl.col("ends_at")
    named = ("place", "line_id", "amount_minor", _number(start).alias("number"))
    if method is Method.DAY:  # of the calendar: a change of clocks does not make one longer
        first = start.dt.date()
        last = pl.max_horizontal(end.dt.date() - pl.duration(days=1), first)
        bounds = (first.to_physical(), last.to_physical() + 1)
        steps = _number(last) - _number(start) + 1
    elif method is Method.EVEN_MONTHS:
        bounds = (pl.lit(0), pl.lit(1))
        steps = _months_begun(start, end)
    else:
        bounds = (start.dt.timestamp("ms") // 1000, end.dt.timestamp("ms") // 1000)
        steps = _number(pl.max_horizontal(end - pl.duration(seconds=1), start)) - _number(start) + 1
    return lines.select(
        *named,
        bounds[0].cast(pl.Int64).alias("start"),
        bounds[1].cast(pl.Int64).alias("end"),
        steps.cast(pl.Int32).alias("steps"),
    )


def _months_begun(start: pl.Expr, end: pl.Expr) -> pl.Expr:
    """At least one. A month runs to the start's day and hour in the next month, or to that month's last day."""
    day = pl.min_horizontal(start.dt.day(), end.dt.month_end().dt.day())
    begun = (day < end.dt.day()) | ((day == end.dt.day()) & (start.dt.time() < end.dt.time()))
    return (_number(end) - _number(start) + begun.cast(pl.Int32)).clip(1)


def _amount(method: Method, opens: pl.Expr) -> pl.Expr:
    """What the month `step` of `steps` has of `amount`."""
    amount, step, steps = pl.col("amount"), pl.col("step"), pl.col("steps")
    if method is Method.EVEN_MONTHS:
        return _equal(amount, steps, step)
    if method is Method.PRORATED_ENDS:
        between = _equal(amount - pl.col("first") - pl.col("last"), (steps - 2).clip(1), step - 1)
        return (
            pl.when(steps == 1).then(amount)
            .when(step == 0).then(pl.col("first"))
            .when(steps == 2).then(amount - pl.col("first"))
            .when(step == steps - 1).then(pl.col("last"))
            .otherwise(between)
        )  # fmt: skip
    by_end = _share(opens.gather(pl.col("number") + 1) - pl.col("start"))
    before = _share(opens.gather(pl.col("number")) - pl.col("start"))
    by_end = pl.when(step == steps - 1).then(amount).otherwise(by_end)
    return by_end - pl.when(step == 0).then(0).otherwise(before)


def _share(done: pl.Expr) -> pl.Expr:
    """The part of `amount` for what is done of the stretch from `start` to `end`, rounded half away from zero."""
    amount = pl.col("amount")
    whole = (pl.col("end") - pl.col("start")).clip(1)
    return amount.sign() * ((amount.abs() * done * 2 + whole) // (whole * 2))


def _equal(amount: pl.Expr, steps: pl.Expr, step: pl.Expr) -> pl.Expr:
    """The part of one of equal steps: rounded towards zero, and the last one takes the rest."""
    each = amount.sign() * (amount.abs() // steps)
    return pl.when(step == steps - 1).then(amount - each * (steps - 1)).otherwise(each)


def _fits(measured: pl.DataFrame) -> bool:
    """Whether each amount, times twice its stretch, is a number of 64 bits: they are twice as fast as 128."""
    largest, longest = measured.select(pl.col("amount_minor").abs().max(), (pl.col("end") - pl.col("start")).max()).row(
        0
    )
    return bool(largest >= 0 and largest * longest * 2 < _SAFE)


def _number(instant: pl.Expr) -> pl.Expr:
    """Months since the year 0."""
    return instant.dt.year() * 12 + instant.dt.month().cast(pl.Int32) - 1


def _opens(number: int, method: Method, time_zone: str) -> int:
    """The day or the second, since 1970, that begins a month; where clocks skip midnight, the second they jump to."""
    first = date(number // 12, number % 12 + 1, 1)
    if method is Method.DAY:
        return (first - _EPOCH).days
    return int(datetime.combine(first, time(), ZoneInfo(time_zone)).timestamp())
