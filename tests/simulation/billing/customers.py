"""Who is billed for what in a simulation, and what they have used: what both the world and the auditor know."""

from dataclasses import dataclass, field
from datetime import date
from random import Random

from tests.simulation.billing.amounts import Rule, first_day, following, next_month

TENANT = "default"
VAT: Rule = ("exclusive", (("VAT", 20),))
TWO: Rule = ("exclusive", (("GST", 5), ("PST", 7)))
INSIDE: Rule = ("inclusive", (("VAT", 19),))
RULES: tuple[Rule | None, ...] = (VAT, TWO, INSIDE, None)
POLICIES = ("adjust_next", "rebill", "write_off")
USAGE, FEES, ADVANCE, COMMITMENT, SLA = "subtotal", "fees", "advance", "commitment", "sla"


@dataclass(frozen=True)
class Terms:
    """A charge of a customer."""

    charge: str
    revenue: str
    rule: Rule | None


@dataclass(frozen=True)
class Customer:
    """Who pays, in which currency, for what, and what becomes of usage that arrives late."""

    name: str
    currency: str
    policy: str
    charges: tuple[Terms, ...]

    def terms(self, charge: str) -> Terms:
        """The terms of a charge."""
        return next(each for each in self.charges if each.charge == charge)


@dataclass(frozen=True)
class Rated:
    """What a charge of a period is rated at."""

    customer: str
    period: str
    charge: str
    revenue: str
    kind: str
    rule: Rule | None
    minor: int

    @property
    def service(self) -> tuple[date, date]:
        """From the first day to the one that is none of it."""
        first = first_day(self.period)
        return first, next_month(first)


_KINDS = {USAGE: "usage", FEES: "fee", ADVANCE: "advance", COMMITMENT: "commitment", SLA: "sla_credit"}


@dataclass
class Usage:
    """What everything comes to by now, and what changed since its period was rated."""

    customers: dict[str, Customer]
    minor: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """By customer, period and charge."""
    changed: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many events came, by customer and period."""

    def use(self, customer: str, period: str, charge: str, minor: int) -> None:
        """A charge comes to another amount from now on."""
        self.minor[customer, period, charge] = minor
        self.changed[customer, period] = self.changed.get((customer, period), 0) + 1

    def rated(self, period: str, *, advance: bool) -> list[Rated]:
        """The charges of a period, by customer; with what is paid in advance of the next one."""
        found = []
        for name, customer in sorted(self.customers.items()):
            for terms in customer.charges:
                revenue = FEES if terms.revenue == ADVANCE else terms.revenue
                minor = self.minor.get((name, period, terms.charge))
                if minor is not None:
                    found.append(Rated(name, period, terms.charge, revenue, _KINDS[revenue], terms.rule, minor))
            for terms in customer.charges if advance else ():
                minor = self.minor.get((name, following(period), terms.charge))
                if terms.revenue == ADVANCE and minor is not None:
                    found.append(
                        Rated(name, following(period), terms.charge, ADVANCE, _KINDS[ADVANCE], terms.rule, minor)
                    )
        return found


def customers_of(chance: Random, count: int) -> dict[str, Customer]:
    """Customers with charges of all kinds of revenue, taxes and policies."""
    found = {}
    for number in range(count):
        name = f"c{number}"
        charges = [Terms("calls", USAGE, chance.choice(RULES)), Terms("bytes", USAGE, chance.choice(RULES))]
        if chance.random() < 0.7:
            charges.append(Terms("seats", ADVANCE, chance.choice(RULES)))
        if chance.random() < 0.5:
            charges.append(Terms("support", FEES, chance.choice(RULES)))
        if chance.random() < 0.4:
            charges.append(Terms("minimum", COMMITMENT, chance.choice(RULES)))
        if chance.random() < 0.3:
            charges.append(Terms("outage", SLA, charges[0].rule))
        currency = chance.choice(("EUR", "EUR", "USD", "JPY"))
        found[name] = Customer(name, currency, POLICIES[number % 3], tuple(charges))
    return found
