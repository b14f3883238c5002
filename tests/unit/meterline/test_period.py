"""Periods: what names a month, and where it begins and ends."""

from datetime import UTC, datetime

import pytest

from meterline.period import Period


def test_a_month_is_half_open() -> None:
    """Its start is in it, its end is the next month's start, also over the year's end."""
    assert Period.parse("2013-12") == Period(datetime(2013, 12, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC))
    assert str(Period.parse("2012-02")) == "2012-02"


@pytest.mark.parametrize(
    "text", ["", "2013", "2013-1", "2013-13", "2013-00", "13-01", "2013-01-01", "2013-01 ", "january"]
)
def test_a_month_has_one_spelling(text: str) -> None:
    """Another spelling would be another period in the books; the message says what is allowed."""
    with pytest.raises(ValueError, match="allowed: a month such as 2013-01"):
        Period.parse(text)
