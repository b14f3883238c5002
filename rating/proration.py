"""Proration: what fraction of a full billing period a stretch of it is, exactly. Core.

The policies are named for what other engines do; docs/pricing.md says them in words. Nothing is rounded here: an amount
is multiplied by a numerator, and divided once by the denominator that all stretches of a period share.
"""

from zoneinfo import ZoneInfo

from rating.calendar import Days, midnight
from schemas.plan import Every, Proration


def fraction(
    policy: Proration, stretch: Days, full: Days, zone: ZoneInfo, every: Every, *, first: bool
) -> tuple[int, int]:
    """Numerator and denominator of a stretch of local days in its full period; `first` is for Proration.NONE alone.

    A plan that is left on the 15th of January was kept for 14 days; where the last day counts too, for 15:

    >>> from datetime import date
    >>> january, kept = Days(date(2026, 1, 1), date(2026, 2, 1)), Days(date(2026, 1, 1), date(2026, 1, 15))
    >>> utc = ZoneInfo("UTC")
    >>> [fraction(Proration(name), kept, january, utc, Every.MONTH, first=True)
    ...  for name in ("seconds", "days_half_open", "days_inclusive", "fixed_30", "none")]
    [(1209600, 2678400), (14, 31), (15, 31), (14, 30), (1, 1)]
    """
    match policy:
        case Proration.SECONDS:
            return _seconds(stretch, zone), _seconds(full, zone)
        case Proration.DAYS_HALF_OPEN:
            return _days(stretch), _days(full)
        case Proration.DAYS_INCLUSIVE:
            last = stretch.start < stretch.end < full.end
            return _days(stretch) + last, _days(full)
        case Proration.FIXED_30 if every is Every.WEEK:
            return _days(stretch), _days(full)
        case Proration.FIXED_30:
            return _days_30(stretch), _days_30(full)
        case Proration.NONE:
            return int(first), 1


def _seconds(days: Days, zone: ZoneInfo) -> int:
    return int((midnight(days.end, zone) - midnight(days.start, zone)).total_seconds())


def _days(days: Days) -> int:
    return (days.end - days.start).days


def _days_30(days: Days) -> int:
    """Days from start to end where every month has 30.

    >>> from datetime import date
    >>> _days_30(Days(date(2026, 5, 23), date(2026, 6, 15)))
    22
    """
    start, end = days
    months = (end.year - start.year) * 12 + end.month - start.month
    return months * 30 + min(end.day, 30) - min(start.day, 30)
