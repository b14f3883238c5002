"""The billing run of a period: the stages in their order. They meet here and nowhere else.

Owns that a run is all or nothing: it may be killed at any moment and asked for again. Until the one transaction that
posts it, nothing is posted; after it, asking again changes nothing.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import polars as pl

from aggregation.store import has_late_usage
from invoicing import store as invoicing
from invoicing.assemble import assemble
from invoicing.ledger.journal import journal
from invoicing.outbox.events import finalized
from invoicing.outbox.store import emit_frame
from meterline.billable import billable, ended_everywhere, invoice_tax, refuse_recurring
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from rating.books import Books, book_in_force
from rating.claiming import UNASSIGNED
from rating.rater import Basis, Rated, Rater
from schemas.contract import Contracts
from schemas.invoice import CHARGED, Run
from schemas.invoice import Basis as InvoiceBasis
from schemas.log import Barrier
from schemas.meter import Meter
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT


@dataclass(frozen=True)
class _Terms:
    """What is in force as a run starts."""

    books: tuple[tuple[datetime, PriceBook], ...]
    """All versions, with the instants that they were applied at."""
    contracts: Contracts
    meters: tuple[Meter, ...]

    def known_at(self, instant: datetime) -> list[PriceBook]:
        """The versions that were applied by then: a later one changes no period that was billed before."""
        return [book for applied_at, book in self.books if applied_at <= instant]

    def rater(self, month: Period, run: Run, cut: int, *, advance: bool) -> Rater:
        """Rates what ends in a month by the versions that its run knew, and by these contracts."""
        aggregations = {meter.slug: meter.aggregation.value for meter in self.meters}
        return Rater(Basis(
            Books(self.known_at(run.started_at)), self.contracts, aggregations,
            after=month.start.date(), through=month.end.date(), cut=cut, advance=advance,
        ))  # fmt: skip


def bill(app: System, *, period: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Iterator[Output]:
    """Bill a period, in this order; each step says why it stands where it does.

    1. Cut: note the run with its barrier's number, then write the barrier to every partition. A run that died in
       between is asked for again, and has a new barrier.
    2. Wait until every partition is stored past the barrier: only then does the cut hold all that came before it.
    3. Rate the period, and each billed period before it whose usage or contracts changed since, as of the cut.
    4. Assemble lines (the period's charges, and differences to what is booked), then invoices, then journal entries.
    5. Post all of it, finish the run and emit what was posted, in one transaction.
    """
    month = Period.parse(period)
    with app.database.connect() as connection:
        contracts = invoicing.latest_contracts(connection, DEFAULT_TENANT)
    ends_at = ended_everywhere(month, Contracts.from_canonical(contracts.body) if contracts else None)
    if ends_at > now():
        yield Failure(message=f"{period} has not ended; it can be billed from {ends_at:%Y-%m-%d %H:%M} on (UTC)")
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
    chunks = [chunk for of_period in rated.values() for chunk in of_period]
    charged = [billable(each.charges, each.slices, terms.contracts) for each in chunks]
    charges = pl.concat([pl.DataFrame(schema=CHARGED), *charged])
    tax = invoice_tax(terms.known_at(run.started_at), [each.charges for each in chunks])
    bases |= {name: bases[str(month)] for name in charges["period"].unique() if name > str(month)}  # in advance
    # 4. and 5.
    with app.database.begin() as connection:
        next_number = invoicing.next_number(connection, DEFAULT_TENANT)  # first: it locks out other runs
        assembled = assemble(
            charges,
            invoicing.booked(connection, DEFAULT_TENANT, sorted(bases)),
            tenant=DEFAULT_TENANT,
            run_period=str(month),
            bases=bases,
            customer_names={contract.customer: contract.name for contract in terms.contracts.contracts},
            tax=tax,
            next_number=next_number,
            issued_at=run.started_at,
        )
        entries = journal(assembled.invoices, booked_at=run.started_at)
        invoicing.post(connection, assembled.invoices, assembled.lines, entries.entries, entries.postings)
        billed = {name: basis for name, basis in bases.items() if name <= str(month)}
        invoicing.finish_run(connection, run, billed, posted_at=now())
        emit_frame(connection, finalized(assembled.invoices))  # last: others of the tenant who emit wait for the commit
    yield from _unassigned(rated)


def _terms(app: System) -> _Terms:
    with app.database.connect() as connection:
        rows = invoicing.price_books(connection, DEFAULT_TENANT)
        contracts = invoicing.latest_contracts(connection, DEFAULT_TENANT)
    if not rows or contracts is None:
        raise LookupError(
            "no price book is stored; store one with `meterline price apply FILE`" if not rows
            else "no contracts are stored; store them with `meterline contracts apply FILE`"
        )  # fmt: skip
    books = tuple((row["applied_at"], PriceBook.from_canonical(row["body"])) for row in rows)
    return _Terms(books, Contracts.from_canonical(contracts.body), app.log.meters())


def _cut(app: System, month: Period, terms: _Terms, now: datetime) -> Run:
    book = book_in_force(terms.known_at(now), month.start.date())
    with app.database.begin() as connection:
        cut = app.log.new_barrier(connection, f"bill {month}")
        basis = InvoiceBasis(cut, book.book, book.version, book.digest, terms.contracts.digest)
        return invoicing.start_run(connection, DEFAULT_TENANT, str(month), basis, started_at=now)


def _rate(
    app: System, run: Run, month: Period, terms: _Terms
) -> Generator[Output, None, tuple[dict[str, list[Rated]], dict[str, InvoiceBasis]]]:
    with app.database.connect() as connection:
        own = {str(month): run, **{each.period: each for each in invoicing.posted_runs(connection, DEFAULT_TENANT)}}
    periods = [month, *_changed_periods(app, run, month, terms, own)]
    rated: dict[str, list[Rated]] = {}
    bases: dict[str, InvoiceBasis] = {}
    for done, each in enumerate(periods):
        yield Progress(step="rate", done=done, total=len(periods))
        name, cut = str(each), run.basis.cut
        rater = terms.rater(each, own[name], cut, advance=each == month)
        refuse_recurring(rater.charges)
        rated[name] = [*rated_chunks(app, terms.meters, rater)]
        bases[name] = replace(own[name].basis, cut=cut, contracts_digest=terms.contracts.digest)
    yield Progress(step="rate", done=len(periods), total=len(periods))
    return rated, bases


def _changed_periods(app: System, run: Run, month: Period, terms: _Terms, own: dict[str, Run]) -> list[Period]:
    """The billed periods before this one whose usage or contracts changed since they were last rated."""
    with app.database.connect() as connection:
        ratings = invoicing.latest_ratings(connection, DEFAULT_TENANT)
    changed = []
    for name, (cut, contracts_digest) in ratings.items():
        period = Period.parse(name)
        if period.start >= month.start:
            continue
        span = terms.rater(period, own[name], run.basis.cut, advance=False).span
        if contracts_digest != run.basis.contracts_digest or (
            span and has_late_usage(app.clickhouse, DEFAULT_TENANT, *span, cut, run.basis.cut)
        ):
            changed.append(period)
    return changed


def _unassigned(rated: dict[str, list[Rated]]) -> Iterator[Output]:
    rows = [(period, *row) for period, chunks in rated.items() for each in chunks for row in each.unassigned.rows()]
    if rows:
        yield Table(
            title="Usage that nobody pays for: add its subjects to the contracts, and the next run bills it",
            columns=("period", *UNASSIGNED),
            rows=[[str(cell) for cell in row] for row in rows],
        )


def _result(app: System, period: str) -> Iterator[Output]:
    with app.database.connect() as connection:
        invoices = invoicing.invoices_of(connection, DEFAULT_TENANT, period)
    yield invoice_table(period, invoices)
