"""A load generator for HTTP gateways: a process of its own, with as many connections as asked for.

    python -m benchmarks.http_load PORT --events 100000 --batch 500 --connections 8

Every connection sends its next request when the last one is answered. The bodies are made before the clock starts, and
an answer is not looked at beyond its status, so that the generator takes as little as it can of the cores it shares.
The last line on standard output is JSON: when it was, how many answers of each status, and the latencies.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import cast

import uvloop

from benchmarks.stream.payload import Payload

PATH = "/api/v1/events"
_HEAD = "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {type}\r\nContent-Length: {length}\r\n\r\n"
_NO_BODY = 204


def requests_of(payload: Payload, batch: int) -> Iterator[bytes]:
    """The payload as requests, whole in bytes: of `batch` events each, or, for 1, of a single event."""
    lines = (line for chunk in payload.chunks() for line in chunk)
    while events := list(islice(lines, batch)):
        body = events[0] if batch == 1 else b"[" + b",".join(events) + b"]"
        kind = "application/cloudevents+json" if batch == 1 else "application/cloudevents-batch+json"
        yield _HEAD.format(path=PATH, type=kind, length=len(body)).encode() + body


class Connection(asyncio.Protocol):
    """Sends one request after the other over one connection, until there are no more."""

    def __init__(self, requests: Iterator[bytes], statuses: Counter[int], latencies_s: list[float]) -> None:
        self._requests = requests
        self._statuses = statuses
        self._latencies_s = latencies_s
        self._received = b""
        self._sent_at_s = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first one."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class
        self._next()

    def data_received(self, data: bytes) -> None:
        """Send the next one when the answer is whole."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        status = int(head[9:12])
        if status != _NO_BODY:
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            if len(body) < length:
                return
        self._received = b""
        self._latencies_s.append(time.perf_counter() - self._sent_at_s)
        self._statuses[status] += 1
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; before the last answer that is a failure."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the connection was closed"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at_s = time.perf_counter()
        self._transport.write(request)


async def load(port: int, requests: list[bytes], connections: int) -> dict[str, object]:
    """Send the requests; what came of it."""
    statuses: Counter[int] = Counter()
    latencies_s: list[float] = []
    waiting = iter(requests)
    loop = asyncio.get_running_loop()
    started_at = time.time()
    opened = [
        await loop.create_connection(lambda: Connection(waiting, statuses, latencies_s), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in opened))
    ended_at = time.time()
    latencies_s.sort()
    return {
        "started_at": started_at,
        "ended_at": ended_at,
        "statuses": dict(statuses),
        "p50_ms": round(1000 * latencies_s[len(latencies_s) // 2], 2),
        "p99_ms": round(1000 * latencies_s[len(latencies_s) * 99 // 100], 2),
        "max_ms": round(1000 * latencies_s[-1], 2),
    }


def main() -> None:
    """Make the bodies, wait for a line on standard input, send them, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    requests = list(requests_of(Payload(options.events, seed=options.seed), options.batch))
    print("ready", flush=True)
    input()
    print(json.dumps(uvloop.run(load(options.port, requests, options.connections))), flush=True)


if __name__ == "__main__":
    main()
