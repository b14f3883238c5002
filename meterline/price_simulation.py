"""What a price book would have done to a past month: rated twice from the stored usage, and compared by customer.

Nothing is stored. Owns that both ratings see the same usage: that of the month's bill, or all that has arrived.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import orjson
import polars as pl

from invoicing import store as invoicing
from meterline.output import Output, Table, Text
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.system import System
from rating.books import Books
from rating.contract_faults import contract_faults
from rating.rater import Basis, Rater
from schemas.configuration import ConfigurationError
from schemas.contract import Contracts, parse_contracts
from schemas.invoice import Columns
from schemas.money import MINOR_UNITS, major
from schemas.price_book import PriceBook, parse_price_book
from schemas.tenant import DEFAULT_TENANT

ALL_EPOCHS = 2**32 - 1
_KEY = ("customer", "currency")
_AMOUNTS = ("before", "after", "difference")


@dataclass(frozen=True)
class _Side:
    """One of two ratings."""

    books: Books
    contracts: Contracts


def simulate_prices(
    app: System,
    *,
    text: str,
    file: str,
    period: str,
    contracts_text: str | None = None,
    contracts_file: str = "",
    limit: int = 20,
    as_json: bool = False,
) -> Iterator[Output]:
    """Rate a month by the book in force and by that of the text, and show the difference by customer, largest first.

    The new book holds for the whole of the periods that end within the month, whatever its dates say; contracts that
    stay on a version stay on it. Amounts are net, before taxes and prepaid credits.
    """
    month = Period.parse(period)
    meters = app.log.meters()
    known = {meter.slug: meter for meter in meters}
    new = parse_price_book(text, file, known)
    with app.database.connect() as connection:
        versions = [PriceBook.from_canonical(row["body"]) for row in invoicing.price_books(connection, DEFAULT_TENANT)]
        stored = invoicing.latest_contracts(connection, DEFAULT_TENANT)
        run = invoicing.run_of(connection, DEFAULT_TENANT, period)
    if not versions:
        raise LookupError("no price book is stored to compare with; store one with `meterline price apply FILE`")
    agreed = Contracts.from_canonical(stored.body) if stored else Contracts(contracts=())
    after, through = month.start.date(), month.end.date()
    then = _Side(Books(_in_force_instead(versions, new, after)), agreed)
    if contracts_text is not None:
        then = _Side(then.books, parse_contracts(contracts_text, contracts_file))
    if faults := contract_faults(then.contracts, then.books, contracts_file or file, known):
        raise ConfigurationError(faults)
    sides = (_Side(Books(versions), agreed), then)
    aggregations = {meter.slug: meter.aggregation.value for meter in meters}
    cut = run.basis.cut if run and run.state == "posted" else ALL_EPOCHS
    nets = []
    with whole_rollups(app.database):
        for side in sides:
            rater = Rater(Basis(side.books, side.contracts, aggregations, after, through, cut))
            nets.append(_nets([chunk.charges for chunk in rated_chunks(app, meters, rater)]))
    if not any(each.height for each in nets):
        raise LookupError(f"no charge is of a billing period that ends in {period}")
    compared = differences(*nets)
    yield Text(text=_as_json(compared, limit)) if as_json else _table(compared, f"{period} by {new}", limit)


def _in_force_instead(versions: Iterable[PriceBook], new: PriceBook, after: date) -> list[PriceBook]:
    """The versions with the new one, which holds from before any period in question on, and is the latest to do so."""
    from_ = after - timedelta(days=800)  # periods are of a year at most, and days are counted in any time zone
    kept = []
    for book in versions:
        if book.book == new.book and book.version == new.version:
            continue
        dates = {"effective_at": min(book.effective_at, from_ - timedelta(days=1)), "existing_customers_at": None}
        kept.append(book.model_copy(update=dates) if book.book == new.book else book)
    return [*kept, new.model_copy(update={"effective_at": from_, "existing_customers_at": None})]


def differences(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """Columns customer, currency, before, after and difference, in minor units: the largest difference first.

    Both have the columns customer, currency and net. Who is on one side alone has 0 on the other.
    """
    both = before.rename({"net": "before"}).join(
        after.rename({"net": "after"}), on=_KEY, how="full", coalesce=True
    ).with_columns(pl.col("before", "after").fill_null(0))  # fmt: skip
    both = both.with_columns(difference=pl.col("after") - pl.col("before")).select(*_KEY, *_AMOUNTS)
    return both.sort(pl.col("difference").abs(), *_KEY, descending=[True, False, False])


def _nets(charges: Sequence[pl.DataFrame]) -> pl.DataFrame:
    net = pl.col("amount_minor") + pl.col("shared_minor")
    own = [each.select(*_KEY, net=net) for each in charges]
    schema: Columns = {"customer": pl.String, "currency": pl.String, "net": pl.Int64}
    return pl.concat([pl.DataFrame(schema=schema), *own]).group_by(_KEY).agg(pl.col("net").sum())


def _totals(compared: pl.DataFrame) -> pl.DataFrame:
    """A row a currency: how many customers, how many of them with a difference, and the sums."""
    differing = (pl.col("difference") != 0).sum()
    grouped = compared.group_by("currency").agg(pl.len().alias("customers"), pl.sum(*_AMOUNTS), differing=differing)
    return grouped.sort("currency")


def _table(compared: pl.DataFrame, title: str, limit: int) -> Table:
    differing = compared.filter(pl.col("difference") != 0)
    rows = [[row["customer"], row["currency"], *_shown(row)] for row in differing.head(limit).iter_rows(named=True)]
    rows += [
        [f"all {row['customers']:,}, {row['differing']:,} differ", row["currency"], *_shown(row)]
        for row in _totals(compared).iter_rows(named=True)
    ]
    shown = f", the first {limit}" if differing.height > limit else ""
    heading = f"{title}: {differing.height:,} differences{shown}; net, before taxes"
    return Table(title=heading, columns=(*_KEY, *_AMOUNTS), rows=rows, numbers=_AMOUNTS)


def _as_json(compared: pl.DataFrame, limit: int) -> str:
    def plain(row: dict[str, Any]) -> dict[str, Any]:
        decimals = MINOR_UNITS[row["currency"]]
        return row | {name: f"{major(row[name], decimals):f}" for name in _AMOUNTS}

    differing = compared.filter(pl.col("difference") != 0).head(limit)
    customers, totals = ([plain(row) for row in each.iter_rows(named=True)] for each in (differing, _totals(compared)))
    return orjson.dumps({"customers": customers, "totals": totals}).decode()


def _shown(row: dict[str, Any]) -> list[str]:
    decimals = MINOR_UNITS[row["currency"]]
    before, after, difference = (major(row[name], decimals) for name in _AMOUNTS)
    return [f"{before:,f}", f"{after:,f}", f"{difference:+,f}"]
