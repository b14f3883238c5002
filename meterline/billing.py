"""The billing run of a period: the stages in their order. They meet here and nowhere else.

Owns that a run is all or nothing: it may be killed at any moment and asked for again. Until the one transaction that
posts it, nothing is posted; after it, asking again changes nothing.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from aggregation.store import has_late_usage, usage_between
from invoicing import store as invoicing
from invoicing.assemble import assemble
from invoicing.ledger.journal import journal
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.period import Period
from meterline.rollups import whole_rollups
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from rating.books import book_in_force
from rating.rater import Rated, rate
from schemas.contract import Contracts
from schemas.invoice import Basis, Run, Tax
from schemas.log import DEFAULT_TENANT, Barrier
from schemas.meter import Meter
from schemas.price_book import PriceBook


@dataclass(frozen=True)
class _Terms:
    """What is in force as a run starts."""

    books: dict[str, PriceBook]  # by digest
    contracts: Contracts
    meters: tuple[Meter, ...]


def bill(app: System, *, period: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[Output]:
    """Bill a period, in this order; each step says why it stands where it does.

    1. Cut: note the run with its barrier's number, then write the barrier to every partition. A run that died in
       between is asked for again, and has a new barrier.
    2. Wait until every partition is stored past the barrier: only then does the cut hold all that came before it.
    3. Rate the period, and each billed period before it whose usage or contracts changed since, as of the cut.
    4. Assemble lines (the period's charges, and differences to what is booked), then invoices, then journal entries.
    5. Post all of it and finish the run, in one transaction.
    """
    month = Period.parse(period)
    if month.end > now():
        yield Failure(message=f"{period} has not ended; it can be billed from {month.end:%Y-%m-%d} on (UTC)")
        return
    with app.database.connect() as connection:
        earlier = invoicing.run_of(connection, DEFAULT_TENANT, period)
    if earlier and earlier.state == "posted":
        known = f"{period} was billed at cut {earlier.basis.cut}"
        yield Text(text=f"{known}; usage that arrived since goes to the next period's invoices")
        yield from _result(app, period)
        return
    with whole_rollups(app.database):
        yield from _bill(app, month, now)
    yield from _result(app, period)


def _bill(app: System, month: Period, now: Callable[[], datetime]) -> Iterator[Output]:
    # 1. cut
    terms = _terms(app)
    run = _cut(app, month, terms, now())
    ends = app.log.punctuate(Barrier(run.basis.cut))
    # 2. wait
    yield from wait_until_stored(app, ends, "cut")
    # 3. rate
    rated, bases = yield from _rate(app, run, month, terms)
    # 4. and 5.
    with app.database.begin() as connection:
        book = terms.books[run.basis.book_digest]
        next_number = invoicing.next_number(connection, DEFAULT_TENANT)  # first: it locks out other runs
        assembled = assemble(
            pl.concat([each.charges for each in rated.values()]),
            invoicing.booked(connection, DEFAULT_TENANT, sorted(bases)),
            tenant=DEFAULT_TENANT,
            run_period=str(month),
            bases=bases,
            customer_names={contract.customer: contract.name for contract in terms.contracts.contracts},
            tax=Tax(book.tax.name, book.tax.rate_percent) if book.tax else None,
            next_number=next_number,
            issued_at=run.started_at,
        )
        entries = journal(assembled.invoices, booked_at=run.started_at)
        invoicing.post(connection, assembled.invoices, assembled.lines, entries.entries, entries.postings)
        invoicing.finish_run(connection, run, bases, posted_at=now())
    yield from _unassigned(rated)


def _terms(app: System) -> _Terms:
    with app.database.connect() as connection:
        books = [PriceBook.from_canonical(row["body"]) for row in invoicing.price_books(connection, DEFAULT_TENANT)]
        contracts = invoicing.latest_contracts(connection, DEFAULT_TENANT)
    if not books or contracts is None:
        raise LookupError(
            "no price book is stored; store one with `meterline price apply FILE`" if not books
            else "no contracts are stored; store them with `meterline contracts apply FILE`"
        )  # fmt: skip
    return _Terms({book.digest: book for book in books}, Contracts.from_canonical(contracts.body), app.log.meters())


def _cut(app: System, month: Period, terms: _Terms, now: datetime) -> Run:
    book = book_in_force(terms.books.values(), month.start.date())
    with app.database.begin() as connection:
        cut = app.log.new_barrier(connection, f"bill {month}")
        basis = Basis(cut, book.book, book.version, book.digest, terms.contracts.digest)
        return invoicing.start_run(connection, DEFAULT_TENANT, str(month), basis, started_at=now)


def _rate(
    app: System, run: Run, month: Period, terms: _Terms
) -> Generator[Output, None, tuple[dict[str, Rated], dict[str, Basis]]]:
    periods = [month, *_changed_periods(app, run, month)]
    with app.database.connect() as connection:
        own = {str(month): run, **{each.period: each for each in invoicing.posted_runs(connection, DEFAULT_TENANT)}}
    rated: dict[str, Rated] = {}
    bases: dict[str, Basis] = {}
    for done, each in enumerate(periods):
        yield Progress(step="rate", done=done, total=len(periods))
        name = str(each)
        book = terms.books[own[name].basis.book_digest]
        usage = usage_between(app.clickhouse, DEFAULT_TENANT, terms.meters, each.start, each.end, run.basis.cut)
        aggregations = {meter.slug: meter.aggregation.value for meter in terms.meters}
        rated[name] = rate(usage, book, terms.contracts, aggregations=aggregations, period=name, cut=run.basis.cut)
        bases[name] = replace(own[name].basis, cut=run.basis.cut, contracts_digest=terms.contracts.digest)
    yield Progress(step="rate", done=len(periods), total=len(periods))
    return rated, bases


def _changed_periods(app: System, run: Run, month: Period) -> list[Period]:
    """The billed periods before this one whose usage or contracts changed since they were last rated."""
    with app.database.connect() as connection:
        ratings = invoicing.latest_ratings(connection, DEFAULT_TENANT)
    changed = []
    for name, (cut, contracts_digest) in ratings.items():
        period = Period.parse(name)
        if period.start < month.start and (
            contracts_digest != run.basis.contracts_digest
            or has_late_usage(app.clickhouse, DEFAULT_TENANT, period.start, period.end, cut, run.basis.cut)
        ):
            changed.append(period)
    return changed


def _unassigned(rated: dict[str, Rated]) -> Iterator[Output]:
    rows = [(period, *row) for period, each in rated.items() for row in each.unassigned.rows()]
    if rows:
        columns = ("period", *next(iter(rated.values())).unassigned.columns)
        yield Table(
            title="Usage that nobody pays for: add its subjects to the contracts, and the next run bills it",
            columns=columns,
            rows=[[str(cell) for cell in row] for row in rows],
        )


def _result(app: System, period: str) -> Iterator[Output]:
    with app.database.connect() as connection:
        invoices = invoicing.invoices_of(connection, DEFAULT_TENANT, period)
    yield invoice_table(period, invoices)
