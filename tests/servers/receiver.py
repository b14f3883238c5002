"""A receiver of webhooks: a real HTTP server on the loopback address, whose answers a test decides.

It verifies what arrives with the Standard Webhooks library, as a tenant would.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from standardwebhooks.webhooks import Webhook

Answer = web.Response | Callable[[], Awaitable[web.Response]]


@dataclass
class Received:
    """A webhook that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """Its id, the same each time it is sent."""
        return self.headers["webhook-id"]

    def event(self) -> Any:
        """What it says."""
        return json.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """Whether the library, at the instant of sending, would take it."""
        at = datetime.fromtimestamp(int(self.headers["webhook-timestamp"]), tz=UTC)
        signature = Webhook(secret).sign(self.id, at, self.body.decode())
        return signature in self.headers["webhook-signature"].split(" ")


@dataclass
class Receiver:
    """What arrived, and how each path answers; 204 where a test does not say."""

    url: str = ""
    received: list[Received] = field(default_factory=list)
    answers: dict[str, Callable[[Received], web.Response | Awaitable[web.Response]]] = field(default_factory=dict)
    at_once: Counter[str] = field(default_factory=Counter)
    at_once_max: Counter[str] = field(default_factory=Counter)

    def of(self, path: str) -> list[Received]:
        """What arrived at a path."""
        return [each for each in self.received if each.path == path]

    async def take(self, request: web.Request) -> web.Response:
        """Take a webhook."""
        one = Received(
            request.path, {name.lower(): value for name, value in request.headers.items()}, await request.read()
        )
        self.received.append(one)
        self.at_once[one.path] += 1
        self.at_once_max[one.path] = max(self.at_once_max[one.path], self.at_once[one.path])
        try:
            answer = self.answers.get(one.path, lambda _: web.Response(status=204))(one)
            return answer if isinstance(answer, web.Response) else await answer
        finally:
            self.at_once[one.path] -= 1


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver that listens."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
