"""Windows of a query, on the days on which clocks change."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from aggregation.windows import DAY_S, HOUR_S, boundaries, shown
from schemas.usage_query import WindowSize

CASES = [
    # Lord Howe turns its clock by half an hour: the hour from one to two has 90 minutes, or the one from two has 30
    ("Australia/Lord_Howe", "2013-04-06T13:30Z", WindowSize.HOUR, [1, 1.5, 1]),
    ("Australia/Lord_Howe", "2013-10-05T14:00Z", WindowSize.HOUR, [1, 1, 0.5]),
    ("America/New_York", "2013-11-03T05:30Z", WindowSize.HOUR, [1, 1, 1]),
    ("America/New_York", "2013-11-03T04:00Z", WindowSize.DAY, [25, 24, 24]),
    ("America/New_York", "2013-03-10T05:00Z", WindowSize.DAY, [23, 24, 24]),
    ("America/Sao_Paulo", "2013-10-20T03:00Z", WindowSize.DAY, [23, 24, 24]),  # this day had no midnight
    ("America/Sao_Paulo", "2013-02-16T02:00Z", WindowSize.DAY, [25, 24, 24]),  # this one had its last hour twice
    ("Pacific/Apia", "2011-12-29T10:00Z", WindowSize.DAY, [24, 24, 24]),  # and there was no 30th here
    ("Asia/Kathmandu", "2013-01-31T18:15Z", WindowSize.MONTH, [28 * 24, 31 * 24]),
    ("UTC", "2012-02-10T00:00Z", WindowSize.MONTH, [29 * 24]),
]


@pytest.mark.parametrize(("zone", "start", "size", "hours"), CASES)
def test_windows_have_the_length_that_the_local_clock_gives_them(
    zone: str, start: str, size: WindowSize, hours: list[float]
) -> None:
    """They follow each other without a gap, and the first one has the start in it."""
    second = int(datetime.fromisoformat(start).timestamp())
    found = boundaries(second, second + 100 * DAY_S, size, ZoneInfo(zone))
    assert found[0] <= second < found[1]
    assert (np.diff(found)[: len(hours)] / HOUR_S).tolist() == hours


def test_a_window_that_is_touched_is_whole() -> None:
    """One second of a day is that day; a range that ends at a bound does not open the next window."""
    assert boundaries(5, 6, WindowSize.DAY, ZoneInfo("UTC")).tolist() == [0, DAY_S]
    assert boundaries(0, DAY_S, WindowSize.DAY, ZoneInfo("UTC")).tolist() == [0, DAY_S]


def test_an_instant_is_shown_with_the_offset_of_its_day() -> None:
    """As Go writes it: Z where there is none."""
    zone = ZoneInfo("Europe/London")
    days = [int(datetime.fromisoformat(day).timestamp()) for day in ("2013-01-01T00:00Z", "2013-07-01T00:00Z")]
    assert [shown(day, zone) for day in days] == ["2013-01-01T00:00:00Z", "2013-07-01T01:00:00+01:00"]
