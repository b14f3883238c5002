"""Whether the ledger is what was posted: every tenant's chain, read from the database and computed again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.ledger.verify import Finding, Place, end_of, first_finding

T = TypeVar("T")


def verified(database: sa.Engine) -> Iterator[tuple[str, Place, Finding | None]]:
    """What `findings` says of the ledger as it stands now."""
    with database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        yield from findings(connection)


def findings(connection: sa.Connection) -> Iterator[tuple[str, Place, Finding | None]]:
    """For each tenant, where its chain ends, or the first entry that is not what was posted.

    The connection's transaction is of the owner of the tables, and should be REPEATABLE READ.
    """
    for tenant in store.tenants(connection):
        place, finding = Place(), None
        closed, opened = store.closings(connection, tenant), store.overrides(connection, tenant)
        for entries, postings in ahead(store.stretches(connection, tenant)):
            finding = first_finding(entries, postings, place, closed=closed, opened=opened)
            if finding:
                break
            place = end_of(entries)
        yield tenant, place, finding


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The same values, each fetched while the one before is worked on; in one other thread, so in their order."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, values, None)
        while (value := coming.result()) is not None:
            coming = thread.submit(next, values, None)
            yield value
