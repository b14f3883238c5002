"""Percentages that look at single events: what is free, what costs a fee, what the bounds change."""

from decimal import Decimal
from typing import Any

import pytest

from tests.simulation.pricing_frames import Cut, Use, found

VALUES = [30, 50, 90, 10]
USES = [Use(10 * place, value, "st"[place % 2]) for place, value in enumerate(VALUES, 1)]


def charge(**keys: Any) -> dict[str, Any]:
    return {"id": "p", "model": "percentage", "meter": "m", "rate_percent": 10, **keys}


@pytest.mark.parametrize(
    ("keys", "paid", "fees"),
    [
        #                                           events of 30, 50, 90, 10
        ({"fixed": 1}, 180, 4),
        ({"free_events": 2}, 100, 2),
        ({"free_events": 9}, 0, 0),
        ({"free_events": 0}, 180, 4),
        ({"free_amount": 100}, 80, 2),  # of the third event 20 are free; it costs a fee
        ({"free_amount": 170}, 10, 1),
        ({"free_events": 2, "free_amount": 100}, 100, 2),
        ({"free_events": 3, "free_amount": 100}, 80, 2),
        ({"free_events": 3, "free_amount": 40}, 140, 3),
    ],
)
def test_free_units_are_those_of_the_first_events(keys: dict[str, Any], paid: int, fees: int) -> None:
    """Free units are the lesser of free_amount and what free_events come to; an event free in part is not free."""
    result = found(USES, [Cut()], [charge(**keys)])
    assert result.parts.select("quantity", "fees", "bounded", "opens").rows() == [(paid, fees, None, True)]
    assert result.rows["quantity"].to_list() == [180]


def test_bounds_change_the_cost_of_an_event() -> None:
    """Costs of 3.5, 5.5, 9.5 and 1.5 are raised to 4 and lowered to 9; a free one costs nothing, whatever they say."""
    keys = {"fixed": "0.5", "event_minimum": 4, "event_maximum": 9}
    assert found(USES, [Cut()], [charge(**keys)]).parts["bounded"].to_list() == [Decimal("2.5")]
    assert found(USES, [Cut()], [charge(**keys, free_events=1)]).parts["bounded"].to_list() == [2]


def test_the_free_allowance_is_that_of_the_run() -> None:
    """It goes on from one segment to the next; in another run it starts anew, and a trial does not use it up."""
    #      30 at 10h   50 at 20h | 90 at 30h   10 at 40h      free_amount 100
    first, second = Cut(end=25), Cut(start=25)
    terms = [charge(free_amount=100)]
    told = ("before", "quantity", "total", "fees", "opens")
    assert found(USES, [first, second], terms).parts.select(told).rows() == [(0, 0, 80, 0, True), (0, 80, 80, 2, False)]
    apart = found(USES, [first, second._replace(run=1)], terms).parts
    assert apart.select(told).rows() == [(0, 0, 0, 0, True), (0, 0, 0, 0, True)]
    trial = found(USES, [first._replace(trial=True), second], terms)
    assert trial.parts.select(told).rows() == [(0, 80, 80, 0, False), (0, 0, 0, 0, True)]


def test_events_of_one_instant_stand_in_the_order_of_the_log() -> None:
    """By position, if it is told; else by the order of the rows."""
    uses = [Use(1, 70, more={"position": 2}), Use(1, 5, more={"position": 1})]
    assert found(uses, [Cut()], [charge(free_events=1)]).parts["quantity"].to_list() == [70]
    plain = [use._replace(more=None) for use in uses]
    assert found(plain, [Cut()], [charge(free_events=1)]).parts["quantity"].to_list() == [5]


def test_events_of_value_0_or_below_are_nothing() -> None:
    """They cost no fee, no least amount, and use up no free event."""
    uses = [Use(1, 0), Use(2, -50), Use(3, 7), Use(4, 8)]
    parts = found(uses, [Cut()], [charge(free_events=1, fixed=1, event_minimum=5)]).parts
    assert parts.select("quantity", "fees").rows() == [(8, 1)]
    empty = found(uses[:2], [Cut()], [charge(free_events=1, fixed=1, event_minimum=5)]).parts
    assert empty.select("quantity", "fees", "bounded").rows() == [(0, 0, 0)]


def test_conversion_and_included_units_come_before() -> None:
    """Cents become dollars; the first event is covered by the included units whole, so it is no event."""
    uses = [Use(1, 200), Use(2, 300), Use(3, 400)]
    parts = found(uses, [Cut()], [charge(unit={"divide_by": 100}, included=2, free_events=1)]).parts
    assert parts.select("quantity", "fees").rows() == [(4, 1)]


def test_each_bucket_and_each_group_has_an_allowance() -> None:
    """With take each every window starts anew; so does every combination of values."""
    uses = [use._replace(more={"dimension.d": use.subject}) for use in USES]
    grouped = found(uses, [Cut()], [charge(free_events=1, group_by=["d"])])
    assert grouped.parts["quantity"].to_list() == [10, 90]
    each = found(USES, [Cut()], [charge(free_events=1, buckets={"window": "day", "take": "each"})])
    assert each.parts["quantity"].to_list() == [50, 10]


def test_without_a_look_at_events_a_row_may_add_up_several() -> None:
    """A mere percentage takes sums, refunds too; one with a fee refuses a row of several events."""
    uses = [Use(1, 30, more={"count": 3}), Use(2, -10)]
    assert found(uses, [Cut()], [charge()]).parts.select("quantity", "fees").rows() == [(20, None)]
    with pytest.raises(ValueError, match="charge p: a row of usage has 3 events; allowed: one"):
        found(uses, [Cut()], [charge(fixed=1)])


def test_what_is_made_of_windows_has_no_events() -> None:
    """A peak is no event: it goes with no fee."""
    with pytest.raises(ValueError, match="charge p: a percentage of single events goes with no take but each"):
        found([], [Cut()], [charge(fixed=1, buckets={"window": "day", "take": "max"})])


def test_costs_that_no_amount_holds_are_an_error() -> None:
    """A cost needs more than 17 whole digits."""
    largest = Decimal(10) ** 17 - 1
    with pytest.raises(OverflowError, match="the cost of an event"):
        found([Use(1, largest)], [Cut()], [charge(rate_percent=100, fixed=largest)])
