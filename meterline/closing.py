"""What is looked at before the books of a period are closed.

A point is a name and a function that returns what is still open, or nothing. Other parts add theirs to the list.
"""

from collections.abc import Callable
from datetime import date, timedelta

import polars as pl
import sqlalchemy as sa

from invoicing import store as invoicing
from invoicing.accruals.store import open_periods
from invoicing.ledger import store
from invoicing.periods.store import closed_through
from invoicing.recognition.store import due_through
from invoicing.reconciliation.matching import Outcome
from invoicing.reconciliation.store import flags
from meterline.audit import broken_books
from meterline.period import Period
from meterline.system import System
from meterline.verification import verified
from schemas.contract import Contracts
from schemas.invoice import State
from schemas.journal import Account
from schemas.templates import PENDING
from stores.clickhouse import query

ClosingCheck = Callable[[System, str, date], str]

_SHOWN = 3
_DAY = timedelta(days=1)


def bill_runs_posted(app: System, tenant: str, through: date) -> str:
    """Bill runs of months that end by then, and that were started and not posted."""
    query = """SELECT period FROM bill_runs WHERE tenant = :tenant AND state <> 'posted'
               AND to_date(period || '-01', 'YYYY-MM-DD') + interval '1 month' <= CAST(:through AS date) + 1
               ORDER BY period"""
    with app.database.connect() as connection:
        found = list(connection.execute(sa.text(query), {"tenant": tenant, "through": through}).scalars())
    return f"not posted: {_some(found)}" if found else ""


def no_month_unbilled(app: System, tenant: str, through: date) -> str:
    """Months that ended by then and were not billed: those behind the last closing, from the first run on.

    Without a closing and a run, the last month alone; without a run, only where contracts are in force in it.
    """
    with app.database.connect() as connection:
        applied = invoicing.latest_contracts(connection, tenant)
        billed = [run.period for run in invoicing.posted_runs(connection, tenant)]
        closed = closed_through(connection, tenant)
    if applied is None:
        return ""
    contracts = Contracts.from_canonical(applied.body).contracts
    month, missing = _month_that_ends(through), list[str]()
    while True:
        first, last = month.start.date(), month.end.date() - timedelta(days=1)
        if (closed is not None and last <= closed) or str(month) < min(billed, default=str(month)):
            break
        in_force = any(each.starts_on <= last and (each.ends_on is None or each.ends_on > first) for each in contracts)
        missing += [str(month)] if in_force and str(month) not in billed else []
        if not billed and closed is None:
            break
        month = _month_that_ends(first - timedelta(days=1))
    return f"not billed: {_some(sorted(missing))}" if missing else ""


def no_drafts_left(app: System, tenant: str, through: date) -> str:
    """Drafts of months that ended by then: issue or delete them, or bill their month."""
    drafts = """SELECT period || ' ' || customer FROM invoices WHERE tenant = :tenant AND state = :draft
                AND to_date(period || '-01', 'YYYY-MM-DD') + interval '1 month' <= CAST(:through AS date) + 1
                ORDER BY period, customer, id"""
    keys = {"tenant": tenant, "through": through, "draft": State.DRAFT.value}
    with app.database.connect() as connection:
        found = list(connection.execute(sa.text(drafts), keys).scalars())
    return f"drafts of {_some(found)}" if found else ""


def cuts_stored(app: System, tenant: str, through: date) -> str:
    """Runs of months until then whose usage is not stored up to their cut everywhere, such as after a restore."""
    with app.database.connect() as connection:
        runs = invoicing.posted_runs(connection, tenant)
    cuts = {run.period: run.basis.cut for run in runs if Period.parse(run.period).end.date() <= through + _DAY}
    if not cuts:
        return ""
    reached = query(app.clickhouse, "SELECT max(epoch) AS epoch FROM progress GROUP BY partition")["epoch"].to_list()
    stored = min(reached) if len(reached) >= app.log.partitions else 0
    waiting = [f"{period} (cut {cut})" for period, cut in cuts.items() if cut > stored]
    return f"stored up to cut {stored}: {_some(waiting)}" if waiting else ""


def accruals_taken_back(app: System, tenant: str, through: date) -> str:
    """Months until then that were billed, and are accrued still."""
    with app.database.connect() as connection:
        billed = {run.period for run in invoicing.posted_runs(connection, tenant)}
        left = [each for each in open_periods(connection, tenant) if each in billed and each <= f"{through:%Y-%m}"]
    hint = "`meterline ledger accrue --through` its last day does it"
    return f"accrued and billed: {_some(left)}; {hint}" if left else ""


def audit_clean(app: System, _: str, __: date) -> str:
    """The promises of the audit about the books that are broken."""
    with app.database.connect() as connection:
        return "; ".join(broken_books(connection))


def payouts_settled(app: System, tenant: str, through: date) -> str:
    """Payouts whose clearing account is not back at zero."""
    return _clearing(app, tenant, through, pl.col("dimension") != PENDING)


def nothing_pending(app: System, tenant: str, through: date) -> str:
    """Authorised payments that were neither captured nor released."""
    return _clearing(app, tenant, through, pl.col("dimension") == PENDING)


def revenue_recognised(app: System, tenant: str, through: date) -> str:
    """Months of lines that ended by then, were billed in advance and are not recognised."""
    with app.database.connect() as connection:
        due = due_through(connection, tenant, through)
    return f"not recognised: {due.height:,} months of lines; `meterline ledger recognise` does it" if due.height else ""


def settlements_looked_at(app: System, tenant: str, _: date) -> str:
    """What did not match in settlement files, and nobody has looked at. What no file has paid yet is none of it."""
    with app.database.connect() as connection:
        found = flags(connection, tenant).filter(pl.col("outcome") != Outcome.UNMATCHED_IN_LEDGER)
    return f"flagged: {_some(found['reference'].to_list())}" if found.height else ""


def books_as_posted(app: System, tenant: str, _: date) -> str:
    """The first entry of the tenant that is not what was posted."""
    wrong = [finding for whose, _, finding in verified(app.database) if whose == tenant and finding]
    return "; ".join(f"entry {finding.sequence} {finding.entry_id}: {finding.what}" for finding in wrong)


def _clearing(app: System, tenant: str, through: date, which: pl.Expr) -> str:
    with app.database.connect() as connection:
        balances = store.balances(connection, tenant, effective_through=through, by=("dimension",))
    left = balances.filter((pl.col("account") == Account.GATEWAY_CLEARING.value) & which)
    found = [f"{row['dimension'] or '(no payout)'} {row['balance_minor']} {row['currency']}" for row in left.to_dicts()]
    return f"in minor units, {_some(found)}" if found else ""


def _month_that_ends(by: date) -> Period:
    """The last month that has ended by the end of a day."""
    after = by + _DAY
    return Period.parse(f"{after.replace(day=1) - _DAY:%Y-%m}")


def _some(found: list[str]) -> str:
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


CLOSING_CHECKS: list[tuple[str, ClosingCheck]] = [
    ("bill runs are posted", bill_runs_posted),
    ("months are billed", no_month_unbilled),
    ("no drafts are left", no_drafts_left),
    ("usage is stored up to every cut", cuts_stored),
    ("accruals of billed months are taken back", accruals_taken_back),
    ("revenue is recognised", revenue_recognised),
    ("payouts are settled", payouts_settled),
    ("settlements are looked at", settlements_looked_at),
    ("nothing is pending", nothing_pending),
    ("the audit of the books is clean", audit_clean),
    ("the books are as posted", books_as_posted),
]
