"""Which usage is whose, and how the parts of a charge follow each other."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from rating.frames import PARTS, ROWS
from rating.quantities import Quantities
from tests.simulation.pricing_frames import HOURS, Cut, Use, at, found, standard

ZERO = Decimal(0)


def sold(result: Quantities) -> list[tuple[Any, ...]]:
    """Before, quantity, total and opens of each part."""
    return result.parts.select("before", "quantity", "total", "opens").rows()


def by_group(result: Quantities) -> dict[str, Decimal]:
    return dict(result.rows.select("group", "quantity").rows())


def test_a_segment_has_the_usage_from_its_start_until_before_its_end() -> None:
    """Segments are closed at the start and open at the end; usage outside of all of them is nobody's."""
    #      0h              100h             200h
    #       [--- segment 0 --)[--- segment 1 --)
    #       ^ 1            2^ ^ 4          8^  ^ 16
    microsecond = Decimal("0.0000000003")
    uses = [Use(0, 1), Use(100 - microsecond, 2), Use(100, 4), Use(200 - microsecond, 8), Use(200, 16)]
    result = found(uses, [Cut(start=0, end=100), Cut(start=100, end=200)], [standard()])
    assert sold(result) == [(0, 3, 15, True), (3, 12, 15, False)]
    assert dict(result.parts.schema) == PARTS
    assert dict(result.rows.schema) == ROWS
    assert result.rows.rows() == [(0, 0, at(0), at(HOURS), "", Decimal(15))]


def test_subjects_of_a_customer_are_one() -> None:
    """Quantities are the customer's; usage of strangers, and of meters that nobody charges for, is left out."""
    uses = [
        Use(1, 5),
        Use(1, 6, "t"),
        Use(1, 7, "other"),
        Use(1, 9, meter="n"),
        Use(1, 3, "stranger"),
        Use(1, 1, meter="x"),
    ]
    cuts = [Cut(run=0), Cut(place=1, run=1), Cut(place=2, run=2)]
    result = found(uses, cuts, [standard()], places={"s": 0, "t": 0, "other": 1})
    assert result.rows.select("place", "quantity").rows() == [(0, 11), (1, 7), (2, 0)]


@pytest.mark.parametrize(
    ("aggregation", "uses", "quantity"),
    [
        ("MIN", [Use(1, 5), Use(2, 3, "t"), Use(3, 4)], 3),
        ("MAX", [Use(1, 5), Use(2, 9, "t"), Use(3, 4)], 9),
        ("COUNT", [Use(1, 5), Use(2, 9, "t")], 14),
        ("SUM", [Use(1, 5), Use(2, -9, "t")], 0),
        ("UNIQUE_COUNT", [Use(1, None, more={"uniques": ["a", "b"]}), Use(2, None, "t", more={"uniques": ["b"]})], 2),
        ("AVG", [Use(1, None, more={"sum": 5, "count": 2}), Use(2, None, "t", more={"sum": 5, "count": 1})], Decimal("3.333333333")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("long_way", [False, True])
def test_usage_is_combined_as_the_meter_says(
    aggregation: str, uses: list[Use], quantity: Decimal, long_way: bool
) -> None:
    """Over all subjects, never below 0, and alike on the short way and, because of a filter, on the long one."""
    more = {"dimension.d": "x"} if long_way else {}
    uses = [use._replace(more={**(use.more or {}), **more}) for use in uses]
    charge = standard(filters={"d": "x"}) if long_way else standard()
    assert sold(found(uses, [Cut()], [charge], aggregation)) == [(0, quantity, quantity, True)]


def test_the_latest_value_is_last_in_time_then_in_the_log() -> None:
    """Of all subjects the one that came last, whatever the order of rows."""

    def latest(hour: int, offset: int) -> dict[str, Any]:
        return {"latest": {"time": at(hour), "appended_at": at(9), "partition": 0, "offset": offset, "line": 0}}

    uses = [Use(2, 7, more=latest(2, 5)), Use(1, 9, "t", more=latest(1, 8)), Use(2, 6, "t", more=latest(2, 4))]
    assert sold(found(uses, [Cut()], [standard()], "LATEST")) == [(0, 7, 7, True)]


def test_filters_and_groups() -> None:
    """Only usage that has one of the values of each key; a row for each combination; a missing value is an empty text."""
    rows = [("eu", "a", 1), ("eu", "b", 2), ("us", "a", 4), ("fr", "a", 8), (None, "a", 16), ("eu", 'q"\n', 32)]
    uses = [Use(1, value, more={"dimension.region": region, "dimension.size": size}) for region, size, value in rows]
    assert sold(found(uses, [Cut()], [standard(filters={"region": ["eu", "us"], "size": "a"})])) == [(0, 5, 5, True)]
    assert by_group(found(uses, [Cut()], [standard(filters={"region": ""})])) == {"": 16}
    assert by_group(found(uses, [Cut()], [standard(group_by=["size", "region"], filters={"region": ["eu", ""]})])) == {
        '{"size":"a","region":""}': 16,
        '{"size":"a","region":"eu"}': 1,
        '{"size":"b","region":"eu"}': 2,
        '{"size":"q\\"\\n","region":"eu"}': 32,
    }
    with pytest.raises(ValueError, match=r"usage lacks the columns of dimensions that charges ask for: zone"):
        found(uses, [Cut()], [standard(filters={"zone": "x"})])


def test_what_is_not_used_has_a_part_unless_it_is_grouped() -> None:
    """So that a first tier's flat amount is owed; no combination of values is made up."""
    assert sold(found([], [Cut(end=100), Cut(start=100)], [standard()])) == [(0, 0, 0, True), (0, 0, 0, False)]
    grouped = found(
        [Use(200, 3, more={"dimension.d": "x"})], [Cut(end=100), Cut(start=100)], [standard(group_by=["d"])]
    )
    assert grouped.parts.select("segment", "quantity", "opens").rows() == [(1, 3, True)]
    assert found([], [Cut()], [standard(filters={"d": "x"}, group_by=["d"])]).rows.height == 0


MATRIX = {
    "id": "vm", "model": "matrix", "meter": "m", "dimensions": ["region", "size"],
    "cells": [
        {"when": {"region": "eu", "size": ["s", "m"]}, "unit_price": 1},
        {"when": {"region": ["eu", "us"]}, "unit_price": 2},
    ],
}  # fmt: skip
SIZES = [("eu", "m", 10), ("eu", "l", 20), ("us", "s", 30), ("fr", "s", 40), (None, None, 5)]


def matrix_uses() -> list[Use]:
    return [
        Use(hour, value, more={"dimension.region": region, "dimension.size": size})
        for hour, (region, size, value) in enumerate(SIZES)
    ]


def test_a_unit_is_sold_by_the_first_cell_that_it_meets() -> None:
    """A dimension that a cell leaves out may have any value; what no cell takes is told, or has the default price."""
    result = found(matrix_uses(), [Cut()], [MATRIX])
    assert result.parts.select("cell", "quantity", "opens").rows() == [(0, 10, True), (1, 50, False)]
    assert result.unassigned.rows() == [("s", "m", Decimal(45), "no cell of charge vm takes it")]
    everything = found(matrix_uses(), [Cut()], [{**MATRIX, "default_price": 3}])
    assert everything.parts.select("cell", "quantity").rows() == [(0, 10), (1, 50), (2, 45)]
    assert everything.unassigned.height == 0


def test_included_units_are_those_of_the_whole_matrix() -> None:
    """Cell by cell in their order, earlier segments first."""
    #   hour         0      1      2                                 3
    #   cell, units  0: 10  1: 20  1: 30     included 15:  0: 10 of 10, 1: 5 of 50 in the first segment
    cuts = [Cut(end=3), Cut(start=3)]
    result = found(matrix_uses(), cuts, [{**MATRIX, "default_price": 3, "included": 15}])
    assert result.parts.select("segment", "cell", "before", "quantity", "total").rows() == [
        (0, 0, 0, 0, 90), (0, 1, 0, 45, 90), (1, 2, 45, 45, 90),
    ]  # fmt: skip


def test_conversion_comes_before_the_units_that_are_not_priced() -> None:
    """2500 bytes are 3 kilobytes, one is included, and a discount of half a unit comes off too."""
    unit = {"divide_by": 1000, "round": "up", "decimals": 0}
    charge = standard(unit=unit, included=1, discounts=[{"id": "d", "units": "0.5"}])
    assert sold(found([Use(1, 2500)], [Cut()], [charge])) == [(0, Decimal("1.5"), Decimal("1.5"), True)]
    more = found([Use(1, 2500)], [Cut()], [charge], units=[Decimal("0.25")])
    assert sold(more) == [(0, Decimal("1.25"), Decimal("1.25"), True)]
    assert sold(found([Use(1, 300)], [Cut()], [charge])) == [(0, 0, 0, True)]


def test_conversion_and_included_units_run_on_through_a_run() -> None:
    """1500 and 1500 bytes are 2 and 1 kilobytes; of another run, which starts anew, 2 and 2."""
    unit = {"divide_by": 1000, "round": "up", "decimals": 0}
    uses = [Use(1, 1500), Use(200, 1500)]
    first, second = Cut(end=100), Cut(start=100)
    assert sold(found(uses, [first, second], [standard(unit=unit)])) == [(0, 2, 3, True), (2, 1, 3, False)]
    apart = found(uses, [first, second._replace(run=1)], [standard(unit=unit)])
    assert sold(apart) == [(0, 2, 2, True), (0, 2, 2, True)]
    assert sold(found(uses, [first, second], [standard(unit=unit, included=1)])) == [(0, 1, 2, True), (1, 1, 2, False)]


def test_a_segment_sells_by_its_own_terms() -> None:
    """More units are included from the second version on: what the first one sold counts by the second's terms."""
    #        [ 30 units, included 10 )[ 30 units, included 40 )
    #          sells 0 to 20             60 - 40 less 30 - 30
    result = found(
        [Use(1, 30), Use(200, 30)], [Cut(0, end=100), Cut(1, start=100)], [standard(included=10), standard(included=40)]
    )
    assert sold(result) == [(0, 20, 50, True), (0, 20, 20, False)]


def test_a_trial_moves_nothing() -> None:
    """Its usage is shown, converted; the first segment that is priced opens the run."""
    charge = standard(unit={"divide_by": 10}, included=1)
    result = found([Use(1, 50), Use(200, 30)], [Cut(end=100, trial=True), Cut(start=100)], [charge])
    assert sold(result) == [(0, 5, 5, False), (0, 2, 2, True)]
    assert result.parts["trial"].to_list() == [True, False]


def test_two_charges_of_one_meter_each_have_its_usage() -> None:
    """Also where other charges stand between them; rows are sorted by customer, period, slot and group."""
    cuts = [Cut(0, slot=0, run=0), Cut(1, slot=1, run=1), Cut(2, slot=2, run=2), Cut(3, slot=3, run=3)]
    charges = [
        standard(group_by=["d"]), standard(id="f", meter="n"), standard(included=1),
        {"id": "flat", "model": "flat", "amount": 1},
    ]  # fmt: skip
    uses = [Use(1, 4, more={"dimension.d": "b"}), Use(2, 8, more={"dimension.d": "a"}), Use(2, 3, meter="n")]
    result = found(uses, cuts, charges)
    assert result.rows.select("slot", "group", "quantity").rows() == [
        (0, '{"d":"a"}', 8), (0, '{"d":"b"}', 4), (1, "", 3), (2, "", 11),
    ]  # fmt: skip
    assert result.parts.select("row", "segment", "term").rows() == [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 2, 2)]


def test_the_short_and_the_long_way_meet() -> None:
    """Of customers with two charges each, some are alone in their period, others are cut; all stand in their order."""
    #   customer 0: whole, whole; 1: cut, whole; 2: whole, cut by a trial; 3: without usage
    whole, early, late = {"start": 0, "end": HOURS}, {"start": 0, "end": 100}, {"start": 100, "end": HOURS}
    shapes = [
        (0, 0, whole, False), (0, 1, whole, False),
        (1, 0, early, False), (1, 0, late, False), (1, 1, whole, False),
        (2, 0, whole, False), (2, 1, early, True), (2, 1, late, False),
        (3, 0, whole, False), (3, 1, whole, False),
    ]  # fmt: skip
    cuts = [
        Cut(slot, place=place, slot=slot, run=2 * place + slot, trial=trial, **span)
        for place, slot, span, trial in shapes
    ]
    charges = [standard(included=1), standard(id="n", meter="n", unit={"divide_by": 2})]
    uses = [
        Use(hour, 10 * (number + 1), f"s{number}", meter) for number in range(3) for meter in "mn" for hour in (1, 200)
    ]
    places = {f"s{number}": number for number in range(3)}
    result = found(uses, cuts, charges, places=places)
    assert result.rows.select("place", "slot", "quantity").rows() == [
        (0, 0, 19), (0, 1, 10), (1, 0, 39), (1, 1, 20), (2, 0, 59), (2, 1, 30), (3, 0, 0), (3, 1, 0),
    ]  # fmt: skip
    assert result.parts.select("row", "segment", "before", "quantity", "opens").rows() == [
        (0, 0, 0, 19, True), (1, 1, 0, 10, True),
        (2, 2, 0, 19, True), (2, 3, 19, 20, False), (3, 4, 0, 20, True),
        (4, 5, 0, 59, True), (5, 6, 0, 15, False), (5, 7, 0, 15, True),
        (6, 8, 0, 0, True), (7, 9, 0, 0, True),
    ]  # fmt: skip


def test_periods_of_a_customer_stand_apart() -> None:
    """Two billing periods in one frame are two rows."""
    cuts = [Cut(end=100, period=(0, 100)), Cut(start=100, end=200, period=(100, 200), run=1)]
    result = found([Use(1, 5), Use(150, 7)], cuts, [standard()])
    assert result.rows.select("period_start", "quantity").rows() == [(at(0), 5), (at(100), 7)]


@pytest.mark.parametrize("charge", [standard(), standard(group_by=["d"])])
def test_more_than_17_whole_digits_are_an_error(charge: dict[str, Any]) -> None:
    """In one row, in the sum of rows, and in the unit of the price; the largest quantity itself is none."""
    largest = Decimal(10) ** 17 - Decimal("1e-9")
    one = [Use(1, largest, more={"dimension.d": ""})]
    assert found(one, [Cut()], [charge]).rows["quantity"].to_list() == [largest]
    for uses in ([one[0]._replace(quantity=Decimal(10) ** 17)], [*one, one[0]._replace(quantity=1)]):
        with pytest.raises(OverflowError, match="more than 17 whole digits"):
            found(uses, [Cut()], [charge])
    with pytest.raises(OverflowError, match="in the unit of its price"):
        found(one, [Cut()], [{**charge, "unit": {"multiply_by": 2}}])
    assert found(one, [Cut()], [{**charge, "unit": {"multiply_by": "0.5", "decimals": 0}}]).rows[
        "quantity"
    ].to_list() == [Decimal(5) * 10**16]


def test_a_meter_needs_an_aggregation() -> None:
    """Nobody guesses how rows of an unknown meter go together."""
    with pytest.raises(ValueError, match="charge c: meter x has no aggregation"):
        found([], [Cut()], [standard(meter="x")])


def test_without_segments_there_is_nothing() -> None:
    """No customer, no row; the frames have their columns all the same."""
    result = found([Use()], [], [standard()])
    assert (dict(result.rows.schema), dict(result.parts.schema)) == (ROWS, PARTS)
    assert result.rows.height == result.parts.height == 0
    assert isinstance(result.carried, pl.DataFrame)
