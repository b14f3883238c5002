"""The auditor: what must be stored after every step, predicted in plain Python from the rules of docs/.

It knows the words of `schemas` and the identities of `schemas.identity`, because orders depend on ids; no arithmetic and
no rule is the product's. A step that is refused raises `RefusedError`, and the caller takes the auditor from before it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from schemas.identity import digest
from tests.simulation.billing.amounts import Group, Rule, taxed
from tests.simulation.billing.books import Books, Key, Leg
from tests.simulation.billing.customers import TENANT, Usage

REVENUES = {"subtotal": 4010, "fees": 4000, "advance": 2200, "commitment": 4020, "sla": 4095}
"""Which account earns a line of each kind of revenue."""


@dataclass
class Line:
    """A line of an invoice, and what credit notes took of it."""

    id: str
    kind: str
    usage_period: str
    charge: str
    revenue: str
    rule: Rule | None
    service: tuple[date, date]
    minor: int
    """As it is priced, tax in it or not."""
    net: int = 0
    taxes: list[int] = field(default_factory=list)
    taken: int = 0
    taken_taxes: list[int] = field(default_factory=list)

    @property
    def left(self) -> tuple[int, list[int]]:
        """What no credit note took: net amount and taxes."""
        return self.net - self.taken, [own - theirs for own, theirs in zip(self.taxes, self.taken_taxes, strict=True)]


@dataclass
class Application:
    """What settles a part of an invoice; it stands, or was taken back."""

    kind: str
    minor: int
    entry: Key
    stands: bool = True


@dataclass
class Invoice:
    """An invoice as it is."""

    id: str
    kind: str
    customer: str
    currency: str
    period: str
    lines: list[Line]
    groups: dict[Group, int]
    series: str = "INV"
    number: str | None = None
    state: str = "draft"
    status: str = "pending"
    settled: int = 0
    version: int = 1
    applied: list[Application] = field(default_factory=list)
    notes: int = 0
    rebilled: bool = False
    entry: Key | None = None

    @property
    def subtotal(self) -> int:
        """Without tax."""
        return sum(line.net for line in self.lines)

    @property
    def tax(self) -> int:
        """All taxes."""
        return sum(self.groups.values())

    @property
    def total(self) -> int:
        """With tax."""
        return self.subtotal + self.tax

    @property
    def due(self) -> int:
        """What is left to be settled."""
        return 0 if self.state == "void" else max(self.total, 0) - self.settled

    @property
    def counts(self) -> bool:
        """Whether its lines are booked: billed of their periods."""
        return self.kind != "manual" and self.state not in {"draft", "void"} and not self.rebilled

    def legs(self, by_revenue: Iterable[tuple[str, int]], sign: int = 1) -> list[Leg]:
        """The postings of these net amounts, the invoice's taxes and its total."""
        owed = 1100 if self.total >= 0 else 2100
        legs: list[Leg] = [(owed, self.currency, "", sign * self.total)]
        legs += [(REVENUES[name], self.currency, "", -sign * minor) for name, minor in by_revenue]
        legs += [
            (2000, self.currency, f"{name} {percent}%", -sign * minor)
            for (name, percent, _), minor in self.groups.items()
        ]
        return legs


@dataclass
class Lot:
    """Credits that were put into a wallet at once."""

    id: str
    wallet: str
    customer: str
    currency: str
    paid: bool
    priority: int
    granted: int
    expires_at: datetime | None
    reference: str
    said: tuple[Any, ...]
    left: int = 0
    moves: int = 0
    """How often it moved since it was put in."""

    def burns_at(self, at: datetime) -> bool:
        """Whether it can be burned."""
        return self.left > 0 and (self.expires_at is None or self.expires_at > at)

    @property
    def order(self) -> tuple[Any, ...]:
        """Its place among the lots that are burned."""
        return self.priority, self.expires_at is None, self.expires_at or datetime.max.replace(tzinfo=UTC), self.id


@dataclass
class Schedule:
    """The months of a line that was billed in advance."""

    line: str
    customer: str
    currency: str
    months: dict[date, int]
    recognised: set[date] = field(default_factory=set)
    credited: int = 0
    """What credits took of what is past."""


@dataclass
class Auditor:
    """All that must be stored."""

    usage: Usage
    books: Books = field(default_factory=Books)
    invoices: dict[str, Invoice] = field(default_factory=dict)
    posted: list[str] = field(default_factory=list)
    """The periods that were billed."""
    to_rate: set[str] = field(default_factory=set)
    write_offs: list[tuple[str, str, str, str, str, Rule | None, int]] = field(default_factory=list)
    """Customer, currency, period, charge, revenue, tax rule and minor units of what is not billed."""
    numbers: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    created: set[str] = field(default_factory=set)
    """The drafts that were told of: each once, whatever became of them."""
    payments: dict[tuple[str, str], tuple[Any, ...]] = field(default_factory=dict)
    """What was said of them, by outcome and id."""
    refunds: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    notes: dict[str, tuple[str, int, int, int, int]] = field(default_factory=dict)
    """Invoice, net, tax, what it took off what was due, and what became credit, by number."""
    lots: dict[str, Lot] = field(default_factory=dict)
    wallets: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    """Customer, currency and version."""
    burned: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """What invoices burned of which lots, in the order of burning."""
    schedules: dict[str, Schedule] = field(default_factory=dict)
    accrued: dict[tuple[str, str, str], tuple[int, dict[str, int]]] = field(default_factory=dict)
    """Version, and minor units by revenue, by period, customer and currency."""
    settled: set[Key] = field(default_factory=set)
    """The entries on the clearing account that payouts settled."""
    manual: dict[str, Any] = field(default_factory=dict)
    """What manual invoices say, by reference."""

    def credit(self, customer: str, currency: str) -> int:
        """What a customer has in credit."""
        return max(-self.books.balance(2100, customer, currency), 0)

    def lines_taxed(self, lines: list[Line]) -> dict[Group, int]:
        """Tax lines of an invoice, in place; returns its groups."""
        nets, groups = taxed([(line.minor, line.rule) for line in lines])
        for line, (net, taxes) in zip(lines, nets, strict=True):
            line.net, line.taxes, line.taken_taxes = net, taxes, [0] * len(taxes)
        return groups

    def tell_of_draft(self, key: str) -> None:
        """Tell that there is a draft, once."""
        self.events["invoice.created"] += key not in self.created
        self.created.add(key)

    def invoice(self, key: str) -> Invoice:
        """The invoice with an id."""
        return self.invoices[key]

    def booked(self, *, without: Iterable[str] = ()) -> dict[tuple[str, str, str, str], tuple[int, str, Rule | None]]:
        """Minor units, revenue and tax rule of what is billed, by customer, currency, period and charge."""
        left_out = set(without)
        found: dict[tuple[str, str, str, str], tuple[int, str, Rule | None]] = {}

        def add(key: tuple[str, str, str, str], minor: int, revenue: str, rule: Rule | None) -> None:
            before = found.get(key)
            found[key] = (minor + (before[0] if before else 0), max(revenue, before[1] if before else ""), rule)

        for each in self.invoices.values():
            for line in each.lines if each.counts else ():
                if not (each.id in left_out and line.usage_period == each.period):
                    key = (each.customer, each.currency, line.usage_period, line.charge)
                    add(key, line.minor, line.revenue, line.rule)
        for customer, currency, period, charge, revenue, rule, minor in self.write_offs:
            add((customer, currency, period, charge), minor, revenue, rule)
        return found

    def moved(self, lots: Iterable[Lot], kind: str, at: datetime, *, down: bool) -> None:
        """Tell of the wallets whose lots moved."""
        for wallet in sorted({lot.wallet for lot in lots}):
            customer, currency, version = self.wallets[wallet]
            self.wallets[wallet] = (customer, currency, version + 1)
            self.events[f"wallet.{kind}"] += 1
            left = sum(lot.left for lot in self.lots.values() if lot.wallet == wallet and lot.burns_at(at))
            if down and not left:
                self.events["wallet.depleted"] += 1

    def lines_of(self, key: str) -> list[Line]:
        """The lines of an invoice."""
        return self.invoices[key].lines


def line_id(invoice: str, kind: str, period: str, charge: str) -> str:
    """The id of an invoice line."""
    return digest("invoice line", invoice, kind, period, charge)


def periodic_id(customer: str, period: str, currency: str) -> str:
    """The id of the invoice of a period."""
    return digest("invoice", TENANT, customer, period, currency)
