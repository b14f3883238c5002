"""The accounting day of what is about a month: in it, or on the first open day where it is closed. Core."""

from datetime import date, timedelta


def open_day(day: date, closed_through: date | None) -> date:
    """The day, or the first one after a closed period.

    >>> open_day(date(2026, 1, 5), date(2026, 1, 31)), open_day(date(2026, 2, 5), date(2026, 1, 31))
    (datetime.date(2026, 2, 1), datetime.date(2026, 2, 5))
    """
    return day if closed_through is None else max(day, closed_through + timedelta(days=1))


def month_end(period: str) -> date:
    """The last day of a month.

    >>> month_end("2024-02")
    datetime.date(2024, 2, 29)
    """
    following = date.fromisoformat(f"{period}-01") + timedelta(days=31)
    return following.replace(day=1) - timedelta(days=1)


def closed_period(period: str, closed_through: date | None) -> str | None:
    """The month where it is closed, else None."""
    return period if closed_through is not None and month_end(period) <= closed_through else None
