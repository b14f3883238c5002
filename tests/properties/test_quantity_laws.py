"""Laws of quantities, against a slow recomputation of one customer's charge with fractions."""

import itertools
from bisect import insort
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rating.quantities import Quantities
from tests.simulation.pricing_frames import Cut, Use, carried_of, found, standard

Event = tuple[int, Decimal, str, str]  # quarter of an hour, value, subject, region

values = st.one_of(st.integers(-3, 9).map(Decimal), st.decimals(-5, 10**9, places=9))
events = st.tuples(st.integers(0, 399), values, st.sampled_from("st"), st.sampled_from(["", "eu", "us"]))
some_events = st.lists(events, max_size=12)
cuts = st.lists(st.integers(1, 399), max_size=2, unique=True).map(sorted)
units = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "divide_by": st.sampled_from(["1000", "3", "0.7"]),
            "round": st.sampled_from(["half_up", "up", "down"]),
            "decimals": st.integers(0, 9),
        }
    ),
    st.fixed_dictionaries({"multiply_by": st.sampled_from(["1024", "0.001", "0.333333333"])}),
)
keys = st.fixed_dictionaries({"unit": units, "included": st.sampled_from([0, 1, "2.5", 100])})
END = 400


def uses(rows: list[Event]) -> list[Use]:
    return [
        Use(Fraction(quarter, 4), value, subject, more={"dimension.region": region})
        for quarter, value, subject, region in rows
    ]


def segments(bounds: list[int]) -> list[Cut]:
    edges = [0, *bounds, END]
    hours = [(Fraction(start, 4), Fraction(end, 4)) for start, end in itertools.pairwise(edges)]
    return [Cut(0, start, end, period=(0, END // 4)) for start, end in hours]


def told(result: Quantities) -> list[tuple[Fraction, Fraction, Fraction]]:
    """Before, quantity and total of each part, in order."""
    return [tuple(map(Fraction, row)) for row in result.parts.select("before", "quantity", "total").rows()]


def nearest(exact: Fraction, decimals: int = 9, mode: str = "half_up") -> Fraction:
    scaled = abs(exact) * 10**decimals
    whole = {"half_up": floor(scaled + Fraction(1, 2)), "up": ceil(scaled), "down": floor(scaled)}[mode]
    return Fraction(whole, 10**decimals) * (1 if exact >= 0 else -1)


def billable(quantity: Fraction, charge: dict[str, Any]) -> Fraction:
    unit = charge.get("unit")
    if unit:
        exact = (
            quantity / Fraction(unit["divide_by"]) if "divide_by" in unit else quantity * Fraction(unit["multiply_by"])
        )
        quantity = nearest(exact, unit.get("decimals", 9), unit.get("round", "half_up"))
    return max(quantity - Fraction(charge.get("included", 0)), Fraction(0))


def run(quantities: list[Fraction], charge: dict[str, Any]) -> list[tuple[Fraction, Fraction, Fraction]]:
    sums = [sum(quantities[:number], Fraction(0)) for number in range(len(quantities) + 1)]
    told = [billable(total, charge) for total in sums]
    return [(before, after - before, told[-1]) for before, after in itertools.pairwise(told)]


def windows(rows: list[Event], start: int, end: int, aggregation: str) -> list[Fraction]:
    """The values of all hours that overlap a stretch of quarters, those without usage and those below 0 too."""
    taken = []
    for hour in range(start // 4, (end - 1) // 4 + 1):
        own = [Fraction(row[1]) for row in rows if start <= row[0] < end and row[0] // 4 == hour]
        value = max(own, default=Fraction(0)) if aggregation == "MAX" else sum(own, Fraction(0))
        taken.append(value)
    return taken


@given(some_events, cuts, keys, st.sampled_from(["SUM", "MAX", "MIN"]))
@settings(max_examples=60, deadline=None)
def test_segments_sell_what_the_running_total_sells(
    rows: list[Event], bounds: list[int], more: dict[str, Any], aggregation: str
) -> None:
    """Each segment is combined by itself, not below 0; conversion and included units go on from one to the next."""
    charge = standard(**more)
    combine = {"SUM": sum, "MAX": lambda own: max(own, default=0), "MIN": lambda own: min(own, default=0)}[aggregation]
    edges = [0, *bounds, END]
    own = [
        max(Fraction(combine([Fraction(row[1]) for row in rows if start <= row[0] < end])), Fraction(0))
        for start, end in itertools.pairwise(edges)
    ]
    assert told(found(uses(rows), segments(bounds), [charge], aggregation)) == run(own, charge)


@given(some_events, cuts, keys, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_changes_nothing(
    rows: list[Event], bounds: list[int], more: dict[str, Any], chance: Any
) -> None:
    """Usage is a set: shuffled, with a value told in two rows, and its customers' segments aside, it gives the same."""
    take = chance.choice([None, "sum", "max", "average", "percentile", "time_weighted", "each"])
    buckets = {"window": "hour", "take": take, **({"percent": 95} if take == "percentile" else {})}
    charge = standard(**more, group_by=["region"], **({"buckets": buckets} if take else {}))
    first = found(uses(rows), segments(bounds), [charge])
    halves = [(quarter, part, subject, region) for quarter, value, subject, region in rows for part in (value - 1, 1)]
    again = chance.sample(halves, len(halves))
    second = found(uses(again), segments(bounds), [charge])
    assert first.rows.equals(second.rows)
    assert first.parts.equals(second.parts)


@given(some_events, cuts)
@settings(max_examples=30, deadline=None)
def test_segments_add_up_to_the_period(rows: list[Event], bounds: list[int]) -> None:
    """What a period sells does not depend on where it is cut, as long as nothing is below 0.

    A level counts from its window's start on, so for levels it is cut at full hours: within one, a cut is its start.
    """
    hours = sorted({bound // 4 * 4 for bound in bounds} - {0})
    positive = [(quarter, abs(value), *rest) for quarter, value, *rest in rows]
    for keys in (
        {},
        {"unit": {"divide_by": 3, "round": "up", "decimals": 0}, "included": 7},
        {"buckets": {"window": "hour", "take": "time_weighted"}},
        {
            "buckets": {"window": "hour", "take": "time_weighted"},
            "unit": {"divide_by": 1, "round": "up", "decimals": 0},
        },
    ):
        whole = found(uses(positive), segments([]), [standard(**keys)])
        cut = found(uses(positive), segments(hours if "buckets" in keys else bounds), [standard(**keys)])
        assert sum(row[1] for row in told(cut)) == told(whole)[0][1]


@given(some_events, cuts, st.sampled_from(["SUM", "MAX"]), st.sampled_from(["0", "50", "95", "99.9", "100"]))
@settings(max_examples=40, deadline=None)
def test_windows_against_sorted_lists(rows: list[Event], bounds: list[int], aggregation: str, percent: str) -> None:
    """Sum, maximum, average, percentile and each, over all hours that overlap a segment."""
    edges = [0, *bounds, END]
    lists = [windows(rows, start, end, aggregation) for start, end in itertools.pairwise(edges)]
    number = Fraction(percent) / 100
    expected = {
        "sum": [max(sum(each), Fraction(0)) for each in lists],
        "max": [max(*each, Fraction(0)) for each in lists],
        "average": [max(nearest(sum(each, Fraction(0)) / len(each)), Fraction(0)) for each in lists],
        "percentile": [max(sorted(each)[max(ceil(number * len(each)), 1) - 1], Fraction(0)) for each in lists],
    }
    for take, quantities in expected.items():
        charge = standard(buckets={"window": "hour", "take": take, "percent": percent})
        assert told(found(uses(rows), segments(bounds), [charge], aggregation)) == run(quantities, charge), take
    each_hour = standard(buckets={"window": "hour", "take": "each"}, included=1)
    sold = found(uses(rows), segments([]), [each_hour], aggregation).parts
    hours = windows(rows, 0, END, aggregation)
    used = sorted({quarter // 4 for quarter, *_ in rows})
    assert [Fraction(quantity) for quantity in sold["quantity"]] == [
        max(hours[hour] - 1, Fraction(0)) for hour in used
    ] or (not used and sold["quantity"].to_list() == [0])


@given(some_events, cuts, values, st.sampled_from(["SUM", "MAX"]))
@settings(max_examples=40, deadline=None)
def test_time_weighted_levels_against_a_loop(
    rows: list[Event], bounds: list[int], brought: Decimal, aggregation: str
) -> None:
    """A level lasts until it changes, over the borders of segments, and what a recurring charge starts with counts."""
    recurring = aggregation == "SUM"
    charge = standard(buckets={"window": "minute", "take": "time_weighted"}, recurring=recurring)
    carried = carried_of((0, "c", "", 0, brought))
    level, area, areas = (Fraction(brought) if recurring else Fraction(0)), Fraction(0), [Fraction(0)]
    for quarter in range(END):
        now = [Fraction(row[1]) for row in rows if row[0] == quarter]
        level = level + sum(now) if recurring else max(now, default=level)
        area += level
        if quarter + 1 in {*bounds, END}:
            areas.append(nearest(area / END))
    own = [max(after - before, Fraction(0)) for before, after in itertools.pairwise(areas)]
    result = found(uses(rows), segments(bounds), [charge], aggregation, carried=carried)
    assert told(result) == run(own, charge)
    assert [Fraction(quantity) for quantity in result.carried["quantity"]] == ([level] if recurring and level else [])


limits = st.fixed_dictionaries(
    {"fixed": st.sampled_from(["0", "0.25"])},
    optional={
        "free_events": st.integers(0, 4),
        "free_amount": st.sampled_from([0, 5, "12.5", 10**9]),
        "event_minimum": st.sampled_from(["0.1", "1"]),
        "event_maximum": st.sampled_from(["1.5", "30"]),
        "included": st.sampled_from([3, 20]),
    },
)


@given(some_events, cuts, limits)
@settings(max_examples=60, deadline=None)
def test_percentages_of_events_against_a_loop(rows: list[Event], bounds: list[int], keys: dict[str, Any]) -> None:
    """Free events, free amounts, fees and bounds, an event after the other, by the words of docs/pricing.md."""
    rate = Fraction("2.5") / 100
    charge = {"id": "p", "model": "percentage", "meter": "m", "rate_percent": "2.5", **keys}
    edges = [0, *bounds, END]
    parts = [[Fraction(0), 0, Fraction(0)] for _ in edges[1:]]
    total = Fraction(0)
    ordered: list[tuple[int, Fraction]] = []
    for quarter, raw in sorted(((row[0], Fraction(row[1])) for row in rows if row[1] > 0), key=lambda row: row[0]):
        priced = billable(total + raw, charge) - billable(total, charge)
        total += raw
        if priced:
            ordered.append((quarter, priced))
    reached: list[Fraction] = []
    for _, value in ordered:
        insort(reached, (reached[-1] if reached else 0) + value)
    most, amount = keys.get("free_events"), keys.get("free_amount")
    bound = [] if amount is None else [Fraction(amount)]
    if most is not None:
        bound.append(reached[min(most, len(reached)) - 1] if reached and most else Fraction(0))
    left = min(bound) if bound else Fraction(0)
    for number, (quarter, value) in enumerate(ordered):
        part = parts[max(place for place, edge in enumerate(edges[:-1]) if edge <= quarter)]
        paid = value - min(value, left)
        left -= value - paid
        free = (
            bool(bound) and (most is None or number < most) and (amount is None or reached[number] <= Fraction(amount))
        )
        part[0] += paid
        if not free:
            cost = paid * rate + Fraction(keys["fixed"])
            part[1] += 1
            at_least = max(cost, Fraction(keys.get("event_minimum", 0)))
            part[2] += min(at_least, Fraction(keys.get("event_maximum", 10**12))) - cost
    result = found(uses(rows), segments(bounds), [charge]).parts
    if list(keys) == ["fixed"] and keys["fixed"] == "0":
        return  # no event is looked at
    if {"free_events", "free_amount", "event_minimum", "event_maximum"} & {*keys} or keys["fixed"] != "0":
        assert [Fraction(each) for each in result["quantity"]] == [part[0] for part in parts]
        assert result["fees"].to_list() == [part[1] for part in parts]
        if {"event_minimum", "event_maximum"} & {*keys}:
            assert [Fraction(each) for each in result["bounded"]] == [part[2] for part in parts]
        else:
            assert result["bounded"].to_list() == [None] * len(parts)
