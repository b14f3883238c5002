"""The billing run of a period: the stages in their order. They meet here and nowhere else.

Owns that a run is all or nothing: it may be killed at any moment and asked for again. Until the one transaction that
posts it, nothing is posted; after it, asking again changes nothing.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl
import sqlalchemy as sa

from aggregation.store import has_late_usage
from invoicing import store as invoicing
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.store import invoices_of, remove_drafts, write
from invoicing.outbox.events import created
from invoicing.outbox.store import emit_frame
from meterline.assembling import Assembly
from meterline.billable import billable, ended_everywhere, policies_of, refuse_recurring
from meterline.charged import Charged
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from meterline.verification import ahead
from rating.books import Books, book_in_force
from rating.claiming import UNASSIGNED
from rating.rater import Basis, Rater
from schemas.contract import Contracts
from schemas.invoice import Basis as InvoiceBasis
from schemas.invoice import Run
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


class How(StrEnum):
    """What becomes of what a run assembles."""

    FINAL = "final"
    """Invoices: numbered, posted and told of, and the period is billed."""
    DRAFT = "draft"
    """Drafts, in place of those that the period has. They follow new usage: ask again."""
    PREVIEW = "preview"
    """Nothing: it is shown only."""


def bill(
    app: System, *, period: str, how: str = How.FINAL, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Output]:
    """Bill a period, in this order; each step says why it stands where it does.

    1. Cut: note the run with its barrier's number, then write the barrier to every partition. A run that died in
       between is asked for again, and has a new barrier.
    2. Wait until every partition is stored past the barrier: only then does the cut hold all that came before it.
    3. Rate the period, and each billed period before it whose usage or contracts changed since, as of the cut.
    4. Assemble lines (the period's charges, and differences to what is booked), then their taxes, then drafts.
    5. Issue them: finish the run, number the invoices, post their journal entries and emit what was posted, in one
       transaction. Or keep the drafts, or show them only.
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
        yield from _bill(app, month, now, How(how))
    if how == How.PREVIEW:
        return
    yield from _result(app, period)


def _bill(app: System, month: Period, now: Callable[[], datetime], how: How) -> Iterator[Output]:
    # 1. cut
    terms = _terms(app)
    run = _cut(app, month, terms, now(), noted=how is not How.PREVIEW)
    ends = app.log.punctuate(Barrier(run.basis.cut))
    # 2. wait
    yield from wait_until_stored(app, ends, "cut")
    with Charged() as charged:
        # 3. rate
        bases, lost = yield from _rate(app, run, month, terms, charged)
        # 4. and 5.
        yield from _billed(app, run, _assembly(run, terms, bases, charged.periods), charged, how, now)
    yield from lost


def _assembly(run: Run, terms: _Terms, bases: dict[str, InvoiceBasis], charged_periods: set[str]) -> Assembly:
    """What invoices are made of; what is paid in advance, of a later period, has the basis of the run."""
    in_advance = {name: bases[run.period] for name in charged_periods if name > run.period}
    names = {contract.customer: contract.name for contract in terms.contracts.contracts}
    policies = policies_of(terms.known_at(run.started_at), run)
    return Assembly(run.tenant, run.period, bases | in_advance, names, policies)


def _billed(
    app: System, run: Run, assembly: Assembly, charged: Charged, how: How, now: Callable[[], datetime]
) -> Iterator[Output]:
    shown: list[pl.DataFrame] = []
    with app.database.begin() as connection, app.database.connect() as reader:
        invoicing.lock(connection, run.tenant)  # first: it locks out other runs
        if how is How.FINAL:
            rated = {name: basis for name, basis in assembly.bases.items() if name <= run.period}
            invoicing.finish_run(connection, run, rated, posted_at=now())
        before = {} if how is How.PREVIEW else remove_drafts(connection, run.tenant, period=run.period)
        # 4. assemble, while the range before is written
        for drafts in ahead(assembly.drafts(reader, charged)):
            # 5. issue
            if how is How.FINAL:
                issue(connection, _succeeding(drafts, before), at=run.started_at)
            elif how is How.DRAFT:
                _keep(connection, _succeeding(drafts, before), run)
            else:
                shown.append(drafts.invoices)
    if how is How.PREVIEW:
        yield invoice_table(run.period, pl.concat(shown))


def _succeeding(drafts: Drafts, before: dict[str, int]) -> Drafts:
    """The drafts as the next versions of those that were taken away."""
    versions = pl.col("id").replace_strict(before, default=0, return_dtype=pl.Int64) + 1
    return replace(drafts, invoices=drafts.invoices.with_columns(versions.alias("version")))


def _keep(connection: sa.Connection, drafts: Drafts, run: Run) -> None:
    write(connection, drafts.invoices, drafts.lines)
    emit_frame(connection, created(drafts.invoices.filter(pl.col("version") == 1), at=run.started_at))


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


def _cut(app: System, month: Period, terms: _Terms, now: datetime, *, noted: bool) -> Run:
    book = book_in_force(terms.known_at(now), month.start.date())
    with app.database.begin() as connection:
        cut = app.log.new_barrier(connection, f"bill {month}")
        basis = InvoiceBasis(cut, book.book, book.version, book.digest, terms.contracts.digest)
        if not noted:
            return Run(DEFAULT_TENANT, str(month), basis, "started", started_at=now, posted_at=None)
        return invoicing.start_run(connection, DEFAULT_TENANT, str(month), basis, started_at=now)


def _rate(
    app: System, run: Run, month: Period, terms: _Terms, charged: Charged
) -> Generator[Output, None, tuple[dict[str, InvoiceBasis], list[Output]]]:
    """Rates what the run bills into `charged`; returns the basis of each period, and what to say of usage left out."""
    with app.database.connect() as connection:
        own = {str(month): run, **{each.period: each for each in invoicing.posted_runs(connection, DEFAULT_TENANT)}}
    periods = [month, *_changed_periods(app, run, month, terms, own)]
    books = terms.known_at(run.started_at)
    bases: dict[str, InvoiceBasis] = {}
    lost: list[tuple[str, ...]] = []
    for done, each in enumerate(periods):
        yield Progress(step="rate", done=done, total=len(periods))
        name, cut = str(each), run.basis.cut
        rater = terms.rater(each, own[name], cut, advance=each == month)
        refuse_recurring(rater.charges)
        for rated in rated_chunks(app, terms.meters, rater):
            charges = billable(rated.charges, rated.slices, month=each, contracts=terms.contracts, books=books)
            charged.add(charges)
            lost += [(name, *row) for row in rated.unassigned.rows()]
        bases[name] = replace(own[name].basis, cut=cut, contracts_digest=terms.contracts.digest)
    yield Progress(step="rate", done=len(periods), total=len(periods))
    return bases, [_unassigned(lost)] if lost else []


def _changed_periods(app: System, run: Run, month: Period, terms: _Terms, own: dict[str, Run]) -> list[Period]:
    """The billed periods before this one whose usage or contracts changed since they were last rated."""
    with app.database.connect() as connection:
        ratings = invoicing.latest_ratings(connection, DEFAULT_TENANT)
        asked = invoicing.periods_to_rate(connection, DEFAULT_TENANT)
    changed = []
    for name, (cut, contracts_digest) in ratings.items():
        period = Period.parse(name)
        if period.start >= month.start:
            continue
        span = terms.rater(period, own[name], run.basis.cut, advance=False).span
        if (
            name in asked
            or contracts_digest != run.basis.contracts_digest
            or (span and has_late_usage(app.clickhouse, DEFAULT_TENANT, *span, cut, run.basis.cut))
        ):
            changed.append(period)
    return changed


def _unassigned(rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        title="Usage that nobody pays for: add its subjects to the contracts, and the next run bills it",
        columns=("period", *UNASSIGNED),
        rows=[[str(cell) for cell in row] for row in rows],
    )


def _result(app: System, period: str) -> Iterator[Output]:
    with app.database.connect() as connection:
        invoices = invoices_of(connection, DEFAULT_TENANT, period)
    yield invoice_table(period, invoices)
