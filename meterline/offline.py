"""Rating without stores: books, contracts and a file of usage give charges, and what of the usage was left out and why.

Decides who pays for the usage of a file, and what is told of usage that costs nothing. Reads files through
`meterline.usage_files` alone; the rest is plain values.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction

import polars as pl

from meterline.left_out import by_periods, charged, lacking_dimensions, payers_of, some, unused
from meterline.usage_files import UsageFile
from rating.books import Books
from rating.contract_faults import contract_faults
from rating.rater import Basis, Rated, Rater
from rating.schedules import Period, Scheduler
from schemas.charges import MeteredCharge
from schemas.configuration import ConfigurationError, Fault
from schemas.contract import Contract, Contracts
from schemas.exact import exact_decimal
from schemas.meter import Meter
from schemas.money import MINOR_UNITS
from schemas.price_book import PriceBook

LONG_AGO = date(1, 1, 1)
"""When the contracts began of customers that have none in a file: as for subjects on a default plan."""


@dataclass(frozen=True)
class Question:
    """What is to be rated, and the names of the files that it is from."""

    books: Mapping[str, PriceBook]
    """By file."""
    contracts: Contracts
    contracts_file: str
    meters: Sequence[Meter] | None
    """None: each meter adds up its quantities."""
    usage: UsageFile
    usage_file: str
    after: date
    through: date
    """Periods are rated whose end is on a day in (after, through]."""
    plan: str | None = None
    """Of customers without a contract or a plan of their own, instead of the book's default plan."""
    prepaid: tuple[tuple[str, str], ...] = ()
    """Customers, and their credits in units of their currency."""


@dataclass(frozen=True)
class Answer:
    """Charges, and what is to be told beside them."""

    rated: Rated
    books: Books
    contracts: Contracts
    """Those of the file, and those that customers without one were given."""
    notes: tuple[str, ...]
    """What of the usage was left out and why, a sentence each."""


def rate_offline(question: Question) -> Answer:
    """The charges. Raises ConfigurationError with all faults, and what `Rater.rate` raises.

    In this order: (1) names are checked, (2) usage finds its payer, (3) usage outside of the periods is left out, so
    that (4) it is told apart from usage that no charge takes; (5) the rest is rated.
    """
    # 1. names
    books = _books(question.books)
    _refuse(contract_faults(question.contracts, books, question.contracts_file, _known(question.meters)))
    # 2. payers
    usage = _paid_by_subjects(question.usage.usage, question.contracts)
    contracts, ignored = _contracts(question, books, usage)
    aggregations = _aggregations(question, books, contracts, usage)
    scheduler = Scheduler(books, contracts, after=question.after, through=question.through, aggregations=aggregations)
    schedules = {each.customer: scheduler.of(each) for each in contracts.contracts}
    # 3. periods
    payers = payers_of(usage, contracts, schedules, scheduler)
    inside, outside = by_periods(usage, payers, question.after, question.through, question.usage_file)
    # 4. charges
    charges = charged(payers)
    _refuse(lacking_dimensions(inside, charges, question.usage_file))
    notes = [*ignored, *outside, *unused(inside, charges)]
    # 5. rate
    basis = Basis(books, contracts, aggregations, question.after, question.through)
    prepaid = _prepaid(question.prepaid, schedules)
    rated = Rater(basis).rate(_rows(inside, aggregations), prepaid=prepaid)
    notes += [
        f"{row['quantity'].normalize():f} of {row['meter']} by {row['subject']}: {row['reason']}"
        for row in rated.unassigned.iter_rows(named=True)
    ]
    if rated.charges.is_empty():
        notes.append(f"no charge: no billing period ends after {question.after} and by {question.through}")
    return Answer(rated, books, contracts, tuple(notes))


def _books(named: Mapping[str, PriceBook]) -> Books:
    faults = []
    known: dict[tuple[str, int], str] = {}
    for file, book in named.items():
        first = known.setdefault((book.book, book.version), file)
        if first != file:
            faults.append(Fault(file, "version", str(book), f"allowed: a version once; {first} has it too"))
    _refuse(faults)
    return Books(named.values())


def _known(meters: Sequence[Meter] | None) -> dict[str, Meter] | None:
    return None if meters is None else {meter.slug: meter for meter in meters}


def _paid_by_subjects(usage: pl.DataFrame, contracts: Contracts) -> pl.DataFrame:
    """The rows with `subject`: a contract's subject, or where its customer is named, the first of its subjects."""
    subjects = {subject for contract in contracts.contracts for subject in contract.subjects}
    named = {each.customer: each.subjects[0] for each in contracts.contracts if each.customer not in subjects}
    return usage.with_columns(subject=pl.col("customer").replace(named)).with_row_index("position")


def _contracts(question: Question, books: Books, usage: pl.DataFrame) -> tuple[Contracts, list[str]]:
    """All contracts, those of customers that have one in no file as well; and what is told of plans that say nothing.

    Raises ConfigurationError for plans that no book has, or several.
    """
    taken = question.contracts.names
    plans = {name: plan for name, plan in question.usage.plans.items() if name not in taken}
    if question.plan is not None:
        others = usage["customer"].unique().to_list()
        plans = {name: question.plan for name in others if name not in taken} | plans
    having = {
        plan: [name for name in books.names if any(book.plan(plan) for book in _versions(books, name))]
        for plan in sorted(set(plans.values()))
    }
    every = sorted({plan.id for name in books.names for book in _versions(books, name) for plan in book.plans})
    faults = []
    for plan, found in having.items():
        where = ("--plan", "") if plan == question.plan else (question.usage_file, "plan")
        if not found:
            faults.append(Fault(*where, plan, f"allowed: a plan of a book: {', '.join(every)}"))
        elif len(found) > 1:
            faults.append(
                Fault(*where, plan, f"allowed: a plan of one book; {', '.join(found)} have it: use --contracts")
            )
    _refuse(faults)
    own = tuple(
        Contract(customer=name, name=name, subjects=(name,), plan=plan, book=having[plan][0], starts_on=LONG_AGO)
        for name, plan in plans.items()
    )
    ignored = sorted(question.usage.plans.keys() & taken)
    told = [f"the plan of {some(ignored)} in the usage says nothing: a contract names another"] if ignored else []
    return Contracts(contracts=(*question.contracts.contracts, *own)), told


def _versions(books: Books, name: str) -> list[PriceBook]:
    return [books.version(name, number) for number in books.versions(name)]


def _aggregations(question: Question, books: Books, contracts: Contracts, usage: pl.DataFrame) -> dict[str, str]:
    """How the rows of each meter are combined. Raises ConfigurationError for usage that does not fit its meter."""
    used = sorted(usage["meter"].unique())
    if question.meters is not None:
        known = {meter.slug: meter.aggregation.value for meter in question.meters}
    else:
        known = dict.fromkeys(sorted({*used, *_named_meters(books, contracts)}), "SUM")
    allowed = f"allowed: a meter of --meters: {', '.join(known)}"
    faults = [Fault(question.usage_file, "meter", slug, allowed) for slug in used if slug not in known]
    distinct = [slug for slug, kind in known.items() if kind == "UNIQUE_COUNT"]
    wrong = usage.filter(pl.col("value").is_not_null() != pl.col("meter").is_in(distinct), pl.col("meter").is_in(known))
    for slug in sorted(wrong["meter"].unique()):
        allowed = (
            "allowed: value instead, as the meter counts different values" if slug in distinct
            else f"allowed: quantity instead; value is for UNIQUE_COUNT, and the meter is {known[slug]}"
        )  # fmt: skip
        faults.append(Fault(question.usage_file, "quantity" if slug in distinct else "value", slug, allowed))
    _refuse(faults)
    return known


def _named_meters(books: Books, contracts: Contracts) -> set[str]:
    """The meters that charges and service levels name."""
    charges = [
        charge
        for name in books.names
        for book in _versions(books, name)
        for plan in book.plans
        for charge in plan.charges
    ]
    for contract in contracts.contracts:
        for layer in (contract.layer, *(each.layer for each in contract.amendments)):
            charges += layer.add
    promised = {sla.meter for contract in contracts.contracts for sla in contract.sla}
    return promised | {charge.meter for charge in charges if isinstance(charge, MeteredCharge)}


def _prepaid(given: Iterable[tuple[str, str]], schedules: Mapping[str, tuple[Period, ...]]) -> dict[str, int]:
    """Credits in minor units of the currency that each customer pays in. Raises ConfigurationError."""
    credits_: dict[str, int] = {}
    faults = []
    for customer, amount in given:
        if not schedules.get(customer):
            names = some([name for name, periods in schedules.items() if periods]) or "(there is none)"
            allowed = f"allowed: a customer with a contract or a plan of its own, and a billing period: {names}"
            faults.append(Fault("--prepaid", customer, amount, allowed))
            continue
        currency = schedules[customer][-1].terms.currency
        decimals = MINOR_UNITS[currency]
        try:
            minor: Fraction | None = Fraction(exact_decimal(amount)) * 10**decimals
        except ValueError:
            minor = None
        if minor is None or minor.denominator != 1 or not 0 <= minor < 2**63:
            allowed = f"allowed: an amount of {currency}, 0 or above, with at most {decimals} decimals"
            faults.append(Fault("--prepaid", customer, amount, allowed))
        else:
            credits_[customer] = int(minor)
    _refuse(faults)
    return credits_


def _rows(usage: pl.DataFrame, aggregations: Mapping[str, str]) -> pl.DataFrame:
    """The rows as rating takes them (columns rating.frames.USAGE and position): each is an event."""
    kinds = pl.col("meter").replace_strict(aggregations, return_dtype=pl.String)
    position = pl.col("position")
    of_latest = pl.struct(
        time=pl.col("at"),
        appended_at=pl.col("at"),
        partition=pl.lit(0),
        offset=position,
        line=pl.lit(0),
        value="quantity",
    )
    return usage.with_columns(
        position=position.cast(pl.UInt64),
        count=pl.lit(1, pl.Int64),
        sum=pl.when(kinds == "AVG").then("quantity"),
        latest=of_latest,
        uniques=pl.when(pl.col("value").is_not_null()).then(pl.concat_list("value")),
    ).drop("value", "customer")


def _refuse(faults: Iterable[Fault]) -> None:
    if found := list(faults):
        raise ConfigurationError(found)
