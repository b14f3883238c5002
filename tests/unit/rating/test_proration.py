"""Fractions of a billing period, with the numbers that billing engines publish."""

from datetime import date
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rating.calendar import Days, full_period
from rating.proration import fraction
from schemas.plan import Cycle, Every, Proration

UTC = ZoneInfo("UTC")


def fraction_of(
    policy: str, start: str, end: str, full: Days, zone: ZoneInfo = UTC, every: Every = Every.MONTH
) -> Fraction:
    stretch = Days(date.fromisoformat(start), date.fromisoformat(end))
    return Fraction(*fraction(Proration(policy), stretch, full, zone, every, first=True))


def whole(start: str, end: str) -> Days:
    return Days(date.fromisoformat(start), date.fromisoformat(end))


@pytest.mark.parametrize(
    ("policy", "start", "end", "full", "expected"),
    [
        # Kill Bill: 14 of 31 days of a stub before the anchor; 30 days whatever the month
        ("days_half_open", "2011-02-14", "2011-02-28", whole("2011-01-31", "2011-03-03"), Fraction(14, 31)),
        ("fixed_30", "2012-05-23", "2012-06-15", whole("2012-05-15", "2012-06-15"), Fraction(22, 30)),
        # flexprice: the day of a change counts on both sides
        ("days_inclusive", "2026-01-15", "2026-02-01", whole("2026-01-01", "2026-02-01"), Fraction(17, 31)),
        ("days_inclusive", "2026-01-01", "2026-01-15", whole("2026-01-01", "2026-02-01"), Fraction(15, 31)),
        # OpenMeter: by duration, 15 of 31 days
        ("seconds", "2026-01-17", "2026-02-01", whole("2026-01-01", "2026-02-01"), Fraction(15, 31)),
        ("none", "2026-01-17", "2026-02-01", whole("2026-01-01", "2026-02-01"), Fraction(1)),
    ],
)
def test_published_fractions(policy: str, start: str, end: str, full: Days, expected: Fraction) -> None:
    """Each policy gives what the engine that it is named for publishes."""
    assert fraction_of(policy, start, end, full) == expected


def test_nothing_is_no_fraction_of_a_period() -> None:
    """Also where last days count: a period that is all trial owes no commitment."""
    full = whole("2026-01-01", "2026-02-01")
    for policy in ("seconds", "days_half_open", "days_inclusive", "fixed_30"):
        assert fraction_of(policy, "2026-01-15", "2026-01-15", full) == 0


def test_seconds_know_the_hour_that_the_clock_skips() -> None:
    """In a month with a jump of the clock, its day is an hour shorter than others."""
    march, berlin = whole("2026-03-01", "2026-04-01"), ZoneInfo("Europe/Berlin")
    assert fraction_of("seconds", "2026-03-29", "2026-03-30", march, berlin) == Fraction(23, 31 * 24 - 1)
    assert fraction_of("days_half_open", "2026-03-29", "2026-03-30", march, berlin) == Fraction(1, 31)


def test_thirty_days_of_a_short_anniversary() -> None:
    """From 31 January to 28 February there are 28 of 28, so that stretches still add up."""
    assert fraction_of("fixed_30", "2026-01-31", "2026-02-28", whole("2026-01-31", "2026-02-28")) == 1


@given(
    st.sampled_from(["seconds", "days_half_open", "fixed_30"]),
    st.sampled_from(list(Every)),
    st.sampled_from(["calendar", "anniversary"]),
    st.dates(date(2000, 1, 1), date(2040, 1, 1)),
    st.data(),
)
def test_stretches_add_up(policy: str, every: Every, anchor: str, day: date, data: st.DataObject) -> None:
    """Stretches that fill a period have fractions that add up to one."""
    full = full_period(Cycle(every=every, anchor=anchor), day, day)
    inner = data.draw(st.lists(st.dates(full.start, full.end), max_size=4))
    cuts = sorted({full.start, *inner, full.end})
    stretches = pairwise(cuts)
    zone = ZoneInfo("America/New_York")
    assert (
        sum(Fraction(*fraction(Proration(policy), Days(*each), full, zone, every, first=True)) for each in stretches)
        == 1
    )
