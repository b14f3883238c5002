"""The client against a server that answers by a script: what is sent again, when, and what the caller is told."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ingest.client import BlockedError, BufferFullError, Client, ClientError, Counts, NotAcknowledgedError, Rejection
from ingest.encoding import inflated

HUNG_UP = (0, {}, b"")
TAKEN = (204, {}, b"")
FAST: dict[str, Any] = {"linger_s": 0.001, "source": "/s"}


class Scripted(ThreadingHTTPServer):
    """Answers each request by the next line of a script, and with 204 after its end; keeps what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.script: list[tuple[int, dict[str, str], bytes]] = []
        self.received: list[tuple[float, dict[str, str], list[dict[str, Any]]]] = []
        self.answering = threading.Event()
        self.answering.set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ids(self) -> list[list[str]]:
        """The ids of each request's events."""
        return [[event["id"] for event in events] for _, _, events in self.received]

    @property
    def arrived(self) -> list[str]:
        """The ids of all events, in their order."""
        return [each for ids in self.ids for each in ids]


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        encoding = self.headers.get("Content-Encoding")
        events = json.loads(inflated(encoding, body, 1 << 24) if encoding else body)
        self.server.received.append((time.monotonic(), dict(self.headers), events))
        status, headers, answer = self.server.script.pop(0) if self.server.script else TAKEN
        assert self.server.answering.wait(60)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, **({"Content-Length": str(len(answer))} if status != 204 else {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Scripted]:
    """A server that takes everything, until it has a script."""
    with Scripted() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.answering.set()
        running.shutdown()
        thread.join()


def call(**fields: Any) -> dict[str, Any]:
    return {"type": "call", "subject": "a", **fields}


def test_a_batch_is_sent_again_as_it_was_until_it_is_acknowledged(server: Scripted) -> None:
    """After an error, a hang-up, and when a server said when to come again; ids and times stay, and events keep order."""
    server.script = [(500, {}, b""), HUNG_UP, (503, {"Retry-After": "1"}, b""), (429, {"Retry-After": "1"}, b"{}")]
    with Client(server.url, "ml_key", source="/s", linger_s=30, batch_events_max=3) as client:
        for number in range(3):
            assert client.send(call(id=f"own-{number}")) == f"own-{number}"
        assert client.flush(30) == 0
        times = [at_s for at_s, _, _ in server.received]
        assert times[3] - times[2] >= 1
        assert times[4] - times[3] >= 1
        assert client.counts == Counts(sent=3, acknowledged=3, rejected=0)
        assert client.fault is None
        made = client.send(call())
    assert server.ids == [["own-0", "own-1", "own-2"]] * 5 + [[made]]
    bodies = [events for _, _, events in server.received[:5]]
    assert all(body == bodies[0] for body in bodies)
    assert all(event["time"] and event["source"] == "/s" for event in bodies[0])
    assert {headers["Authorization"] for _, headers, _ in server.received} == {"Bearer ml_key"}


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity"])
def test_batches_are_cut_by_count_and_by_bytes(server: Scripted, encoding: Any) -> None:
    """A large event goes alone, and each arrives once, in order, in any encoding."""
    with Client(server.url, **FAST, encoding=encoding, batch_events_max=4, batch_bytes_max=2000) as client:
        ids = [client.send(call(data={"x": "x" * (5000 if n == 5 else 10)})) for n in range(12)]
    assert server.arrived == ids
    assert [len(each) for each in server.ids if ids[5] in each] == [1]
    assert max(map(len, server.ids)) <= 4


def test_what_is_too_large_is_sent_in_halves(server: Scripted) -> None:
    """Down to single events, of which one that is still too large is rejected; then batches grow again."""
    too_large = (413, {}, b'{"detail": "too large"}')
    server.script = [too_large, too_large, too_large]
    rejected: list[Rejection] = []
    with Client(server.url, source="/s", linger_s=30, on_rejected=rejected.append, batch_events_max=4) as client:
        ids = [client.send(call()) for _ in range(12)]
    assert [(rejection.event["id"], rejection.reason) for rejection in rejected] == [(ids[0], "too_large")]
    assert client.counts == Counts(sent=12, acknowledged=11, rejected=1)
    assert server.ids == [ids[:4], ids[:2], ids[:1], ids[1:2], ids[2:4], ids[4:8], ids[8:12]]


def test_rejected_events_leave_the_batch_and_the_rest_goes_on(server: Scripted) -> None:
    """The callback hears of each; it may send it anew, and its own faults stop nothing."""
    faults = [{"index": index, "reason": "missing_field", "detail": "subject"} for index in (1, 3)]
    server.script = [(400, {}, json.dumps({"extensions": {"validationErrors": faults}}).encode())]

    def again(rejection: Rejection) -> None:
        client.send({**rejection.event, "subject": "mended"})
        raise RuntimeError(rejection.detail)

    with Client(server.url, source="/s", linger_s=30, on_rejected=again, batch_events_max=5) as client:
        for number in range(5):
            client.send(call(id=str(number)))
        assert client.flush(30) == 0
        assert client.flush(30) == 0  # of what was sent by the callback
        assert client.counts == Counts(sent=7, acknowledged=5, rejected=2)
    assert server.ids[:2] == [["0", "1", "2", "3", "4"], ["0", "2", "4", "1", "3"]]


def test_a_key_that_is_refused_surfaces_and_loses_nothing(server: Scripted) -> None:
    """send, flush and the end of the block say so; another key sends all of it."""
    server.script = [(401, {}, b'{"detail": "the key is not known, or was revoked"}')] * 1000
    with Client(server.url, "ml_bad", **FAST) as client:
        first = client.send(call())
        with pytest.raises(BlockedError, match="401 Unauthorized: the key is not known"):
            client.flush(30)
        with pytest.raises(BlockedError, match="was not taken"):
            client.send(call())
        server.script = []
        client.use_key("ml_good")
        assert client.flush(30) == 0
    assert server.ids[-1] == [first]
    assert server.received[-1][1]["Authorization"] == "Bearer ml_good"
    server.script = [(404, {}, b"")]
    with Client(server.url, **FAST) as client:  # a proxy whose routes are not there yet
        client.send(call())
        with pytest.raises(BlockedError, match="404 Not Found"):
            client.flush(30)
        while client.fault:
            time.sleep(0.01)  # there is no event for it
        assert client.flush(30) == 0
    server.script = [(403, {}, b"")] * 1000
    started_s = time.monotonic()
    with (
        pytest.raises(NotAcknowledgedError, match="1 events are not acknowledged: 403") as error,
        Client(server.url, **FAST) as client,
    ):
        lost = client.send(call(data={"n": 1}))
    assert time.monotonic() - started_s < 10  # there is nothing to wait for
    assert [(event["id"], event["data"]) for event in error.value.events] == [(lost, {"n": 1})]
    assert client.counts.pending == 1


def test_a_full_buffer_holds_the_sender_up_or_tells_it(server: Scripted) -> None:
    """By choice: it waits until there is room, or for so long, or not at all."""
    server.answering.clear()
    with Client(server.url, **FAST, full_wait_s=0.0, buffer_events_max=2) as client:
        client.send(call())
        client.send(call())
        with pytest.raises(BufferFullError):
            client.send(call())
        assert client.flush(0.05) == 2
        server.answering.set()
        assert client.flush(30) == 0
        client.send(call(data="x" * 100_000))
    assert client.counts == Counts(sent=3, acknowledged=3, rejected=0)
    server.answering.clear()
    with Client(server.url, **FAST, buffer_bytes_max=300) as patient, ThreadPoolExecutor(1) as other:
        patient.send(call())
        waiting = other.submit(lambda: [patient.send(call()) for _ in range(5)])
        assert patient.flush(0.1) > 0
        assert not waiting.done()
        server.answering.set()
        assert len(waiting.result(30)) == 5
    assert patient.counts == Counts(sent=6, acknowledged=6, rejected=0)


def test_close_gives_back_what_is_not_acknowledged() -> None:
    """Where there is no server, within its time; the events are as they would have been sent, and fit another client."""
    client = Client("http://127.0.0.1:9", **FAST)
    ids = [client.send(call()) for _ in range(3)]
    started_s = time.monotonic()
    left = client.close(0.3)
    assert 0.3 <= time.monotonic() - started_s < 3
    assert [event["id"] for event in left] == ids
    assert all(event["time"] for event in left)
    assert client.close() == []
    assert client.counts == Counts(sent=3, acknowledged=0, rejected=0)
    assert "no answer" in str(client.fault)
    with pytest.raises(ClientError, match="closed"):
        client.send(call())


def test_an_error_in_the_block_is_not_hidden(caplog: pytest.LogCaptureFixture, server: Scripted) -> None:
    """What is not acknowledged is then told by the log."""
    server.script = [(403, {}, b"")] * 1000

    def fails() -> None:
        with Client(server.url, **FAST) as client:
            client.send(call())
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert "1 events are not acknowledged: 403 Forbidden" in caplog.text


def test_what_a_client_is_made_of_is_checked() -> None:
    """A URL of another kind, or a key that no header can hold, fails where it is written, and starts no thread."""
    before = threading.active_count()
    for arguments in (("ftp://x",), ("127.0.0.1:8888",), ("http://x", "ml\n")):
        with pytest.raises(ValueError, match="allowed"):
            Client(*arguments)
    assert threading.active_count() == before


def test_senders_in_many_threads_lose_nothing(server: Scripted) -> None:
    """Each event arrives once where nothing fails, and the counts add up."""
    with Client(server.url, source="/s", linger_s=0.002, batch_events_max=50, buffer_events_max=100) as client:
        with ThreadPoolExecutor(8) as pool:
            sent = list(pool.map(lambda _: client.send(call()), range(4000)))
        assert client.flush(30) == 0
        assert client.counts == Counts(sent=4000, acknowledged=4000, rejected=0)
    arrived = server.arrived
    assert len(arrived) == len(set(sent)) == 4000
    assert set(arrived) == set(sent)
