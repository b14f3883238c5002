"""What happens to a schedule when its line is credited or its service period changes. Core.

Owns that a change rewrites only the future. The past of a line is what was recognised, what lies in a closed month and
what was delivered before the month of the change, whether a run has recognised it yet or not: so the answer does not
depend on when runs happen. The past stays as it is, and the rest of the line goes to the months behind it.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import polars as pl

from invoicing.recognition.schedules import SERVICE, schedule
from schemas.invoice import Columns

FUTURE: Columns = {"line_id": pl.String, "month": pl.Date, "amount_minor": pl.Int64}
"""Columns of the months of lines that may be rewritten, of one sign a line."""

CREDITS: Columns = {
    "line_id": pl.String,
    "credit_minor": pl.Int64,  # net of tax, of the line's sign
    "recognised_minor": pl.Int64,  # what of the line is past, less what was credited of it
}
"""Columns of a frame of credits, one row a line."""


@dataclass(frozen=True)
class Credited:
    """What credits do."""

    parts: pl.DataFrame
    """line_id, deferred_minor, recognised_minor: what a credit takes of each; they add up to it."""
    future: pl.DataFrame
    """The new future of the credited lines (columns FUTURE)."""


def credited(future: pl.DataFrame, notes: pl.DataFrame) -> Credited:
    """What credit notes (columns CREDITS) take of their lines, whose months to come are `future` (columns FUTURE).

    What is deferred is reversed first, because it was not earned; what is left of the credit reverses revenue. The
    months to come keep their proportions: each of them has what its end's share of the old sum is of the new sum,
    rounded half away from zero, less what the months before it have. Raises ValueError for a credit that is more than
    the line.

    >>> months = [("line", date(2026, 9, 1), 3_000), ("line", date(2026, 10, 1), 1_200)]
    >>> known = pl.DataFrame(months, schema=FUTURE, orient="row")
    >>> answer = credited(known, pl.DataFrame([("line", 2_100, 7_800)], schema=CREDITS, orient="row"))
    >>> answer.parts.row(0), answer.future["amount_minor"].to_list()
    (('line', 2100, 0), [1500, 600])
    >>> answer = credited(known, pl.DataFrame([("line", 5_000, 7_800)], schema=CREDITS, orient="row"))
    >>> answer.parts.row(0), answer.future["amount_minor"].to_list()
    (('line', 4200, 800), [])
    """
    sums = future.group_by("line_id").agg(pl.col("amount_minor").sum().alias("whole"))
    parts = notes.join(sums, on="line_id", how="left", maintain_order="left").with_columns(pl.col("whole").fill_null(0))
    parts = parts.with_columns((pl.col("whole") + pl.col("recognised_minor")).alias("left"))
    parts = parts.with_columns(pl.col("left").sign().alias("side"))
    side = pl.col("side")
    _refuse_more_than_is_left(parts)
    deferred = side * pl.min_horizontal(pl.col("credit_minor") * side, (pl.col("whole") * side).clip(0))
    parts = parts.with_columns(deferred.alias("deferred_minor"))
    whole = (pl.col("whole") * side).cast(pl.Int128)
    kept = whole - pl.col("deferred_minor") * side
    by_end = (pl.col("amount_minor") * side).cum_sum().over("line_id").cast(pl.Int128)
    before = by_end - pl.col("amount_minor") * side
    share = [(upto * kept * 2 + whole) // (whole * 2) for upto in (by_end, before)]
    smaller = (side * (share[0] - share[1])).cast(pl.Int64)
    rows = future.sort("line_id", "month").join(parts, on="line_id", how="inner", maintain_order="left")
    rows = rows.with_columns(pl.when(pl.col("deferred_minor") == 0).then("amount_minor").otherwise(smaller))
    return Credited(
        parts.select(
            "line_id", "deferred_minor", (pl.col("credit_minor") - pl.col("deferred_minor")).alias("recognised_minor")
        ),
        rows.filter(pl.col("amount_minor") != 0).select(*FUTURE),
    )


def _refuse_more_than_is_left(parts: pl.DataFrame) -> None:
    credit = pl.col("credit_minor") * pl.col("side")
    over = parts.filter((credit < 0) | (credit > pl.col("left").abs()))
    for line_id, credit_minor, left in over.select("line_id", "credit_minor", "left").head(1).iter_rows():
        raise ValueError(f"credit of {credit_minor} on line {line_id}; allowed: at most what is left of it, {left}")


def rescheduled(lines: pl.DataFrame, kept: pl.DataFrame, *, opens: date, time_zone: str) -> pl.DataFrame:
    """The months to come (columns MONTHS) of lines that have a new amount, period or method now (columns SERVICE).

    `kept` (line_id, amount_minor) is what of each line is past, and stays; `opens` is the first day of the first month
    that is written anew. What remains is spread over the part of the period from that day
    on; where nothing of the period is left, all of it goes to the first month that is open.

    >>> at = [datetime.fromisoformat(f"2026-{day}T00:00:00+00:00") for day in ("01-01", "07-01")]
    >>> line = pl.DataFrame([("line", 9_000, *at, "even_months")], schema=SERVICE, orient="row")
    >>> done = pl.DataFrame({"line_id": ["line"], "amount_minor": [6_000]})
    >>> months = rescheduled(line, done, opens=date(2026, 3, 1), time_zone="UTC")
    >>> [(month.month, minor) for month, minor in months.select("month", "amount_minor").rows()]
    [(3, 750), (4, 750), (5, 750), (6, 750)]
    """
    known = kept.group_by("line_id").agg(pl.col("amount_minor").sum().alias("kept"))
    rest = lines.join(known, on="line_id", how="left", maintain_order="left").with_columns(
        pl.col("amount_minor") - pl.col("kept").fill_null(0)
    )
    midnight = datetime.combine(opens, time(), ZoneInfo(time_zone)).astimezone(UTC)
    instant = pl.lit(midnight).cast(SERVICE["starts_at"])
    rest = rest.with_columns(pl.max_horizontal("starts_at", instant).alias("starts_at"))
    rest = rest.with_columns(pl.max_horizontal("starts_at", "ends_at").alias("ends_at"))
    return schedule(rest.select(*SERVICE), time_zone)
