"""What of rated charges is billed, and how: the form in which invoicing takes them.

Decides in which month a billing period is billed: the one that it ends in, where the customer is. Owns that a charge
has one name in a month, so that what was billed for it is found again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

import polars as pl

from meterline.period import Period
from rating.books import local_midnight
from schemas.charges import Charge, MeteredCharge
from schemas.contract import Contracts
from schemas.invoice import CHARGED, SLICE, Tax
from schemas.plan import TaxMode
from schemas.price_book import PriceBook

_DAY = pl.duration(days=1)


def ended_everywhere(month: Period, contracts: Contracts | None) -> datetime:
    """When a month has ended in the time zones of all customers."""
    zones = {contract.zone for contract in contracts.contracts} if contracts else set()
    return max(local_midnight(month.end.date(), zone) for zone in zones | {ZoneInfo("UTC")})


def billable(charges: pl.DataFrame, slices: pl.DataFrame, contracts: Contracts) -> pl.DataFrame:
    """Rated charges (columns schemas.charge.CHARGES and SLICES) as invoicing takes them: columns CHARGED.

    A charge of a billing period that is no calendar month has the period's first day in its name, because several of
    them may end in one month.
    """
    local = _with_local_days(charges, contracts)
    first, last = pl.col("first_day"), pl.col("last_day")
    whole = (first.dt.day() == 1) & (last == last.dt.month_end()) & (first.dt.month_start() == last.dt.month_start())
    stretch = pl.format("{} to {}", first.dt.to_string("%Y-%m-%d"), last.dt.to_string("%Y-%m-%d"))
    packed = slices.group_by("charge_id", maintain_order=True).agg(
        slices=pl.struct(field.name for field in SLICE.fields)
    )
    joined = local.join(packed, left_on="id", right_on="charge_id", how="left", maintain_order="left")
    return joined.with_columns(
        period=last.dt.to_string("%Y-%m"),
        charge=pl.when(whole).then("charge").otherwise(pl.format("{}@{}", "charge", first.dt.to_string("%Y-%m-%d"))),
        description=pl.when(whole).then("description").otherwise(pl.format("{} ({})", "description", stretch)),
        slices=pl.col("slices").fill_null([]),
        amount_minor=pl.col("net_minor") - pl.col("credit_minor"),
    ).select(pl.col(name).cast(kind) for name, kind in CHARGED.items())


def refuse_recurring(charges: Iterable[Charge]) -> None:
    """Raises ValueError for a recurring charge: the levels that a month ends with are not kept between bill runs."""
    recurring = sorted({each.id for each in charges if isinstance(each, MeteredCharge) and each.recurring})
    if recurring:
        raise ValueError(
            f"charges {', '.join(recurring)} are recurring; their levels are not carried from one bill run to the next"
            " so far. `meterline rate` shows what they come to; nothing was billed"
        )


def invoice_tax(books: Sequence[PriceBook], charges: Sequence[pl.DataFrame]) -> Tax | None:
    """The one tax that comes on top of all of these charges. Raises ValueError where they do not have the same one.

    Invoices have one tax so far: prices that include tax, several rates and tax codes are rated, and not billed.
    """
    used = {row for frame in charges for row in frame.select("book_digest", "tax_code").unique().rows()}
    by_digest = {book.digest: book for book in books}
    rules = {by_digest[digest].taxes.get(code) if code else by_digest[digest].tax for digest, code in used}
    if not rules:
        return None
    rule = next(iter(rules))
    if len(rules) > 1 or (rule and (rule.mode is not TaxMode.EXCLUSIVE or len(rule.all_rates) != 1)):
        raise ValueError(
            "the charges of this month have several taxes, or prices that include tax; an invoice has one tax that"
            " comes on top so far. `meterline rate` shows what they come to; nothing was billed"
        )
    return Tax(rule.all_rates[0].name, rule.all_rates[0].rate_percent) if rule else None


def _with_local_days(charges: pl.DataFrame, contracts: Contracts) -> pl.DataFrame:
    """The charges with the first and the last day of their periods, where their customers are."""
    by_zone = sorted(contracts.contracts, key=lambda contract: contract.time_zone)
    zones = {
        zone: [contract.customer for contract in of_zone]
        for zone, of_zone in groupby(by_zone, key=lambda contract: contract.time_zone)
        if zone != "UTC"
    }
    first = pl.col("period_start").dt.convert_time_zone("UTC").dt.date()
    end = pl.col("period_end").dt.convert_time_zone("UTC").dt.date()
    for zone, customers in zones.items():
        own = pl.col("customer").is_in(customers)
        first = pl.when(own).then(pl.col("period_start").dt.convert_time_zone(zone).dt.date()).otherwise(first)
        end = pl.when(own).then(pl.col("period_end").dt.convert_time_zone(zone).dt.date()).otherwise(end)
    return charges.with_columns(first_day=first, last_day=end - _DAY)
