"""Billing periods: where they begin and end, by the calendar of a time zone. Core.

Owns that periods follow each other without gap or overlap, and that an anniversary recovers after a short month.
Days are counted where the customer is; instants are UTC.
"""

from bisect import bisect_left
from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from schemas.plan import Anchor, Cycle, Every

_MONTHS = {Every.MONTH: 1, Every.QUARTER: 3, Every.YEAR: 12}
_MONDAY = date(1, 1, 1)


class Days(NamedTuple):
    """A stretch of local days, half-open."""

    start: date
    end: date


def midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a local day, in UTC.

    Where the clock skips midnight, the day begins with the jump; where it strikes twelve twice, with the first.

    >>> midnight(date(2026, 4, 24), ZoneInfo("Africa/Cairo")).isoformat()
    '2026-04-23T22:00:00+00:00'
    >>> midnight(date(2026, 1, 1), ZoneInfo("Asia/Kathmandu")).isoformat()
    '2025-12-31T18:15:00+00:00'
    """
    clock = datetime.combine(day, time(), zone)
    instant = clock.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == clock.replace(tzinfo=None):
        return instant
    # The jump is between both readings of a clock time that was skipped: by the offset after it, and before it.
    between = range(int(clock.replace(fold=1).timestamp()), int(clock.timestamp()) + 1)
    jump = between[bisect_left(between, day, key=lambda second: datetime.fromtimestamp(second, zone).date())]
    return datetime.fromtimestamp(jump, UTC)


def full_period(cycle: Cycle, day: date, anchor: date, anchor_day: int | None = None) -> Days:
    """The whole period that holds a day. `anchor` is the contract's first day; `anchor_day` overrides its day.

    An anniversary on a day that a month lacks falls on the month's last day, and recovers in the next:

        anchor 31 January:  |31 Jan ... |28 Feb ... |31 Mar ... |30 Apr ...

    >>> monthly = Cycle(every="month", anchor="anniversary")
    >>> full_period(monthly, date(2026, 3, 1), date(2026, 1, 31))
    Days(start=datetime.date(2026, 2, 28), end=datetime.date(2026, 3, 31))
    >>> full_period(Cycle(every="quarter"), date(2026, 5, 5), date(2026, 1, 31))
    Days(start=datetime.date(2026, 4, 1), end=datetime.date(2026, 7, 1))
    """
    anniversary = cycle.anchor is Anchor.ANNIVERSARY
    if cycle.every is Every.WEEK:
        start = day - timedelta(days=(day - (anchor if anniversary else _MONDAY)).days % 7)
        return Days(start, start + timedelta(days=7))
    step = _MONTHS[cycle.every]
    base = _month(anchor) if anniversary else 0
    at = (anchor_day or anchor.day) if anniversary else 1
    month = base + (_month(day) - base) // step * step
    if _clamped(month, at) > day:
        month -= step
    return Days(_clamped(month, at), _clamped(month + step, at))


def periods(cycle: Cycle, anchor: date, anchor_day: int | None, first: date, last: date) -> Iterator[Days]:
    """The whole periods that hold the days from first to last, both included, in their order.

    >>> [str(days.start) for days in periods(Cycle(), date(2026, 1, 15), None, date(2026, 1, 15), date(2026, 2, 1))]
    ['2026-01-01', '2026-02-01']
    """
    days = full_period(cycle, first, anchor, anchor_day)
    while days.start <= last:
        yield days
        days = full_period(cycle, days.end, anchor, anchor_day)


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1


def _clamped(month: int, day: int) -> date:
    year, month = divmod(month, 12)
    return date(year, month + 1, min(day, monthrange(year, month + 1)[1]))
