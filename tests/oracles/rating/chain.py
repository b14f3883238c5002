"""The chain of one charge: its quantities, slices, discounts, maximum, minimum and commitment. docs/pricing.md, steps 1 to 8."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from schemas.charges import Commitment, FlatCharge, PercentageCharge
from schemas.money import MINOR_UNITS
from tests.oracles.rating.kinds import ONE, ZERO, Event, Row, Slice, exact, half_away, to_minor
from tests.oracles.rating.models import Part, flat_slice, percentage_slices, slices_of, trial_slice
from tests.oracles.rating.periods import Period, fraction
from tests.oracles.rating.quantities import (
    Segment,
    cell_of,
    converted,
    free_units,
    group_of,
    is_time_weighted,
    of_windows,
    passes,
    quantity_of,
    weighted,
    window_start,
    within,
)
from tests.oracles.rating.terms import Customer, Terms


@dataclass(frozen=True)
class Case:
    """A charge of a customer in a period, with the events of its subjects before and in it, and carried quantities."""

    customer: Customer
    period: Period
    segments: list[Segment]
    events: list[Event]
    aggregation: str
    carried: dict[tuple[str, ...], Fraction]
    at_end: Terms  # of the period: what plan and contract say
    since: datetime  # when the first period that is rated begins: what came before is in `carried`

    @property
    def last(self) -> Segment:
        """The segment whose terms hold for the chain of the whole row."""
        return self.segments[-1]

    def share(self, segment: Segment) -> Fraction:
        """A segment's fraction of the full period."""
        policy = self.last.terms.book.policies.proration
        start = min((one.start for one in self.segments if not one.trial), default=self.segments[0].start)
        return fraction(policy, segment.start, segment.end, self.period, self.customer.zone, start)

    def row(self, kind: str, **values: Any) -> Row:
        """A row of this charge."""
        return Row(
            customer=self.customer.name, start=self.period.start, end=self.period.end, billed_at=self.period.end,
            charge=self.last.charge.id, kind=kind, level="charge", currency=self.last.terms.currency,
            tax_code=self.last.charge.tax_code, **values,
        )  # fmt: skip


def charge_rows(case: Case) -> list[Row]:
    """The rows of one charge in one period: for each group its usage, then what its minimum and commitment add."""
    if isinstance(case.last.charge, FlatCharge):
        return _chained(case, _flat_row(case))
    rows = []
    for group in groups_of(case):
        row = case.row("usage", group=dict(zip(case.last.charge.group_by, group, strict=True)))
        for run in sorted({segment.run for segment in case.segments}):
            segments = [segment for segment in case.segments if segment.run == run]
            if group and not any(_is_used(case, segment, group) for segment in segments):
                continue
            _price_run(case, segments, group, row)
        row.gross = sum((part.amount for part in row.slices), ZERO)
        rows += _chained(case, row)
    return rows


def _is_used(case: Case, segment: Segment, group: tuple[str, ...]) -> bool:
    """Whether a group has usage in a segment, or a level."""
    cells = cells_of(segment)
    return any(_own(segment, case.events, group, cell) or _raw(case, segment, group, cell, None) > 0 for cell in cells)


def _flat_row(case: Case) -> Row:
    row = case.row("flat", quantity=ONE)
    for segment in case.segments:
        part = Part(segment.start, ZERO, ONE, ONE, opens=True)
        amount = Fraction(segment.charge.amount)
        row.slices.append(trial_slice(part) if segment.trial else flat_slice(part, amount, case.share(segment)))
    row.gross = exact(sum((part.amount for part in row.slices), ZERO))
    return row


def groups_of(case: Case) -> list[tuple[str, ...]]:
    """The combinations of values that a charge has a row for, sorted; one empty one where it is not grouped."""
    if not case.last.charge.group_by:
        return [()]
    found = set(case.carried)
    for segment in case.segments:
        for event in within(case.events, segment.start, segment.end):
            if passes(segment.charge, event) and cell_of(segment.charge, event) is not None:
                found.add(group_of(segment.charge, event))
    if case.segments[0].charge.recurring:
        found |= {group_of(case.segments[0].charge, event) for event in _earlier(case)}
    return sorted(found)


def _earlier(case: Case) -> list[Event]:
    charge = case.segments[0].charge
    return [event for event in within(case.events, case.since, case.period.start) if passes(charge, event)]


def _own(segment: Segment, events: Sequence[Event], group: tuple[str, ...], cell: int) -> list[Event]:
    return [
        event
        for event in within(events, segment.start, segment.end)
        if passes(segment.charge, event)
        and group_of(segment.charge, event) == group
        and cell_of(segment.charge, event) == cell
    ]


def _level(case: Case, segment: Segment, group: tuple[str, ...], cell: int) -> Fraction:
    """What a recurring quantity starts the period with: what was carried, and all since."""
    if not segment.charge.recurring or segment is not case.segments[0]:
        return ZERO
    earlier = [
        event.number
        for event in _earlier(case)
        if group_of(segment.charge, event) == group and cell_of(segment.charge, event) == cell
    ]
    return sum(earlier, case.carried.get(group, ZERO) if cell == 0 else ZERO)


def _price_run(case: Case, segments: list[Segment], group: tuple[str, ...], row: Row) -> None:
    """Price the segments of a run; tiers start anew in each segment under `tier_scope: version`, and in each bucket."""
    scope = case.last.terms.book.policies.tier_scope
    for segment in segments:
        if segment.trial:
            _price_trial(case, segment, group, row)
    paid = [segment for segment in segments if not segment.trial]
    if group:  # a group is not there in a segment that it was not used in
        paid = [segment for segment in paid if _is_used(case, segment, group)]
    for stretch in [[segment] for segment in paid] if scope == "version" else [paid]:
        buckets = stretch[0].charge.buckets if stretch else None
        if not stretch:
            continue
        if buckets and buckets.take == "each":
            starts = {
                window_start(event.at, buckets.window)
                for segment in stretch
                for cell in cells_of(segment)
                for event in _own(segment, case.events, group, cell)
            }
            for bucket_at in sorted(starts):
                _price_stretch(case, stretch, group, row, bucket_at)
        elif isinstance(stretch[-1].charge, PercentageCharge):
            _price_events(case, stretch, group, row)
        else:
            _price_stretch(case, stretch, group, row, None)
    row.slices.sort(key=lambda part: part.from_at)  # stable: a trial stands in its place


def cells_of(segment: Segment) -> range:
    """The numbers of a matrix charge's cells, with the default price's; 0 of any other charge."""
    cells = getattr(segment.charge, "cells", None)
    return range(1) if cells is None else range(len(cells) + (segment.charge.default_price is not None))


def _raw(case: Case, segment: Segment, group: tuple[str, ...], cell: int, bucket_at: datetime | None) -> Fraction:
    events = _own(segment, case.events, group, cell)
    if bucket_at is not None:
        window = segment.charge.buckets.window
        events = [event for event in events if window_start(event.at, window) == bucket_at]
    if is_time_weighted(segment):
        return _time_weighted(case, segment, group, cell)
    return quantity_of(segment, events, case.aggregation, _level(case, segment, group, cell))


def _time_weighted(case: Case, segment: Segment, group: tuple[str, ...], cell: int) -> Fraction:
    """What levels of a segment weigh: the running total of the period, rounded, with it less that without it."""
    level, area, rounded = _level(case, case.segments[0], group, cell), ZERO, [ZERO]
    for one in case.segments:
        events = _own(one, case.events, group, cell)
        area += weighted(one, events, case.aggregation, case.period, level)
        level += sum(of_windows(one, events, case.aggregation).values(), ZERO)
        rounded.append(half_away(area, 9))
        if one is segment:
            break
    return max(rounded[-1] - rounded[-2], ZERO)


def _price_trial(case: Case, segment: Segment, group: tuple[str, ...], row: Row) -> None:
    cells = cells_of(segment)
    windows: list[datetime | None] = [None]
    if segment.charge.buckets and segment.charge.buckets.take == "each":
        own = [event for cell in cells for event in _own(segment, case.events, group, cell)]
        windows = list({window_start(event.at, segment.charge.buckets.window) for event in own})
    raw = [_raw(case, segment, group, cell, window) for cell in cells for window in windows]
    quantity = sum((converted(segment.charge, each) for each in raw), ZERO)
    row.slices.append(trial_slice(Part(segment.start, ZERO, quantity, quantity, opens=False)))
    row.quantity += quantity


def _price_stretch(
    case: Case, stretch: list[Segment], group: tuple[str, ...], row: Row, bucket_at: datetime | None
) -> None:
    """Price segments whose tiers run on. Units that are not priced are the first ones, of a matrix those of its first cells."""
    raw = {
        (at, cell): _raw(case, segment, group, cell, bucket_at)
        for at, segment in enumerate(stretch)
        for cell in cells_of(segment)
    }
    for at, segment in enumerate(stretch):
        charge, free, cells = segment.charge, free_units(segment), cells_of(segment)

        def used(until: int, cell: int, charge: Any = charge) -> Fraction:
            return converted(charge, sum((raw.get((one, cell), ZERO) for one in range(until)), ZERO))

        before = sum((used(at, cell) for cell in cells), ZERO)
        total = max(sum((used(len(stretch), cell) for cell in cells), ZERO) - free, ZERO)
        for cell in cells:
            after = before + used(at + 1, cell) - used(at, cell)
            part = Part(
                segment.start, max(before - free, ZERO), max(after - free, ZERO), total, at == 0, cell, bucket_at
            )
            row.slices += slices_of(charge, part, segment.terms.book.policies.zero_usage_flat)
            row.quantity += part.quantity
            before = after


def _price_events(case: Case, stretch: list[Segment], group: tuple[str, ...], row: Row) -> None:
    if not looks_at_events(stretch[-1].charge):
        _price_stretch(case, stretch, group, row, None)
        return
    owns = [[event for event in _own(segment, case.events, group, 0) if event.number > 0] for segment in stretch]
    whole = [event for own in owns for event in own]
    for at, segment in enumerate(stretch):
        before = [event for own in owns[:at] for event in own]
        quantity = max(sum((event.number for event in owns[at]), ZERO), ZERO)
        part = Part(segment.start, ZERO, quantity, quantity, at == 0)
        row.slices += percentage_slices(segment.charge, part, before, owns[at], whole)
        row.quantity += quantity


def looks_at_events(charge: PercentageCharge) -> bool:
    """Whether single events matter to a percentage."""
    limits = (charge.free_events, charge.free_amount, charge.event_minimum, charge.event_maximum)
    return charge.fixed != 0 or any(limit is not None for limit in limits)


def _chained(case: Case, row: Row) -> list[Row]:
    """Steps 5 to 8: the row with its discounts, and the rows that its minimum and its commitment add. Rounded once each."""
    charge, terms = case.last.charge, case.last.terms
    left = row.gross
    ours = [
        *[(discount, True) for discount in charge.discounts],
        *[(discount, False) for discount in [*case.at_end.of_plan.discounts, *case.at_end.of_contract.discounts]],
    ]
    for discount, of_charge in ours:
        if discount.charges and charge.id not in discount.charges:
            continue
        off = ZERO
        if discount.percent is not None:
            off = exact(left * Fraction(discount.percent) / 100)
        elif discount.amount is not None and of_charge:
            off = min(Fraction(discount.amount), left)
        if off:
            row.discounts.append((discount.id, off))
            left -= off
    maximum = _maximum(case)
    if maximum is not None and left > maximum:
        row.discounts.append(("maximum_spend", left - maximum))
        left = maximum
    row.amount = left
    rows = [row]
    minimum = prorated(case, "minimum_spend")
    if minimum is not None and left < minimum:
        rows.append(case.row("minimum_spend", group=row.group, amount=minimum - left))
    cost = sum((one.amount for one in rows), ZERO)
    rows += _committed(case, row, cost)
    for one in rows:
        one.amount_minor = to_minor(one.amount, MINOR_UNITS[one.currency], terms.book.policies.rounding)
    return rows


def prorated(case: Case, key: str) -> Fraction | None:
    """An amount that a charge owes by the period: its last one, by the share that the charge was in force, trials apart."""
    amount = getattr(case.last.charge, key)
    if amount is None:
        return None
    shares = [case.share(segment) for segment in case.segments if not segment.trial]
    return exact(_amount(amount) * sum(shares, ZERO))


def _amount(price: Any) -> Fraction:
    return Fraction(price.amount if isinstance(price, Commitment) else price)


def _maximum(case: Case) -> Fraction | None:
    if case.last.terms.book.policies.maximum_proration == "prorated":
        return prorated(case, "maximum_spend")
    maximum = case.last.charge.maximum_spend
    return None if maximum is None else Fraction(maximum)


def _committed(case: Case, row: Row, cost: Fraction) -> list[Row]:
    """The rows of the charge's commitment: for the period, or summed over its buckets."""
    commitment = case.last.charge.commitment
    if commitment is None:
        return []
    if commitment.per == "bucket" and not isinstance(case.last.charge, FlatCharge):
        amount, costs = Fraction(commitment.amount), _bucket_costs(row.slices)
    else:
        amount, costs = prorated(case, "commitment") or ZERO, [cost]
    factor = Fraction(commitment.overage_factor)
    overage = sum((exact((one - amount) * (factor - 1)) for one in costs if one > amount), ZERO)
    missing = sum((amount - one for one in costs if one < amount), ZERO) if commitment.true_up else ZERO
    found = [case.row("overage", group=row.group, amount=overage)] if overage else []
    return [*found, case.row("commitment", group=row.group, amount=missing)] if missing else found


def _bucket_costs(slices: Sequence[Slice]) -> list[Fraction]:
    costs: dict[datetime, Fraction] = {}
    for part in slices:
        if part.bucket_at is not None:
            costs[part.bucket_at] = costs.get(part.bucket_at, ZERO) + part.amount
    return list(costs.values())
