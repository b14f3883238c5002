"""What a bill run rates from: the price books, contracts and meters that are in force as it starts, and its cut."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from invoicing import store as invoicing
from meterline.period import Period
from meterline.system import System
from rating.books import Books, book_in_force
from rating.rater import Basis, Rater
from schemas.contract import Contracts
from schemas.invoice import Basis as InvoiceBasis
from schemas.invoice import Run
from schemas.meter import Meter
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT


@dataclass(frozen=True)
class Terms:
    """What is in force as a run starts."""

    books: tuple[tuple[datetime, PriceBook], ...]
    """All versions, with the instants that they were applied at."""
    contracts: Contracts
    meters: tuple[Meter, ...]

    def known_at(self, instant: datetime) -> list[PriceBook]:
        """The versions that were applied by then: a later one changes no period that was billed before."""
        return [book for applied_at, book in self.books if applied_at <= instant]

    def priced_from(self, instant: datetime) -> datetime:
        """The first day of the versions that were applied by then, UTC."""
        first = min(book.effective_at for book in self.known_at(instant))
        return datetime(first.year, first.month, first.day, tzinfo=UTC)

    def rater(self, month: Period, run: Run, cut: int, *, advance: bool) -> Rater:
        """Rates what ends in a month by the versions that its run knew, and by these contracts."""
        aggregations = {meter.slug: meter.aggregation.value for meter in self.meters}
        return Rater(Basis(
            Books(self.known_at(run.started_at)), self.contracts, aggregations,
            after=month.start.date(), through=month.end.date(), cut=cut, advance=advance,
        ))  # fmt: skip


def terms_of(app: System) -> Terms:
    """What is in force now. Raises LookupError without a price book or contracts."""
    with app.database.connect() as connection:
        rows = invoicing.price_books(connection, DEFAULT_TENANT)
        contracts = invoicing.latest_contracts(connection, DEFAULT_TENANT)
    if not rows or contracts is None:
        raise LookupError(
            "no price book is stored; store one with `meterline price apply FILE`" if not rows
            else "no contracts are stored; store them with `meterline contracts apply FILE`"
        )  # fmt: skip
    books = tuple((row["applied_at"], PriceBook.from_canonical(row["body"])) for row in rows)
    return Terms(books, Contracts.from_canonical(contracts.body), app.log.meters())


def cut_run(app: System, month: Period, terms: Terms, now: datetime, *, noted: bool) -> Run:
    """A run of a month with a new barrier's number, noted or not: what is only shown leaves no run behind.

    Its book is the one in force on the month's first day, or else the first one that comes into force within it.
    """
    known, first = terms.known_at(now), month.start.date()
    last = (month.end - timedelta(days=1)).date()
    book = book_in_force(known, first if any(each.effective_at <= first for each in known) else last)
    with app.database.begin() as connection:
        cut = app.log.new_barrier(connection, f"bill {month}")
        basis = InvoiceBasis(cut, book.book, book.version, book.digest, terms.contracts.digest)
        if not noted:
            return Run(DEFAULT_TENANT, str(month), basis, "started", started_at=now, posted_at=None)
        return invoicing.start_run(connection, DEFAULT_TENANT, str(month), basis, started_at=now)
