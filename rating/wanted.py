"""Which usage rating asks for: by the segments of billing periods, and what their charges look at. Core.

Owns that nothing rating looks at ends within a row of the usage that it asks for.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from zoneinfo import ZoneInfo

from rating.books import local_midnight
from rating.schedules import Period
from rating.traits import looks_at_events, sieve_of
from schemas.charges import MeteredCharge
from schemas.wanted import Want, together

_UTC = ZoneInfo("UTC")


def wants_of(periods: Iterable[Period]) -> tuple[Want, ...]:
    """What the charges of billing periods look at, and what their contracts promise of meters: one want a meter."""
    return together(want for period in periods for want in _of_period(period))


def wants_of_others(
    default: Sequence[Period], meters: Iterable[str], *, after: date, through: date
) -> tuple[Want, ...]:
    """What is wanted of subjects without a contract; `default` are the billing periods of the default plan.

    It is of all meters, because any usage in a period makes a subject a customer, and what nobody pays for is told: of
    the days from `after` on and before `through`, UTC.
    """
    bounds = {local_midnight(day, _UTC) for day in (after, through)}
    bounds |= {at for period in default for at in (period.start_at, period.end_at)}
    if len(bounds) < 2:
        return wants_of(default)
    return together([*wants_of(default), *(Want(meter, tuple(sorted(bounds))) for meter in meters)])


def _of_period(period: Period) -> Iterator[Want]:
    for segment in period.segments:
        charge = segment.charge
        if isinstance(charge, MeteredCharge):
            start, end = (local_midnight(day, period.zone) for day in segment.days)
            yield Want(
                charge.meter,
                (start, end),
                window=charge.buckets.window if charge.buckets else None,
                events=looks_at_events(charge),
                dimensions=tuple(sieve_of(charge).dimensions),
            )
    contract = period.terms.contract
    for promise in contract.sla if contract and period.ended else ():
        yield Want(promise.meter, (period.start_at, period.end_at))
