"""What a tenant sees of webhooks in PostgreSQL: its endpoints, and the log of what was sent to them.

A shell. Every function works in the transaction of the connection it is given; the caller commits. Owns that a change
of an endpoint is made to the version that its writer saw, if the writer says which, and that the endpoints of a tenant
are seen by that tenant alone.
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from invoicing.outbox.store import last_sequence
from invoicing.webhooks.retries import Attempt
from schemas.delivery import DeliveryState
from schemas.domain_event import EventType
from schemas.webhook import (
    ENDPOINTS_MAX,
    Delivery,
    Endpoint,
    EndpointChange,
    EndpointState,
    NewEndpoint,
)

_COLUMNS = """id, tenant, url, description, types, state, disabled_reason, version, failures, paused_until,
    last_success_at, created_at, updated_at"""
BY_HAND = "by hand"


class TooManyEndpointsError(ValueError):
    """The tenant has as many endpoints as it may have."""


def create_endpoint(
    connection: sa.Connection, tenant: str, wanted: NewEndpoint, *, endpoint_id: str, secret: str, now: datetime
) -> Endpoint:
    """Make an endpoint. It gets what is emitted from here on. Raises TooManyEndpointsError."""
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtextextended('webhooks ' || :tenant, 0))"), {"tenant": tenant}
    )
    count = "SELECT count(*) FROM webhook_endpoints WHERE tenant = :tenant AND state <> 'deleted'"
    if connection.execute(sa.text(count), {"tenant": tenant}).scalar_one() >= ENDPOINTS_MAX:
        raise TooManyEndpointsError(f"the tenant has {ENDPOINTS_MAX} endpoints, the most that are allowed; delete one")
    connection.execute(
        sa.text("""INSERT INTO webhook_endpoints
                       (id, tenant, url, description, types, state, version, from_sequence, created_at, updated_at)
                   VALUES (:id, :tenant, :url, :description, :types, 'enabled', 1, :from_sequence, :now, :now)"""),
        {
            "id": endpoint_id, "tenant": tenant, "url": wanted.url, "description": wanted.description,
            "types": list(wanted.types), "from_sequence": last_sequence(connection, tenant), "now": now,
        },
    )  # fmt: skip
    _add_secret(connection, tenant, endpoint_id, secret, now)
    return _found(endpoint(connection, tenant, endpoint_id))


def endpoints(connection: sa.Connection, tenant: str) -> list[Endpoint]:
    """The tenant's endpoints, the oldest first, without those that were deleted."""
    return _read(connection, "tenant = :tenant AND state <> 'deleted' ORDER BY created_at, id", tenant=tenant)


def endpoint(connection: sa.Connection, tenant: str, endpoint_id: str, *, lock: bool = False) -> Endpoint | None:
    """The endpoint of this id; None when the tenant has none. With a lock, nobody else changes it meanwhile."""
    where = "tenant = :tenant AND id = :id AND state <> 'deleted'" + (" FOR NO KEY UPDATE" if lock else "")
    return next(iter(_read(connection, where, tenant=tenant, id=endpoint_id)), None)


def change_endpoint(connection: sa.Connection, before: Endpoint, change: EndpointChange, *, now: datetime) -> Endpoint:
    """Change an endpoint that is locked. One that is enabled again begins without a past."""
    state = EndpointState(change.state) if change.state else before.state
    again = state is EndpointState.ENABLED and before.state is not EndpointState.ENABLED
    reason = before.disabled_reason if state is before.state else None if again else BY_HAND
    connection.execute(
        sa.text("""UPDATE webhook_endpoints SET url = :url, description = :description, types = :types, state = :state,
                       disabled_reason = :reason, version = version + 1, updated_at = :now,
                       failures = CASE WHEN :again THEN 0 ELSE failures END,
                       paused_until = CASE WHEN :again THEN NULL ELSE paused_until END
                   WHERE id = :id"""),
        {
            "id": before.id, "url": before.url if change.url is None else change.url,
            "description": before.description if change.description is None else change.description,
            "types": list(before.types if change.types is None else change.types),
            "state": state.value, "reason": reason, "again": again, "now": now,
        },
    )  # fmt: skip
    return _found(endpoint(connection, before.tenant, before.id))


def delete_endpoint(connection: sa.Connection, before: Endpoint, *, now: datetime) -> None:
    """Delete an endpoint that is locked, and its secrets; what is on its way to it is cancelled. Its log stays."""
    key = {"id": before.id, "now": now}
    connection.execute(
        sa.text("""UPDATE webhook_endpoints SET state = 'deleted', disabled_reason = NULL, version = version + 1,
                       updated_at = :now WHERE id = :id"""),
        key,
    )
    connection.execute(sa.text("DELETE FROM webhook_secrets WHERE endpoint_id = :id"), key)
    connection.execute(
        sa.text("""UPDATE webhook_deliveries SET state = 'cancelled', finished_at = :now
                   WHERE endpoint_id = :id AND state = 'pending'"""),
        key,
    )


def rotate_secret(
    connection: sa.Connection, before: Endpoint, secret: str, *, old_valid_until: datetime, now: datetime
) -> None:
    """Give a locked endpoint another secret. Until an instant webhooks are signed with the old one, too."""
    connection.execute(
        sa.text("""UPDATE webhook_secrets SET expires_at = :until WHERE endpoint_id = :id AND expires_at IS NULL"""),
        {"id": before.id, "until": old_valid_until},
    )
    connection.execute(
        sa.text("DELETE FROM webhook_secrets WHERE endpoint_id = :id AND expires_at <= :now"),
        {"id": before.id, "now": now},
    )
    _add_secret(connection, before.tenant, before.id, secret, now)


def count_test(connection: sa.Connection, before: Endpoint) -> int:
    """The number of the next test of a locked endpoint."""
    number: int = connection.execute(
        sa.text("UPDATE webhook_endpoints SET tests = tests + 1 WHERE id = :id RETURNING tests"), {"id": before.id}
    ).scalar_one()
    return number


def deliveries(
    connection: sa.Connection,
    endpoint_id: str,
    *,
    state: DeliveryState | None = None,
    event_id: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[Delivery]:
    """The deliveries to an endpoint, the newest event first; only those before a sequence number, for the next page."""
    rows = connection.execute(
        sa.text("""
            SELECT d.endpoint_id, d.event_id, d.sequence, o.type, d.state, d.attempts, d.next_attempt_at, d.finished_at,
                a.status
            FROM webhook_deliveries d JOIN outbox o ON o.id = d.event_id
            LEFT JOIN webhook_attempts a
                ON a.endpoint_id = d.endpoint_id AND a.event_id = d.event_id AND a.number = d.attempts
            WHERE d.endpoint_id = :endpoint AND (CAST(:state AS text) IS NULL OR d.state = :state)
                AND (CAST(:event AS text) IS NULL OR d.event_id = :event)
                AND (CAST(:before AS bigint) IS NULL OR d.sequence < :before)
            ORDER BY d.sequence DESC LIMIT :limit"""),
        {"endpoint": endpoint_id, "state": state and state.value, "event": event_id, "before": before, "limit": limit},
    )
    return [
        Delivery(row[0], row[1], row[2], row[3], DeliveryState(row[4]), row[5],
                 row[6] if row[4] == DeliveryState.PENDING else None, row[7], row[8])
        for row in rows
    ]  # fmt: skip


def attempts(connection: sa.Connection, endpoint_id: str, event_id: str) -> list[Attempt]:
    """The attempts to deliver an event to an endpoint, the first one first."""
    rows = connection.execute(
        sa.text("""SELECT attempted_at, status, retry_after_s, duration_ms, answer FROM webhook_attempts
                   WHERE endpoint_id = :endpoint AND event_id = :event ORDER BY number"""),
        {"endpoint": endpoint_id, "event": event_id},
    )
    return [Attempt(*row) for row in rows]


def redeliver(connection: sa.Connection, to: Endpoint, event_id: str, *, now: datetime) -> bool:
    """Send an event to an endpoint again, from the schedule's beginning; False when the tenant has no such event."""
    return _send_again(connection, to, "o.id = :id", "true", now, id=event_id) == 1


def redeliver_since(
    connection: sa.Connection, to: Endpoint, since: datetime, *, also_delivered: bool, now: datetime
) -> int:
    """Send again what was emitted from an instant on, of the types that the endpoint wants; returns how many.

    Also what came while it was disabled, or was not there yet. What is on its way already is left alone, and what has
    arrived too, unless that is asked for.
    """
    which = """o.emitted_at >= :since AND o.type <> :test
               AND (cardinality(CAST(:types AS text[])) = 0 OR o.type = ANY (:types))"""
    states = "d.state <> 'pending'" if also_delivered else "d.state IN ('failed', 'cancelled')"
    return _send_again(
        connection, to, which, states, now,
        since=since, types=list(to.types), test=EventType.WEBHOOK_TEST.value,
    )  # fmt: skip


def _send_again(connection: sa.Connection, to: Endpoint, which: str, states: str, now: datetime, **keys: Any) -> int:
    done = connection.execute(
        sa.text(f"""
            INSERT INTO webhook_deliveries AS d (endpoint_id, event_id, tenant, sequence, state, next_attempt_at)
            SELECT :endpoint, o.id, o.tenant, o.sequence, 'pending', :now FROM outbox o
            WHERE o.tenant = :tenant AND {which}
            ON CONFLICT (endpoint_id, event_id) DO UPDATE SET state = 'pending', attempts_before = d.attempts,
                next_attempt_at = :now, finished_at = NULL
            WHERE {states}"""),  # noqa: S608  ours
        {"endpoint": to.id, "tenant": to.tenant, "now": now, **keys},
    )
    return done.rowcount


def _add_secret(connection: sa.Connection, tenant: str, endpoint_id: str, secret: str, now: datetime) -> None:
    connection.execute(
        sa.text("""INSERT INTO webhook_secrets (endpoint_id, number, tenant, secret, created_at)
                   SELECT :id, coalesce(max(number), 0) + 1, :tenant, :secret, :now
                   FROM webhook_secrets WHERE endpoint_id = :id"""),
        {"id": endpoint_id, "tenant": tenant, "secret": secret, "now": now},
    )


def _read(connection: sa.Connection, where: str, **keys: Any) -> list[Endpoint]:
    query = sa.text(f"SELECT {_COLUMNS} FROM webhook_endpoints WHERE {where}")  # noqa: S608  ours
    return [
        Endpoint(**{**row, "types": tuple(row["types"]), "state": EndpointState(row["state"])})
        for row in connection.execute(query, keys).mappings()
    ]


def _found(known: Endpoint | None) -> Endpoint:
    assert known is not None, "it was written in this transaction"
    return known
