"""Windows of UTC, and how a segment's quantity is made of them."""

from decimal import Decimal
from typing import Any

import pytest

from tests.simulation.pricing_frames import Cut, Use, at, found, standard

#   hour    10       11       12       13       14
#            | 3, 4   |  none  | 9, -2  |  -5    |
USES = [Use("10.0", 3), Use("10.5", 4, "t"), Use(12, 9), Use(Decimal("12.75"), -2), Use(13, -5)]
USES = [use._replace(hour=Decimal(use.hour)) for use in USES]
FOUR_HOURS = Cut(start=10, end=14)


def charge(take: str, **more: Any) -> dict[str, Any]:
    return standard(buckets={"window": "hour", "take": take, **more})


@pytest.mark.parametrize(
    ("buckets", "quantity"),
    [
        ({"take": "sum"}, 9),
        ({"take": "max"}, 7),
        ({"take": "average"}, Decimal("2.25")),
        ({"take": "percentile", "percent": 50}, 0),
        ({"take": "percentile", "percent": 75}, 7),
        ({"take": "percentile", "percent": "50.0000000001"}, 7),
        ({"take": "percentile", "percent": 0}, 0),
        ({"take": "percentile", "percent": 100}, 7),
    ],
)
def test_windows_are_put_together(buckets: dict[str, Any], quantity: Decimal) -> None:
    """Windows without usage are 0. What was given back pays for other hours in sums and averages, and lowers no peak."""
    assert found(USES, [FOUR_HOURS], [charge(**buckets)]).parts["quantity"].to_list() == [quantity]


def test_a_peak_is_the_meters_aggregation_in_each_window() -> None:
    """The sum of hourly peaks of a MAX meter, over both subjects."""
    assert found(USES, [FOUR_HOURS], [charge("sum")], "MAX").parts["quantity"].to_list() == [4 + 9 - 5]


@pytest.mark.parametrize("take", ["sum", "max", "average", "percentile", "each"])
def test_what_windows_come_to_is_not_below_0(take: str) -> None:
    """More given back than used costs nothing, however the windows are put together."""
    parts = found(USES[-1:], [FOUR_HOURS], [charge(take, percent=0)]).parts
    assert parts["quantity"].to_list() == [0]


def test_a_window_that_a_segment_cuts_is_its_too() -> None:
    """An average over all windows that overlap the segment: here 11, 12 and 13, the first and the last in part."""
    cut = Cut(start=Decimal("11.5"), end=Decimal("13.000001"))
    assert found(USES, [cut], [charge("average")]).parts["quantity"].to_list() == [Decimal("0.666666667")]


@pytest.mark.parametrize(
    ("window", "bucket"), [("minute", Decimal("12.75")), ("hour", Decimal(12)), ("day", Decimal(0))]
)
def test_windows_of_utc(window: str, bucket: Decimal) -> None:
    """A bucket is named by the start of its window."""
    buckets = {"window": window, "take": "each"}
    parts = found([Use(Decimal("12.7599"), 1)], [Cut()], [standard(buckets=buckets)]).parts
    assert parts["bucket_at"].to_list() == [at(bucket)]


def test_each_bucket_is_priced_by_itself() -> None:
    """Tiers, conversion and included units start anew in each; one that two segments share runs on in it."""
    #   hour   10 [   7    ][  none  ][ 9 | -2 ][  -5  ]      1 is included in each
    #                                     ^ the segments meet at 12:30
    cuts = [Cut(start=10, end=Decimal("12.5")), Cut(start=Decimal("12.5"), end=14)]
    parts = found([*USES, Use(Decimal("12.9"), 6)], cuts, [{**charge("each"), "included": 1}]).parts
    assert parts.select("segment", "bucket_at", "before", "quantity", "total", "opens").rows() == [
        (0, at(10), 0, 6, 6, True),
        (0, at(12), 0, 8, 12, True),
        (1, at(12), 8, 4, 12, False),
        (1, at(13), 0, 0, 0, True),
    ]


def test_each_bucket_of_nothing() -> None:
    """A run without usage has parts of nothing that owe no flat amount; next to buckets there are none."""
    cuts = [Cut(start=10, end=12), Cut(start=12, end=14)]
    empty = found([], cuts, [charge("each")]).parts
    assert empty.select("segment", "bucket_at", "quantity", "opens").rows() == [
        (0, None, 0, False),
        (1, None, 0, False),
    ]
    assert found(USES[2:3], cuts, [charge("each")]).parts["segment"].to_list() == [1]


def test_groups_and_windows() -> None:
    """Each group has a peak of its own."""
    uses = [use._replace(more={"dimension.d": use.subject}) for use in USES]
    rows = found(uses, [FOUR_HOURS], [{**charge("max"), "group_by": ["d"]}]).rows
    assert rows.select("group", "quantity").rows() == [('{"d":"s"}', 7), ('{"d":"t"}', 4)]
