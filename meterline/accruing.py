"""What was used of a month and is not billed: rated from what has arrived, less what is booked.

Decides which account's revenue a charge is. Nothing is posted here.
"""

from datetime import datetime

import polars as pl

from invoicing import store as invoicing
from invoicing.accruals.documents import UNBILLED
from meterline.billable import billable, ended_everywhere, refuse_recurring
from meterline.period import Period
from meterline.price_simulation import ALL_EPOCHS
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System
from rating.books import Books
from rating.rater import Basis, Rater
from schemas.charge import ChargeKind
from schemas.contract import Contracts
from schemas.invoice import Columns
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT

_AMOUNT = {
    ChargeKind.USAGE: "subtotal", ChargeKind.MINIMUM_SPEND: "subtotal", ChargeKind.OVERAGE: "subtotal",
    ChargeKind.FLAT: "fees", ChargeKind.MANUAL: "fees", ChargeKind.COMMITMENT: "commitment",
}  # fmt: skip
"""As the legs of P01 name it. SLA credits are left out: an expected one is posted by P21-expected."""
_KEY = ["customer", "currency", "charge"]
CHARGES: Columns = {
    "customer": pl.String, "currency": pl.String, "charge": pl.String, "kind": pl.String, "amount_minor": pl.Int64,
}  # fmt: skip
"""Columns of what is rated: as of invoicing, with the kind of the charge."""


def rated_month(app: System, month: Period, now: datetime) -> pl.DataFrame:
    """The charges (columns CHARGES) of the billing periods that end in a month, by all usage that has arrived.

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
    refuse_recurring(rater.charges)
    with whole_rollups(app.database):
        rated = [
            billable(each.charges, each.slices, contracts).with_columns(each.charges["kind"]).select(*CHARGES)
            for each in rated_chunks(app, meters, rater)
        ]
    return pl.concat([pl.DataFrame(schema=CHARGES), *rated])


def differences(charges: pl.DataFrame, booked: pl.DataFrame) -> pl.DataFrame:
    """Charges (columns CHARGES) less what is booked (columns `schemas.invoice.BOOKED`), as columns UNBILLED.

    >>> rated = pl.DataFrame([("UA", "USD", "calls", "usage", 900), ("UA", "USD", "sla", "sla_credit", -90)],
    ...                      schema=CHARGES, orient="row")
    >>> known = pl.DataFrame([("UA", "USD", "calls", 700), ("UA", "USD", "sla", -70)], orient="row",
    ...                      schema=["customer", "currency", "charge", "amount_minor"])
    >>> differences(rated, known).rows()
    [('UA', 'USD', 'subtotal', '', 200)]
    """
    known = booked.group_by(_KEY).agg(pl.col("amount_minor").sum().alias("booked_minor"))
    both = charges.join(known, on=_KEY, how="full", coalesce=True).filter(
        pl.col("kind").ne_missing(ChargeKind.SLA_CREDIT.value)
    )
    names = {kind.value: amount for kind, amount in _AMOUNT.items()}
    owed = both.select(
        "customer",
        "currency",
        pl.col("kind").replace_strict(names, default="subtotal", return_dtype=pl.String).alias("amount"),
        pl.lit("").alias("feature"),
        (pl.col("amount_minor").fill_null(0) - pl.col("booked_minor").fill_null(0)).alias("amount_minor"),
    )
    parts = [name for name in UNBILLED if name != "amount_minor"]
    return owed.group_by(parts).agg(pl.col("amount_minor").sum()).filter(pl.col("amount_minor") != 0).sort(parts)
