"""What is looked at before the books of a period are closed.

A point is a name and a function that returns what is still open, or nothing. Other parts add theirs to the list.
"""

from collections.abc import Callable
from datetime import date

import polars as pl
import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.recognition.store import due_through
from invoicing.reconciliation.matching import Outcome
from invoicing.reconciliation.store import flags
from meterline.system import System
from meterline.verification import verified
from schemas.journal import Account
from schemas.templates import PENDING

ClosingCheck = Callable[[System, str, date], str]

_SHOWN = 3


def bill_runs_posted(app: System, tenant: str, through: date) -> str:
    """Bill runs of months that end by then, and that were started and not posted."""
    query = """SELECT period FROM bill_runs WHERE tenant = :tenant AND state <> 'posted'
               AND to_date(period || '-01', 'YYYY-MM-DD') + interval '1 month' <= CAST(:through AS date) + 1
               ORDER BY period"""
    with app.database.connect() as connection:
        found = list(connection.execute(sa.text(query), {"tenant": tenant, "through": through}).scalars())
    return f"not posted: {_some(found)}" if found else ""


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


def _some(found: list[str]) -> str:
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


CLOSING_CHECKS: list[tuple[str, ClosingCheck]] = [
    ("bill runs are posted", bill_runs_posted),
    ("revenue is recognised", revenue_recognised),
    ("payouts are settled", payouts_settled),
    ("settlements are looked at", settlements_looked_at),
    ("nothing is pending", nothing_pending),
    ("the books are as posted", books_as_posted),
]
