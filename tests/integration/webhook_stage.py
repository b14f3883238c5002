"""A database, a receiver and a sender whose clock stands still: where webhooks are played in tests."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from aiohttp import web

from invoicing.deliveries import store as deliveries
from invoicing.deliveries.app import Sender
from invoicing.outbox.store import emit
from invoicing.webhooks import store
from invoicing.webhooks.signatures import secret_text
from schemas.domain_event import DomainEvent, EventType, PeriodClosedData, PeriodReopenedData
from schemas.webhook import Endpoint, NewEndpoint
from tests.servers.receiver import Received, Receiver, receiving

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = secret_text(b"a" * 32)


@dataclass
class Clock:
    """The time, as a test wants it."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        """What time it is."""
        return self.at


@dataclass
class Stage:
    """A database, a receiver and a sender whose clock stands still until it is set."""

    database: sa.Engine
    receiver: Receiver
    sender: Sender
    clock: Clock
    made: int = 0
    emitted: int = 0
    secrets: list[str] = field(default_factory=list)

    def endpoint(self, path: str, *types: str, tenant: str = "acme", url: str | None = None) -> Endpoint:
        """An endpoint at a path of the receiver."""
        self.made += 1
        wanted = NewEndpoint(url=url or self.receiver.url + path, types=types)
        with self.database.begin() as connection:
            return store.create_endpoint(
                connection, tenant, wanted, endpoint_id=f"we_{self.made:024x}", secret=SECRET, now=self.clock()
            )

    def emit(
        self, count: int = 1, *, tenant: str = "acme", kind: EventType = EventType.PERIOD_CLOSED, words: str = "x"
    ) -> list[str]:
        """Emit so many events; their ids."""
        first = self.emitted + 1
        self.emitted += count
        closed, reopened = (
            PeriodClosedData(through=NOW.date(), closed_by=words),
            PeriodReopenedData(through=NOW.date(), reopened_by="x", reason="y"),
        )
        said = closed if kind is EventType.PERIOD_CLOSED else reopened
        events = [DomainEvent(kind, "ledger", number, NOW, said) for number in range(first, self.emitted + 1)]
        with self.database.begin() as connection:
            emit(connection, tenant, events)
        return [event.id_of(tenant) for event in events]

    def known(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint as it is now."""
        with self.database.connect() as connection:
            found = store.endpoint(connection, endpoint.tenant, endpoint.id)
        assert found
        return found

    def states(self, endpoint: Endpoint) -> list[tuple[str, int]]:
        """State and attempts of its deliveries, the oldest event first."""
        with self.database.connect() as connection:
            found = store.deliveries(connection, endpoint.id, limit=1000)
        return [(each.state.value, each.attempts) for each in reversed(found)]

    def next_due(self) -> datetime | None:
        """When the next webhook is due."""
        with self.database.connect() as connection:
            return deliveries.next_due(connection)


def staged(database: sa.Engine, play: Callable[[Stage], Awaitable[None]], *, private_allowed: bool = True) -> None:
    """Play on a stage."""

    async def run() -> None:
        clock = Clock()
        sender = Sender(database, private_allowed=private_allowed, now=clock)
        async with receiving() as receiver, sender.running():
            await play(Stage(database, receiver, sender, clock))

    asyncio.run(run())


def answering(*statuses: int, **headers: str) -> Callable[[Received], web.Response]:
    """Answers with these statuses, one after the other; the last one for ever."""
    left = list(statuses)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=left.pop(0) if len(left) > 1 else left[0], headers=named, text="as told")
