"""Schedules: a customer's billing periods with their segments, from the terms that hold and when they change. Core.

Customers whose contracts say the same share one schedule, so a million customers on one plan cost one.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo

from rating.books import Books, local_midnight
from rating.calendar import Days, full_period
from rating.proration import fraction
from rating.segments import Segment, Stretch, adds_up, segments_of
from rating.terms import Terms, alike, change_instants, default_terms, terms_as_of
from schemas.charges import Charge, FlatCharge
from schemas.contract import Contract, Contracts

_UTC = ZoneInfo("UTC")
_LONGEST = timedelta(days=367)  # no billing period is longer
_Unpriced = list[tuple[Days, LookupError]]  # stretches of a contract without a price book, and what to say of them


class Period(NamedTuple):
    """A billing period: as the cycle gives it, as the contract cuts it, and the segments of its charges."""

    full: Days
    days: Days
    paid_from: date  # the first day that is no trial
    ended: bool  # or else only what is paid in advance
    start_at: datetime
    end_at: datetime
    zone: ZoneInfo
    terms: Terms  # at its end
    segments: tuple[Segment, ...]

    @property
    def fraction(self) -> tuple[int, int]:
        """What of a full period it is, its trial apart, by the policy at its end."""
        policy, paid = self.terms.book.policies.proration, Days(self.paid_from, self.days.end)
        return fraction(policy, paid, self.full, self.zone, self.terms.cycle.every, first=paid.start < paid.end)


class Scheduler:
    """Makes the schedules of customers, each only once for all whose contracts say the same.

    A schedule has the periods whose end is on a day in (after, through], counted where the customer is, in their order.
    With `advance`, it also has what is paid in advance of the period that has begun by `through` and not ended.
    """

    def __init__(
        self,
        books: Books,
        contracts: Contracts,
        *,
        after: date,
        through: date,
        aggregations: Mapping[str, str],
        advance: bool = False,
    ) -> None:
        self._books, self._contracts = books, contracts
        self._after, self._through, self._advance = after, through, advance
        self._additive: Callable[[Charge], bool] = lambda charge: adds_up(charge, aggregations)
        self._known: dict[object, tuple[Period, ...]] = {}

    def of(self, contract: Contract | None) -> tuple[Period, ...]:
        """The schedule of a contract, or of all subjects on the default plan. The same object for the same terms.

        Raises LookupError when no price book holds for a part of a period, and what `terms_as_of` raises.
        """
        beside = contract is not None and (contract.lines or contract.sla)
        key = contract and (contract.customer if beside else alike(contract))
        if key not in self._known:
            self._known[key] = tuple(self._periods(contract))
        return self._known[key]

    def _periods(self, contract: Contract | None) -> Iterator[Period]:
        zone = contract.zone if contract else _UTC
        timeline, unpriced = self._timeline(contract, zone)
        day: date | None = self._after
        while day is not None and day <= self._through:
            held = next((each for each in timeline if each.days.start <= day < each.days.end), None)
            if held is None:  # before the contract, after it, or while no book has a default plan
                _refuse(unpriced, Days(day, day + timedelta(days=1)))
                day = min((each.days.start for each in timeline if each.days.start > day), default=None)
                continue
            full = full_period(held.terms.cycle, day, held.terms.anchor, held.terms.anchor_day)
            stretches = [_within(each, full) for each in timeline if each.terms.cycle == held.terms.cycle]
            stretches = _around(day, [each for each in stretches if each.days.start < each.days.end])
            days = Days(stretches[0].days.start, stretches[-1].days.end)
            segments = tuple(segments_of(full, stretches, zone, self._additive))
            if days.end > self._through:
                in_advance = self._advance and days.start > self._after
                segments = tuple(each for each in segments if in_advance and _is_paid_in_advance(each.charge))
            if (segments or days.end <= self._through) and days.end > self._after:
                _refuse(unpriced, full)
                start_at, end_at = local_midnight(days.start, zone), local_midnight(days.end, zone)
                paid_from = min((each.days.start for each in stretches if not each.trial), default=days.end)
                ended, terms = days.end <= self._through, stretches[-1].terms
                yield Period(full, days, paid_from, ended, start_at, end_at, zone, terms, segments)
            day = days.end

    def _timeline(self, contract: Contract | None, zone: ZoneInfo) -> tuple[list[Stretch], _Unpriced]:
        """What holds in each stretch around the periods in question, in order; and where a contract lacks a book."""
        first = local_midnight(self._after - _LONGEST, zone)
        last = local_midnight(self._through + _LONGEST, zone)
        if contract:
            first = max(first, local_midnight(contract.starts_on, zone))
            last = min(last, local_midnight(contract.ends_on, zone)) if contract.ends_on else last
        stretches: list[Stretch] = []
        unpriced: _Unpriced = []
        for start, end in pairwise([first, *change_instants(contract, self._books, first, last), last]):
            days = Days(start.astimezone(zone).date(), end.astimezone(zone).date())
            try:
                terms = self._terms(contract, start) if start < end else None
            except LookupError as error:
                unpriced.append((days, error))
                continue
            if terms is not None:
                stretches.append(Stretch(days, terms, terms.trial))
        return stretches, unpriced

    def _terms(self, contract: Contract | None, at: datetime) -> Terms | None:
        if contract is None:
            return default_terms(at, self._books)
        return terms_as_of(contract.customer, at, self._books, self._contracts)


def _refuse(unpriced: _Unpriced, days: Days) -> None:
    for stretch, error in unpriced:
        if stretch.start < days.end and days.start < stretch.end:
            raise error


def _is_paid_in_advance(charge: Charge) -> bool:
    return isinstance(charge, FlatCharge) and charge.pay == "advance"


def _within(stretch: Stretch, days: Days) -> Stretch:
    return stretch._replace(days=Days(max(stretch.days.start, days.start), min(stretch.days.end, days.end)))


def _around(day: date, stretches: list[Stretch]) -> list[Stretch]:
    """Those of the stretches that reach the one with the day without a gap: a change of the cycle ends a period."""
    runs: list[list[Stretch]] = []
    for stretch in stretches:
        if runs and runs[-1][-1].days.end == stretch.days.start:
            runs[-1].append(stretch)
        else:
            runs.append([stretch])
    return next(run for run in runs if run[0].days.start <= day < run[-1].days.end)
