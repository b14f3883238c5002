"""On which day something is posted that belongs to a day which may be closed. Core.

Owns that what comes too late for its period is dated on the first open day, and names the period.
"""

from calendar import monthrange
from datetime import date, timedelta

import polars as pl


def dated(day: pl.Expr, closed_through: date | None) -> list[pl.Expr]:
    """The columns effective_at and relates_to_period of documents that belong to a day, when books are closed so far.

    >>> days = pl.DataFrame({"day": [date(2026, 7, 31), date(2026, 8, 31)]})
    >>> days.select(dated(pl.col("day"), date(2026, 7, 31))).rows()
    [(datetime.date(2026, 8, 1), '2026-07'), (datetime.date(2026, 8, 31), None)]
    """
    opens = pl.lit(date.min if closed_through is None else closed_through + timedelta(days=1))
    effective_at = pl.max_horizontal(day, opens)
    late = day.dt.month_start() < effective_at.dt.month_start()
    return [
        effective_at.alias("effective_at"),
        pl.when(late).then(day.dt.strftime("%Y-%m")).alias("relates_to_period"),
    ]


def last_day_of(period: str) -> date:
    """The last day of a month.

    >>> last_day_of("2028-02")
    datetime.date(2028, 2, 29)
    """
    first = date.fromisoformat(f"{period}-01")
    return first.replace(day=monthrange(first.year, first.month)[1])
