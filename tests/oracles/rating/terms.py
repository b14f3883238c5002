"""What holds for a customer at an instant: version, plan, contract, amendments. docs/pricing.md, "Contracts"."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter

from schemas.charges import Charge, Commitment, Discount
from schemas.contract import Amendment, Contract
from schemas.plan import Cycle, Plan
from schemas.price_book import PriceBook
from tests.oracles.rating.periods import Period, day_start, full_period, local_day

CHARGE: TypeAdapter[Any] = TypeAdapter(Charge)
PRICES = {
    "amount", "unit_price", "flat", "cap", "fixed", "event_minimum", "event_maximum", "price", "overage_price",
    "default_price", "minimum_spend", "maximum_spend",
}  # fmt: skip


class NoPriceError(Exception):
    """A book has no price in a currency, or one of too many decimals."""


@dataclass(frozen=True)
class Level:
    """What a plan or a contract says beside its charges."""

    discounts: tuple[Discount, ...]
    minimum_spend: Decimal | None
    maximum_spend: Decimal | None
    commitment: Commitment | None


@dataclass(frozen=True)
class Terms:
    """What holds: every price is one number in `currency`."""

    book: PriceBook
    plan: str
    cycle: Cycle
    trial_days: int
    currency: str
    charges: dict[str, Any]
    of_plan: Level
    of_contract: Level


@dataclass(frozen=True)
class Customer:
    """Who pays for which subjects; without a contract, a subject on the default plan."""

    name: str
    subjects: tuple[str, ...]
    contract: Contract | None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that dates and periods are counted in."""
        return ZoneInfo(self.contract.time_zone if self.contract else "UTC")

    @property
    def start(self) -> datetime | None:
        """When the contract begins."""
        return day_start(self.contract.starts_on, self.zone) if self.contract else None

    @property
    def end(self) -> datetime | None:
        """When the contract ends, if it does."""
        return day_start(self.contract.ends_on, self.zone) if self.contract and self.contract.ends_on else None


def version_dates(customer: Customer, books: Sequence[PriceBook]) -> list[tuple[datetime, PriceBook]]:
    """When each version of the customer's book comes into force for it."""
    contract = customer.contract
    if contract:
        names = {contract.book} if contract.book else {book.book for book in books}
    else:
        names = {min((book.book for book in books if book.default_plan), default="")}
    assert len(names) == 1, "a contract names its book when several are in use"
    dates = []
    for book in books:
        if book.book in names:
            new = contract is not None and contract.starts_on >= book.effective_at
            date = book.effective_at if new else book.existing_customers_at or book.effective_at
            dates.append((day_start(date, customer.zone), book))
    return dates


def layers_until(contract: Contract, instant: datetime, zone: ZoneInfo) -> list[Contract | Amendment]:
    """The contract, then each amendment whose day has come, in order."""
    return [contract, *(change for change in contract.amendments if day_start(change.on, zone) <= instant)]


def plan_as_of(customer: Customer, instant: datetime, books: Sequence[PriceBook]) -> tuple[PriceBook, str] | None:
    """The version of the book and the plan that hold at an instant; None where no version has come into force."""
    contract = customer.contract
    layers = layers_until(contract, instant, customer.zone) if contract else []
    pinned = [layer.price_version for layer in layers if layer.price_version is not None]
    dates = version_dates(customer, books)
    if pinned:
        book = next(book for _, book in dates if book.version == pinned[-1])
    else:
        reached = [(date, book.version, book) for date, book in dates if date <= instant]
        if not reached:
            return None
        book = max(reached, key=lambda version: version[:2])[2]
    named = [layer.plan for layer in layers if layer.plan is not None]
    plan_id = named[-1] if named else book.default_plan
    return None if plan_id is None else (book, plan_id)


def plan_of(book: PriceBook, plan_id: str) -> Plan:
    """The plan of a book."""
    return next(plan for plan in book.plans if plan.id == plan_id)


def terms_as_of(customer: Customer, instant: datetime, books: Sequence[PriceBook]) -> Terms | None:
    """What holds at an instant; None where no version of the book has come into force, or it has no default plan."""
    found, contract = plan_as_of(customer, instant, books), customer.contract
    if found is None:
        return None
    book, plan_id = found
    currency = (contract and contract.currency) or book.currency
    plan = plan_of(book, plan_id)
    layers = layers_until(contract, instant, customer.zone) if contract else []
    charges = {charge.id: projected_charge(charge, book, book.currency, currency) for charge in plan.charges}
    for layer in layers:
        for charge_id, keys in layer.charges.items():
            if charge_id in charges:
                charges[charge_id] = CHARGE.validate_python({**charges[charge_id].model_dump(), **keys})
        for charge_id in layer.remove:
            charges.pop(charge_id, None)
        for charge in layer.add:
            charges[charge.id] = projected_charge(charge, book, currency, currency)
    beside = projected(plan.model_dump(exclude={"charges"}), currency, book.currency, None)
    of_plan = level_of(Plan.model_validate({**beside, "charges": plan.charges}))
    return Terms(book, plan.id, plan.cycle, plan.trial_days, currency, charges, of_plan, last_level(layers))


def level_of(part: Plan) -> Level:
    """The parts of the chain that a plan has."""
    return Level(part.discounts, _number(part.minimum_spend), _number(part.maximum_spend), part.commitment)


def last_level(layers: Sequence[Contract | Amendment]) -> Level:
    """What the last layer that names each key says."""

    def last(key: str) -> Any:
        named = [getattr(layer, key) for layer in layers if getattr(layer, key) is not None]
        return named[-1] if named else None

    return Level(last("discounts") or (), last("minimum_spend"), last("maximum_spend"), last("commitment"))


def _number(price: Any) -> Decimal | None:
    assert price is None or isinstance(price, Decimal)
    return price


def projected_charge(charge: Any, book: PriceBook, home: str, currency: str) -> Any:
    """A charge with every price as one number in a currency; a price without one is in `home`."""
    rate = None
    if charge.priced_in:
        unit = next(unit for unit in book.pricing_units if unit.id == charge.priced_in)
        if currency not in unit.rate:
            raise NoPriceError(charge.id)
        rate = unit.rate[currency]
    return CHARGE.validate_python({**projected(charge.model_dump(), currency, home, rate), "priced_in": None})


def projected(part: Any, currency: str, home: str, rate: Decimal | None) -> Any:
    """A part of a book as plain dictionaries, with every price as one number in a currency."""
    if isinstance(part, Mapping):
        return {
            key: _price(value, currency, home, rate) if key in PRICES else projected(value, currency, home, rate)
            for key, value in part.items()
        }
    if isinstance(part, list | tuple):
        return [projected(one, currency, home, rate) for one in part]
    return part


def _price(value: Any, currency: str, home: str, rate: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        if currency not in value:
            raise NoPriceError(value)
        number = Fraction(value[currency])
    elif value == 0 or rate is not None or currency == home:
        number = Fraction(value)
    else:
        raise NoPriceError(value)
    number *= 1 if rate is None else Fraction(rate)
    trillionths = number * 10**12
    if trillionths.denominator != 1:
        raise NoPriceError(value)
    return Decimal(f"{trillionths.numerator}E-12")


def trial_end(customer: Customer, books: Sequence[PriceBook]) -> datetime | None:
    """When the trial is over: so many days after the contract's start. Nobody tries the default plan."""
    if not customer.contract or not customer.start:
        return None
    terms = terms_as_of(customer, customer.start, books)
    given = customer.contract.trial_days
    days = given if given is not None else terms.trial_days if terms else 0
    return day_start(customer.contract.starts_on + timedelta(days=days), customer.zone)


def periods_of(customer: Customer, books: Sequence[PriceBook], first: datetime, through: datetime) -> Iterator[Period]:
    """The billing periods of a customer, from its start (of a contract) or the period that holds `first`, in order.

    The last one is the first that ends after `through`. The next begins where one ends, by the cycle of the plan that
    holds then.
    """
    contract, zone = customer.contract, customer.zone
    at = customer.start or first
    while customer.end is None or at < customer.end:
        holds = plan_as_of(customer, at, books)
        cycle = (contract and contract.cycle) or (plan_of(*holds).cycle if holds else Cycle())
        dates = full_period(
            local_day(at, zone),
            cycle,
            contract.starts_on if contract else None,
            contract.anchor_day if contract else None,
        )
        begin, end = (day_start(date, zone) for date in dates)
        cut = end if customer.end is None else min(end, customer.end)
        start = max(begin, customer.start) if customer.start else begin
        if cut > start:
            yield Period(start, cut, begin, end, cycle.every)
        if cut > through:
            return
        at = cut


def stretches(
    customer: Customer, books: Sequence[PriceBook], period: Period
) -> list[tuple[datetime, datetime, bool, Terms]]:
    """The stretches of a period between any two instants at which terms may change: start, end, trial, terms."""
    cuts = {period.start, period.end, *(date for date, _ in version_dates(customer, books))}
    trial = trial_end(customer, books)
    if trial:
        cuts.add(trial)
    if customer.contract:
        cuts |= {day_start(change.on, customer.zone) for change in customer.contract.amendments}
    inside = sorted(cut for cut in cuts if period.start <= cut <= period.end)
    found = []
    for start, end in pairwise(inside):
        terms = terms_as_of(customer, start, books)
        if terms:
            found.append((start, end, trial is not None and start < trial, terms))
    return found
