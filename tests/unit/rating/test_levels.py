"""Levels that last: recurring charges, and quantities weighted by time."""

from decimal import Decimal
from typing import Any

import pytest

from rating.quantities import Quantities
from tests.simulation.pricing_frames import Cut, Use, carried_of, found, standard

SEATS = standard(recurring=True)
WEIGHTED = {"window": "hour", "take": "time_weighted"}


def quantities_of(result: Quantities) -> list[Decimal]:
    return result.parts["quantity"].to_list()


def test_a_recurring_charge_starts_with_what_it_ended_with() -> None:
    """The quantity is the level brought plus the sum of the period; that is what the next period starts with."""
    #      0h (10 seats brought)   300h: +2   600h: -5      744h
    result = found([Use(300, 2), Use(600, -5)], [Cut()], [SEATS], carried=carried_of((0, "c", "", 0, 10)))
    assert quantities_of(result) == [7]
    assert result.carried.rows() == [(0, "c", "", 0, 7)]
    assert quantities_of(found([], [Cut()], [SEATS], carried=result.carried)) == [7]
    assert found([Use(1, -7)], [Cut()], [SEATS], carried=result.carried).carried.height == 0


def test_a_level_below_0_is_carried_on_but_not_sold() -> None:
    """What was given back too much counts against what comes next."""
    result = found([Use(1, -3)], [Cut()], [SEATS])
    assert quantities_of(result) == [0]
    assert quantities_of(found([Use(1, 5)], [Cut()], [SEATS], carried=result.carried)) == [2]


def test_only_the_first_segment_of_a_period_has_the_level_that_was_brought() -> None:
    """Each period of a frame starts with the level that the one before it ended with."""
    cuts = [
        Cut(0, 0, 50, period=(0, 100)), Cut(0, 50, 100, period=(0, 100)), Cut(0, 100, 200, period=(100, 200), run=1),
    ]  # fmt: skip
    result = found([Use(10, 1), Use(60, 2), Use(150, 4)], cuts, [SEATS], carried=carried_of((0, "c", "", 0, 10)))
    assert result.parts.select("before", "quantity", "total").rows() == [(0, 11, 13), (11, 2, 13), (0, 17, 17)]


def test_a_level_lasts_until_the_periods_end() -> None:
    """Each level by how long it lasted."""
    #      0h       100h           400h
    #       | none   | level 3      |      3 * 300 / 400 = 2.25
    cut = Cut(end=400, period=(0, 400))
    assert quantities_of(found([Use(100, 3)], [cut], [standard(buckets=WEIGHTED)])) == [Decimal("2.25")]
    brought = found(
        [Use(100, 3)], [cut], [standard(buckets=WEIGHTED, recurring=True)], carried=carried_of((0, "c", "", 0, 1))
    )
    assert quantities_of(brought) == [Decimal("3.25")]
    assert brought.carried["quantity"].to_list() == [4]


def test_a_level_goes_on_over_the_border_of_segments() -> None:
    """A segment without any usage has the level of the one before; all add up to the period's."""
    #      0h       100h      200h     300h
    #       [ 1 from 50h )[ +1 at 150h )[ none )      50 / 300, 100 / 300 + 50 / 300, 200 / 300
    cuts = [Cut(0, start, start + 100, period=(0, 300)) for start in (0, 100, 200)]
    result = found([Use(50, 1), Use(150, 1)], cuts, [standard(buckets=WEIGHTED)])
    assert quantities_of(result) == [Decimal("0.166666667"), Decimal("0.5"), Decimal("0.666666666")]
    apart = found(
        [Use(50, 1), Use(150, 1)], [cut._replace(run=cut.start) for cut in cuts], [standard(buckets=WEIGHTED)]
    )
    assert quantities_of(apart) == quantities_of(result)
    assert apart.parts["opens"].to_list() == [True, True, True]


@pytest.mark.parametrize("aggregation", ["MAX", "MIN", "LATEST"])
def test_values_that_do_not_add_up_replace_each_other(aggregation: str) -> None:
    """The level is the value that came last; before the first one it is 0, also where a recorded one was brought."""
    #      0h        100h: 8          300h: 2         400h
    latest: dict[str, Any] = {"time": None, "appended_at": None, "partition": 0, "offset": 0, "line": 0}
    uses = [Use(100, 8, more={"latest": latest}), Use(300, 2, "t", more={"latest": latest})]
    cuts = [Cut(0, 0, 200, period=(0, 400)), Cut(0, 200, 400, period=(0, 400))]
    result = found(uses, cuts, [standard(buckets=WEIGHTED)], aggregation, carried=carried_of((0, "c", "", 0, 99)))
    assert quantities_of(result) == [2, Decimal("2.5")]
    assert result.carried.height == 0


def test_groups_each_have_a_level() -> None:
    """A group that was only brought, and one that ended, are sold as long as their level lasts."""
    by_region = standard(recurring=True, group_by=["region"], buckets=WEIGHTED)
    brought = carried_of((0, "c", '{"region":"eu"}', 0, 4))
    use = Use(50, 2, more={"dimension.region": "us"})
    result = found([use], [Cut(0, 0, 100, period=(0, 100))], [by_region], carried=brought)
    assert result.rows.select("group", "quantity").rows() == [('{"region":"eu"}', 4), ('{"region":"us"}', 1)]
    assert result.carried.select("group", "quantity").rows() == [('{"region":"eu"}', 4), ('{"region":"us"}', 2)]


def test_the_largest_levels_of_the_longest_periods_are_exact() -> None:
    """10 ** 17 units over a year in microseconds need more than 128 bits in one number; so they are in two."""
    largest = Decimal(10) ** 17 - Decimal("1e-9")
    year = 366 * 24
    cut = Cut(end=year, period=(0, year))
    assert quantities_of(found([Use(0, largest)], [cut], [standard(buckets=WEIGHTED)])) == [largest]
    third = found([Use(Decimal(year) / 3 * 2, largest)], [cut], [standard(buckets=WEIGHTED)])
    assert quantities_of(third) == [Decimal("33333333333333333.333333333")]
    with pytest.raises(OverflowError):
        found([Use(0, largest), Use(1, 1)], [cut], [standard(buckets=WEIGHTED)])


@pytest.mark.parametrize(
    ("keys", "aggregation"),
    [({}, "MAX"), ({"buckets": {"window": "day", "take": "max"}}, "SUM"), ({"buckets": {"window": "day", "take": "each"}}, "SUM")],
)  # fmt: skip
def test_what_cannot_recur_is_refused(keys: dict[str, Any], aggregation: str) -> None:
    """A highest value does not go on into the next period."""
    with pytest.raises(ValueError, match="charge c: recurring goes with a SUM meter"):
        found([], [Cut()], [standard(recurring=True, **keys)], aggregation)


@pytest.mark.parametrize("keys", [{"recurring": True}, {"buckets": WEIGHTED}])
def test_a_matrix_has_no_levels(keys: dict[str, Any]) -> None:
    """What lasts would go on in the cell of the same number, which may be another one in the next version."""
    matrix = {
        "id": "c",
        "model": "matrix",
        "meter": "m",
        "dimensions": ["d"],
        "cells": [{"when": {"d": "x"}, "unit_price": 1}],
    }
    with pytest.raises(ValueError, match="charge c: a matrix goes with neither recurring nor time_weighted"):
        found([], [Cut()], [{**matrix, **keys}])


def test_a_level_is_the_charges_wherever_it_stands() -> None:
    """Another plan has the charge at another place; its level goes on into the next period there."""
    cuts = [Cut(0, 0, 100, period=(0, 100)), Cut(0, 100, 200, period=(100, 200), run=1, slot=3)]
    result = found([Use(10, 2)], cuts, [SEATS])
    assert (quantities_of(result), result.carried.rows()) == ([2, 2], [(0, "c", "", 0, 2)])
