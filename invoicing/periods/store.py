"""Closed periods in PostgreSQL, and who opened one again.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the caller
commits. That a closed period takes no entries is a rule of the database. Owns that each closing and each opening is
told once, in its own transaction: emitting locks the tenant's outbox, so these come last in it.
"""

from dataclasses import dataclass
from datetime import date, datetime

import sqlalchemy as sa

from invoicing.outbox.store import emit
from schemas.domain_event import DomainEvent, EventType, PeriodClosedData, PeriodReopenedData
from stores.postgres import as_tenant


@dataclass(frozen=True)
class Closing:
    """A closed period: through which day, since when, behind which entry."""

    through: date
    closed_at: datetime
    after_sequence: int


@dataclass(frozen=True)
class Override:
    """A closed period that is open again for a time."""

    through: date
    opened_at: datetime
    until: datetime
    opened_by: str
    reason: str
    after_sequence: int


def close_period(connection: sa.Connection, tenant: str, through: date, *, by: str | None = None) -> bool:
    """Close the tenant's books: no entry is dated on or before this day any more. Waits for those who are posting.

    False when they were closed through this day before.
    """
    query = """INSERT INTO closed_periods (tenant, through) VALUES (:tenant, :through) ON CONFLICT DO NOTHING
               RETURNING closed_at"""
    with as_tenant(connection, tenant):
        closed_at = connection.execute(sa.text(query), {"tenant": tenant, "through": through}).scalar_one_or_none()
        if closed_at is None:
            return False
        said = PeriodClosedData(through=through, closed_by=by)
        emit(connection, tenant, [DomainEvent(EventType.PERIOD_CLOSED, through.isoformat(), 1, closed_at, said)])
    return True


def reopen_period(
    connection: sa.Connection, tenant: str, through: date, *, by: str, why: str, opened_at: datetime, until: datetime
) -> None:
    """Let entries into the period that was closed through this day, until an instant. Who and why is kept for good.

    Raises LookupError when no period was closed through this day.
    """
    query = """INSERT INTO period_overrides (tenant, through, opened_at, until, opened_by, reason)
               VALUES (:tenant, :through, :opened_at, :until, :by, :why)"""
    known = [closing.through for closing in closings(connection, tenant)]
    if through not in known:
        raise LookupError(f"no period of {tenant} was closed through {through}; closed: {', '.join(map(str, known))}")
    with as_tenant(connection, tenant):
        keys = {"tenant": tenant, "through": through, "opened_at": opened_at, "until": until, "by": by, "why": why}
        # who opens the same period waits here, so that the openings of a closing are numbered one after another
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('reopen ' || :tenant, 0))"), keys)
        connection.execute(sa.text(query), keys)
        count = "SELECT count(*) FROM period_overrides WHERE tenant = :tenant AND through = :through"
        version = connection.execute(sa.text(count), keys).scalar_one()
        said = PeriodReopenedData(through=through, reopened_by=by, reason=why)
        event = DomainEvent(EventType.PERIOD_REOPENED, through.isoformat(), version, opened_at, said)
        emit(connection, tenant, [event])


def closings(connection: sa.Connection, tenant: str) -> list[Closing]:
    """The tenant's closed periods, earliest first."""
    query = "SELECT through, closed_at, after_sequence FROM closed_periods WHERE tenant = :tenant ORDER BY through"
    with as_tenant(connection, tenant):
        return [Closing(*row) for row in connection.execute(sa.text(query), {"tenant": tenant})]


def overrides(connection: sa.Connection, tenant: str) -> list[Override]:
    """All openings of closed periods, in their order."""
    query = """SELECT through, opened_at, until, opened_by, reason, after_sequence FROM period_overrides
               WHERE tenant = :tenant ORDER BY opened_at"""
    with as_tenant(connection, tenant):
        return [Override(*row) for row in connection.execute(sa.text(query), {"tenant": tenant})]


def closed_through(connection: sa.Connection, tenant: str) -> date | None:
    """The last day that is closed, or None. A period that is open again for a time counts as closed."""
    return max((closing.through for closing in closings(connection, tenant)), default=None)
