"""The outbox on a real PostgreSQL: with its effect or not at all, once, and in the order of commits."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from threading import Barrier

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.outbox import store
from invoicing.outbox.events import finalized, with_ids
from invoicing.outbox.store import OtherEventError, emit, emit_frame
from schemas.domain_event import EVENTS, DomainEvent, EventType, InvoiceData, PeriodClosedData, StoredEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INVOICE = {
    "id": "i1", "tenant": "acme", "customer": "UA", "customer_name": 'United "Air" Lines, Zürich\\', "period": "2013-01",
    "number": "INV-000001", "currency": "USD", "minor_units": 2, "subtotal_minor": -(2**62), "tax_minor": 0,
    "total_minor": -(2**62), "issued_at": NOW, "due_on": date(2026, 2, 1), "version": 1,
}  # fmt: skip


def closed(version: int, day: int = 1) -> DomainEvent:
    return DomainEvent(EventType.PERIOD_CLOSED, "ledger", version, NOW, PeriodClosedData(through=date(2026, 1, day)))


def frame(*events: DomainEvent, tenant: str = "acme") -> pl.DataFrame:
    rows = [
        {"tenant": tenant, "type": each.type.value, "object_id": each.object_id, "version": each.version,
         "occurred_at": each.occurred_at, "data": each.data.text()}
        for each in events
    ]  # fmt: skip
    return with_ids(pl.DataFrame(rows, schema={name: kind for name, kind in EVENTS.items() if name != "id"}))


def stored(database: sa.Engine, tenant: str = "acme") -> list[StoredEvent]:
    with database.connect() as connection:
        return store.events_after(connection, tenant, 0, 10_000)


def test_an_event_is_there_with_its_effect_and_once(database: sa.Engine) -> None:
    """A transaction that rolls back leaves nothing and no gap; telling again adds nothing; telling otherwise is an error."""
    with database.begin() as connection:
        assert emit(connection, "acme", [closed(1), closed(1), closed(2)]) == 2
        assert emit(connection, "acme", []) == 0
    with database.connect() as connection:
        assert emit(connection, "acme", [closed(3)]) == 1
        connection.rollback()
    with database.begin() as connection:
        assert emit(connection, "acme", [closed(2), closed(4)]) == 1
        assert emit(connection, "other", [closed(2)]) == 1
    assert [(each.sequence, each.version) for each in stored(database)] == [(1, 1), (2, 2), (3, 4)]
    assert [each.sequence for each in stored(database, "other")] == [1]
    for attempt in (
        lambda c: emit(c, "acme", [closed(5), closed(2, day=9)]),
        lambda c: emit_frame(c, frame(closed(5), closed(2, day=9))),
    ):
        with pytest.raises(OtherEventError, match="was emitted already"), database.begin() as connection:
            attempt(connection)
    assert len(stored(database)) == 3


def test_a_frame_of_events_is_what_single_events_are(database: sa.Engine) -> None:
    """COPY adds those that are missing, numbered on, of each tenant; the same again adds none."""
    with database.begin() as connection:
        assert emit(connection, "acme", [closed(2)]) == 1
        both = pl.concat([frame(closed(1), closed(2), closed(3)), frame(closed(1), closed(1), tenant="other")])
        assert emit_frame(connection, both) == 3
        assert emit_frame(connection, both.clear()) == 0
    with database.begin() as connection:
        assert emit_frame(connection, both) == 0
        assert emit(connection, "acme", [closed(1), closed(4)]) == 1
        assert emit_frame(connection, frame(closed(5))) == 1
    found = stored(database)
    assert [(each.sequence, each.version) for each in found] == [(1, 2), (2, 1), (3, 3), (4, 4), (5, 5)]
    assert [each.sequence for each in stored(database, "other")] == [1]
    assert {replace(each, sequence=0, version=0, id="") for each in found} == {
        replace(found[0], sequence=0, version=0, id="")
    }


def test_a_posted_invoice_says_what_its_schema_says(database: sa.Engine) -> None:
    """The event that a frame of invoices becomes is the one that the model writes, to the byte, whatever the names are."""
    events = finalized(pl.DataFrame([INVOICE], schema_overrides={"issued_at": pl.Datetime("us", "UTC")}))
    with database.begin() as connection:
        assert emit_frame(connection, events) == 1
        said = InvoiceData(**{name: value for name, value in INVOICE.items() if name in InvoiceData.model_fields})
        assert emit(connection, "acme", [DomainEvent(EventType.INVOICE_FINALIZED, "i1", 1, NOW, said)]) == 0
    (event,) = stored(database)
    assert InvoiceData.model_validate_json(event.data) == said
    assert event.occurred_at == NOW


def test_sequences_are_the_order_of_commits(database: sa.Engine) -> None:
    """Eight writers of two tenants, some of whom roll back: a reader beside them never sees a number before a smaller one."""
    begin, seen = Barrier(9), {"acme": 0, "other": 0}

    def write(writer: int) -> int:
        chance, kept = random.Random(writer), 0
        begin.wait()
        for number in range(25):
            tenant, count = chance.choice(list(seen)), chance.randint(1, 3)
            events = [closed(1 + writer * 1000 + number * 10 + each) for each in range(count)]
            with database.connect() as connection:
                connection.execute(sa.text("SELECT pg_current_xact_id()"))  # a transaction is older than its events
                added = (
                    emit(connection, tenant, events)
                    if chance.random() < 0.5
                    else emit_frame(connection, frame(*events, tenant=tenant))
                )
                if chance.random() < 0.8:
                    connection.commit()
                    kept += added
        return kept

    with ThreadPoolExecutor(8) as writers:
        writing = [writers.submit(write, writer) for writer in range(8)]
        begin.wait()
        while not all(each.done() for each in writing) or _read_on(database, seen):
            _read_on(database, seen)
    assert sum(seen.values()) == sum(each.result() for each in writing)


def _read_on(database: sa.Engine, seen: dict[str, int]) -> int:
    """Read as a consumer does; every number must follow the one before it."""
    read = 0
    for tenant, last in list(seen.items()):
        with database.begin() as connection:
            position = store.next_position(connection, "kafka", tenant)
            assert position == last
            events = store.events_after(connection, tenant, position, 7)
            assert [each.sequence for each in events] == list(range(position + 1, position + 1 + len(events)))
            read += len(events)
            seen[tenant] = last + len(events)
            store.advance(connection, "kafka", tenant, last + len(events))
    return read


def test_two_readers_never_share_a_position(database: sa.Engine) -> None:
    """The second finds it taken, and goes on to another tenant."""
    with database.begin() as connection:
        emit(connection, "acme", [closed(1)])
        assert store.behind(connection, "kafka") == store.behind(connection, "webhooks") == ["acme"]
    with database.begin() as first, database.begin() as second:
        first.execute(sa.text("SELECT 1"))
        assert store.next_position(first, "webhooks", "acme") == 0
        second.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        assert store.next_position(second, "kafka", "acme") == 0
        store.advance(second, "kafka", "acme", 1)
    with database.begin() as first:
        assert store.next_position(first, "webhooks", "acme") == 0
        with database.begin() as second:
            assert store.next_position(second, "webhooks", "acme") is None
    with database.connect() as connection:
        assert store.behind(connection, "kafka") == []
        assert store.positions(connection) == [("acme", 1, 1, 0)]


@pytest.mark.parametrize(
    "statement", ["UPDATE outbox SET data = '{}'", "DELETE FROM outbox", "TRUNCATE outbox CASCADE"]
)
def test_what_was_emitted_stays(database: sa.Engine, statement: str) -> None:
    """Whoever writes."""
    with database.begin() as connection:
        emit(connection, "acme", [closed(1)])
    with pytest.raises(sa.exc.DBAPIError, match="refused"), database.begin() as connection:
        connection.execute(sa.text(statement))


@contextmanager
def acting(database: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that acts for acme."""
    with database.begin() as connection:
        connection.execute(sa.text("SET LOCAL ROLE meterline_app; SET LOCAL meterline.tenant = 'acme'"))
        yield connection


def test_who_acts_for_a_tenant_reaches_its_rows_alone(database: sa.Engine) -> None:
    """Row-level security: the others' events and keys are not there, and none is added for them."""
    with database.begin() as connection:
        emit(connection, "other", [closed(1)])
    with acting(database) as connection:
        assert emit(connection, "acme", [closed(1)]) == 1
        assert emit_frame(connection, frame(closed(1), closed(2))) == 1
        assert [each.tenant for each in store.events_after(connection, "other", 0, 10)] == []
        for table in ("outbox", "outbox_tenants"):
            assert set(connection.execute(sa.text(f"SELECT tenant FROM {table}")).scalars()) == {"acme"}
    for attempt in (
        lambda c: emit(c, "other", [closed(2)]),
        lambda c: c.execute(sa.text("INSERT INTO idempotency_keys VALUES ('other', 'k', 'h', false, now())")),
        lambda c: c.execute(sa.text("SELECT * FROM outbox_positions")),
        lambda c: c.execute(sa.text("DELETE FROM outbox")),
    ):
        with pytest.raises(sa.exc.DBAPIError), acting(database) as connection:
            attempt(connection)
    assert [each.version for each in stored(database)] == [1, 2]
