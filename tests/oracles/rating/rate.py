"""The rater once more: one customer, one period, one charge and one event at a time, with fractions. Slow and obvious.

Written from docs/pricing.md alone. Imports nothing of `rating/`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from fractions import Fraction

from schemas.charges import FlatCharge
from schemas.contract import Contracts
from schemas.price_book import PriceBook
from tests.oracles.rating.bill import Bill, finish, spend_credits
from tests.oracles.rating.chain import Case, charge_rows
from tests.oracles.rating.kinds import Answer, Event, Row, Unassigned
from tests.oracles.rating.periods import Period, day_start, local_day
from tests.oracles.rating.quantities import Segment, cell_of, passes, segments_of, within
from tests.oracles.rating.tax import taxes_of
from tests.oracles.rating.terms import Customer, Terms, periods_of, plan_as_of, stretches

FAR = datetime.max.replace(tzinfo=UTC)
Carried = Mapping[tuple[str, str, tuple[str, ...]], Fraction]


def rate_slowly(
    events: Iterable[Event],
    books: Sequence[PriceBook],
    contracts: Contracts,
    *,
    after: date,
    through: date,
    aggregations: Mapping[str, str],
    carried: Carried | None = None,
    credits: Mapping[str, int] | None = None,  # noqa: A002  the word of docs/pricing.md
) -> Answer:
    """The bills of the periods whose end is on a day in (after, through], counted where the customer is.

    `carried` is what recurring charges held before all events, by customer, charge and group; `credits` are prepaid
    credits in minor units by customer, spent from the first bill on.
    """
    ordered = sorted(events, key=lambda event: (event.at, event.position))
    answer, purse = Answer(), dict(credits or {})
    customers = customers_of(ordered, contracts, books)
    for customer in customers:
        own = [event for event in ordered if event.subject in customer.subjects]
        payer = Payer(customer, [event for event in own if not customer.start or event.at >= customer.start],
                      books, aggregations, carried or {})  # fmt: skip
        for rows, book in payer.bills(after, through):
            spent = spend_credits(rows, purse.get(customer.name, 0), str(book.policies.prepaid_tax))
            purse[customer.name] = purse.get(customer.name, 0) - spent
            answer.taxes += taxes_of(rows, book)
            answer.rows += rows
        answer.unassigned += payer.without_cell
    bounds = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (after, through)]
    answer.unassigned += nobodys(within(ordered, *bounds), customers, books)
    answer.unassigned.sort(key=lambda one: (one.position, one.charge or ""))
    return answer


def customers_of(events: Sequence[Event], contracts: Contracts, books: Sequence[PriceBook]) -> list[Customer]:
    """All contracts, and each subject that no contract names if a book has a default plan; sorted by name."""
    found = [Customer(contract.customer, contract.subjects, contract) for contract in contracts.contracts]
    taken = {customer.name for customer in found} | {subject for one in found for subject in one.subjects}
    if any(book.default_plan for book in books):
        found += [Customer(name, (name,), None) for name in {event.subject for event in events} - taken]
    return sorted(found, key=lambda customer: customer.name)


def nobodys(events: Iterable[Event], customers: Sequence[Customer], books: Sequence[PriceBook]) -> list[Unassigned]:
    """Events that are in no contract's time and on no default plan."""
    payers = {subject: customer for customer in customers for subject in customer.subjects}
    found = []
    for event in events:
        payer = payers.get(event.subject)
        early = payer and payer.start and event.at < payer.start
        late = payer and payer.end and event.at >= payer.end
        if not payer or early or late or plan_as_of(payer, event.at, books) is None:
            found.append(Unassigned(event.subject, event.meter, event.position, None))
    return found


@dataclass
class Payer:
    """A customer with the events of its subjects that it pays for, before and in the periods that are billed."""

    customer: Customer
    events: list[Event]
    books: Sequence[PriceBook]
    aggregations: Mapping[str, str]
    carried: Carried
    without_cell: list[Unassigned] = field(default_factory=list)
    since: datetime = FAR

    def bills(self, after: date, through: date) -> Iterator[tuple[list[Row], PriceBook]]:
        """The rows of each bill, with the book that holds for it, in the order of time."""
        if not self.customer.contract and not self.events:
            return
        zone = self.customer.zone
        first = min([day_start(after, zone), *(event.at for event in self.events)])
        for period in periods_of(self.customer, self.books, first, day_start(through, zone)):
            if after < local_day(period.end, zone) <= through:
                self.since = min(self.since, period.start)
                if bill := self.bill(period):
                    yield bill

    def bill(self, period: Period) -> tuple[list[Row], PriceBook] | None:
        """The rows of a period, also of what was paid in advance."""
        pieces = stretches(self.customer, self.books, period)
        if not pieces or not self.is_customer(period):
            return None
        bill = Bill(self.customer, period, pieces)
        rows = finish(bill, self.rows_of(period, pieces), self.events, self.aggregations)
        rows = [row for row in [*rows, *self.manual_rows(bill)] if row.says_something]
        return (rows, bill.terms.book) if rows else None

    def is_customer(self, period: Period) -> bool:
        """A contract is billed in every period; a subject on the default plan in those in which it used something."""
        return self.customer.contract is not None or bool(within(self.events, period.start, period.end))

    def rows_of(self, period: Period, pieces: Sequence[tuple[datetime, datetime, bool, Terms]]) -> list[Row]:
        """The rows of the charges: those of the first terms, then later ones."""
        rows = []
        for charge_id in {charge_id: None for *_, terms in pieces for charge_id in terms.charges}:
            segments = segments_of(charge_id, pieces, self.aggregations)
            charge = segments[-1].charge
            aggregation = "" if isinstance(charge, FlatCharge) else self.aggregations[charge.meter]
            levels = {
                group: level
                for (name, one, group), level in self.carried.items()
                if (name, one) == (self.customer.name, charge_id)
            }
            rows += charge_rows(
                Case(self.customer, period, segments, self.events, aggregation, levels, pieces[-1][3], self.since)
            )
            self.without_cell += [one for segment in segments for one in without_cell(segment, self.events)]
        return rows

    def manual_rows(self, bill: Bill) -> list[Row]:
        """The manual lines whose day is in the period."""
        lines = bill.customer.contract.lines if bill.customer.contract else ()
        return [
            bill.row(line.id, "manual", "contract", Fraction(line.amount), tax_code=line.tax_code)
            for line in lines
            if bill.period.start <= day_start(line.on, bill.customer.zone) < bill.period.end
        ]


def without_cell(segment: Segment, events: Sequence[Event]) -> list[Unassigned]:
    """The events of a segment that a matrix charge has no cell for."""
    if isinstance(segment.charge, FlatCharge):
        return []
    return [
        Unassigned(event.subject, event.meter, event.position, segment.charge.id)
        for event in within(events, segment.start, segment.end)
        if passes(segment.charge, event) and cell_of(segment.charge, event) is None
    ]
