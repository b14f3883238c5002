"""Late usage in a run: whose it is, what its policy is, and the lines of what is billed again.

The stages meet here: aggregation finds what arrived late, contracts and price book say whose it is and what becomes of
it, invoicing posts it.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl
import sqlalchemy as sa

from aggregation.store import late_usage
from invoicing.invoices.drafts import drafted
from invoicing.invoices.store import booked
from invoicing.late_usage.app import Late
from invoicing.late_usage.policies import LATE, TAKEN_BACK, billed_again, decided, rebill_heads
from invoicing.late_usage.store import lines_of, taken_back
from meterline.output import Output, Text
from meterline.system import System
from meterline.taxing import with_taxes
from rating.books import local_midnight
from rating.store import level_ratings
from schemas.contract import Contracts
from schemas.identity import digest
from schemas.invoice import Basis, Run
from schemas.plan import LateUsage, Policies


class Sorted(NamedTuple):
    """The lines of a run by where they go."""

    lines: pl.DataFrame
    """Columns DRAFTED: of the run's own invoices."""
    late: Late


def arrived_late(
    app: System, run: Run, charges: pl.DataFrame, contracts: Contracts, policies: Policies
) -> pl.DataFrame:
    """Whose usage of billed periods arrived since these were last rated (columns LATE), with the policy of each.

    `charges` (columns CHARGED) are those of the run, whose service days say from when to when a customer's period is.
    """
    with app.database.connect() as connection:
        cuts = {each.period: each.cut for each in level_ratings(connection, run.tenant)}  # the last one of each
    found = [
        _of_period(app, run, str(period), own, cuts[str(period)], contracts, policies)
        for (period,), own in charges.filter(pl.col("period") < run.period).group_by("period", maintain_order=True)
        if str(period) in cuts
    ]
    return pl.concat([pl.DataFrame(schema=LATE), *found])


def by_policy(
    connection: sa.Connection, run: Run, lines: pl.DataFrame, late: pl.DataFrame, charges: pl.DataFrame,
    bases: Mapping[str, Basis], policies: Policies,
) -> Sorted:  # fmt: skip
    """The lines of a run (columns DRAFTED) by what becomes of late usage; nothing is written.

    Invoices that are to be billed again are locked. What takes their place has all lines of their period as they are
    rated now, less what other invoices have of it, and what they had of other periods.
    """
    again = late.filter(pl.col("policy") == LateUsage.REBILL)
    old = taken_back(connection, run.tenant, again) if again.height else pl.DataFrame(schema=TAKEN_BACK)
    sorted_out = decided(lines, late, old, run_period=run.period)
    rebilled = sorted_out.rebilled
    new = pl.DataFrame(schema=lines.schema)
    if rebilled.height:
        ids, periods = rebilled["id"].to_list(), rebilled["usage_period"].unique().to_list()
        elsewhere = booked(connection, run.tenant, periods, without=ids)
        new = billed_again(rebilled, lines_of(connection, ids), charges, elsewhere, bases)
    taxed = with_taxes(new, policies)
    heads = rebill_heads(rebilled, new["document"], tenant=run.tenant, bases=bases)
    replaced_by = {invoice_id: digest("rebill", run.tenant, invoice_id) for invoice_id in rebilled["id"]}
    issued = set(heads["id"])
    return Sorted(
        sorted_out.lines,
        Late(
            sorted_out.late, with_taxes(sorted_out.written_off, policies).lines, rebilled,
            {old: new for old, new in replaced_by.items() if new in issued}, drafted(taxed.lines, taxed.groups, heads),
        ),
    )  # fmt: skip


def late_outputs(late: Late) -> Iterator[Output]:
    """What a person is told of it."""
    if late.rebilled.height:
        yield Text(text=f"{late.rebilled.height:,} invoices of earlier periods are credited and billed again")
    if late.written_off.height:
        count = late.written_off["document"].n_unique()
        yield Text(text=f"late usage of {count:,} customers and periods is written off")


def _of_period(
    app: System, run: Run, period: str, charges: pl.DataFrame, since_cut: int, contracts: Contracts, policies: Policies
) -> pl.DataFrame:
    spans = charges.group_by("customer").agg(pl.min("service_start"), pl.max("service_end"))
    bounds = {customer: _bounds(contracts, customer, first, end) for customer, first, end in spans.iter_rows()}
    start, end = min(start for start, _ in bounds.values()), max(end for _, end in bounds.values())
    usage = late_usage(app.clickhouse, run.tenant, start, end, since_cut, run.basis.cut)
    if usage.is_empty():
        return pl.DataFrame(schema=LATE)
    rows = [(customer, *span, _policy(contracts, customer, policies)) for customer, span in bounds.items()]
    at = usage.schema["window_start"]
    periods = pl.DataFrame(rows, {"customer": pl.String, "start": at, "end": at, "policy": pl.String}, orient="row")
    usage = usage.filter(pl.col("meter").is_in(charges["meter"].drop_nulls().unique().implode()))
    owned = usage.join(_payers(usage["subject"].unique().to_list(), contracts), on="subject")
    owned = owned.join(charges.select("customer", "meter"), on=["customer", "meter"], how="semi")
    own = owned.join(periods, on="customer").filter(pl.col("window_start").is_between("start", "end", closed="left"))
    found = own.group_by("customer", "policy").agg(pl.col("meter").unique().sort().alias("meters"), pl.sum("events"))
    found = found.with_columns(usage_period=pl.lit(period)).sort("customer")
    return found.select(pl.col(name).cast(kind) for name, kind in LATE.items())


def _bounds(contracts: Contracts, customer: str, first: date, end: date) -> tuple[datetime, datetime]:
    """From the midnight that a customer's period begins with to the one that ends it, where the customer is."""
    contract = contracts.of(customer)
    zone = contract.zone if contract else ZoneInfo("UTC")
    return local_midnight(first, zone), local_midnight(end, zone)


def _policy(contracts: Contracts, customer: str, policies: Policies) -> str:
    contract = contracts.of(customer)
    return ((contract and contract.late_usage) or policies.late_usage).value


def _payers(subjects: Sequence[str], contracts: Contracts) -> pl.DataFrame:
    """Who pays for subjects: every contract that names one, else the subject is a customer of its own."""
    named = [(subject, contract.customer) for contract in contracts.contracts for subject in contract.subjects]
    known = pl.DataFrame(named, {"subject": pl.String, "customer": pl.String}, orient="row")
    wanted = pl.DataFrame({"subject": subjects}, {"subject": pl.String})
    joined = wanted.join(known, on="subject", how="left")
    return joined.with_columns(pl.col("customer").fill_null(pl.col("subject")))
