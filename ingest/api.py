"""The HTTP gateway: a 2xx is sent only after the log has confirmed the events.

Requests that wait at the same time share an append (group commit), so throughput grows with load. While the log is away
every request is answered 503 with Retry-After at once, and the gateway itself finds out when the log is back; whatever
happens, a request is answered within ANSWER_TIMEOUT_S of its last byte. Nothing is acknowledged and lost.
"""

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.encoding import ENCODINGS
from ingest.metrics import (
    APPEND_SECONDS,
    EVENTS_ACCEPTED,
    EVENTS_REFUSED,
    GROUP_EVENTS,
    LOG_AWAY,
    QUEUE_BYTES,
    RECEIVED_BYTES,
    REQUESTS_REFUSED,
)
from ingest.pack import pack
from ingest.rate_limit import RateLimits
from ingest.request import (
    BODY_BYTES_MAX,
    Accepted,
    Refusal,
    RefusedError,
    encoding_of,
    events_of,
    plain_body,
    too_large,
)
from schemas.api_key import Access
from schemas.log import Flush, Limits
from stores.log import Log

GATHER_S = 0.002  # that the first request of a group waits for others
GROUP_BYTES_MAX = 8 << 20  # what a log that is slow still takes within its time
QUEUE_BYTES_MAX = 64 << 20
BODIES_BYTES_MAX = 256 << 20  # of all requests that are being received or checked
INLINE_BYTES_MAX = 256 << 10  # of a body that is checked at once; a larger one would hold the others up
ANSWER_TIMEOUT_S = 6.0
BODY_TIMEOUT_S = 30.0
WATCH_INTERVAL_S = 2.0
RETURN_INTERVAL_S = 0.5
RETRY_AFTER_S = 1

logger = logging.getLogger(__name__)


class Appender(Protocol):
    """A log as the gateway needs it. Each call ends within seconds, and raises when the log is away."""

    async def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records; on return they are durable."""

    async def check(self) -> None:
        """Ask whether the log is there, and write nothing."""

    async def prove(self) -> None:
        """Show that the log takes records, with one that changes nothing."""


class ThreadedLog:
    """A log whose calls block, as an Appender."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records; on return they are durable."""
        await asyncio.to_thread(self._log.append, records)

    async def check(self) -> None:
        """Ask whether the log is there, and write nothing."""
        await asyncio.to_thread(self._log.newest_config)

    async def prove(self) -> None:
        """Show that the log takes records, with one that changes nothing."""
        await asyncio.to_thread(self._log.punctuate, Flush())


@dataclass
class _Waiting:
    events: Accepted
    size: int
    done: asyncio.Future[None]


class GroupCommit:
    """Gathers the events of concurrent requests into one append after the other, while `running`."""

    def __init__(self, log: Appender, partitions: int) -> None:
        self._log = log
        self._partitions = partitions
        self.fault: str | None = None
        """Why the log does not take events now, as far as we know; None when it does."""
        self._waiting: deque[_Waiting] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()
        self._confirmed_at_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit what is waiting, and watch the log, until the end. It begins once the log has answered, or has not."""
        await self._look()
        tasks = [asyncio.create_task(self._commit()), asyncio.create_task(self._watch())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def commit(self, events: Accepted) -> None:
        """Return once the events are durable. Raises RefusedError 503 when the queue is full or the log is away."""
        size = sum(map(len, events.lines))
        if self.fault:
            raise _away()
        if self._waiting and self._queued_bytes + size > QUEUE_BYTES_MAX:
            raise _unavailable(Refusal.BUSY, "the log is behind; nothing was stored; try again")
        waiting = _Waiting(events, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._queue(size)
        self._wake.set()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await waiting.done
        except TimeoutError:
            raise _unconfirmed() from None

    async def _commit(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(GATHER_S)
            group = self._next_group()
            if not self._waiting:
                self._wake.clear()
            if not group:
                continue
            lines = [line for waiting in group for line in waiting.events.lines]
            keys = [key for waiting in group for key in waiting.events.keys]
            started_s = time.perf_counter()
            try:
                await self._log.append(pack(lines, keys, self._partitions))
            except Exception as error:  # noqa: BLE001  whatever the log's driver raises, the clients must hear of it
                self._is_away(error, len(lines))
                _answer(group, _unconfirmed)
            else:
                self._confirmed_at_s = time.monotonic()
                EVENTS_ACCEPTED.inc(len(lines))
                _answer(group, None)
            APPEND_SECONDS.observe(time.perf_counter() - started_s)
            GROUP_EVENTS.observe(len(lines))

    def _next_group(self) -> list[_Waiting]:
        """What has waited longest, as far as it fits in a group; not those who do not wait any more."""
        group: list[_Waiting] = []
        size = 0
        while self._waiting and (not group or size + self._waiting[0].size <= GROUP_BYTES_MAX):
            waiting = self._waiting.popleft()
            self._queue(-waiting.size)
            if not waiting.done.done():
                group.append(waiting)
                size += waiting.size
        return group

    def _queue(self, size: int) -> None:
        self._queued_bytes += size
        QUEUE_BYTES.set(self._queued_bytes)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(RETURN_INTERVAL_S if self.fault else WATCH_INTERVAL_S)
            await self._look()

    async def _look(self) -> None:
        """Find out whether the log is there, where no append has told lately. After a fault, only a write tells."""
        asked_at_s = time.monotonic()
        if not self.fault and asked_at_s - self._confirmed_at_s < WATCH_INTERVAL_S:
            return
        try:
            await (self._log.prove() if self.fault else self._log.check())
        except Exception as error:  # noqa: BLE001  as above
            if self._confirmed_at_s < asked_at_s:
                self._is_away(error, 0)
            return
        if self.fault:
            logger.warning("the log is back")
        self.fault = None
        LOG_AWAY.set(0)

    def _is_away(self, error: Exception, events: int) -> None:
        if not self.fault or events:
            logger.error("the log is away, %d events of requests are not confirmed: %r", events, error)
        self.fault = f"the log is away: {error!r}"
        LOG_AWAY.set(1)
        while self._waiting:
            _answer(self._next_group(), _away)


def _unavailable(refusal: Refusal, detail: str) -> RefusedError:
    return RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, detail, refusal)


def _away() -> RefusedError:
    return _unavailable(Refusal.LOG_AWAY, "the log is away; nothing was stored; try again")


def _unconfirmed() -> RefusedError:
    detail = "the log did not confirm the events, and may have them or not; send them again with the same ids"
    return _unavailable(Refusal.LOG_AWAY, detail)


def _answer(group: list[_Waiting], refusal: Callable[[], RefusedError] | None) -> None:
    for waiting in group:
        if waiting.done.done():  # the client waits no longer; its events are stored all the same
            continue
        if refusal:
            waiting.done.set_exception(refusal())
        else:
            waiting.done.set_result(None)


class _Gateway:
    """Receives requests and checks them, with a bound on the bytes that they hold meanwhile."""

    def __init__(self, group_commit: GroupCommit, limits: Callable[[], Limits], rates: RateLimits) -> None:
        self._group_commit = group_commit
        self._limits = limits
        self._rates = rates
        self._held_bytes = 0
        self._checker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="check")

    async def ingest(self, request: Request) -> Response:
        """Answer a request. Its tenant is that of its key, as whoever let it in says."""
        access: Access = request.state.access
        try:
            self._rates.take(access.tenant, access.events_per_second, 0)  # before its body costs anything
            events = await self._events(request, access.tenant)
            self._rates.take(access.tenant, access.events_per_second, len(events.lines))
            await self._group_commit.commit(events)
        except RefusedError as refused:
            return problem_response(refused)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _events(self, request: Request, tenant: str) -> Accepted:
        encoding = encoding_of(request.headers.get("content-encoding", ""))
        content_type = request.headers.get("content-type", "")
        body = bytearray()
        try:
            await self._receive(request, body)
            if encoding is None and len(body) <= INLINE_BYTES_MAX:
                return events_of(content_type, bytes(body), tenant, self._limits())
            return await asyncio.get_running_loop().run_in_executor(
                self._checker, _events_of, content_type, encoding, bytes(body), tenant, self._limits()
            )
        finally:
            self._held_bytes -= len(body)

    async def _receive(self, request: Request, body: bytearray) -> None:
        """Add the request's body to `body`, byte by byte as it comes. Raises RefusedError."""
        if int(request.headers.get("content-length", 0)) > BODY_BYTES_MAX:
            raise too_large()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.stream():
                    body += chunk
                    self._held_bytes += len(chunk)
                    RECEIVED_BYTES.inc(len(chunk))
                    if len(body) > BODY_BYTES_MAX:
                        raise too_large()
                    if self._held_bytes > BODIES_BYTES_MAX:
                        raise _unavailable(Refusal.BUSY, "too many bodies at once; nothing was stored; try again")
        except TimeoutError:
            detail = f"the body did not come within {BODY_TIMEOUT_S:.0f} s"
            raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, detail, Refusal.SLOW) from None
        except ClientDisconnect:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the client hung up", Refusal.HUNG_UP) from None


def _events_of(content_type: str, encoding: str | None, body: bytes, tenant: str, limits: Limits) -> Accepted:
    return events_of(content_type, plain_body(encoding, body), tenant, limits)


def routes(group_commit: GroupCommit, limits: Callable[[], Limits], rates: RateLimits) -> list[Route]:
    """The gateway's routes. `limits` are asked for with every request."""
    return [Route("/api/v1/events", _Gateway(group_commit, limits, rates).ingest, methods=["POST"])]


_HEADERS: dict[HTTPStatus, dict[str, str]] = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(RETRY_AFTER_S)},
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {"Accept-Encoding": ", ".join(sorted(ENCODINGS))},
    HTTPStatus.REQUEST_TIMEOUT: {"Connection": "close"},
}


def problem_response(refused: RefusedError) -> Response:
    """A refusal as application/problem+json."""
    REQUESTS_REFUSED.labels(refused.status.value, refused.refusal.value).inc()
    for reason, count in refused.reasons.items():
        EVENTS_REFUSED.labels(reason).inc(count)
    return Response(
        orjson.dumps(refused.problem(f"urn:request:{uuid.uuid4().hex}")),
        status_code=refused.status,
        media_type="application/problem+json",
        headers={**_HEADERS.get(refused.status, {}), **refused.headers},
    )
