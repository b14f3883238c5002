"""Schedules once more: one line and one month at a time, with fractions and the calendar of the standard library."""

from calendar import monthrange
from datetime import date, datetime, timedelta
from fractions import Fraction
from math import floor
from zoneinfo import ZoneInfo

Months = list[tuple[date, int]]


def schedule_slowly(amount: int, starts_at: datetime, ends_at: datetime, method: str, time_zone: str) -> Months:
    """What `invoicing.recognition.schedules.schedule` must answer for a line: months and their amounts, no zeros."""
    zone = ZoneInfo(time_zone)
    start, end = starts_at.replace(microsecond=0), ends_at.replace(microsecond=0)
    months = {
        "exact": _exact, "day": _day, "even_months": _even_months, "prorated_ends": _prorated_ends,
    }[method](abs(amount), start, end, zone)  # fmt: skip
    sign = 1 if amount >= 0 else -1
    return [(month, sign * part) for month, part in months if part]


def _exact(amount: int, start: datetime, end: datetime, zone: ZoneInfo) -> Months:
    parts = _seconds(start, end, zone)
    return _cumulated(amount, [(month, Fraction(part, sum(each for _, each in parts) or 1)) for month, part in parts])


def _day(amount: int, start: datetime, end: datetime, zone: ZoneInfo) -> Months:
    first, last = start.astimezone(zone).date(), end.astimezone(zone).date()
    days = [first + timedelta(days=number) for number in range((last - first).days)] or [first]
    parts: dict[date, int] = {}
    for day in days:
        parts[day.replace(day=1)] = parts.get(day.replace(day=1), 0) + 1
    return _cumulated(amount, [(month, Fraction(part, len(days))) for month, part in parts.items()])


def _even_months(amount: int, start: datetime, end: datetime, zone: ZoneInfo) -> Months:
    first, last = start.astimezone(zone).replace(tzinfo=None), end.astimezone(zone).replace(tzinfo=None)
    count = 1
    while _months_on(first, count) < last:
        count += 1
    return _equal(amount, [_months_on(first, number).date().replace(day=1) for number in range(count)])


def _prorated_ends(amount: int, start: datetime, end: datetime, zone: ZoneInfo) -> Months:
    parts = _seconds(start, end, zone)
    months = [month for month, _ in parts]
    whole = sum(part for _, part in parts) or 1
    if len(parts) == 1:
        return [(months[0], amount)]
    first = _rounded(Fraction(amount * parts[0][1], whole))
    if len(parts) == 2:
        return [(months[0], first), (months[1], amount - first)]
    last = _rounded(Fraction(amount * parts[-1][1], whole))
    return [(months[0], first), *_equal(amount - first - last, months[1:-1]), (months[-1], last)]


def _seconds(start: datetime, end: datetime, zone: ZoneInfo) -> list[tuple[date, int]]:
    parts, at = [], start
    while True:
        month = at.astimezone(zone).date().replace(day=1)
        following = _months_on(datetime(month.year, month.month, 1, tzinfo=zone), 1)
        upto = min(datetime.fromtimestamp(following.timestamp(), start.tzinfo), end)
        parts.append((month, round((upto - at).total_seconds())))
        if upto >= end:
            return parts
        at = upto


def _months_on(instant: datetime, months: int) -> datetime:
    number = instant.year * 12 + instant.month - 1 + months
    year, month = number // 12, number % 12 + 1
    return instant.replace(year=year, month=month, day=min(instant.day, monthrange(year, month)[1]))


def _cumulated(amount: int, parts: list[tuple[date, Fraction]]) -> Months:
    months: Months = []
    done, so_far = Fraction(0), 0
    for month, part in parts[:-1]:
        done += part
        months.append((month, _rounded(amount * done) - so_far))
        so_far = _rounded(amount * done)
    return [*months, (parts[-1][0], amount - so_far)]


def _equal(amount: int, months: list[date]) -> Months:
    each = amount // len(months)
    return [*((month, each) for month in months[:-1]), (months[-1], amount - each * (len(months) - 1))]


def _rounded(amount: Fraction) -> int:
    return floor(amount + Fraction(1, 2))
