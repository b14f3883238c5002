"""Billing periods and fractions of them, one date at a time. docs/pricing.md, "Time"."""

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

from schemas.plan import Anchor, Cycle, Every

MONTHS = {Every.MONTH: 1, Every.QUARTER: 3, Every.YEAR: 12}


@dataclass(frozen=True)
class Period:
    """A billing period [start, end), and the full one [full_start, full_end) that it would be without cuts."""

    start: datetime
    end: datetime
    full_start: datetime
    full_end: datetime
    every: Every


def day_start(day: date, zone: ZoneInfo) -> datetime:
    """The first instant of a day in a time zone, in UTC. Where midnight is left out, the day begins after the gap.

    >>> day_start(date(2013, 1, 1), ZoneInfo("Asia/Kathmandu"))
    datetime.datetime(2012, 12, 31, 18, 15, tzinfo=datetime.timezone.utc)
    """
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def local_day(instant: datetime, zone: ZoneInfo) -> date:
    """The date that a calendar on the wall shows."""
    return instant.astimezone(zone).date()


def day_of_month(year: int, month: int, day: int) -> date:
    """A day of a month, or its last one where it lacks the day; months count on beyond 12.

    >>> day_of_month(2023, 14, 31)
    datetime.date(2024, 2, 29)
    """
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return date(year, month, min(day, monthrange(year, month)[1]))


def full_period(day: date, cycle: Cycle, starts_on: date | None, anchor_day: int | None) -> tuple[date, date]:
    """The dates of the cycle's period that holds a day.

    >>> monthly = Cycle(every="month", anchor="anniversary")
    >>> [full_period(date(2013, 2, at), monthly, date(2013, 1, 31), None)[1].isoformat() for at in (27, 28)]
    ['2013-02-28', '2013-03-31']
    """
    anniversary = cycle.anchor is Anchor.ANNIVERSARY and starts_on is not None
    if cycle.every is Every.WEEK:
        origin = starts_on if anniversary and starts_on else date(2001, 1, 1)  # a Monday
        start = day - timedelta(days=(day - origin).days % 7)
        return start, start + timedelta(days=7)
    months = MONTHS[cycle.every]
    anchor = (anchor_day or starts_on.day) if anniversary and starts_on else 1
    first_month = starts_on.month if anniversary and starts_on else 1
    starts = [day_of_month(year, first_month + months * at, anchor)
              for year in range(day.year - 2, day.year + 2) for at in range(12 // months)]  # fmt: skip
    start = max(start for start in starts if start <= day)
    return start, min(start for start in starts if start > day)


def fraction(  # noqa: PLR0911  one way out a policy
    policy: str, start: datetime, end: datetime, period: Period, zone: ZoneInfo, service_start: datetime
) -> Fraction:
    """What fraction of the full period a segment [start, end) is, by a proration policy."""
    if end <= start:
        return Fraction(0)
    if policy == "none":
        return Fraction(int(start <= service_start < end))
    if policy == "seconds":
        microsecond = timedelta(microseconds=1)
        return Fraction((end - start) // microsecond, (period.full_end - period.full_start) // microsecond)
    first, last = local_day(start, zone), local_day(end, zone)
    opening, closing = local_day(period.full_start, zone), local_day(period.full_end, zone)
    days, all_days = (last - first).days, (closing - opening).days
    if policy == "days_half_open":
        return Fraction(days, all_days)
    if policy == "days_inclusive":
        return Fraction(days + int(end != period.full_end), all_days)
    assert policy == "fixed_30"
    if period.every is Every.WEEK:
        return Fraction(days, 7)
    return Fraction(_thirties(last) - _thirties(first), _thirties(closing) - _thirties(opening))


def _thirties(day: date) -> int:
    return 360 * day.year + 30 * day.month + min(day.day, 30)
