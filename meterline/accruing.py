"""What was used of a month and is not billed: what a bill run would bill of it now, net of tax.

Nothing is posted here.
"""

from dataclasses import dataclass
from datetime import datetime

import polars as pl

from invoicing import store as invoicing
from invoicing.accruals.documents import UNBILLED
from invoicing.invoices.lines import lines_of
from meterline.billable import billable, ended_everywhere
from meterline.levels import levels_before
from meterline.period import Period
from meterline.price_simulation import ALL_EPOCHS
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System
from meterline.taxing import with_taxes
from rating.books import Books, book_in_force
from rating.rater import Basis, Rater
from schemas.contract import Contracts
from schemas.invoice import CHARGED, Revenue
from schemas.invoice import Basis as InvoiceBasis
from schemas.plan import Policies
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT

_EARNED = (Revenue.USAGE.value, Revenue.FEES.value, Revenue.COMMITMENT.value)
"""What is earned when it is used. SLA credits are left out: an expected one is posted by P21-expected."""


@dataclass(frozen=True)
class RatedMonth:
    """The charges (columns `schemas.invoice.CHARGED`) of the billing periods that end in a month, and their basis."""

    month: str
    charges: pl.DataFrame
    basis: InvoiceBasis
    policies: Policies


def rated_month(app: System, month: Period, now: datetime) -> RatedMonth:
    """What a month is rated at by all usage that has arrived.

    Raises ValueError for a month that has not ended everywhere, LookupError without prices.
    """
    with app.database.connect() as connection:
        books = [PriceBook.from_canonical(row["body"]) for row in invoicing.price_books(connection, DEFAULT_TENANT)]
        stored = invoicing.latest_contracts(connection, DEFAULT_TENANT)
    if not books:
        raise LookupError("no price book is stored; store one with `meterline price apply FILE`")
    contracts = Contracts.from_canonical(stored.body) if stored else Contracts(contracts=())
    if (ends_at := ended_everywhere(month, contracts)) > now:
        raise ValueError(f"{month} has not ended; it can be accrued from {ends_at:%Y-%m-%d %H:%M} on (UTC)")
    meters = app.log.meters()
    aggregations = {meter.slug: meter.aggregation.value for meter in meters}
    after, through = month.start.date(), month.end.date()
    rater = Rater(Basis(Books(books), contracts, aggregations, after, through, ALL_EPOCHS))
    with whole_rollups(app.database):
        rated = [
            billable(each.charges, each.slices, month=month, contracts=contracts, books=books)
            for each in rated_chunks(app, meters, rater, levels_before(app.database, month))
        ]
    book = book_in_force(books, after)
    basis = InvoiceBasis(ALL_EPOCHS, book.book, book.version, book.digest, contracts.digest)
    return RatedMonth(str(month), pl.concat([pl.DataFrame(schema=CHARGED), *rated]), basis, book.policies)


def unbilled(rated: RatedMonth, booked: pl.DataFrame) -> pl.DataFrame:
    """What is rated less what is booked (columns `schemas.invoice.BOOKED`), net of tax (columns UNBILLED)."""
    lines = lines_of(rated.charges, booked, run_period=rated.month, bases={rated.month: rated.basis})
    owed = with_taxes(lines, rated.policies).lines.filter(pl.col("revenue").is_in(_EARNED)).select(
        "customer", "currency", pl.col("revenue").alias("amount"), pl.lit("").alias("feature"),
        pl.col("net_minor").alias("amount_minor"),
    )  # fmt: skip
    parts = [name for name in UNBILLED if name != "amount_minor"]
    return owed.group_by(parts).agg(pl.col("amount_minor").sum()).filter(pl.col("amount_minor") != 0).sort(parts)
