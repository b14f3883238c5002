"""The rater once more: one customer, one charge and one tier at a time, with fractions. Slow and obvious."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from math import ceil, floor

from schemas.contract import Contracts
from schemas.money import MINOR_UNITS
from schemas.price_book import (
    Charge,
    FlatCharge,
    GraduatedCharge,
    PackageCharge,
    PriceBook,
    VolumeCharge,
    ZeroUsageFlat,
)

Slice = tuple[Fraction | None, Fraction, Fraction, Fraction, Fraction]  # up_to, quantity, unit price, flat, amount
Usage = tuple[str, str, Fraction | None, list[str] | None]  # subject, meter, quantity, uniques


@dataclass
class Line:
    """What a customer owes for a charge."""

    customer: str
    charge: str
    quantity: Fraction
    slices: list[Slice]
    amount: Fraction
    amount_minor: int


@dataclass
class Answer:
    """The lines, in order, and the unassigned usage by subject and meter."""

    lines: list[Line] = field(default_factory=list)
    unassigned: dict[tuple[str, str], Fraction] = field(default_factory=dict)


def rate_slowly(
    usage: Iterable[Usage], book: PriceBook, contracts: Contracts, period_end: date, aggregations: Mapping[str, str]
) -> Answer:
    """What `rating.rater.rate` must answer."""
    rows = list(usage)
    plan_of: dict[str, str] = {}
    payer_of: dict[str, str] = {}
    for contract in contracts.contracts:
        if contract.starts_on < period_end:
            plan_of[contract.customer] = contract.plan
            for subject in contract.subjects:
                payer_of[subject] = contract.customer
    contracted = set(plan_of)
    for subject, *_ in rows:
        if subject not in payer_of and subject not in contracted and book.default_plan:
            plan_of[subject] = book.default_plan
            payer_of[subject] = subject
    answer = Answer()
    for customer in sorted(plan_of):
        plan = next(plan for plan in book.plans if plan.id == plan_of[customer])
        for charge in plan.charges:
            meter = None if isinstance(charge, FlatCharge) else charge.meter
            own = [row for row in rows if payer_of.get(row[0]) == customer and row[1] == meter]
            used = _combined(own, aggregations[meter]) if meter else Fraction(0)
            line = _line(customer, charge, max(used, Fraction(0)), book)
            if line.quantity or line.amount:
                answer.lines.append(line)
    for key in sorted({(subject, meter) for subject, meter, *_ in rows if subject not in payer_of}):
        answer.unassigned[key] = _combined([row for row in rows if row[:2] == key], aggregations[key[1]])
    return answer


def slices_of(charge: Charge, used: Fraction, zero_usage_flat: ZeroUsageFlat) -> list[Slice]:
    """The slices of one charge for one quantity that is not negative."""
    if isinstance(charge, FlatCharge):
        return [_slice(None, Fraction(1), Fraction(charge.amount), Fraction(0))]
    if isinstance(charge, PackageCharge):
        filled = max(used - Fraction(charge.free_units), Fraction(0)) / Fraction(charge.size)
        count = ceil(filled) if charge.round == "up" else floor(filled)
        return [_slice(None, Fraction(count), Fraction(charge.price), Fraction(0))]
    found, start = [], Fraction(0)
    for position, tier in enumerate(charge.tiers):
        end = None if tier.up_to is None else Fraction(tier.up_to)
        free_of_use = position == 0 and used == 0 and zero_usage_flat == "first_tier"
        if used > start or free_of_use:
            if isinstance(charge, GraduatedCharge):
                part = (used if end is None else min(used, end)) - start
                found.append(_slice(end, part, Fraction(tier.unit_price), Fraction(tier.flat)))
            elif isinstance(charge, VolumeCharge) and (end is None or used <= end):
                found.append(_slice(end, used, Fraction(tier.unit_price), Fraction(tier.flat)))
        start = end if end is not None else start
    return found


def rounded(amount: Fraction, minor_units: int) -> int:
    """An amount in minor units, half away from zero."""
    scaled = abs(amount) * Fraction(10) ** minor_units
    whole: int = floor(scaled + Fraction(1, 2))
    return whole if amount >= 0 else -whole


def _line(customer: str, charge: Charge, used: Fraction, book: PriceBook) -> Line:
    slices = slices_of(charge, used, book.policies.zero_usage_flat)
    amount = sum((amount for *_, amount in slices), Fraction(0))
    quantity = Fraction(1) if isinstance(charge, FlatCharge) else used
    return Line(customer, charge.id, quantity, slices, amount, rounded(amount, MINOR_UNITS[book.currency]))


def _slice(end: Fraction | None, quantity: Fraction, price: Fraction, flat: Fraction) -> Slice:
    return end, quantity, price, flat, quantity * price + flat


def _combined(rows: list[Usage], aggregation: str) -> Fraction:
    if aggregation == "UNIQUE_COUNT":
        return Fraction(len({unique for *_, uniques in rows for unique in uniques or []}))
    quantities = [quantity for _, _, quantity, _ in rows if quantity is not None]
    if aggregation == "MIN":
        return min(quantities, default=Fraction(0))
    if aggregation == "MAX":
        return max(quantities, default=Fraction(0))
    return sum(quantities, Fraction(0))
