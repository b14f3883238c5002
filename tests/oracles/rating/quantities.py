"""Quantities: which events a charge takes, in which segment, group, cell and window, and what they come to."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil
from typing import Any

from schemas.charges import FlatCharge, MatrixCharge
from tests.oracles.rating.kinds import ONE, ZERO, Event, ceiling, flooring, half_away
from tests.oracles.rating.periods import Period
from tests.oracles.rating.terms import Terms

WINDOWS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOT_CUT = {"max", "average", "percentile"}


@dataclass(frozen=True)
class Segment:
    """A stretch of a period in which nothing of a charge's terms changes. Tiers run on through those of one run."""

    start: datetime
    end: datetime
    charge: Any
    terms: Terms
    trial: bool
    run: int = 0


def is_additive(charge: Any, aggregation: str) -> bool:
    """Whether the quantities of two stretches add up to that of both."""
    if charge.buckets:
        return charge.buckets.take not in NOT_CUT
    return aggregation in {"SUM", "COUNT"} and not charge.recurring


def segments_of(
    charge_id: str, stretches: Sequence[tuple[datetime, datetime, bool, Terms]], aggregations: Mapping[str, str]
) -> list[Segment]:
    """The segments of a charge in a period: stretches put together where nothing of the charge changes."""
    found: list[Segment] = []
    run = 0
    for start, end, trial, terms in stretches:
        if charge_id not in terms.charges:
            continue
        segment = Segment(start, end, terms.charges[charge_id], terms, trial)
        before = found[-1] if found else None
        if before and before.terms.plan != terms.plan:
            run += 1
        segment = replace(segment, run=run)
        if before and before.end == start and _as_one(before, segment, aggregations):
            segment = replace(segment, start=before.start)
            found.pop()
        found.append(segment)
    return found


def _as_one(before: Segment, after: Segment, aggregations: Mapping[str, str]) -> bool:
    if before.run != after.run or before.trial != after.trial:
        return False
    whole = not isinstance(after.charge, FlatCharge) and not is_additive(after.charge, aggregations[after.charge.meter])
    return whole or before.charge == after.charge


def passes(charge: Any, event: Event) -> bool:
    """Whether a charge takes an event: of its meter, and through its filters."""
    return event.meter == charge.meter and all(
        event.dimensions.get(key, "") in allowed for key, allowed in charge.filters.items()
    )


def group_of(charge: Any, event: Event) -> tuple[str, ...]:
    """The values that a charge groups an event by."""
    return tuple(event.dimensions.get(key, "") for key in charge.group_by)


def cell_of(charge: Any, event: Event) -> int | None:
    """The number of the first cell that takes an event, or of cells for the default price; 0 where there are none."""
    if not isinstance(charge, MatrixCharge):
        return 0
    for number, cell in enumerate(charge.cells):
        if all(event.dimensions.get(key, "") in allowed for key, allowed in cell.when.items()):
            return number
    return None if charge.default_price is None else len(charge.cells)


def within(events: Iterable[Event], start: datetime, end: datetime) -> list[Event]:
    """The events of [start, end)."""
    return [event for event in events if start <= event.at < end]


def aggregated(events: Sequence[Event], aggregation: str) -> Fraction:
    """What a meter makes of events; 0 of none."""
    if not events:
        return ZERO
    if aggregation == "COUNT":
        return Fraction(len(events))
    if aggregation == "UNIQUE_COUNT":
        return Fraction(len({event.value for event in events}))
    values = [event.number for event in events]
    if aggregation == "LATEST":
        return max(events, key=lambda event: (event.at, event.position)).number
    if aggregation == "AVG":
        return half_away(sum(values, ZERO) / len(values), 9)
    made = {"SUM": sum, "MIN": min, "MAX": max}[aggregation](values)
    return Fraction(made)


def window_start(at: datetime, window: str) -> datetime:
    """The start of the window of UTC that holds an instant."""
    length = WINDOWS[window]
    return EPOCH + (at - EPOCH) // length * length


def window_starts(segment: Segment, window: str) -> list[datetime]:
    """All windows that have some of a segment."""
    length, at = WINDOWS[window], window_start(segment.start, window)
    starts = []
    while at < segment.end:
        starts.append(at)
        at += length
    return starts


def quantity_of(segment: Segment, events: Sequence[Event], aggregation: str, level: Fraction) -> Fraction:
    """What a segment's events of one group and cell come to, not below 0. `level` is what it starts with."""
    return max(_quantity(segment, events, aggregation, level), ZERO)


def _quantity(segment: Segment, events: Sequence[Event], aggregation: str, level: Fraction) -> Fraction:
    buckets = segment.charge.buckets
    if buckets is None or buckets.take == "each":  # of `each`, the events are those of one window
        return level + aggregated(events, aggregation)
    values = of_windows(segment, events, aggregation)
    if buckets.take == "sum":
        return level + sum(values.values(), ZERO)
    if buckets.take == "max":
        return level + max(values.values(), default=ZERO)
    windows = window_starts(segment, buckets.window)
    if buckets.take == "average":
        return level + half_away(sum(values.values(), ZERO) / len(windows), 9)
    assert buckets.take == "percentile"
    ascending = sorted(values.get(start, ZERO) for start in windows)
    number = ceil(Fraction(buckets.percent) / 100 * len(ascending))
    return level + ascending[max(number, 1) - 1]


def is_time_weighted(segment: Segment) -> bool:
    """Whether a segment's quantity is made of levels that last."""
    return segment.charge.buckets is not None and segment.charge.buckets.take == "time_weighted"


def of_windows(segment: Segment, events: Sequence[Event], aggregation: str) -> dict[datetime, Fraction]:
    """The aggregation of the events of each window that has any, by its start."""
    by_window: dict[datetime, list[Event]] = {}
    for event in events:
        by_window.setdefault(window_start(event.at, segment.charge.buckets.window), []).append(event)
    return {start: aggregated(some, aggregation) for start, some in sorted(by_window.items())}


def weighted(segment: Segment, events: Sequence[Event], aggregation: str, period: Period, level: Fraction) -> Fraction:
    """The level that a segment starts with and what its values add to it, each by how long it lasts until its end."""
    length, whole = period.end - period.start, segment.end - segment.start
    area = level * _ratio(whole, length)
    for start, value in of_windows(segment, events, aggregation).items():
        area += value * _ratio(segment.end - max(start, segment.start), length)
    return area


def _ratio(part: timedelta, whole: timedelta) -> Fraction:
    microsecond = timedelta(microseconds=1)
    return Fraction(part // microsecond, whole // microsecond)


def converted(charge: Any, quantity: Fraction) -> Fraction:
    """A quantity in the unit of the price."""
    unit = charge.unit
    if unit is None:
        return quantity
    if unit.divide_by is not None:
        quantity /= Fraction(unit.divide_by)
    else:
        quantity *= Fraction(unit.multiply_by) if unit.multiply_by is not None else ONE
    rounded = {"half_up": half_away, "up": ceiling, "down": flooring}[unit.round]
    return rounded(quantity, unit.decimals)


def free_units(segment: Segment) -> Fraction:
    """The units that a charge does not price in a run: included ones, and those of usage discounts."""
    charge, terms = segment.charge, segment.terms
    units = Fraction(charge.included)
    for discount in [*charge.discounts, *terms.of_plan.discounts, *terms.of_contract.discounts]:
        if discount.units is not None and (not discount.charges or charge.id in discount.charges):
            units += Fraction(discount.units)
    return units
