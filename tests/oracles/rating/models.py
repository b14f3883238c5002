"""Charge models: what a part of a charge's quantity costs, slice by slice. docs/pricing.md, "Charge models".

A part is what lies above the units sold before it, (before, after], in a run of `total` units. What it costs is what all
of `after` would cost at its own prices, less what all of `before` would: so flats, caps and packages run on by themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import ceil, floor
from typing import Any

from schemas.charges import (
    CapacityCharge,
    DynamicCharge,
    GraduatedCharge,
    GraduatedPercentageCharge,
    MatrixCharge,
    PackageCharge,
    PercentageCharge,
    StandardCharge,
    VolumeCharge,
)
from tests.oracles.rating.kinds import ONE, ZERO, Event, Slice


@dataclass(frozen=True)
class Part:
    """A stretch of quantity to be priced. `opens` is true of the first part of a run; `cell` of a matrix alone."""

    from_at: datetime
    before: Fraction
    after: Fraction
    total: Fraction
    opens: bool
    cell: int = 0
    bucket_at: datetime | None = None

    @property
    def quantity(self) -> Fraction:
        """The units of the part itself."""
        return self.after - self.before

    def slice(
        self, quantity: Fraction, unit_price: Fraction, flat: Fraction = ZERO, *, label: str = "",
        up_to: Fraction | None = None, amount: Fraction | None = None,
    ) -> Slice:  # fmt: skip
        """A slice of this part."""
        cost = quantity * unit_price + flat if amount is None else amount
        return Slice(self.from_at, label, up_to, quantity, unit_price, flat, cost, self.bucket_at)


@dataclass(frozen=True)
class _Tier:
    start: Fraction
    end: Fraction | None
    price: Fraction
    flat: Fraction
    cap: Fraction | None

    def holds(self, quantity: Fraction) -> bool:
        return (self.start < quantity or self.start == 0) and (self.end is None or quantity <= self.end)

    def capped(self, amount: Fraction) -> Fraction:
        return amount if self.cap is None else min(amount, self.cap)


def tiers_of(charge: Any) -> list[_Tier]:
    """The tiers with their starts, a percentage as a unit price."""
    found, start = [], ZERO
    for tier in charge.tiers:
        price = Fraction(tier.rate_percent) / 100 if hasattr(tier, "rate_percent") else Fraction(tier.unit_price)
        end = None if tier.up_to is None else Fraction(tier.up_to)
        found.append(_Tier(start, end, price, Fraction(tier.flat), None if tier.cap is None else Fraction(tier.cap)))
        start = start if end is None else end
    return found


def slices_of(charge: Any, part: Part, zero_usage_flat: str) -> list[Slice]:  # noqa: PLR0911  one way out a model
    """The slices of a part, lowest tier first. Their amounts add up to what the part costs, exactly."""
    nothing_used = part.total == 0 and part.opens and zero_usage_flat == "first_tier"
    match charge:
        case StandardCharge():
            return [part.slice(part.quantity, Fraction(charge.unit_price))]
        case PercentageCharge():
            return [part.slice(part.quantity, Fraction(charge.rate_percent) / 100)]
        case DynamicCharge():
            return [part.slice(part.quantity, Fraction(charge.multiplier))]
        case GraduatedCharge() | GraduatedPercentageCharge():
            found = [_graduated(tier, part, nothing_used) for tier in tiers_of(charge)]
            return [one for one in found if one]
        case VolumeCharge():
            return _volume(charge, part, nothing_used)
        case PackageCharge():
            sold = packages(charge, part.after) - packages(charge, part.before)
            return [part.slice(Fraction(sold), Fraction(charge.price))]
        case CapacityCharge():
            capacity = Fraction(charge.capacity)
            above = max(part.after - capacity, ZERO) - max(part.before - capacity, ZERO)
            enters = part.opens if part.total == 0 else part.before == 0 and part.quantity > 0
            whole = Fraction(charge.amount) if enters else ZERO
            within = part.slice(part.quantity - above, ZERO, whole, up_to=capacity)
            return [within, part.slice(above, Fraction(charge.overage_price))]
        case MatrixCharge():
            return [_cell(charge, part)]
    raise AssertionError(charge)


def _graduated(tier: _Tier, part: Part, nothing_used: bool) -> Slice | None:
    def until(quantity: Fraction, opened: bool) -> tuple[Fraction, Fraction, Fraction]:
        entered = quantity > tier.start or (opened and tier.start == 0)
        units = max((quantity if tier.end is None else min(quantity, tier.end)) - tier.start, ZERO)
        flat = tier.flat if entered else ZERO
        return units, flat, tier.capped(units * tier.price + flat)

    (units, flat, cost), (units_before, flat_before, cost_before) = (
        until(part.after, nothing_used),
        until(part.before, False),
    )
    if units == units_before and not (nothing_used and tier.start == 0):
        return None
    return part.slice(
        units - units_before, tier.price, flat - flat_before, up_to=tier.end, amount=cost - cost_before
    )  # fmt: skip


def _volume(charge: Any, part: Part, nothing_used: bool) -> list[Slice]:
    tier = next(tier for tier in tiers_of(charge) if tier.holds(part.total))
    if part.quantity == 0 and not nothing_used:
        return []

    def cost(quantity: Fraction, flat: Fraction) -> Fraction:
        return tier.capped(quantity * tier.price + flat)

    flat_before = tier.flat if part.before > 0 else ZERO
    flat = tier.flat - flat_before
    amount = cost(part.after, tier.flat) - cost(part.before, flat_before)
    return [part.slice(part.quantity, tier.price, flat, up_to=tier.end, amount=amount)]


def packages(charge: PackageCharge, quantity: Fraction) -> int:
    """How many packages a quantity takes, after its free units."""
    filled = max(quantity - Fraction(charge.free_units), ZERO) / Fraction(charge.size)
    return ceil(filled) if charge.round == "up" else floor(filled)


def _cell(charge: MatrixCharge, part: Part) -> Slice:
    if part.cell == len(charge.cells):
        assert charge.default_price is not None
        return part.slice(part.quantity, Fraction(charge.default_price), label="default")
    cell = charge.cells[part.cell]
    label = ",".join(f"{key}={'|'.join(values)}" for key, values in cell.when.items())
    return part.slice(part.quantity, Fraction(cell.unit_price), label=label)


def percentage_slices(
    charge: PercentageCharge, part: Part, before: Sequence[Event], own: Sequence[Event], whole: Sequence[Event]
) -> list[Slice]:
    """What the events of a part cost, event by event; `before` are those of the run before it, `whole` those of it all."""
    free = _free_amount(charge, _counted(whole))
    rate, fixed = Fraction(charge.rate_percent) / 100, Fraction(charge.fixed)
    bounds = [None if price is None else Fraction(price) for price in (charge.event_minimum, charge.event_maximum)]
    ours = {id(event) for event in own}
    paid, fees, bounded = ZERO, 0, ZERO
    total = ZERO
    for number, event in enumerate(_counted([*before, *own]), start=1):
        total += event.number
        taken = min(max(event.number, ZERO), free)
        free -= taken
        if id(event) not in ours or event.number < 0 or _is_free(charge, number, total):
            continue
        cost = (event.number - taken) * rate + fixed
        at_least = cost if bounds[0] is None else max(cost, bounds[0])
        at_most = at_least if bounds[1] is None else min(at_least, bounds[1])
        paid, fees, bounded = paid + event.number - taken, fees + 1, bounded + at_most - cost
    slices = [part.slice(paid, rate), part.slice(Fraction(fees), fixed, label="fee")]
    return [*slices, part.slice(ZERO, ZERO, label="event bounds", amount=bounded)]


def _counted(events: Sequence[Event]) -> list[Event]:
    in_order = sorted(events, key=lambda event: (event.at, event.position))
    return [event for event in in_order if event.number != 0]


def _is_free(charge: PercentageCharge, number: int, total: Fraction) -> bool:
    if charge.free_events is None and charge.free_amount is None:
        return False
    among = charge.free_events is None or number <= charge.free_events
    return among and (charge.free_amount is None or total <= Fraction(charge.free_amount))


def _free_amount(charge: PercentageCharge, events: Sequence[Event]) -> Fraction:
    limits = [] if charge.free_amount is None else [Fraction(charge.free_amount)]
    if charge.free_events is not None:
        limits.append(sum((event.number for event in events[: charge.free_events]), ZERO))
    return max(min(limits, default=ZERO), ZERO)


def trial_slice(part: Part) -> Slice:
    """The units of a trial, for nothing."""
    return part.slice(part.quantity, ZERO, label="trial")


def flat_slice(part: Part, amount: Fraction, share: Fraction) -> Slice:
    """A flat charge's segment: its fraction of the amount."""
    return part.slice(ONE, amount, amount=amount * share)
