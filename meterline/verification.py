"""Whether the ledger is what was posted: every tenant's chain, read from the database and computed again.

Each entry names the hash of the one before, so a stretch is checked by itself, and that it follows the stretch before
it afterwards. Stretches are read and checked by several threads with a connection each, all of which see one snapshot.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TypeVar

import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.ledger.sound import follows, may_be_late, place_after, sound
from invoicing.ledger.stretch import Stretch
from invoicing.ledger.verify import Finding, Place, first_finding
from invoicing.periods import store as periods

READERS = 3  # two cores are busy with two; a third reads while one of them waits for a page
_AHEAD = 2  # stretches a reader that wait to be followed, which bounds the memory

T = TypeVar("T")


def verified(database: sa.Engine) -> Iterator[tuple[str, Place, Finding | None]]:
    """What `findings` says of the ledger as it stands now."""
    with ExitStack() as stack:
        first, *others = [
            stack.enter_context(database.connect().execution_options(isolation_level="REPEATABLE READ"))
            for _ in range(READERS)
        ]
        snapshot = first.execute(sa.text("SELECT pg_export_snapshot()")).scalar_one()
        for connection in others:
            connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{snapshot}'")
        yield from findings(first, others)


def findings(
    connection: sa.Connection, others: Sequence[sa.Connection] = ()
) -> Iterator[tuple[str, Place, Finding | None]]:
    """For each tenant, where its chain ends, or the first entry that is not what was posted.

    The connection's transaction is of the owner of the tables, and should be REPEATABLE READ; the other connections
    see its snapshot, and take a share of the reading.
    """
    for tenant in store.tenants(connection):
        yield tenant, *_checked(tenant, connection, others)


def _checked(tenant: str, connection: sa.Connection, others: Sequence[sa.Connection]) -> tuple[Place, Finding | None]:
    closed, opened = periods.closings(connection, tenant), periods.overrides(connection, tenant)
    place = Place()
    for stretch, is_sound in _stretches(tenant, store.ranges(connection, tenant), [connection, *others]):
        entries = stretch.entries
        if not (is_sound and follows(entries, place)) or may_be_late(entries, closed):
            finding = first_finding(*stretch.frames(), place, closed=closed, opened=opened)
            if finding:
                return place, finding
        if len(entries.sequence):
            place = place_after(entries)
    return place, None


def _stretches(
    tenant: str, ranges: Sequence[tuple[int, int]], connections: Sequence[sa.Connection]
) -> Iterator[tuple[Stretch, bool]]:
    """Each range's stretch, in the ranges' order, and whether it is sound by itself."""
    free: SimpleQueue[sa.Connection] = SimpleQueue()
    for connection in connections:
        free.put(connection)

    def read(bounds: tuple[int, int]) -> tuple[Stretch, bool]:
        connection = free.get()
        try:
            stretch = store.stretch(connection, tenant, *bounds)
        finally:
            free.put(connection)
        return stretch, sound(stretch)

    with ThreadPoolExecutor(len(connections)) as threads:
        coming = [threads.submit(read, bounds) for bounds in ranges[: _AHEAD * len(connections)]]
        for bounds in [*ranges[len(coming) :], *[None] * len(coming)]:
            found = coming.pop(0).result()
            if bounds is not None:
                coming.append(threads.submit(read, bounds))
            yield found


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The same values, each fetched while the one before is worked on; in one other thread, so in their order."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value
