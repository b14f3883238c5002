"""The billing run of a period: the stages in their order. They meet here and nowhere else.

Owns that a run is all or nothing: it may be killed at any moment and asked for again. Until the one transaction that
posts it, nothing is posted; after it, asking again changes nothing.
"""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

import polars as pl
import sqlalchemy as sa

from aggregation.store import has_late_usage
from invoicing import store as invoicing
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts, drafted, periodic_heads
from invoicing.invoices.lines import lines_of
from invoicing.invoices.store import booked, invoices_of, issued_before_their_run, remove_drafts, write
from invoicing.outbox.events import created
from invoicing.outbox.store import emit_frame
from meterline.billable import billable, ended_everywhere, policies_of, refuse_recurring
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from meterline.taxing import with_taxes
from rating.books import Books, book_in_force
from rating.claiming import UNASSIGNED
from rating.rater import Basis, Rated, Rater
from schemas.contract import Contracts
from schemas.invoice import CHARGED, INVOICE_SERIES, Run
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
    # 3. rate
    rated, bases = yield from _rate(app, run, month, terms)
    books = terms.known_at(run.started_at)
    charged = [
        billable(each.charges, each.slices, month=Period.parse(name), contracts=terms.contracts, books=books)
        for name, chunks in rated.items()
        for each in chunks
    ]
    charges = pl.concat([pl.DataFrame(schema=CHARGED), *charged])
    bases |= {name: bases[str(month)] for name in charges["period"].unique() if name > str(month)}  # in advance
    with app.database.begin() as connection:
        invoicing.lock(connection, DEFAULT_TENANT)  # first: it locks out other runs
        # 4. assemble
        drafts = _drafts(connection, charges, run, bases, terms)
        # 5. issue
        if how is How.FINAL:
            billed = {name: basis for name, basis in bases.items() if name <= str(month)}
            invoicing.finish_run(connection, run, billed, posted_at=now())
            issue(connection, _succeeding(connection, drafts, run), at=run.started_at)
        elif how is How.DRAFT:
            _keep(connection, drafts, run)
    if how is How.PREVIEW:
        yield invoice_table(str(month), drafts.invoices)
    yield from _unassigned(rated)


def _drafts(
    connection: sa.Connection, charges: pl.DataFrame, run: Run, bases: dict[str, InvoiceBasis], terms: _Terms
) -> Drafts:
    """What the run bills: lines, their taxes, and invoices of them.

    Whose invoice of the period was issued before its run has what came since on a later one.
    """
    lines = lines_of(charges, booked(connection, run.tenant, sorted(bases)), run_period=run.period, bases=bases).join(
        issued_before_their_run(connection, run.tenant, run.period), on=["customer", "currency"], how="anti"
    )
    taxed = with_taxes(lines, policies_of(terms.known_at(run.started_at), run))
    heads = periodic_heads(
        lines, tenant=run.tenant, run_period=run.period, basis=bases[run.period], series=INVOICE_SERIES,
        customer_names={contract.customer: contract.name for contract in terms.contracts.contracts},
    )  # fmt: skip
    return drafted(taxed.lines, taxed.groups, heads)


def _succeeding(connection: sa.Connection, drafts: Drafts, run: Run) -> Drafts:
    """The drafts as the next versions of those that the period has, which are taken away."""
    before = remove_drafts(connection, run.tenant, period=run.period)
    versions = pl.col("id").replace_strict(before, default=0, return_dtype=pl.Int64) + 1
    return replace(drafts, invoices=drafts.invoices.with_columns(versions.alias("version")))


def _keep(connection: sa.Connection, drafts: Drafts, run: Run) -> None:
    kept = _succeeding(connection, drafts, run)
    write(connection, kept.invoices, kept.lines)
    new = kept.invoices.filter(pl.col("version") == 1)
    emit_frame(connection, created(new, at=run.started_at))


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
        invoices = invoices_of(connection, DEFAULT_TENANT, period)
    yield invoice_table(period, invoices)
