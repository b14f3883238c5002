"""Billing periods and the first instants of days."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.calendar import Days, full_period, midnight, periods
from schemas.plan import Cycle

ZONES = st.sampled_from(sorted(available_timezones() - {"localtime"}))
DAYS = st.dates(date(1975, 1, 1), date(2060, 12, 31))
CYCLES = st.builds(
    Cycle,
    every=st.sampled_from(["week", "month", "quarter", "year"]),
    anchor=st.sampled_from(["calendar", "anniversary"]),
)


@given(DAYS, ZONES)
def test_a_day_begins_at_its_first_instant(day: date, name: str) -> None:
    """At midnight the local day has come, and a second before it had not."""
    zone = ZoneInfo(name)
    begun = midnight(day, zone)
    assert begun.astimezone(zone).date() >= day
    assert (begun - timedelta(seconds=1)).astimezone(zone).date() < day


@pytest.mark.parametrize(
    ("zone", "day", "begun"),
    [
        ("America/Havana", date(2026, 3, 8), datetime(2026, 3, 8, 5, tzinfo=UTC)),  # 00:00 becomes 01:00
        ("America/Havana", date(2026, 11, 1), datetime(2026, 11, 1, 4, tzinfo=UTC)),  # twelve strikes twice
        ("Pacific/Apia", date(2011, 12, 30), datetime(2011, 12, 30, 10, tzinfo=UTC)),  # the day that there was not
        ("Pacific/Apia", date(2011, 12, 31), datetime(2011, 12, 30, 10, tzinfo=UTC)),
        ("Asia/Kathmandu", date(2026, 1, 1), datetime(2025, 12, 31, 18, 15, tzinfo=UTC)),
    ],
)
def test_midnights_that_are_odd(zone: str, day: date, begun: datetime) -> None:
    """Where the clock skips midnight the day begins with the jump, and where it strikes twice, with the first."""
    assert midnight(day, ZoneInfo(zone)) == begun


@given(CYCLES, DAYS, DAYS, st.one_of(st.none(), st.integers(1, 31)))
def test_periods_have_no_gap_and_no_overlap(cycle: Cycle, day: date, anchor: date, anchor_day: int | None) -> None:
    """Each day is in one period, and the day after a period begins the next."""
    whole = full_period(cycle, day, anchor, anchor_day)
    assert whole.start <= day < whole.end
    assert full_period(cycle, whole.start, anchor, anchor_day) == whole
    assert full_period(cycle, whole.end - timedelta(days=1), anchor, anchor_day) == whole
    assert full_period(cycle, whole.end, anchor, anchor_day).start == whole.end


def test_an_anniversary_recovers() -> None:
    """The 31st falls on the last day of a shorter month, and is the 31st again in the next that has one."""
    monthly = Cycle(every="month", anchor="anniversary")
    found = periods(monthly, date(2027, 12, 31), None, date(2027, 12, 31), date(2028, 5, 30))
    assert [str(days.start) for days in found] == ["2027-12-31", "2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]


def test_a_leap_day_is_an_anniversary() -> None:
    """A yearly contract of 29 February begins on the 28th in other years."""
    yearly = Cycle(every="year", anchor="anniversary")
    anchor = date(2028, 2, 29)
    assert full_period(yearly, date(2029, 6, 1), anchor) == Days(date(2029, 2, 28), date(2030, 2, 28))
    assert full_period(yearly, date(2032, 2, 29), anchor) == Days(date(2032, 2, 29), date(2033, 2, 28))


def test_an_anchor_before_the_start_gives_a_long_first_period() -> None:
    """A yearly contract of 31 January that is anchored at the 15th is in the period that began on the 15th."""
    yearly = Cycle(every="year", anchor="anniversary")
    assert full_period(yearly, date(2011, 1, 31), date(2011, 1, 31), 15) == Days(date(2011, 1, 15), date(2012, 1, 15))
