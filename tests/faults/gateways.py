"""Gateways as processes, and clients that send to them all the time and keep every answer."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import httpx

from stores.servers import Servers
from tests.faults.conftest import PARTITIONS, event
from tests.oracles.topic import read_topic
from tests.servers import plain_http
from tests.servers.kafka import free_port

SINGLE = {"Content-Type": "application/cloudevents+json"}
BATCH = {"Content-Type": "application/cloudevents-batch+json"}
ANSWER_S = 6.5  # what the gateway promises, and what a busy machine takes


@dataclass
class Gateway:
    """A gateway of a deployment, as a process."""

    servers: Servers
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    options: Sequence[str] = ()

    @property
    def url(self) -> str:
        """Where events go."""
        return f"http://127.0.0.1:{self.port}/api/v1/events"

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        environment = {
            **os.environ, "METERLINE_KAFKA": self.servers.kafka, "METERLINE_TOPIC": self.servers.topic,
            "METERLINE_CLICKHOUSE": self.servers.clickhouse, "METERLINE_POSTGRES": self.servers.postgres,
        }  # fmt: skip
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "meterline", "gateway", "--port", str(self.port), *self.options],
                env=environment, stdout=output, stderr=output,
            )  # fmt: skip
        self.wait_for(lambda: self.get("/healthz")[0] == 200)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to its process."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self, timeout_s: float = 30) -> int:
        """Wait for its end; the exit status."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def get(self, page: str) -> tuple[int, str]:
        """The status and the body of a page; 0 where nobody answers."""
        try:
            answer = plain_http.get(f"http://127.0.0.1:{self.port}{page}", timeout=5)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text

    def metric(self, name: str) -> float:
        """A metric's value, named with its labels; 0 where it is not there."""
        values = [line.split(" ")[-1] for line in self.get("/metrics")[1].splitlines() if line.startswith(f"{name} ")]
        return float(values[0]) if values else 0.0

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 30) -> float:
        """Wait until something holds; how many seconds that took."""
        started_s = time.monotonic()
        while not condition():
            assert time.monotonic() - started_s < timeout_s, self.log.read_text()[-4000:]
            time.sleep(0.05)  # there is no event: the state is another process's
        return time.monotonic() - started_s


@dataclass(frozen=True)
class Answer:
    """What became of a request; status 0 where there was no answer."""

    numbers: Sequence[int]
    sent_at_s: float
    seconds: float
    status: int
    headers: httpx.Headers
    text: str


class Load(threading.Thread):
    """Clients that each send a request after the other, of one event and of fifty in turn, in the `with` block.

    With `retry`, a client sends the same events again until they are acknowledged, as clients should.
    """

    def __init__(self, *gateways: Gateway, clients: int = 8, first: int = 0, retry: bool = False) -> None:
        super().__init__(daemon=True)
        self._gateways = gateways
        self._clients = clients
        self._next = first
        self._retry = retry
        self._enough = threading.Event()
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join(60)
        assert not self.is_alive()

    def run(self) -> None:
        """Send until it is enough."""
        asyncio.run(self._send_all())

    def numbers(self, status: int) -> set[int]:
        """The events of all requests that were answered so."""
        return {number for answer in list(self.answers) if answer.status == status for number in answer.numbers}

    def wait_for_answers(self, count: int, status: int = 204, timeout_s: float = 60) -> None:
        """Wait for so many more answers of a status."""
        before, deadline_s = len(self.answers), time.monotonic() + timeout_s
        while sum(answer.status == status for answer in self.answers[before:]) < count:
            assert time.monotonic() < deadline_s, self.answers[-3:]
            time.sleep(0.02)  # the answers come from another thread's loop

    async def _send_all(self) -> None:
        await asyncio.gather(*(self._send(client) for client in range(self._clients)))

    async def _send(self, client: int) -> None:
        url = self._gateways[client % len(self._gateways)].url
        count = 50 if client % 2 else 1
        numbers: Sequence[int] = ()
        async with httpx.AsyncClient(timeout=30, verify=False) as connection:
            while not self._enough.is_set():
                if not numbers:
                    numbers = range(self._next, self._next + count)
                    self._next += count
                body = b"[" + b",".join(event(number) for number in numbers) + b"]"
                answer = await send(connection, url, body, numbers)
                self.answers.append(answer)
                if answer.status == 204 or not self._retry:
                    numbers = ()
                if answer.status != 204:
                    await asyncio.sleep(0.05)


async def send(connection: httpx.AsyncClient, url: str, body: bytes, numbers: Sequence[int] = ()) -> Answer:
    """Send a batch; what became of it."""
    sent_at_s = time.monotonic()
    try:
        response = await connection.post(url, content=body, headers=BATCH)
    except httpx.TransportError as error:
        return Answer(numbers, sent_at_s, time.monotonic() - sent_at_s, 0, httpx.Headers(), repr(error))
    seconds = time.monotonic() - sent_at_s
    return Answer(numbers, sent_at_s, seconds, response.status_code, response.headers, response.text)


def numbers_in_topic(servers: Servers) -> list[int]:
    """The number of every event in the topic, copies included."""
    records = read_topic(servers.kafka, servers.topic, PARTITIONS)
    values = [record.value for own in records.values() for record in own if record.value is not None]
    return [int(json.loads(line)["id"]) for value in values for line in value.split(b"\n")]


def assert_refusals_are_in_order(answers: Sequence[Answer]) -> int:
    """Every answer is an acknowledgement or a 503 within the bound that says when to try again; how many 503s."""
    refusals = [answer for answer in answers if answer.status != 204]
    for answer in refusals:
        assert answer.status == 503, answer
        assert answer.seconds < ANSWER_S, answer
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["content-type"] == "application/problem+json"
        assert json.loads(answer.text)["extensions"] == {}
    return len(refusals)
