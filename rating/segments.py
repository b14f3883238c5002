"""Segments: the stretches of billing periods in which the terms of a charge do not change. Core.

Decides what cuts a period, and which stretches share their tiers. Customers with the same terms share one schedule, so
a million customers on one plan cost one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from zoneinfo import ZoneInfo

from rating.calendar import Days
from rating.proration import fraction
from rating.terms import Terms
from schemas.charges import Charge, MeteredCharge
from schemas.plan import TierScope

_ADDITIVE = frozenset({"SUM", "COUNT"})
_NOT_ADDITIVE = frozenset({"max", "average", "percentile"})


class Stretch(NamedTuple):
    """Local days in which the terms of a customer hold as they are."""

    days: Days
    terms: Terms
    trial: bool


class Segment(NamedTuple):
    """A stretch in which one charge holds as it is."""

    slot: int
    charge: Charge
    terms: Terms
    days: Days
    numerator: int
    denominator: int
    run: int
    trial: bool


def segments_of(
    full: Days, stretches: Sequence[Stretch], zone: ZoneInfo, additive: Callable[[Charge], bool]
) -> list[Segment]:
    """The segments of one billing period, by slot and time. `full` is the period as the cycle gives it.

    In this order: (1) the charges of all stretches, in the order in which they come up; (2) stretches of a plan that
    follow each other are one, where the charge is the same in both, or where its quantity does not add up over time
    (then the later terms hold for all of it); (3) fractions, by the policy at the period's end, because all of a period
    share a denominator; (4) runs: tiers go on through the segments of a charge, except after another plan or a trial.

        price version 2 from the 15th          1 Jan          15 Jan          1 Feb
        desk, the same in both versions          [---------- segment -----------)
        calls, dearer in version 2               [-- segment --)[-- segment -----)   one run
    """
    # 1. charges
    charges: dict[str, list[tuple[Charge, Stretch]]] = {}
    for stretch in stretches:
        for charge in stretch.terms.plan.charges:
            charges.setdefault(charge.id, []).append((charge, stretch))
    policies = stretches[-1].terms.book.policies
    segments: list[Segment] = []
    run = 0
    for slot, held in enumerate(charges.values()):
        # 2. join
        joined = _joined(held, additive)
        for at, (charge, stretch) in enumerate(joined):
            # 3. fractions
            first = not stretch.trial and all(earlier.trial for _, earlier in joined[:at])
            parts = fraction(policies.proration, stretch.days, full, zone, stretch.terms.cycle.every, first=first)
            # 4. runs
            if at == 0 or policies.tier_scope is TierScope.VERSION or not _run_on(joined[at - 1][1], stretch):
                run += 1
            segments.append(Segment(slot, charge, stretch.terms, stretch.days, *parts, run, stretch.trial))
    return segments


def adds_up(charge: Charge, aggregations: Mapping[str, str]) -> bool:
    """Whether the quantities of two stretches add up to that of both: so a price change may cut between them."""
    if not isinstance(charge, MeteredCharge):
        return True
    if charge.buckets is not None:
        return charge.buckets.take not in _NOT_ADDITIVE
    if charge.recurring:
        return False
    return aggregations.get(charge.meter, "SUM") in _ADDITIVE


def _joined(held: Sequence[tuple[Charge, Stretch]], additive: Callable[[Charge], bool]) -> list[tuple[Charge, Stretch]]:
    joined: list[tuple[Charge, Stretch]] = []
    for charge, stretch in held:
        if joined:
            before, earlier = joined[-1]
            follows = _run_on(earlier, stretch)
            same = before == charge and earlier.terms.book.policies == stretch.terms.book.policies
            if follows and (same or not additive(charge)):
                kept = earlier.terms if same else stretch.terms
                joined[-1] = charge, Stretch(Days(earlier.days.start, stretch.days.end), kept, stretch.trial)
                continue
        joined.append((charge, stretch))
    return joined


def _run_on(before: Stretch, after: Stretch) -> bool:
    same = before.terms.plan.id == after.terms.plan.id and before.trial == after.trial
    return same and before.days.end == after.days.start
