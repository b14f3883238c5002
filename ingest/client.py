"""A client for services that send usage events over HTTP.

    with Client("http://127.0.0.1:8888", key="ml_...", source="/orders") as client:
        client.send({"type": "order.placed", "subject": "acme", "data": {"amount": Decimal("12.50")}})

`send` puts an event into a bounded buffer. A thread sends batches, and sends them again, with the same ids and times,
for as long as the client is open and the server has not acknowledged them. So a server may be away, restart or be
killed at any moment, and each event counts once. `flush` and `close` tell what is not acknowledged.

The buffer is in memory: when the client's own process dies, what it has not seen acknowledged is lost. Where that must
not be, keep the events with ids of your own until they are acknowledged, and send them again.

In asyncio, use it as it is: `send` takes microseconds with `full_wait_s=0`, and `flush` goes to a thread. A process
that forks makes its client after the fork. Owns no decision: `ingest/sending.py` says what an answer means.
"""

import json
import logging
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, Self

import httpx

from ingest.encoding import compressed
from ingest.sending import (
    Acknowledged,
    Again,
    Blocked,
    Refused,
    TooLarge,
    Verdict,
    backoff_s,
    batch_length,
    headers_of,
    line_of,
    verdict_of,
)

CLOSE_TIMEOUT_S = 30.0
JOIN_TIMEOUT_S = 1.0  # for the thread to end; one that waits for an answer ends later, and changes nothing any more

logger = logging.getLogger(__name__)


class ClientError(Exception):
    """An event was not taken by the client, or not by the server."""


class BufferFullError(ClientError):
    """The buffer has no room for the event. It was not taken."""


class BlockedError(ClientError):
    """The server refuses whatever this client sends: its key or its URL is wrong. The buffer keeps what it has."""


class NotAcknowledgedError(ClientError):
    """A client ended before the server had acknowledged these events. Sent again as they are, each counts once."""

    def __init__(self, events: Sequence[dict[str, Any]], fault: str | None) -> None:
        super().__init__(f"{len(events)} events are not acknowledged: {fault or 'the time was over'}")
        self.events = events


@dataclass(frozen=True)
class Rejection:
    """An event that the server refuses, and why."""

    event: dict[str, Any]
    reason: str
    detail: str


@dataclass(frozen=True)
class Counts:
    """What became of the events of `send`: sent = acknowledged + rejected + pending."""

    sent: int
    acknowledged: int
    rejected: int

    @property
    def pending(self) -> int:
        """Events that the server has not answered for yet."""
        return self.sent - self.acknowledged - self.rejected


def log_rejection(rejection: Rejection) -> None:
    """What is done with a rejected event if nothing else is wanted."""
    logger.error("event %s was rejected: %s: %s", rejection.event.get("id"), rejection.reason, rejection.detail)


class Client:
    """Sends usage events to a server of Meterline. Any thread may use it."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        source: str | None = None,
        on_rejected: Callable[[Rejection], None] = log_rejection,
        full_wait_s: float | None = None,
        encoding: Literal["zstd", "gzip", "identity"] = "zstd",
        batch_events_max: int = 1000,
        batch_bytes_max: int = 1 << 20,
        linger_s: float = 0.05,
        buffer_events_max: int = 100_000,
        buffer_bytes_max: int = 64 << 20,
        request_timeout_s: float = 10.0,
    ) -> None:
        """`source` is that of events without one; `linger_s` how long an event may wait for others of its batch.

        `full_wait_s` is how long `send` waits for room in the buffer: None as long as it takes, 0 not at all.
        `on_rejected` runs in the client's thread; it may `send`, and must not `flush` or `close`.
        """
        if httpx.URL(url).scheme not in {"http", "https"}:
            raise ValueError(f"url: {url}; allowed: a URL such as http://127.0.0.1:8888")
        self._url = f"{url.rstrip('/')}/api/v1/events"
        self._headers = headers_of(key, encoding)
        self._defaults = {"source": source} if source else {}
        self._on_rejected, self._full_wait_s, self._encoding = on_rejected, full_wait_s, encoding
        self._batch_events_max, self._batch_bytes_max, self._linger_s = batch_events_max, batch_bytes_max, linger_s
        self._buffer_events_max, self._buffer_bytes_max = buffer_events_max, buffer_bytes_max

        self._lines: deque[bytes] = deque()
        self._bytes = self._sent = self._acknowledged = self._rejected = 0
        self._limit = batch_events_max
        """Events of the next batch: halved by a batch that was too large, doubled by each that was not."""
        self._due_at_s = self._retry_at_s = 0.0
        self._failures = self._flushed = 0
        self._fault: str | None = None
        self._blocked = self._closing = self._stopped = False
        lock = threading.Lock()
        self._work, self._settled = threading.Condition(lock), threading.Condition(lock)
        self._http = httpx.Client(timeout=request_timeout_s)
        self._thread = threading.Thread(target=self._run, name="meterline-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close. Raises NotAcknowledgedError, or logs it where another error is on its way."""
        if left := self.close():
            error = NotAcknowledgedError(left, self._fault)
            if kind is None:
                raise error
            logger.error("%s", error)

    def send(self, event: Mapping[str, Any]) -> str:
        """Take an event into the buffer, and return its id; one without an id or a time gets them now, for good.

        Raises TypeError or ValueError for what is no JSON, BufferFullError, BlockedError, or ClientError once it is
        closed; in each case the event was not taken.
        """
        event_id = event.get("id") or str(uuid.uuid4())
        line = line_of({**self._defaults, **event, "id": event_id}, event_id, datetime.now(UTC))
        with self._settled:
            self._wait_for_room(len(line))
            if not self._lines:
                self._due_at_s = time.monotonic() + self._linger_s
            self._lines.append(line)
            self._bytes += len(line)
            self._sent += 1
            if len(self._lines) == 1 or self._has_batch():
                self._work.notify()
        return str(event_id)

    def flush(self, timeout_s: float | None = None) -> int:
        """Wait until the server has answered for all events sent before; how many it has not when the time is over.

        Raises BlockedError when it refuses whatever comes from here.
        """
        assert threading.current_thread() is not self._thread, "on_rejected may not wait for what waits for it"
        with self._settled:
            self._flushed = wanted = self._sent
            self._work.notify()
            self._settled.wait_for(lambda: self._unanswered(wanted) <= 0 or self._blocked or self._stopped, timeout_s)
            if self._unanswered(wanted) > 0 and self._blocked:
                raise BlockedError(f"{self._unanswered(wanted)} events wait: {self._fault}")
            return max(self._unanswered(wanted), 0)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> list[dict[str, Any]]:
        """Take no more events, send what there is, and return those that are not acknowledged within the time.

        They may be stored or not: sent again as they are, also by another client, each still counts once.
        """
        assert threading.current_thread() is not self._thread, "on_rejected may not wait for what waits for it"
        with self._settled:
            self._closing = True
            self._work.notify()
            self._settled.notify_all()
            self._settled.wait_for(lambda: not self._lines or self._blocked or self._stopped, timeout_s)
            if self._stopped:
                return []
            self._stopped = True
            left = [json.loads(line) for line in self._lines]
            self._work.notify()
            self._settled.notify_all()
        self._thread.join(JOIN_TIMEOUT_S if left else None)
        return left

    def use_key(self, key: str) -> None:
        """Go on with another key: what waits is sent with it at once."""
        with self._settled:
            self._headers = headers_of(key, self._encoding)
            self._blocked, self._failures, self._retry_at_s = False, 0, 0.0
            self._work.notify()

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        with self._settled:
            return Counts(self._sent, self._acknowledged, self._rejected)

    @property
    def fault(self) -> str | None:
        """Why the last request was not answered as it should; None when it was."""
        return self._fault

    def _wait_for_room(self, size: int) -> None:
        deadline_s = None if self._full_wait_s is None else time.monotonic() + self._full_wait_s
        while True:
            if self._closing or not self._thread.is_alive():
                raise ClientError("the client is closed, or its thread has stayed behind in the process before a fork")
            if self._blocked:
                raise BlockedError(f"the event was not taken: {self._fault}")
            fits = len(self._lines) < self._buffer_events_max and self._bytes + size <= self._buffer_bytes_max
            if fits or not self._lines:
                return
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if (left_s is not None and left_s <= 0) or threading.current_thread() is self._thread:
                raise BufferFullError(f"{len(self._lines)} events wait already; the last fault: {self._fault}")
            self._settled.wait(left_s)

    def _unanswered(self, sent: int) -> int:
        return sent - self._acknowledged - self._rejected

    def _has_batch(self) -> bool:
        return len(self._lines) >= self._limit or self._bytes >= self._batch_bytes_max

    def _run(self) -> None:
        with self._http:
            while batch := self._next_batch():
                self._apply(batch, self._post(batch))

    def _next_batch(self) -> list[bytes]:
        """Wait for a batch that is to be sent now. It stays in the buffer meanwhile. Empty at the end."""
        with self._work:
            while not self._stopped and (self._lines or not self._closing):
                now_s = time.monotonic()
                hurries = self._has_batch() or self._closing or self._unanswered(self._flushed) > 0
                due_at_s = max(self._retry_at_s, 0.0 if hurries else self._due_at_s)
                if self._lines and due_at_s <= now_s:
                    sizes = map(len, islice(self._lines, self._limit))
                    return list(islice(self._lines, batch_length(sizes, self._limit, self._batch_bytes_max)))
                self._work.wait(due_at_s - now_s if self._lines else None)
        return []

    def _post(self, batch: Sequence[bytes]) -> Verdict:
        headers = self._headers
        try:
            body = compressed(self._encoding, b"[%s]" % b",".join(batch))
            answer = self._http.post(self._url, content=body, headers=headers)
        except Exception as error:  # noqa: BLE001  whatever it is, the events have to be sent again
            return Again(f"no answer: {error!r}")
        verdict = verdict_of(answer.status_code, answer.headers, answer.content, len(batch), datetime.now(UTC))
        if isinstance(verdict, Blocked) and headers is not self._headers:  # that was the key of before
            return Again(verdict.detail)
        return verdict

    def _apply(self, batch: Sequence[bytes], verdict: Verdict) -> None:
        if isinstance(verdict, Refused) and not self._stopped:
            for index, fault in sorted(verdict.faults.items()):
                self._tell(Rejection(json.loads(batch[index]), fault.reason, fault.detail))
        with self._settled:
            if self._stopped:  # close() has given back what was open
                return
            match verdict:
                case Acknowledged():
                    self._leave(batch, {})
                    self._limit = min(self._limit * 2, self._batch_events_max)
                case Refused(faults):
                    self._leave(batch, faults)
                case TooLarge():
                    self._limit = max(len(batch) // 2, 1)
                case Again(detail, after_s):
                    self._fail(detail, after_s)
                case Blocked(detail):
                    self._blocked = True
                    self._fail(detail, 0.0)
            self._settled.notify_all()

    def _leave(self, batch: Sequence[bytes], faults: Mapping[int, object]) -> None:
        """Take a batch out of the buffer, or, if some of it is at fault, those events."""
        if self._fault:
            logger.info("the server takes events again")
        self._fault, self._failures, self._blocked = None, 0, False
        for _ in batch:
            self._bytes -= len(self._lines.popleft())
        rest = [line for index, line in enumerate(batch) if index not in faults] if faults else []
        self._lines.extendleft(reversed(rest))
        self._bytes += sum(map(len, rest))
        self._rejected += len(faults)
        self._acknowledged += len(batch) - len(faults) - len(rest)
        self._due_at_s = 0.0 if rest else time.monotonic() + self._linger_s

    def _fail(self, detail: str, after_s: float) -> None:
        if detail != self._fault:
            logger.warning("%d events wait and are sent again: %s", len(self._lines), detail)
        self._fault = detail
        self._failures += 1
        chance = random.random()  # noqa: S311  it spreads clients; nobody gains by guessing it
        self._retry_at_s = time.monotonic() + backoff_s(self._failures, after_s, chance)

    def _tell(self, rejection: Rejection) -> None:
        try:
            self._on_rejected(rejection)
        except Exception:
            logger.exception("on_rejected failed for the event %s", rejection.event.get("id"))
