"""Progressive billing: invoices for usage that crosses a threshold while its period runs.

Owns that asking again at the same state issues nothing, and that a run is all or nothing: it issues what it issues in
one transaction, and notes nothing before. The period's own run then bills what is left, so that all invoices of the
period together come to what one alone would.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime

import polars as pl
import sqlalchemy as sa

from invoicing import store as invoicing
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts, drafted, periodic_heads, progressive_heads
from invoicing.invoices.lines import lines_of
from invoicing.invoices.store import booked, issued_before_their_run, progressive_so_far
from meterline.billable import billable, policies_of
from meterline.billing import How
from meterline.invoice_json import invoice_lines_text
from meterline.levels import levels_before
from meterline.output import Failure, Output, Progress, Text
from meterline.period import Period
from meterline.rating_run import rated_chunks
from meterline.rollups import whole_rollups
from meterline.run_terms import Terms, cut_run, terms_of
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from meterline.taxing import with_taxes
from rating.progressive import SUMS, crossed
from rating.rater import Rater
from schemas.charge import ChargeKind
from schemas.invoice import BOOKED, CHARGED, INVOICE_SERIES, Revenue, Run
from schemas.log import Barrier
from schemas.plan import Policies
from schemas.tenant import DEFAULT_TENANT


def bill_progressively(
    app: System,
    *,
    period: str,
    how: str = How.FINAL,
    as_json: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Output]:
    """Bill usage of a period that has crossed a threshold, any time before the period's own run; or only show it.

    In this order: (1) cut the log, and wait until all before the cut is stored; (2) rate the usage to date: what is
    owed at the period's end, as flat fees, minimums and commitments, waits for it; (3) find whose usage crossed a
    threshold above what was billed of it; (4) issue the difference to that, in one transaction.
    """
    if How(how) is How.DRAFT:
        raise ValueError("--draft: allowed: not with --progressive; --dry-run shows what would be issued")
    month = Period.parse(period)
    if _is_billed(app, period):
        yield Text(text=f"{period} was billed; usage that arrived since goes to the next period's invoices")
        return
    with whole_rollups(app.database):
        # 1. cut
        terms = terms_of(app)
        run = cut_run(app, month, terms, now(), noted=False)
        yield from wait_until_stored(app, app.log.punctuate(Barrier(run.basis.cut)), "cut")
        # 2. rate
        yield Progress(step="rate", done=0, total=1)
        rater = terms.rater(month, run, run.basis.cut, advance=False)
        charges = _usage_to_date(app, terms, run, month, rater)
        yield Progress(step="rate", done=1, total=1)
    with app.database.begin() as connection:
        invoicing.lock(connection, DEFAULT_TENANT)  # first: it locks out other runs
        known = invoicing.run_of(connection, DEFAULT_TENANT, period)
        if known and known.state == "posted":
            yield Failure(message=f"{period} was billed meanwhile; nothing was issued")
            return
        # 3. find
        drafts = _drafts(connection, charges, run, terms, rater)
        # 4. issue
        issued = drafts.invoices
        if how == How.FINAL:
            issued = issue(connection, drafts, at=run.started_at)
    yield Text(text=invoice_lines_text(issued, drafts.lines)) if as_json else invoice_table(period, issued)


def _is_billed(app: System, period: str) -> bool:
    with app.database.connect() as connection:
        run = invoicing.run_of(connection, DEFAULT_TENANT, period)
    return run is not None and run.state == "posted"


def _usage_to_date(app: System, terms: Terms, run: Run, month: Period, rater: Rater) -> pl.DataFrame:
    """The usage charges (columns CHARGED) of billing periods that end in the month and have begun."""
    books = terms.known_at(run.started_at)
    own = pl.col("kind").eq(ChargeKind.USAGE.value) & (pl.col("period_start") <= run.started_at)
    found = [
        billable(each.charges.filter(own), each.slices, month=month, contracts=terms.contracts, books=books)
        for each in rated_chunks(app, terms.meters, rater, levels_before(app.database, month))
    ]
    return pl.concat([pl.DataFrame(schema=CHARGED), *found])


def _drafts(connection: sa.Connection, charges: pl.DataFrame, run: Run, terms: Terms, rater: Rater) -> Drafts:
    """What is billed now: for whose usage crossed a threshold, all that was not billed of it.

    Whose invoice of the period was issued before its run has what came since on a later one.
    """
    key = ["customer", "currency"]
    billed = booked(connection, run.tenant, [run.period]).filter(pl.col("revenue") == Revenue.USAGE.value)
    sums = _sums(charges, billed).join(issued_before_their_run(connection, run.tenant, run.period), on=key, how="anti")
    agreed = {each.customer: rater.progressive(each) for each in terms.contracts.contracts}
    wanted = crossed(sums, agreed, rater.progressive(None))
    names = {contract.customer: contract.name for contract in terms.contracts.contracts}
    policies = policies_of(terms.known_at(run.started_at), run)
    return drafts_for(connection, wanted, charges, billed, run, names, policies)


def drafts_for(
    connection: sa.Connection, wanted: pl.DataFrame, charges: pl.DataFrame, billed: pl.DataFrame, run: Run,
    names: Mapping[str, str], policies: Policies,
) -> Drafts:  # fmt: skip
    """The drafts for some customers (columns customer, currency): their charges, less what was billed of them."""
    key = ["customer", "currency"]
    lines = lines_of(
        charges.join(wanted, on=key, how="semi", maintain_order="left"), billed.join(wanted, on=key, how="semi"),
        run_period=run.period, bases={run.period: run.basis},
    )  # fmt: skip
    taxed = with_taxes(lines, policies)
    heads = periodic_heads(
        lines, tenant=run.tenant, run_period=run.period, basis=run.basis, series=INVOICE_SERIES, customer_names=names
    )
    so_far = progressive_so_far(connection, run.tenant, run.period)
    return drafted(taxed.lines, taxed.groups, progressive_heads(heads, so_far))


def _sums(charges: pl.DataFrame, billed: pl.DataFrame) -> pl.DataFrame:
    """What the usage of each customer and currency comes to, and what was billed of it (columns SUMS)."""
    by = ["customer", "currency"]
    rated = charges.group_by(by, maintain_order=True).agg(rated_minor=pl.sum("amount_minor"))
    before = billed.select(*BOOKED).group_by(by).agg(billed_minor=pl.sum("amount_minor"))
    joined = rated.join(before, on=by, how="left", maintain_order="left")
    return joined.select(pl.col(name).fill_null(0) if name.endswith("_minor") else name for name in SUMS)
