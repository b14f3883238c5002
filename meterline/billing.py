"""The billing run of a period: the stages in their order. They meet here and nowhere else.

Owns that a run is all or nothing: it may be killed at any moment and asked for again. Until the one transaction that
posts it, nothing is posted; after it, asking again changes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

import polars as pl
import sqlalchemy as sa

from invoicing import store as invoicing
from invoicing.accruals.documents import UNBILLED
from invoicing.accruals.store import accrue
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.store import invoices_of, lines_of_all, remove_drafts, write
from invoicing.late_usage.app import settle, tell
from invoicing.outbox.events import created
from invoicing.outbox.store import emit_frame, untold
from meterline.assembling import ArrivedLate, Assembly
from meterline.billable import ended_everywhere, policies_of
from meterline.charged import Charged
from meterline.invoice_json import invoice_lines_text
from meterline.late_usage import arrived_late, by_policy, late_outputs
from meterline.levels import Levels
from meterline.output import Failure, Output, Text
from meterline.period import Period
from meterline.rollups import whole_rollups
from meterline.run_rating import rate_run
from meterline.run_terms import Terms, cut_run, terms_of
from meterline.system import System, wait_until_stored
from meterline.tables import invoice_table
from meterline.verification import ahead
from schemas.contract import Contracts
from schemas.invoice import INVOICES, LINES, Basis, InvoiceKind, Run
from schemas.log import Barrier
from schemas.tenant import DEFAULT_TENANT

GRACE_HOURS_MAX = 31 * 24
NOTHING_UNBILLED = pl.DataFrame(schema=UNBILLED)


class How(StrEnum):
    """What becomes of what a run assembles."""

    FINAL = "final"
    """Invoices: numbered, posted and told of, and the period is billed."""
    DRAFT = "draft"
    """Drafts, in place of those that the period has. They follow new usage: ask again."""
    PREVIEW = "preview"
    """Nothing: it is shown only."""


def bill(
    app: System,
    *,
    period: str,
    how: str | None = None,
    grace_hours: int | None = None,
    as_json: bool = False,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Output]:
    """Bill a period, in this order; each step says why it stands where it does.

    1. Cut: note the run with its barrier's number, then write the barrier to every partition. A run that died in
       between is asked for again, and has a new barrier.
    2. Wait until every partition is stored past the barrier: only then does the cut hold all that came before it.
    3. Rate each billed period whose usage, contracts or levels changed since, then the period, as of the cut: oldest
       first, because a recurring charge starts with what the period before ends with.
    4. Assemble lines (the period's charges, and differences to what is booked), then their taxes, then drafts.
       Late usage is billed on these, billed again or written off, as its policy says.
    5. Issue them: finish the run, number the invoices, post their journal entries and emit what was posted, in one
       transaction. Or keep the drafts, or show them only.

    For so many hours of grace after the period's end it keeps drafts, and bills from then on; `how` says otherwise.
    """
    month = Period.parse(period)
    if grace_hours is not None and not 0 <= grace_hours <= GRACE_HOURS_MAX:
        raise ValueError(f"grace of {grace_hours} hours; allowed: 0 to {GRACE_HOURS_MAX}")
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
        yield from _result(app, period, as_json=as_json)
        return
    grace_until = ends_at + timedelta(hours=grace_hours or 0)
    wanted = How(how) if how else How.DRAFT if now() < grace_until else How.FINAL
    with whole_rollups(app.database):
        yield from _bill(app, month, now, wanted, as_json=as_json)
    if wanted is How.PREVIEW:
        return
    yield from _result(app, period, as_json=as_json)
    if grace_hours is not None and not as_json:
        yield _grace(period, wanted, None if how else grace_until)


def _grace(period: str, how: How, until: datetime | None) -> Text:
    """What a run with a grace period did, and until when its drafts follow; without an instant, it was told how."""
    if how is How.FINAL:
        ended = f"; its grace ended at {until:%Y-%m-%d %H:%M} (UTC)" if until else ""
        return Text(text=f"{period} is billed{ended}")
    follow = f"until {until:%Y-%m-%d %H:%M} (UTC), and are billed from then on," if until else "until it is billed,"
    return Text(text=f"drafts of {period}: they follow new usage {follow} whenever this is repeated")


def _bill(app: System, month: Period, now: Callable[[], datetime], how: How, *, as_json: bool) -> Iterator[Output]:
    # 1. cut
    terms = terms_of(app)
    run = cut_run(app, month, terms, now(), noted=how is not How.PREVIEW)
    ends = app.log.punctuate(Barrier(run.basis.cut))
    # 2. wait
    yield from wait_until_stored(app, ends, "cut")
    with Charged() as charged:
        # 3. rate
        levels = Levels(app.database, run)
        bases, lost = yield from rate_run(app, run, month, terms, charged, levels)
        # 4. and 5.
        assembly = _assembly(run, terms, bases, charged.periods)
        arrived = partial(arrived_late, app, run, contracts=terms.contracts, policies=assembly.policies)
        shown, said = billed(app.database, run, assembly, charged, levels, arrived=arrived, how=how, now=now)
    if how is How.PREVIEW:
        yield _shown(str(month), shown, as_json=as_json)
    yield from said
    yield from lost


def _assembly(run: Run, terms: Terms, bases: dict[str, Basis], charged_periods: set[str]) -> Assembly:
    """What invoices are made of; what is paid in advance, of a later period, has the basis of the run."""
    in_advance = {name: bases[run.period] for name in charged_periods if name > run.period}
    names = {contract.customer: contract.name for contract in terms.contracts.contracts}
    policies = policies_of(terms.known_at(run.started_at), run)
    return Assembly(run.tenant, run.period, bases | in_advance, names, policies)


def billed(
    database: sa.Engine,
    run: Run,
    assembly: Assembly,
    charged: Charged,
    levels: Levels,
    *,
    arrived: ArrivedLate,
    how: How,
    now: Callable[[], datetime],
) -> tuple[Drafts, list[Output]]:
    """Bill what was charged, in one transaction; returns what is only to be shown, and what to say of late usage."""
    shown: list[Drafts] = []
    said: list[Output] = []
    at = run.started_at
    with database.begin() as connection, database.connect() as reader:
        invoicing.lock(connection, run.tenant)  # first: it locks out other runs
        if how is How.FINAL:
            rated = {name: basis for name, basis in assembly.bases.items() if name <= run.period}
            invoicing.finish_run(connection, run, rated, posted_at=now())
            levels.post(connection)
        before = {} if how is How.PREVIEW else remove_drafts(connection, run.tenant, period=run.period)
        # 4. assemble, while the range before is written
        for part in ahead(assembly.parts(reader, charged, arrived)):
            late, drafts = None, part.drafts
            if drafts is None:
                lines, late = by_policy(
                    connection, run, part.lines, part.late, part.charges, assembly.bases, assembly.policies
                )
                drafts = assembly.drafted(lines)
            # 5. issue
            if how is How.FINAL:
                if late:
                    settle(connection, run, late, at=at)
                issue(connection, _succeeding(drafts, before), at=at)
                if late:
                    tell(connection, run, late, at=at)
                    said += late_outputs(late)
            elif how is How.DRAFT:
                _keep(connection, _succeeding(drafts, before), run)
            else:
                shown += [drafts, *([late.drafts] if late else [])]
        if how is How.FINAL:  # what was accrued of the period is invoiced now, or never owed
            last_day = Period.parse(run.period).end.date() - timedelta(days=1)
            accrue(connection, run.tenant, run.period, NOTHING_UNBILLED, through=last_day, booked_at=at)
    invoices = pl.concat([pl.DataFrame(schema=INVOICES), *(each.invoices for each in shown)])
    return Drafts(invoices, pl.concat([pl.DataFrame(schema=LINES), *(each.lines for each in shown)])), said


def _succeeding(drafts: Drafts, before: dict[str, int]) -> Drafts:
    """The drafts as the next versions of those that were taken away."""
    versions = pl.col("id").replace_strict(before, default=0, return_dtype=pl.Int64) + 1
    return replace(drafts, invoices=drafts.invoices.with_columns(versions.alias("version")))


def _keep(connection: sa.Connection, drafts: Drafts, run: Run) -> None:
    write(connection, drafts.invoices, drafts.lines)
    new = drafts.invoices.filter(pl.col("version") == 1)
    emit_frame(connection, untold(connection, created(new, at=run.started_at)))


def _result(app: System, period: str, *, as_json: bool) -> Iterator[Output]:
    with app.database.connect() as connection:
        invoices = invoices_of(connection, DEFAULT_TENANT, period)
        if as_json:
            invoices = invoices.filter(pl.col("kind") == InvoiceKind.PERIODIC.value)
        lines = lines_of_all(connection, invoices["id"].to_list() if as_json else [])
    yield _shown(period, Drafts(invoices, lines), as_json=as_json)


def _shown(period: str, found: Drafts, *, as_json: bool) -> Output:
    """Invoices as a table; or those of the run as JSON, with their lines."""
    if as_json:
        return Text(text=invoice_lines_text(found.invoices, found.lines))
    return invoice_table(period, found.invoices)
