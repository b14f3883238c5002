"""Sends webhooks: takes what is due, asks each endpoint over HTTP, and notes the answers.

Owns that a slow endpoint holds up nobody else (each has a bounded number of requests of its own), that nothing is sent
but to the address that was checked, and that what was answered is noted before it counts. Killed at any moment, it has
lost nothing: what was in its hands is due again, and its receivers may see an event twice.
"""

import asyncio
import errno
import logging
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import sqlalchemy as sa
from aiohttp import AddrInfoType
from yarl import URL

from invoicing.deliveries import store
from invoicing.deliveries.metrics import ATTEMPT_SECONDS, ATTEMPTS, IN_HAND
from invoicing.outbox import store as outbox
from invoicing.webhooks.addresses import is_public, url_fault
from invoicing.webhooks.retries import CONCURRENCY, Attempt, paused_until, retry_after_s
from invoicing.webhooks.signatures import signed_headers
from schemas.domain_event import StoredEvent

BODY_BYTES_MAX = 20_000
EVENT_LINK = "/api/v1/billing/events/{}"
TIMEOUT_S = 15  # for all of a request; its receiver should answer at once and work afterwards
CONNECT_TIMEOUT_S = 5
ANSWER_BYTES_MAX = 2_000  # that are read
ANSWER_LENGTH_MAX = 500  # that are kept
IN_HAND_MAX = 1_000
POLL_INTERVAL = timedelta(milliseconds=500)
AWAY_INTERVAL = timedelta(seconds=2)
GATHER_INTERVAL = timedelta(milliseconds=10)  # that the first of many answers waits for others

logger = logging.getLogger(__name__)


class RefusedAddressError(OSError):
    """An endpoint's name leads to an address that is not the internet's."""


class Sender:
    """Sends webhooks, while `running`. `now` is the clock that the schedule follows."""

    def __init__(
        self,
        database: sa.Engine,
        *,
        private_allowed: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._database = database
        self._private_allowed = private_allowed
        self._now = now
        self._http: aiohttp.ClientSession | None = None
        self._in_hand: dict[asyncio.Task[Attempt | None], store.Claimed] = {}
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._left_alone: dict[str, datetime] = {}
        """Until when endpoints get nothing of what is in hand for them, because they just said so."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """What it sends with. At the end, what is still in its hands is given back, to be sent by somebody else."""
        connector = aiohttp.TCPConnector(limit=0, socket_factory=self._socket)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        self._http = aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            headers={"User-Agent": "Meterline-Webhooks/1", "Content-Type": "application/json"},
        )  # fmt: skip
        try:
            yield
        finally:
            unsent = dict(self._in_hand)
            for task in unsent:
                task.cancel()
            await asyncio.gather(*unsent, return_exceptions=True)
            await self._http.close()
            await asyncio.to_thread(self._give_back, list(unsent.values()))
            self._in_hand.clear()

    async def run(self) -> None:
        """Send what comes due, until cancelled. While PostgreSQL is away, it waits for it."""
        while True:
            try:
                moved = await self.turn()
            except sa.exc.DBAPIError as error:
                logger.warning("webhooks wait for PostgreSQL: %s", type(error).__name__)
                await asyncio.sleep(AWAY_INTERVAL.total_seconds())
                continue
            if self._in_hand:
                await self._some_done(POLL_INTERVAL)
            elif not moved:
                await asyncio.sleep(POLL_INTERVAL.total_seconds())

    async def send_due(self) -> int:
        """Send all that is due now, also what comes due by it; returns how many attempts were made."""
        made = 0
        while await self.turn() or self._in_hand:
            made += await self._some_done(None)
        return made

    async def turn(self) -> bool:
        """Note the answers that came, make deliveries of new events, and begin what is due; whether anything moved."""
        done = {task: claimed for task, claimed in self._in_hand.items() if task.done()}
        waiting = Counter(claimed.endpoint_id for task, claimed in self._in_hand.items() if task not in done)
        results = [(claimed, task.result()) for task, claimed in done.items()]
        answers = [(claimed, attempt) for claimed, attempt in results if attempt]
        unsent = [claimed for claimed, attempt in results if not attempt]
        turning = asyncio.create_task(asyncio.to_thread(self._turn, answers, unsent, waiting))
        try:
            moved, claims = await asyncio.shield(turning)
        except asyncio.CancelledError:  # the thread goes on all the same, and what it claims would wait for its lease
            _, claims = await turning
            self._forget(done)
            await asyncio.to_thread(self._give_back, claims)
            raise
        self._forget(done)
        self._left_alone = {each: until for each, until in self._left_alone.items() if each in waiting}
        for claimed in claims:
            self._in_hand[asyncio.create_task(self._attempt(claimed))] = claimed
        IN_HAND.set(len(self._in_hand))
        return moved or bool(claims)

    def _forget(self, done: Iterable[asyncio.Task[Attempt | None]]) -> None:
        for task in done:
            del self._in_hand[task]

    def _turn(
        self, done: list[tuple[store.Claimed, Attempt]], unsent: list[store.Claimed], waiting: Counter[str]
    ) -> tuple[bool, list[store.Claimed]]:
        now, looked_at = self._now(), 0
        with self._database.connect() as connection:
            behind = outbox.behind(connection, store.CONSUMER)
        for tenant in behind:
            with self._database.begin() as connection:
                looked_at += store.fan_out(connection, tenant, now=now)
        with self._database.begin() as connection:  # one commit for both: it is what a turn waits for
            store.record(connection, done, now=now)
            store.release(connection, unsent, now=now)
            claims = store.claim(connection, waiting, IN_HAND_MAX - waiting.total(), now=now)
        return bool(done) or looked_at > 0, claims

    def _give_back(self, claims: list[store.Claimed]) -> None:
        try:
            with self._database.begin() as connection:
                store.release(connection, claims, now=self._now())
        except sa.exc.DBAPIError as error:
            logger.warning("%d webhooks wait for the end of their lease: %s", len(claims), type(error).__name__)

    async def _some_done(self, within: timedelta | None) -> int:
        """Wait for an answer at least; returns how many are there. Answers that come together are noted together."""
        if not self._in_hand:
            return 0
        timeout = within.total_seconds() if within else None
        await asyncio.wait(self._in_hand, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if len(self._in_hand) > CONCURRENCY:
            await asyncio.sleep(GATHER_INTERVAL.total_seconds())
        return len([task for task in self._in_hand if task.done()])

    async def _attempt(self, claimed: store.Claimed) -> Attempt | None:
        """Send a webhook when it is its turn; None when the endpoint wants to be left alone by then."""
        turns = self._turns.setdefault(claimed.endpoint_id, asyncio.Semaphore(CONCURRENCY))
        async with turns:
            at, started_ns = self._now(), time.monotonic_ns()
            if at < self._left_alone.get(claimed.endpoint_id, at):
                return None
            try:
                status, wait_s, answer = await self._ask(claimed, at)
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                status, wait_s, answer = None, None, f"{type(error).__name__}: {error}"
            duration_ms = (time.monotonic_ns() - started_ns) // 1_000_000
            attempt = Attempt(at, status, wait_s, duration_ms, _kept(answer))
            ATTEMPTS.labels(attempt.outcome.value).inc()
            ATTEMPT_SECONDS.observe(duration_ms / 1000)
            if until := paused_until(attempt, at):
                self._left_alone[claimed.endpoint_id] = until
            return attempt

    async def _ask(self, claimed: store.Claimed, at: datetime) -> tuple[int, int | None, str]:
        assert self._http
        if fault := url_fault(claimed.url, private_allowed=self._private_allowed):
            raise RefusedAddressError(errno.EACCES, fault)
        body = body_of(claimed.event)
        headers = signed_headers(claimed.event.id, int(at.timestamp()), body, claimed.secrets)
        url = URL(claimed.url, encoded=True)
        async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            begins = bytearray()
            async for part in answer.content.iter_any():
                begins += part
                if len(begins) >= ANSWER_BYTES_MAX:
                    break
            return answer.status, retry_after_s(answer.headers.get("retry-after")), begins.decode(errors="replace")

    def _socket(self, address: AddrInfoType) -> socket.socket:
        """A socket for the very address that is connected to next: what the name led to before does not matter."""
        family, kind, protocol, _, where = address
        if not self._private_allowed and not is_public(str(where[0])):
            raise RefusedAddressError(errno.EACCES, f"{where[0]} is no address of the internet")
        return socket.socket(family, kind, protocol)


def body_of(event: StoredEvent) -> bytes:
    """What is sent of an event: all of it, or, where that is too long, where it can be read."""
    body = event.body()
    return body if len(body) < BODY_BYTES_MAX else event.thin_body(EVENT_LINK.format(event.id))


def _kept(answer: str) -> str:
    """How an answer begins, as PostgreSQL and a terminal can take it."""
    return "".join(each if each.isprintable() else " " for each in answer[:ANSWER_LENGTH_MAX])
