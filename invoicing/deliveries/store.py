"""Deliveries and their attempts in PostgreSQL.

A shell. Owns that an event becomes one delivery an endpoint, in the transaction that moves the outbox's position; and
that a delivery in hand is leased and not locked: if its attempt dies with the process, it is due again at the lease's
end, and of two who attempted the same one, one is noted.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from invoicing.outbox import store as outbox
from invoicing.webhooks.retries import CONCURRENCY, Attempt, Outcome, gives_up, next_attempt, paused_until
from schemas.delivery import DeliveryState
from schemas.domain_event import DomainEvent, EventType, StoredEvent, WebhookDisabledData

CONSUMER = "webhooks"
EVENTS_PER_FAN_OUT = 5_000
LEASE = timedelta(seconds=120)  # longer than all that is claimed for an endpoint at once takes at its slowest
CLAIMED_PER_ENDPOINT_MAX = 4 * CONCURRENCY

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claimed:
    """A delivery that is ours to attempt, until the end of its lease."""

    endpoint_id: str
    url: str
    secrets: tuple[str, ...] = field(repr=False)
    event: StoredEvent
    number: int
    """Of this attempt, from 1."""
    history: tuple[Attempt, ...]
    """The attempts before it, since the delivery began or was asked for again."""


def fan_out(connection: sa.Connection, tenant: str, *, now: datetime) -> int:
    """Make deliveries of the tenant's next events, for every endpoint that is enabled and wants them.

    Returns how many events were looked at; 0 when there is none, or somebody else is at it.
    """
    position = outbox.next_position(connection, CONSUMER, tenant)
    if position is None:
        return 0
    end = min(position + EVENTS_PER_FAN_OUT, outbox.last_sequence(connection, tenant))
    connection.execute(
        sa.text("""
            INSERT INTO webhook_deliveries (endpoint_id, event_id, tenant, sequence, state, next_attempt_at)
            SELECT e.id, o.id, o.tenant, o.sequence, 'pending', :now
            FROM outbox o JOIN webhook_endpoints e ON e.tenant = o.tenant AND e.state = 'enabled'
                AND o.sequence > e.from_sequence
                AND CASE WHEN o.type = :test THEN o.object_id = e.id
                    ELSE cardinality(e.types) = 0 OR o.type = ANY (e.types) END
            WHERE o.tenant = :tenant AND o.sequence > :position AND o.sequence <= :end
            ON CONFLICT DO NOTHING"""),
        {"tenant": tenant, "position": position, "end": end, "now": now, "test": EventType.WEBHOOK_TEST.value},
    )
    outbox.advance(connection, CONSUMER, tenant, end)
    return end - position


def claim(connection: sa.Connection, in_hand: Mapping[str, int], limit: int, *, now: datetime) -> list[Claimed]:
    """Lease deliveries that are due, at most so many, and so many an endpoint that none takes the others' turn.

    `in_hand` says how many of each endpoint the caller has already. An endpoint whose last attempt failed gets one.
    """
    rows = connection.execute(
        sa.text("""
            WITH due AS (
                SELECT d.endpoint_id, d.event_id
                FROM webhook_endpoints e
                LEFT JOIN unnest(CAST(:endpoints AS text[]), CAST(:taken AS integer[])) AS h (id, taken) ON h.id = e.id
                CROSS JOIN LATERAL (
                    SELECT endpoint_id, event_id FROM webhook_deliveries
                    WHERE endpoint_id = e.id AND state = 'pending' AND next_attempt_at <= :now
                    ORDER BY next_attempt_at, sequence
                    LIMIT greatest(CASE WHEN e.failures = 0 THEN :each ELSE 1 END - coalesce(h.taken, 0), 0)
                    FOR UPDATE SKIP LOCKED) d
                WHERE e.state = 'enabled' AND (e.paused_until IS NULL OR e.paused_until <= :now)
                LIMIT :limit),
            claimed AS (
                UPDATE webhook_deliveries d SET next_attempt_at = :lease FROM due
                WHERE d.endpoint_id = due.endpoint_id AND d.event_id = due.event_id
                RETURNING d.endpoint_id, d.event_id, d.attempts, d.attempts_before)
            SELECT c.endpoint_id, e.url, c.attempts, c.attempts_before, o.id, o.tenant, o.sequence, o.type, o.object_id,
                o.version, o.occurred_at, CAST(o.data AS text)
            FROM claimed c JOIN webhook_endpoints e ON e.id = c.endpoint_id JOIN outbox o ON o.id = c.event_id
            ORDER BY c.endpoint_id, o.sequence"""),
        {
            "endpoints": list(in_hand), "taken": list(in_hand.values()), "each": CLAIMED_PER_ENDPOINT_MAX,
            "limit": limit, "now": now, "lease": now + LEASE,
        },
    ).all()  # fmt: skip
    if not rows:
        return []
    secrets = _secrets(connection, sorted({row[0] for row in rows}), now)
    tried = [(row[0], row[4], row[3]) for row in rows if row[2] > row[3]]
    history = _histories(connection, tried) if tried else {}
    return [
        Claimed(row[0], row[1], secrets[row[0]], StoredEvent(*row[4:]), row[2] + 1, history.get((row[0], row[4]), ()))
        for row in rows
    ]


def record(connection: sa.Connection, attempted: Sequence[tuple[Claimed, Attempt]], *, now: datetime) -> None:
    """Note what became of attempts, and when those that failed are due again; an endpoint may be disabled by it."""
    if not attempted:
        return
    _lock(connection, sorted({claimed.endpoint_id for claimed, _ in attempted}))
    connection.execute(
        sa.text("""
            INSERT INTO webhook_attempts (endpoint_id, event_id, number, tenant, attempted_at, duration_ms, status,
                retry_after_s, answer)
            VALUES (:endpoint_id, :event_id, :number, :tenant, :attempted_at, :duration_ms, :status, :retry_after_s,
                :answer)
            ON CONFLICT DO NOTHING"""),
        [
            {"endpoint_id": claimed.endpoint_id, "event_id": claimed.event.id, "number": claimed.number,
             "tenant": claimed.event.tenant, **vars(attempt)}
            for claimed, attempt in attempted
        ],
    )  # fmt: skip
    _note_endpoints(connection, attempted, now)
    over = []
    for claimed, attempt in attempted:
        again = next_attempt([*claimed.history, attempt], now, seed=f"{claimed.endpoint_id} {claimed.event.id}")
        arrived = attempt.outcome is Outcome.ARRIVED
        state = DeliveryState.DELIVERED if arrived else DeliveryState.FAILED if again is None else DeliveryState.PENDING
        over.append(
            {
                "endpoint_id": claimed.endpoint_id, "event_id": claimed.event.id, "number": claimed.number,
                "state": state.value, "next_attempt_at": again or now, "finished_at": None if again else now,
            }
        )  # fmt: skip
    connection.execute(
        sa.text("""
            UPDATE webhook_deliveries SET attempts = :number, state = :state, next_attempt_at = :next_attempt_at,
                finished_at = :finished_at
            WHERE endpoint_id = :endpoint_id AND event_id = :event_id AND state = 'pending'
                AND attempts = :number - 1"""),
        over,
    )
    for (claimed, attempt), row in zip(attempted, over, strict=True):
        if row["state"] == DeliveryState.FAILED:
            _consider_disabling(connection, claimed, attempt, now)


def release(connection: sa.Connection, claimed: Sequence[Claimed], *, now: datetime) -> None:
    """Give deliveries back that were not attempted: they are due at once."""
    if claimed:
        connection.execute(
            sa.text("""UPDATE webhook_deliveries SET next_attempt_at = :now WHERE endpoint_id = :endpoint_id
                       AND event_id = :event_id AND state = 'pending' AND attempts = :number - 1"""),
            [{"endpoint_id": each.endpoint_id, "event_id": each.event.id, "number": each.number, "now": now}
             for each in claimed],
        )  # fmt: skip


def next_due(connection: sa.Connection) -> datetime | None:
    """When the next delivery is due; None when none is on its way. Those in hand count, with the end of their lease."""
    found: datetime | None = connection.execute(
        sa.text("""SELECT min(greatest(d.next_attempt_at, e.paused_until)) FROM webhook_endpoints e
                   CROSS JOIN LATERAL (SELECT next_attempt_at FROM webhook_deliveries
                       WHERE endpoint_id = e.id AND state = 'pending' ORDER BY next_attempt_at LIMIT 1) d
                   WHERE e.state = 'enabled'""")
    ).scalar_one()
    return found


def _lock(connection: sa.Connection, endpoint_ids: Sequence[str]) -> None:
    connection.execute(
        sa.text("SELECT FROM webhook_endpoints WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE"),
        {"ids": list(endpoint_ids)},
    )


def _note_endpoints(connection: sa.Connection, attempted: Sequence[tuple[Claimed, Attempt]], now: datetime) -> None:
    """How each endpoint did. What it said last counts: one that answers again is whole again."""
    noted: dict[str, dict[str, object]] = {}
    for claimed, attempt in attempted:
        before = noted.get(
            claimed.endpoint_id, {"succeeded_at": None, "paused_until": None, "whole": False, "failed": 0}
        )
        arrived = attempt.outcome is Outcome.ARRIVED
        noted[claimed.endpoint_id] = {
            "id": claimed.endpoint_id,
            "succeeded_at": now if arrived else before["succeeded_at"],
            "paused_until": None if arrived else paused_until(attempt, now),
            "whole": arrived,
            "failed": 0 if arrived else int(str(before["failed"])) + 1,
        }
    connection.execute(
        sa.text("""
            UPDATE webhook_endpoints SET
                failures = CASE WHEN CAST(:succeeded_at AS timestamptz) IS NULL THEN failures ELSE 0 END + :failed,
                last_success_at = coalesce(:succeeded_at, last_success_at),
                paused_until = CASE WHEN :whole THEN NULL ELSE coalesce(:paused_until, paused_until) END
            WHERE id = :id"""),
        list(noted.values()),
    )


def _consider_disabling(connection: sa.Connection, claimed: Claimed, attempt: Attempt, now: datetime) -> None:
    row = connection.execute(
        sa.text("SELECT state, version, url, last_success_at FROM webhook_endpoints WHERE id = :id"),
        {"id": claimed.endpoint_id},
    ).one()
    history = [*claimed.history, attempt]
    if attempt.outcome is Outcome.GONE:
        reason = "it answered 410 Gone"
    elif gives_up(history, row.last_success_at):
        reason = f"nothing arrived since {history[0].attempted_at:%Y-%m-%d %H:%M} UTC, in {len(history)} attempts"
    else:
        logger.warning("webhook %s to %s failed for good", claimed.event.id, claimed.endpoint_id)
        return
    if row.state != "enabled":
        return
    connection.execute(
        sa.text("""UPDATE webhook_endpoints SET state = 'disabled', disabled_reason = :reason, version = version + 1,
                       updated_at = :now WHERE id = :id"""),
        {"id": claimed.endpoint_id, "reason": reason, "now": now},
    )
    said = WebhookDisabledData(endpoint_id=claimed.endpoint_id, url=row.url, reason=reason)
    event = DomainEvent(EventType.WEBHOOK_DISABLED, claimed.endpoint_id, row.version + 1, now, said)
    outbox.emit(connection, claimed.event.tenant, [event])
    logger.warning("webhook endpoint %s of %s disabled: %s", claimed.endpoint_id, claimed.event.tenant, reason)


def _secrets(connection: sa.Connection, endpoint_ids: list[str], now: datetime) -> dict[str, tuple[str, ...]]:
    """The valid secrets of each endpoint, the newest first."""
    rows = connection.execute(
        sa.text("""SELECT endpoint_id, array_agg(secret ORDER BY number DESC) FROM webhook_secrets
                   WHERE endpoint_id = ANY (:ids) AND (expires_at IS NULL OR expires_at > :now) GROUP BY 1"""),
        {"ids": endpoint_ids, "now": now},
    )
    return {endpoint_id: tuple(secrets) for endpoint_id, secrets in rows}


def _histories(
    connection: sa.Connection, tried: Sequence[tuple[str, str, int]]
) -> dict[tuple[str, str], tuple[Attempt, ...]]:
    """For deliveries (endpoint, event, number of the attempt before the first that counts): their attempts so far."""
    rows = connection.execute(
        sa.text("""
            SELECT a.endpoint_id, a.event_id, a.attempted_at, a.status, a.retry_after_s, a.duration_ms
            FROM unnest(CAST(:endpoints AS text[]), CAST(:events AS text[]), CAST(:befores AS integer[]))
                AS t (endpoint_id, event_id, before)
            JOIN webhook_attempts a USING (endpoint_id, event_id) WHERE a.number > t.before
            ORDER BY a.endpoint_id, a.event_id, a.number"""),
        {
            "endpoints": [each[0] for each in tried], "events": [each[1] for each in tried],
            "befores": [each[2] for each in tried],
        },
    )  # fmt: skip
    found: dict[tuple[str, str], tuple[Attempt, ...]] = {}
    for row in rows:
        key = (row[0], row[1])
        found[key] = (*found.get(key, ()), Attempt(*row[2:]))
    return found
