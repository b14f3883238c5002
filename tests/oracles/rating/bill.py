"""A bill's rows in whole minor units: what plan and contract take off and add, SLA credits, prepaid credits. Steps 9 to 11."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from schemas.charges import Commitment
from schemas.contract import Sla
from schemas.money import MINOR_UNITS
from tests.oracles.rating.kinds import Event, Row, exact, in_proportion, to_minor
from tests.oracles.rating.periods import Period, fraction
from tests.oracles.rating.quantities import aggregated, within
from tests.oracles.rating.terms import Customer, Level, Terms


@dataclass(frozen=True)
class Bill:
    """The period that a bill ends, with the stretches in which terms hold."""

    customer: Customer
    period: Period
    stretches: list[tuple[datetime, datetime, bool, Terms]]

    @property
    def terms(self) -> Terms:
        """What holds at the end of the period."""
        return self.stretches[-1][3]

    def minor(self, amount: Fraction) -> int:
        """An amount in the bill's minor units."""
        return to_minor(amount, MINOR_UNITS[self.terms.currency], self.terms.book.policies.rounding)

    def row(self, charge: str, kind: str, level: str, amount: Fraction | int, **values: Any) -> Row:
        """A row that belongs to no charge: an amount, or whole minor units."""
        minor_units = MINOR_UNITS[self.terms.currency]
        whole = amount if isinstance(amount, int) else self.minor(amount)
        exactly = Fraction(amount, 10**minor_units) if isinstance(amount, int) else amount
        return Row(
            customer=self.customer.name, start=self.period.start, end=self.period.end, billed_at=self.period.end,
            charge=charge, kind=kind, level=level, currency=self.terms.currency, amount=exactly, amount_minor=whole,
            **values,
        )  # fmt: skip

    def prorated(self, level_of: Callable[[Terms], Level], key: str) -> int | None:
        """An amount of plan or contract by the period, in minor units: the last one, by the share that is no trial."""
        price = getattr(level_of(self.terms), key)
        if price is None:
            return None
        paid = [(start, end) for start, end, trial, _ in self.stretches if not trial]
        if not paid:
            return 0
        policy, zone = self.terms.book.policies.proration, self.customer.zone
        share = fraction(policy, paid[0][0], paid[-1][1], self.period, zone, paid[0][0])
        amount = Fraction(price.amount if isinstance(price, Commitment) else price)
        return self.minor(exact(amount * share))


def finish(bill: Bill, rows: list[Row], events: Sequence[Event], aggregations: Mapping[str, str]) -> list[Row]:
    """All rows of a bill: those given, changed by plan and contract, and those that are added, in their order."""
    rows = _levelled(bill, rows, "plan", lambda terms: terms.of_plan)
    rows = _levelled(bill, rows, "contract", lambda terms: terms.of_contract)
    if not bill.customer.contract:
        return rows
    added = [_sla_row(bill, sla, rows, events, aggregations[sla.meter]) for sla in bill.customer.contract.sla]
    return [*rows, *(row for row in added if row)]


def _levelled(bill: Bill, rows: list[Row], level: str, level_of: Callable[[Terms], Level]) -> list[Row]:
    """Step 9 for one level: fixed discounts, maximum, minimum, commitment."""
    terms = level_of(bill.terms)
    for discount in terms.discounts:
        if discount.amount is not None:
            ours = [row for row in rows if not discount.charges or row.charge in discount.charges]
            take_off(bill.minor(Fraction(discount.amount)), ours)
    maximum = None if terms.maximum_spend is None else bill.minor(Fraction(terms.maximum_spend))
    if bill.terms.book.policies.maximum_proration == "prorated":
        maximum = bill.prorated(level_of, "maximum_spend")
    if maximum is not None:
        take_off(max(left(rows) - maximum, 0), rows)
    added = list(rows)
    minimum = bill.prorated(level_of, "minimum_spend")
    if minimum is not None and left(added) < minimum:
        added.append(bill.row("", "minimum_spend", level, minimum - left(added)))
    commitment, owed = terms.commitment, bill.prorated(level_of, "commitment")
    if commitment is not None and owed is not None:
        cost, minor_units = left(added), MINOR_UNITS[bill.terms.currency]
        if cost > owed and commitment.overage_factor != 1:
            above = Fraction(cost - owed, 10**minor_units) * (Fraction(commitment.overage_factor) - 1)
            added.append(bill.row("", "overage", level, bill.minor(above)))
        if cost < owed and commitment.true_up:
            added.append(bill.row("", "commitment", level, owed - cost))
    return added


def left(rows: Sequence[Row]) -> int:
    """What is left of rows in all."""
    return sum(row.left_minor for row in rows)


def take_off(amount: int, rows: Sequence[Row]) -> None:
    """Share out an amount over rows that are above zero, at most what is left of all."""
    weights = [max(row.left_minor, 0) for row in rows]
    off = max(min(amount, left(rows)), 0)
    for row, share in zip(rows, in_proportion(off, weights), strict=True):
        row.shared_minor += share


def _sla_row(bill: Bill, sla: Sla, rows: list[Row], events: Sequence[Event], aggregation: str) -> Row | None:
    ours = [event for event in within(events, bill.period.start, bill.period.end) if event.meter == sla.meter]
    if not ours:
        return None
    value = aggregated(ours, aggregation)
    missed = [step for step in sla.credits if value < Fraction(step.below)]
    if not missed:
        return None
    percent = Fraction(min(missed, key=lambda step: step.below).percent)
    charges = [row for row in rows if row.charge and (not sla.charges or row.charge in sla.charges)]
    amount = -Fraction(left(charges), 10 ** MINOR_UNITS[bill.terms.currency]) * percent / 100
    return bill.row(sla.id, "sla_credit", "contract", amount) if amount < 0 else None


def spend_credits(rows: Sequence[Row], available: int, prepaid_tax: str) -> int:
    """Pay with prepaid credits, at most what is left; tell the tax base. Returns the minor units that were spent."""
    weights = [max(row.left_minor, 0) for row in rows]
    spent = max(min(available, left(rows)), 0)
    for row, share in zip(rows, in_proportion(spent, weights), strict=True):
        row.credit_minor = share
    for row in rows:
        row.tax_base_minor = row.net_minor if prepaid_tax == "at_top_up" else row.left_minor
    return spent
