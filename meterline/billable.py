"""What of rated charges is billed, and how: the form in which invoicing takes them.

Decides in which month a billing period is billed: the one that it ends in, where the customer is. Owns that a charge
has one name in a month, so that what was billed for it is found again.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from zoneinfo import ZoneInfo

import polars as pl

from meterline.period import Period
from rating.books import local_midnight
from schemas.charge import ChargeKind
from schemas.contract import Contracts
from schemas.invoice import CHARGED, SLICE, LineKind, Revenue, Run
from schemas.plan import Policies
from schemas.price_book import PriceBook

_DAY = pl.duration(days=1)
_LINES = {
    ChargeKind.USAGE.value: (LineKind.USAGE, Revenue.USAGE),
    ChargeKind.OVERAGE.value: (LineKind.USAGE, Revenue.USAGE),
    ChargeKind.FLAT.value: (LineKind.FEE, Revenue.FEES),
    ChargeKind.MINIMUM_SPEND.value: (LineKind.COMMITMENT, Revenue.COMMITMENT),
    ChargeKind.COMMITMENT.value: (LineKind.COMMITMENT, Revenue.COMMITMENT),
    ChargeKind.SLA_CREDIT.value: (LineKind.SLA_CREDIT, Revenue.SLA),
    ChargeKind.MANUAL.value: (LineKind.MANUAL, Revenue.FEES),
}
"""Which line and which revenue a charge in arrears becomes."""


def ended_everywhere(month: Period, contracts: Contracts | None) -> datetime:
    """When a month has ended in the time zones of all customers."""
    zones = {contract.zone for contract in contracts.contracts} if contracts else set()
    return max(local_midnight(month.end.date(), zone) for zone in zones | {ZoneInfo("UTC")})


def billable(
    charges: pl.DataFrame, slices: pl.DataFrame, *, month: Period, contracts: Contracts, books: Sequence[PriceBook]
) -> pl.DataFrame:
    """Rated charges (columns schemas.charge.CHARGES and SLICES) of a month as invoicing takes them: columns CHARGED.

    A flat charge of a later month is paid in advance. A charge of a billing period that is no calendar month has the
    period's first day in its name, because several of them may end in one month.
    """
    local = _with_local_days(charges, contracts)
    first, last = pl.col("first_day"), pl.col("last_day")
    whole = (first.dt.day() == 1) & (last == last.dt.month_end()) & (first.dt.month_start() == last.dt.month_start())
    stretch = pl.format("{} to {}", first.dt.to_string("%Y-%m-%d"), last.dt.to_string("%Y-%m-%d"))
    packed = slices.group_by("charge_id", maintain_order=True).agg(
        slices=pl.struct(field.name for field in SLICE.fields)
    )
    joined = local.join(packed, left_on="id", right_on="charge_id", how="left", maintain_order="left")
    rules = _tax_rules(books)
    joined = joined.join(rules, on=["book_digest", "tax_code"], how="left", nulls_equal=True, maintain_order="left")
    period = last.dt.to_string("%Y-%m")
    advance = (pl.col("kind") == ChargeKind.FLAT) & (period > str(month))
    kinds = {kind: line.value for kind, (line, _) in _LINES.items()}
    revenues = {kind: revenue.value for kind, (_, revenue) in _LINES.items()}
    return joined.with_columns(
        kind=pl.when(advance).then(pl.lit(LineKind.ADVANCE.value)).otherwise(pl.col("kind").replace_strict(kinds)),
        revenue=pl.when(advance).then(pl.lit(Revenue.ADVANCE.value)).otherwise(pl.col("kind").replace_strict(revenues)),
        period=period,
        service_start=first,
        service_end=last + _DAY,
        charge=pl.when(whole).then("charge").otherwise(pl.format("{}@{}", "charge", first.dt.to_string("%Y-%m-%d"))),
        description=pl.when(whole).then("description").otherwise(pl.format("{} ({})", "description", stretch)),
        slices=pl.col("slices").fill_null([]),
        amount_minor=pl.col("net_minor") - pl.col("credit_minor"),
    ).select(pl.col(name).cast(kind) for name, kind in CHARGED.items())


def policies_of(books: Sequence[PriceBook], run: Run) -> Policies:
    """The policies of the version that a run is based on: where and how the tax of its invoices is rounded."""
    return next(book.policies for book in books if book.digest == run.basis.book_digest)


def _tax_rules(books: Sequence[PriceBook]) -> pl.DataFrame:
    """The tax rules of versions, as JSON: columns book_digest, tax_code (null: the version's own), tax_rule."""
    rows = [
        (book.digest, code, rule.model_dump_json(exclude_defaults=True))
        for book in books
        for code, rule in [(None, book.tax), *book.taxes.items()]
        if rule
    ]
    return pl.DataFrame(rows, ["book_digest", "tax_code", "tax_rule"], schema_overrides=_RULES, orient="row")


_RULES = {"book_digest": pl.String, "tax_code": pl.String, "tax_rule": pl.String}


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
