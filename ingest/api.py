"""The HTTP gateway: a 2xx is sent only after the log has confirmed the events.

Requests that arrive while the log is committing share the next commit (group commit), so throughput grows with load and
a lone request waits for nobody. A full queue answers 503 with Retry-After: nothing is acknowledged and lost.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import orjson
from prometheus_client import Counter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.pack import pack
from ingest.request import Accepted, RefusedError, events_of
from schemas.log import DEFAULT_TENANT, Limits

BODY_BYTES_MAX = 16 << 20
QUEUE_BYTES_MAX = 64 << 20
RETRY_AFTER_S = 1

EVENTS_ACCEPTED = Counter("meterline_gateway_events_accepted_total", "Events acknowledged: they are in the log")
REQUESTS_REFUSED = Counter("meterline_gateway_requests_refused_total", "Requests refused as a whole", ["status"])

logger = logging.getLogger(__name__)


@dataclass
class _Waiting:
    events: Accepted
    size: int
    done: asyncio.Future[None]


@dataclass
class GroupCommit:
    """Gathers the events of concurrent requests into one append. `run` must be running."""

    append: Callable[[list[tuple[int, bytes]]], None]
    partitions: int
    fault: str | None = None
    """Why the log did not take the last group; None when it did."""
    _waiting: list[_Waiting] = field(default_factory=list)
    _queued_bytes: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def commit(self, events: Accepted) -> None:
        """Return once the events are durable. Raises RefusedError 503 when the queue is full or the log is away."""
        size = sum(map(len, events.lines))
        if self._waiting and self._queued_bytes + size > QUEUE_BYTES_MAX:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the log is behind; nothing was stored; try again")
        waiting = _Waiting(events, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._queued_bytes += size
        self._wake.set()
        await waiting.done

    async def run(self) -> None:
        """Commit what is waiting, again and again, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting, self._queued_bytes = self._waiting, [], 0
            lines = [line for waiting in group for line in waiting.events.lines]
            keys = [key for waiting in group for key in waiting.events.keys]
            try:
                await asyncio.to_thread(self.append, pack(lines, keys, self.partitions))
            except Exception as error:  # whatever the log's driver raises, the clients must hear of it
                logger.exception("the log did not take %d events", len(lines))
                self.fault = f"the log is away: {error!r}"
                refused = RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the log is away; try again")
                refused.__cause__ = error
                _answer(group, refused)
            else:
                self.fault = None
                EVENTS_ACCEPTED.inc(len(lines))
                _answer(group, None)


def _answer(group: list[_Waiting], refused: RefusedError | None) -> None:
    for waiting in group:
        if waiting.done.done():  # the client went away; its events are stored all the same
            continue
        if refused:
            waiting.done.set_exception(refused)
        else:
            waiting.done.set_result(None)


def routes(group_commit: GroupCommit, limits: Limits) -> list[Route]:
    """The gateway's routes."""

    async def ingest(request: Request) -> Response:
        try:
            body = await _body(request)
            content_type = request.headers.get("content-type", "")
            events = await asyncio.to_thread(events_of, content_type, body, DEFAULT_TENANT, limits)
            await group_commit.commit(events)
        except RefusedError as refused:
            return problem_response(refused)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return [Route("/api/v1/events", ingest, methods=["POST"])]


def problem_response(refused: RefusedError) -> Response:
    """A refusal as application/problem+json."""
    REQUESTS_REFUSED.labels(refused.status.value).inc()
    away = refused.status is HTTPStatus.SERVICE_UNAVAILABLE
    return Response(
        orjson.dumps(refused.problem(f"urn:request:{uuid.uuid4().hex}")),
        status_code=refused.status,
        media_type="application/problem+json",
        headers={"Retry-After": str(RETRY_AFTER_S)} if away else None,
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            detail = f"the body has more than {BODY_BYTES_MAX} bytes; send fewer events a request"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail)
    return bytes(body)
