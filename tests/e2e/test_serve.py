"""`meterline serve` from outside: killed under load, and the command line beside it."""

import json
import threading
from decimal import Decimal
from typing import Any

import httpx

from tests.e2e.conftest import Server
from tests.servers import plain_http

BATCH = {"Content-Type": "application/cloudevents-batch+json"}


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/test", "type": "call", "subject": f"s{number % 7}",
        "time": "2013-01-31T10:00:00Z", "data": {"bytes": f"{number}.5", "region": "eu"}, **fields,
    }  # fmt: skip


def usage(text: str, meter: str) -> Decimal:
    """The sum over subjects of a meter, as `meterline usage` prints it."""
    rows = [line.replace("│", "").split() for line in text.splitlines() if f" {meter} " in line]
    return sum((Decimal(row[-1].replace(",", "")) for row in rows), Decimal(0))


class Producer(threading.Thread):
    """Sends batches of events, each again with the same ids until it is acknowledged; remembers what was."""

    def __init__(self, server: Server, first: int) -> None:
        super().__init__(daemon=True)
        self.server, self.next = server, first
        self.acknowledged: list[int] = []
        self.enough = threading.Event()
        self.progressed = threading.Semaphore(0)

    def run(self) -> None:
        """Send until it is enough."""
        while not self.enough.is_set():
            numbers = range(self.next, self.next + 50)
            body = json.dumps([event(number) for number in numbers])
            while True:
                try:
                    response = plain_http.post(
                        f"{self.server.url}/api/v1/events", content=body, headers=BATCH, timeout=10
                    )
                    assert response.status_code == 204, response.text
                    break
                except (OSError, httpx.HTTPError, ValueError):
                    if self.enough.wait(0.05):
                        return
            self.acknowledged.extend(numbers)
            self.next += 50
            self.progressed.release()


def test_killed_under_load_every_acknowledged_event_counts_once(server: Server) -> None:
    """Kill -9, three times, while three producers send and retry: acknowledged events == counted events."""
    server.start()
    producers = [Producer(server, first) for first in (0, 1_000_000, 2_000_000)]
    for producer in producers:
        producer.start()
    for rounds in (3, 11, 23):
        for producer in producers:
            for _ in range(rounds):
                assert producer.progressed.acquire(timeout=60)
        server.kill()
        server.start()
    for producer in producers:
        assert producer.progressed.acquire(timeout=60)
        producer.enough.set()
        producer.join(60)
    acknowledged = {number for producer in producers for number in producer.acknowledged}
    assert len(acknowledged) >= 3 * 50 * (3 + 11 + 23)
    # A batch in flight at the end may have been stored without its answer: send those again, so that all is known.
    for producer in producers:
        rest = range(producer.next, producer.next + 50)
        sent = plain_http.post(f"{server.url}/api/v1/events", json=[event(number) for number in rest], headers=BATCH)
        assert sent.status_code == 204
        acknowledged.update(rest)
    shown = server.run("audit") and server.run("usage", "--period", "2013-01")
    assert usage(shown, "calls") == len(acknowledged)
    assert usage(shown, "bytes") == sum(Decimal(number) + Decimal("0.5") for number in acknowledged)
    assert "faults" not in server.run("audit")
    assert server.stop() == 0


def test_the_command_line_beside_a_server_and_without_one(server: Server, tmp_path: Any) -> None:
    """The same commands give the same answers through a running server and on their own."""
    file = tmp_path / "usage.ndjson"
    file.write_text("\n".join(json.dumps(event(number)) for number in range(100)))
    assert "100 lines" in server.run("import", str(file))
    server.run("meters", "apply", str(_meters(tmp_path)))
    file.write_text("\n".join(json.dumps(event(number)) for number in range(50, 150)))
    alone = server.run("import", str(file)) and server.run("usage", "--period", "2013-01")
    assert usage(alone, "calls") == 50  # the meters were not in force for the first hundred
    server.start()
    assert server.run("usage", "--period", "2013-01") == alone
    assert "1 fault" in server.run("meters", "apply", str(file), status=1)
    assert "2013-13" in server.run("usage", "--period", "2013-13", status=1)
    assert server.stop() == 0
    assert server.run("usage", "--period", "2013-01") == alone


def test_bad_lines_become_rejections_and_repaired_ones_events(server: Server, tmp_path: Any) -> None:
    """One file with every kind of bad line: the good ones count, the bad ones are listed, repaired and replayed."""
    server.start()
    lines = [
        json.dumps(event(1)).encode(), b"not json", json.dumps(event(2, time="1970-01-01T00:00:00Z")).encode(),
        json.dumps(event(3, time="9999-12-31T23:59:59Z")).encode(), json.dumps(event(4, subject=None)).encode(),
        b'{"id": "\x00"}', b"\xff\xfe", json.dumps(event(5, data={"bytes": "x" * 10_000_000})).encode(),
        json.dumps(event(6, data={"bytes": None})).encode(), json.dumps(event(7, type="other")).encode(),
        json.dumps(event(8)).encode(),
    ]  # fmt: skip
    file = tmp_path / "usage.ndjson"
    file.write_bytes(b"\n".join(lines))
    server.run("import", str(file))
    assert usage(server.run("usage", "--period", "2013-01"), "calls") == 3  # 1, 6 and 8
    assert usage(server.run("usage", "--period", "2013-01"), "bytes") == Decimal(10)  # 1.5 and 8.5; 6 has no value
    listed = [json.loads(line) for line in server.run("rejections", "list", "--json").splitlines()]
    reasons = sorted(row["reason"] for row in listed)
    assert reasons == [
        "missing_field",
        "not_json",
        "not_utf8",
        "null_byte",
        "time_out_of_range",
        "time_out_of_range",
        "too_large",
    ]
    repaired = tmp_path / "repaired.ndjson"
    rows = [{**row, "raw": event(9)} for row in listed if row["reason"] == "missing_field"]
    repaired.write_text("\n".join(json.dumps(row) for row in rows))
    assert "1 lines were put into the log again; 6 rejections" in server.run(
        "rejections", "replay", "--repaired", str(repaired)
    )
    assert usage(server.run("usage", "--period", "2013-01"), "calls") == 4
    assert "1 lines" in server.run("rejections", "replay", "--reason", "not_json")
    assert "not_json" in server.run("rejections", "list")  # rejected again, at a new place
    assert "faults" not in server.run("audit")


def test_the_gateway_refuses_what_it_cannot_store(server: Server) -> None:
    """Each refusal is a problem document, and nothing of a refused request is stored."""
    server.start()
    url = f"{server.url}/api/v1/events"
    cases = [
        ({"content": b"{", "headers": BATCH}, 400, "not JSON"),
        ({"json": [event(1), event(2, subject=None)], "headers": BATCH}, 400, "1 of 2 events"),
        ({"content": b"x", "headers": {"Content-Type": "text/plain"}}, 400, "invalid content type"),
        ({"content": b"[" + b" " * (17 << 20) + b"]", "headers": BATCH}, 413, "send fewer events"),
    ]
    for request, status, detail in cases:
        response = plain_http.post(url, **request)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")
        assert detail in response.json()["detail"]
    operation = f"{server.url}/api/v1/operations/audit"
    assert plain_http.post(operation, content="{}", headers={"Content-Type": "text/plain"}).status_code == 400
    assert plain_http.post(operation, json={}, headers={"Host": "evil.example"}).status_code == 400
    assert plain_http.post(f"{server.url}/api/v1/operations/nothing", json={}).status_code == 404
    for body in (b"{", b"[]", b'{"nonsense": 1}'):
        headers = {"Content-Type": "application/json"}
        assert plain_http.post(operation, content=body, headers=headers).status_code == 400
    proxied = plain_http.post(
        f"{server.url}/api/v1/operations/import_usage",
        json={"path": "/etc/hosts"},
        headers={"X-Forwarded-For": "10.0.0.1"},
    )
    assert proxied.status_code == 403
    assert "meterline_gateway_requests_refused_total" in plain_http.get(f"{server.url}/metrics").text
    server.stop()
    assert usage(server.run("usage", "--period", "2013-01"), "calls") == 0


def _meters(folder: Any) -> Any:
    from tests.e2e.conftest import METERS

    path = folder / "meters.yaml"
    path.write_text(METERS)
    return path
