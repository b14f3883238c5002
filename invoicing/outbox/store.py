"""The outbox in PostgreSQL: events are emitted in the transaction of their effect, and read in the order of commits.

A shell. Owns that an event is there if and only if its effect is, and that a tenant's sequence has no gaps: whoever
emits holds the tenant's row until its transaction ends. So emit last in a transaction; others of the tenant wait.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl
import psycopg
import sqlalchemy as sa

from schemas.domain_event import EVENTS, DomainEvent, StoredEvent

_COPY_ROWS = 50_000
_FEW = 100
_COLUMNS = "id, tenant, sequence, type, object_id, version, occurred_at, CAST(data AS text)"
_HOLD = """INSERT INTO outbox_tenants AS held (tenant) VALUES (:tenant)
           ON CONFLICT (tenant) DO UPDATE SET sequence = held.sequence RETURNING sequence"""
_ADVANCE = "UPDATE outbox_tenants SET sequence = sequence + :count WHERE tenant = :tenant"

_KNOWN = sa.text("SELECT id, CAST(data AS text) FROM outbox WHERE id = ANY (:ids)")
_ADD = sa.text("""
    WITH added AS (
        INSERT INTO outbox (id, tenant, sequence, type, object_id, version, occurred_at, data)
        SELECT id, :tenant, :after + place, type, object_id, version, occurred_at, CAST(data AS json)
        FROM unnest(CAST(:id AS text[]), CAST(:type AS text[]), CAST(:object_id AS text[]), CAST(:version AS bigint[]),
            CAST(:occurred_at AS timestamptz[]), CAST(:data AS text[])) WITH ORDINALITY
            AS e (id, type, object_id, version, occurred_at, data, place))
    UPDATE outbox_tenants SET sequence = sequence + :count WHERE tenant = :tenant""")


class OtherEventError(ValueError):
    """An event with this id was emitted already and said something else. Nothing was written."""


def emit(connection: sa.Connection, tenant: str, events: Sequence[DomainEvent]) -> int:
    """Add what happened to the transaction; returns how many events are new.

    Raises OtherEventError when one was emitted before and said something else.
    """
    wanted = {event.id_of(tenant): event for event in events}
    if not wanted:
        return 0
    sequence = connection.execute(sa.text(_HOLD), {"tenant": tenant}).scalar_one()
    known = connection.execute(
        sa.text("SELECT id, CAST(data AS text) FROM outbox WHERE id = ANY (:ids)"), {"ids": list(wanted)}
    )
    stored: dict[str, str] = {row[0]: row[1] for row in known}
    for event_id, said in stored.items():
        if said != wanted[event_id].data.text():
            raise _other(event_id, wanted[event_id].type)
    fresh = [(event_id, event) for event_id, event in wanted.items() if event_id not in stored]
    if fresh:
        connection.execute(
            sa.text("""INSERT INTO outbox (id, tenant, sequence, type, object_id, version, occurred_at, data)
                       VALUES (:id, :tenant, :sequence, :type, :object_id, :version, :occurred_at,
                           CAST(:data AS json))"""),
            [
                {
                    "id": event_id, "tenant": tenant, "sequence": place, "type": event.type.value,
                    "object_id": event.object_id, "version": event.version, "occurred_at": event.occurred_at,
                    "data": event.data.text(),
                }
                for place, (event_id, event) in enumerate(fresh, sequence + 1)
            ],
        )  # fmt: skip
        connection.execute(sa.text(_ADVANCE), {"tenant": tenant, "count": len(fresh)})
    return len(fresh)


def emit_frame(connection: sa.Connection, events: pl.DataFrame) -> int:
    """Add many events (columns `schemas.domain_event.EVENTS`), by COPY; returns how many are new.

    Raises OtherEventError as `emit` does.
    """
    if events.is_empty():
        return 0
    wanted = events.unique("id", keep="first", maintain_order=True)
    ends = {  # in one order for all, so that two who emit never wait for each other
        tenant: connection.execute(sa.text(_HOLD), {"tenant": tenant}).scalar_one()
        for tenant in sorted(set(wanted["tenant"]))
    }
    if wanted.height <= _FEW:
        return sum(_emit_few(connection, tenant, wanted, after) for tenant, after in ends.items())
    before = pl.col("tenant").replace_strict(ends, return_dtype=pl.Int64)
    numbered = wanted.with_columns(sequence=before + pl.int_range(1, pl.len() + 1).over("tenant"))
    try:
        with connection.begin_nested():
            _copy(connection, "outbox", numbered.select(*EVENTS, "sequence"))
            fresh = wanted.group_by("tenant").len().rows()
    except (psycopg.errors.UniqueViolation, psycopg.errors.FeatureNotSupported):
        # Some of them are there; or we act for a tenant, and COPY does not know row-level security. It costs more.
        fresh = _emit_missing(connection, wanted)
    for tenant, count in fresh:
        connection.execute(sa.text(_ADVANCE), {"tenant": tenant, "count": count})
    return sum(count for _, count in fresh)


def behind(connection: sa.Connection, consumer: str) -> list[str]:
    """The tenants with events that the consumer has not had."""
    return list(
        connection.execute(
            sa.text("""SELECT t.tenant FROM outbox_tenants t
                       LEFT JOIN outbox_positions p ON p.consumer = :consumer AND p.tenant = t.tenant
                       WHERE t.sequence > coalesce(p.sequence, 0) ORDER BY t.tenant"""),
            {"consumer": consumer},
        ).scalars()
    )


def next_position(connection: sa.Connection, consumer: str, tenant: str) -> int | None:
    """The sequence of the last event that the consumer has had; nobody else reads on until this transaction ends.

    None when somebody else is reading on.
    """
    key = {"consumer": consumer, "tenant": tenant}
    connection.execute(
        sa.text("INSERT INTO outbox_positions VALUES (:consumer, :tenant, 0) ON CONFLICT DO NOTHING"), key
    )
    found: int | None = connection.execute(
        sa.text("""SELECT sequence FROM outbox_positions WHERE consumer = :consumer AND tenant = :tenant
                   FOR UPDATE SKIP LOCKED"""),
        key,
    ).scalar_one_or_none()
    return found


def untold(connection: sa.Connection, events: pl.DataFrame) -> pl.DataFrame:
    """Those of the events (columns EVENTS) that were not emitted before, whatever they said then.

    For what is told once: a draft that was deleted and drafted again was created before.
    """
    query = sa.text("SELECT id FROM outbox WHERE id = ANY (:ids)")
    known = list(connection.execute(query, {"ids": events["id"].to_list()}).scalars())
    return events.filter(~pl.col("id").is_in(known)) if known else events


def advance(connection: sa.Connection, consumer: str, tenant: str, sequence: int) -> None:
    """Note, with the lock of `next_position`, that the consumer has had all events up to this one."""
    connection.execute(
        sa.text("UPDATE outbox_positions SET sequence = :sequence WHERE consumer = :consumer AND tenant = :tenant"),
        {"consumer": consumer, "tenant": tenant, "sequence": sequence},
    )


def events_after(connection: sa.Connection, tenant: str, sequence: int, limit: int) -> list[StoredEvent]:
    """The tenant's events behind a sequence number, in order."""
    return _events(
        connection,
        "tenant = :tenant AND sequence > :sequence ORDER BY sequence LIMIT :limit",
        tenant=tenant, sequence=sequence, limit=limit,
    )  # fmt: skip


def event(connection: sa.Connection, tenant: str, event_id: str) -> StoredEvent | None:
    """The event with this id; None when the tenant has none."""
    return next(iter(_events(connection, "tenant = :tenant AND id = :id", tenant=tenant, id=event_id)), None)


def last_sequence(connection: sa.Connection, tenant: str) -> int:
    """The sequence of the tenant's last event; 0 when there is none."""
    query = "SELECT coalesce(max(sequence), 0) FROM outbox_tenants WHERE tenant = :tenant"
    found: int = connection.execute(sa.text(query), {"tenant": tenant}).scalar_one()
    return found


def positions(connection: sa.Connection) -> list[tuple[str, int, int | None, int | None]]:
    """For each tenant: its last event, and up to which one Kafka and the webhooks are; None where they never began."""
    rows = connection.execute(
        sa.text("""SELECT t.tenant, t.sequence,
                       max(p.sequence) FILTER (WHERE p.consumer = 'kafka'),
                       max(p.sequence) FILTER (WHERE p.consumer = 'webhooks')
                   FROM outbox_tenants t LEFT JOIN outbox_positions p ON p.tenant = t.tenant
                   GROUP BY 1, 2 ORDER BY 1""")
    )
    return [(row[0], row[1], row[2], row[3]) for row in rows]


def _events(connection: sa.Connection, where: str, **keys: Any) -> list[StoredEvent]:
    rows = connection.execute(sa.text(f"SELECT {_COLUMNS} FROM outbox WHERE {where}"), keys)  # noqa: S608  ours
    return [StoredEvent(*row) for row in rows]


def _emit_few(connection: sa.Connection, tenant: str, events: pl.DataFrame, after: int) -> int:
    """Add those of the tenant's events that are not there, behind a sequence, without COPY and its savepoint."""
    own = {row["id"]: row for row in events.iter_rows(named=True) if row["tenant"] == tenant}
    known = connection.execute(_KNOWN, {"ids": list(own)}).all()
    for event_id, said in known:
        if own.pop(event_id)["data"] != said:
            raise _other(event_id, events.row(by_predicate=pl.col("id") == event_id, named=True)["type"])
    if own:
        columns = {name: [row[name] for row in own.values()] for name in EVENTS if name != "tenant"}
        connection.execute(_ADD, columns | {"tenant": tenant, "after": after, "count": len(own)})
    return len(own)


def _emit_missing(connection: sa.Connection, events: pl.DataFrame) -> list[tuple[str, int]]:
    """Add those of the events that are not there; how many of each tenant."""
    connection.execute(
        sa.text("""CREATE TEMP TABLE staged_events (place bigint, id text COLLATE "C", tenant text COLLATE "C",
                       type text, object_id text, version bigint, occurred_at timestamptz, data text) ON COMMIT DROP""")
    )
    _copy(connection, "staged_events", events.select(*EVENTS).with_row_index("place"))
    connection.execute(sa.text("ANALYZE staged_events"))
    other = connection.execute(
        sa.text("""SELECT s.id, s.type FROM staged_events s JOIN outbox o ON o.id = s.id
                   WHERE CAST(o.data AS text) <> s.data LIMIT 1""")
    ).one_or_none()
    if other:
        raise _other(*other)
    fresh = connection.execute(
        sa.text("""
            WITH added AS (
                INSERT INTO outbox (id, tenant, sequence, type, object_id, version, occurred_at, data)
                SELECT s.id, s.tenant, t.sequence + row_number() OVER (PARTITION BY s.tenant ORDER BY s.place),
                    s.type, s.object_id, s.version, s.occurred_at, CAST(s.data AS json)
                FROM staged_events s JOIN outbox_tenants t ON t.tenant = s.tenant
                WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.id = s.id)
                RETURNING tenant)
            SELECT tenant, count(*) FROM added GROUP BY tenant""")
    )
    counts = [(tenant, count) for tenant, count in fresh]
    connection.execute(sa.text("DROP TABLE staged_events"))
    return counts


def _copy(connection: sa.Connection, table: str, rows: pl.DataFrame) -> None:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    command = f"COPY {table} ({', '.join(rows.columns)}) FROM STDIN (FORMAT csv)"
    with driver.cursor() as cursor, cursor.copy(command) as copy:
        for part in rows.iter_slices(_COPY_ROWS):
            copy.write(part.write_csv(include_header=False))


def _other(event_id: str, event_type: str) -> OtherEventError:
    return OtherEventError(
        f"{event_type} {event_id} was emitted already and said something else; what was emitted stays as it is, a "
        "change is a new version of the object"
    )
