"""`ingest.client` against a live `meterline serve`: killed under load, with keys, rates and refusals, and its example."""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest.client import BlockedError, Client, Counts, Rejection
from tests.e2e.conftest import Server
from tests.servers.kafka import free_port

DOCUMENT = (Path(__file__).parents[2] / "docs" / "producing.md").read_text(encoding="utf-8")


def call(number: int, **fields: Any) -> dict[str, Any]:
    """A usage event of January 2013, without an id."""
    data = {"bytes": Decimal(number) + Decimal("0.000000001"), "region": "eu"}
    return {"type": "call", "subject": f"s{number % 7}", "time": "2013-01-31T10:00:00Z", "data": data, **fields}


class Service(threading.Thread):
    """Sends an event after the other, without ever asking what became of them."""

    def __init__(self, client: Client, first: int) -> None:
        super().__init__(daemon=True)
        self._client, self._numbers = client, count(first)
        self.sent: list[int] = []
        self._enough = threading.Event()

    def run(self) -> None:
        """Send until it is enough."""
        while not self._enough.wait(0.0005):
            number = next(self._numbers)
            self._client.send(call(number))
            self.sent.append(number)

    def stop(self) -> None:
        """It is enough."""
        self._enough.set()
        self.join(60)
        assert not self.is_alive()


def wait_for_acknowledgements(client: Client, more: int) -> None:
    """Wait until the server has acknowledged so many more events."""
    wanted, deadline_s = client.counts.acknowledged + more, time.monotonic() + 60
    while client.counts.acknowledged < wanted:
        assert time.monotonic() < deadline_s, client.fault
        time.sleep(0.01)  # there is no event: the client's user need not know


def test_a_server_that_comes_late_and_is_killed_again_and_again_loses_nothing(server: Server) -> None:
    """Two services send before there is a server, and through kill -9 and restart: each event counts once."""
    port = str(free_port())
    with Client(f"http://127.0.0.1:{port}", source="/test", batch_events_max=50) as client:
        services = [Service(client, first) for first in (0, 1_000_000)]
        for service in services:
            service.start()
        while client.fault is None:
            time.sleep(0.01)  # until the client has found nobody there
        server.start("--port", port)
        for more in (500, 900):
            wait_for_acknowledgements(client, more)
            server.kill()
            assert client.flush(0.3) > 0  # what was sent meanwhile waits, and flush says so
            server.start("--port", port)
        wait_for_acknowledgements(client, 500)
        for service in services:
            service.stop()
        assert client.flush(60) == 0
        numbers = [number for service in services for number in service.sent]
        assert client.counts == Counts(sent=len(numbers), acknowledged=len(numbers), rejected=0)
    assert "faults" not in server.run("audit")
    for meter, wanted in (("calls", len(numbers)), ("bytes", sum(numbers) + len(numbers) * Decimal("0.000000001"))):
        answer = httpx.get(f"{server.url}/api/v1/meters/{meter}/query?decimals=string", timeout=30).json()
        assert [Decimal(row["value"]) for row in answer["data"]] == [wanted]


@dataclass(frozen=True)
class Keyed:
    """A server that asks for keys, and lets a tenant send 500 events a second; and a key for everything."""

    server: Server
    key: str

    @property
    def url(self) -> str:
        """Where it is."""
        return self.server.url

    def ask(self, method: str, path: str, **request: Any) -> Any:
        """What it answers."""
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=30, **request).json()

    def wait_for_usage(self, subject: str, meter: str, wanted: Decimal | int) -> None:
        """Wait until a subject's usage is this, and no more."""
        deadline_s = time.monotonic() + 60
        while True:
            answer = self.ask("GET", f"/api/v1/meters/{meter}/query?decimals=string&subject={subject}")
            found = sum((Decimal(row["value"]) for row in answer["data"]), Decimal(0))
            if found == wanted:
                return
            assert found < wanted
            assert time.monotonic() < deadline_s, found
            time.sleep(0.05)  # there is no event: the worker is in another process


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys that runs."""
    folder = tmp_path_factory.mktemp("client")
    for each in (folder, folder.parent):
        each.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    server = Server(folder / "data")
    server.directory.mkdir()
    try:
        key = server.run("keys", "create", "--scope", "ingest,query,admin").strip()
        server.start("--keys", "--rate-limit", "500")
        yield Keyed(server, key)
    finally:
        server.end()


def test_a_key_that_does_not_open_surfaces_and_another_one_does(keyed: Keyed) -> None:
    """No key, a bad one, and one for something else; what a client gives back fits the next, and counts once."""
    query_only = keyed.ask("POST", "/api/v1/keys", json={"scopes": ["query"]})["key"]
    events = [call(number, subject="blocked") for number in range(3)]
    for key, said in [
        (None, "401 Unauthorized: a key is needed"),
        ("ml_bad", "401 Unauthorized: .* holds no key"),
        (query_only, "403 Forbidden: .* has not the scope ingest"),
    ]:
        client = Client(keyed.url, key, source="/test")
        for event in events:
            client.send(event)
        with pytest.raises(BlockedError, match=f"3 events wait: {said}"):
            client.flush(30)
        events = client.close()
        assert len({event["id"] for event in events}) == 3
    with Client(keyed.url, query_only) as client:
        for event in events:
            client.send(event)
        with pytest.raises(BlockedError):
            client.flush(30)
        client.use_key(keyed.key)
        assert client.flush(30) == 0
    keyed.wait_for_usage("blocked", "calls", 3)


def test_rejected_events_in_the_middle_are_named_and_the_rest_counts(keyed: Keyed) -> None:
    """Of every kind that only the server can judge; the counts add up."""
    rejected: list[Rejection] = []
    bad = {3: {"type": None}, 10: {"time": "1970-01-01T00:00:00Z"}, 11: {"tenant": "other"}, 19: {"data": [1]}}
    with Client(keyed.url, keyed.key, source="/test", linger_s=30, on_rejected=rejected.append) as client:
        for number in range(40):
            client.send(call(number, **{"id": str(number), "subject": "rejects", **bad.get(number, {})}))
    assert [(each.event["id"], each.reason) for each in rejected] == [
        ("3", "missing_field"), ("10", "time_out_of_range"), ("11", "invalid_field"), ("19", "invalid_field"),
    ]  # fmt: skip
    assert client.counts == Counts(sent=40, acknowledged=36, rejected=4)
    keyed.wait_for_usage("rejects", "calls", 36)


def test_the_documents_example_runs(keyed: Keyed) -> None:
    """As it stands in docs/producing.md: each of its events counts."""
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL) if "ingest.client" in each)
    assert len(program.strip().splitlines()) <= 10
    environment = {**os.environ, "METERLINE_URL": keyed.url, "METERLINE_KEY": keyed.key}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout == "0 events are not acknowledged; Counts(sent=100, acknowledged=100, rejected=0)\n"
    keyed.wait_for_usage("acme", "calls", 100)
    keyed.wait_for_usage("acme", "bytes", Decimal("1234.50") * 100)


def test_a_rate_is_kept_to_and_batches_beyond_it_are_halved(keyed: Keyed) -> None:
    """A batch larger than the burst is 413, more than the rate 429 with Retry-After: all of it counts in the end."""
    with Client(keyed.url, keyed.key, source="/test", linger_s=30, batch_events_max=8000) as client:
        started_s = time.monotonic()
        for number in range(6000):
            client.send(call(number, subject="fast"))
        assert client.flush(60) == 0
        assert client.counts == Counts(sent=6000, acknowledged=6000, rejected=0)
    assert time.monotonic() - started_s > 1  # 5,000 at once, and 500 more a second
    keyed.wait_for_usage("fast", "calls", 6000)
    metrics = httpx.get(f"{keyed.url}/metrics").text
    for status in (413, 429):
        assert f'meterline_gateway_requests_refused_total{{reason="rate",status="{status}"}}' in metrics
