"""Requests of every kind to a gateway process: good, compressed, poisonous, slow, cut off, and too many at once."""

import asyncio
import gzip
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ingest import api
from ingest.encoding import zstd
from meterline.deployed import gateway as application
from meterline.listening import Listening
from schemas.log import Limits, LogConfig
from stores.kafka_producer import Producer
from tests.faults.conftest import BATCH_EVENTS, METERS, PARTITIONS, Deployment, event
from tests.faults.gateways import ANSWER_S, BATCH, SINGLE, Answer, Gateway, numbers_in_topic, send
from tests.oracles.topic import read_topic
from tests.servers import plain_http

OTHER = {"Content-Type": "text/plain"}
COMPRESSED = {**BATCH, "Content-Encoding": "gzip"}
EVENT = event(1)


@pytest.fixture
def gateway(deployment: Deployment, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that runs."""
    running = Gateway(deployment.servers, tmp_path / "gateway.log").start()
    yield running
    running.stop()


def lines_in_topic(deployment: Deployment) -> list[bytes]:
    records = read_topic(deployment.servers.kafka, deployment.servers.topic, PARTITIONS)
    return [line for own in records.values() for record in own if record.value for line in record.value.split(b"\n")]


POISON = [
    (b"{", SINGLE, 400, "not JSON"), (b"[" + EVENT, BATCH, 400, "not JSON"), (b"", BATCH, 400, "not JSON"), (b"[]", BATCH, 400, "no events"),
    (b"[" * 100_000, BATCH, 400, "not JSON"), (b'[{"a":NaN}]', BATCH, 400, "not JSON"), (b"[" + EVENT + b",]", BATCH, 400, "not JSON"),
    (EVENT, OTHER, 400, "invalid content type: text/plain"), (EVENT, {}, 400, "invalid content type"), (EVENT, BATCH, 400, "not JSON"),
    (b"[" + EVENT + b"," + event(2, subject=None) + b"]", BATCH, 400, "1 of 2 events are invalid"),
    (EVENT.replace(b'"eu"', b'"\xff"').replace(b'"us"', b'"\xff"'), SINGLE, 400, "1 of 1 events"),
    (event(1, subject="x" * 513), SINGLE, 400, "1 of 1 events"), (event(1, note="x" * (1 << 20)), SINGLE, 400, "1 of 1 events"),
    (event(1, time="1970-01-01T00:00:00Z"), SINGLE, 400, "1 of 1 events"), (event(1, tenant="other"), SINGLE, 400, "1 of 1 events"),
    (b"[" + b"5," * 100_000 + b"5]", BATCH, 413, "at most 100000"), (b"[" + b" " * (17 << 20) + b"]", BATCH, 413, "send fewer events"),
    (EVENT, {**SINGLE, "Content-Encoding": "br"}, 415, "allowed: gzip, zstd"), (EVENT, COMPRESSED, 400, "not gzip"),
    (gzip.compress(bytes(1 << 28)), COMPRESSED, 413, "send fewer events"), (gzip.compress(b"[" + EVENT + b"]")[:-1], COMPRESSED, 400, "gzip"),
    (zstd.compress(bytes(1 << 28)), {**BATCH, "Content-Encoding": "zstd"}, 413, "send fewer events"),
]  # fmt: skip


def test_poison_is_refused_with_a_problem_and_nothing_is_stored(deployment: Deployment, gateway: Gateway) -> None:
    """Each refusal is a problem document that says what is wrong, and is counted; the next request is none the worse."""
    with httpx.Client(timeout=30) as client:
        for content, headers, status, detail in POISON:
            answer = client.post(gateway.url, content=content, headers=headers)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), detail
            problem = answer.json()
            assert detail in problem["detail"]
            assert problem["status"] == status
            assert answer.headers.get("accept-encoding") == ("gzip, x-gzip, zstd" if status == 415 else None)
        chunks = client.post(gateway.url, content=iter([b" " * (1 << 20)] * 17), headers=BATCH)  # of unknown length
        assert chunks.status_code == 413
        reasons = client.post(gateway.url, content=b"[5," + event(1, id="") + b"]", headers=BATCH).json()["extensions"]
        assert reasons["validationErrors"] == [
            {"index": 0, "reason": "not_an_object", "detail": "a JSON number; allowed: an object"},
            {"index": 1, "reason": "invalid_field", "detail": 'id: ""; allowed: a string that is not empty'},
        ]
        assert client.post(gateway.url, content=event(7), headers=SINGLE).status_code == 204
        assert client.put(gateway.url).status_code == 405
    assert numbers_in_topic(deployment.servers) == [7]
    refused = "meterline_gateway_requests_refused_total"
    assert gateway.metric(f'{refused}{{reason="invalid_events",status="400"}}') == 7
    assert gateway.metric(f'{refused}{{reason="too_large",status="413"}}') == 5
    assert gateway.metric(f'{refused}{{reason="content_encoding",status="415"}}') == 1
    assert gateway.metric('meterline_gateway_events_refused_total{reason="not_utf8"}') == 1
    assert gateway.metric("meterline_gateway_events_accepted_total") == 1
    assert (
        gateway.metric("meterline_gateway_group_events_sum")
        == gateway.metric("meterline_gateway_append_seconds_count")
        == 1
    )
    assert gateway.metric("meterline_gateway_queue_bytes") == 0


def test_events_stand_in_the_log_byte_for_byte(deployment: Deployment, gateway: Gateway) -> None:
    """Plain, compressed with gzip or Zstandard, with numbers no float holds; only line ends become blanks."""
    sent = [event(n)[:-1] + b',\r\n "n": 12345678901234567890.10, "u": "\\u00e9\xc3\xa9"}' for n in range(40)]
    body = b"[" + b",".join(sent) + b"]"
    for encoding, compressed in (("identity", body), ("gzip", gzip.compress(body)), ("zstd", zstd.compress(body))):
        answer = plain_http.post(gateway.url, content=compressed, headers={**BATCH, "Content-Encoding": encoding})
        assert answer.status_code == 204, answer.text
    assert sorted(lines_in_topic(deployment)) == sorted(line.replace(b"\r\n", b"  ") for line in sent * 3)
    assert 2 * len(body) > gateway.metric("meterline_gateway_received_bytes_total") > len(body)


def test_what_the_gateway_accepts_the_worker_never_rejects(deployment: Deployment, gateway: Gateway) -> None:
    """Thousands of events with something put in, cut out or replaced: refused here, or an event or a duplicate there."""
    rng = random.Random(1)
    pieces = [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\xff", b"0", b"-", b"e", b'"id":"2",', b'"id":null,', b'"data":{},',
        b'"data":5,', b'"time":null,', rb'"\u0069d":"2",', rb"\u0000", rb"\ud800", b"1e9999999999999999999", b'"tenant":"x",', b"[" * 130 + b"]" * 130,
        b'"time":"2026-02-30T10:00:00Z",', b'"time":"2026-02-03 10:00:00.123456789+23:59",', b'"subject":"",', b'"x":' + b"[" * 120 + b"]" * 120 + b",",
    ]  # fmt: skip
    deployment.worker()
    accepted = 0
    with httpx.Client() as client:
        for number in range(4000):
            line = event(number)
            for _ in range(rng.randint(0, 2)):
                start = rng.randrange(1, len(line)) if rng.random() < 0.6 else 1
                line = line[:start] + rng.choice(pieces) + line[start + rng.choice((0, 0, 1)) :]
            answer = client.post(gateway.url, content=line, headers=SINGLE)
            assert answer.status_code in {204, 400}, (line, answer.text)
            accepted += answer.status_code == 204
    deployment.settle()
    tables = ("events", "duplicates", "rejections")
    counts = {table: deployment.system.clickhouse.command(f"SELECT count() FROM {table}") for table in tables}
    assert counts["rejections"] == 0
    assert counts["events"] + counts["duplicates"] == accepted
    assert 1500 < accepted < 3500
    assert (
        "meterline_misplaced_total 0.0" in plain_http.get(f"http://127.0.0.1:{deployment.workers[0].port}/metrics").text
    )


def test_a_client_that_hangs_up(deployment: Deployment, gateway: Gateway) -> None:
    """In the middle of its body, nothing is stored; before its answer, its events are, as if it had waited."""
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: {SINGLE['Content-Type']}\r\n"
    for body, sent in ((event(1), event(1)[:-20]), (event(2), event(2))):
        with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + sent)
    hung_up = 'meterline_gateway_requests_refused_total{reason="hung_up",status="400"}'
    gateway.wait_for(lambda: gateway.metric(hung_up) == 1)
    gateway.wait_for(lambda: gateway.metric("meterline_gateway_events_accepted_total") == 1)
    assert numbers_in_topic(deployment.servers) == [2]
    assert "Traceback" not in gateway.log.read_text()


def ask_inside(deployment: Deployment, ask: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    """What is asked of a gateway that runs in this process, where its bounds can be made small."""

    async def run() -> Any:
        app = application(
            deployment.system.log, Producer(deployment.servers, PARTITIONS), deployment.system.database, Listening(0)
        )
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", headers=SINGLE) as client,
        ):
            return await ask(client)

    return asyncio.run(run())


async def never_whole() -> AsyncIterator[bytes]:
    yield event(1)[:100]
    await asyncio.Event().wait()


def test_a_body_that_does_not_come_is_given_up(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the answer is 408, and the connection is closed; the gateway has answered others meanwhile."""
    monkeypatch.setattr(api, "BODY_TIMEOUT_S", 0.2)

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        slow = asyncio.create_task(client.post("/api/v1/events", content=never_whole()))
        return [await client.post("/api/v1/events", content=event(2)), await slow]

    quick, slow = ask_inside(deployment, ask)
    assert (quick.status_code, slow.status_code, slow.headers["connection"]) == (204, 408, "close")
    assert "did not come within" in slow.json()["detail"]
    assert numbers_in_topic(deployment.servers) == [2]


def test_bodies_that_come_at_the_same_time_have_a_bound(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that send and do not end take up what there is; others are told to come again, until those are gone."""
    monkeypatch.setattr(api, "BODIES_BYTES_MAX", 400)
    monkeypatch.setattr(api, "BODY_TIMEOUT_S", 1.0)

    async def ask(client: httpx.AsyncClient) -> list[httpx.Response]:
        slow = [asyncio.create_task(client.post("/api/v1/events", content=never_whole())) for _ in range(3)]
        await asyncio.sleep(0.1)  # so that each has sent its part
        refused = await client.post("/api/v1/events", content=event(2))
        await asyncio.gather(*slow)
        return [refused, await client.post("/api/v1/events", content=event(3))]

    refused, accepted = ask_inside(deployment, ask)
    assert (refused.status_code, refused.headers["retry-after"], accepted.status_code) == (503, "1", 204)
    assert "too many bodies" in refused.json()["detail"]
    assert numbers_in_topic(deployment.servers) == [3]


def test_a_client_that_does_not_end_does_not_keep_the_gateway_from_ending(gateway: Gateway) -> None:
    """SIGTERM ends it in order within ten seconds, though half a body is there."""
    head = f"POST /api/v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: {SINGLE['Content-Type']}\r\nContent-Length: 500\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(head.encode() + event(1))
        gateway.wait_for(lambda: gateway.metric("meterline_gateway_received_bytes_total") > 0)
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(10) == 0


def test_more_than_the_queue_holds_is_refused_at_once(deployment: Deployment, gateway: Gateway) -> None:
    """With the broker frozen, 64 MiB wait for it, the rest is told to come again; then all is well again."""
    filler = "x" * 900_000
    body = b"[" + b",".join(event(n, note=filler) for n in range(16)) + b"]"

    async def ask() -> list[Answer]:
        async with httpx.AsyncClient(timeout=60, verify=False) as connection:
            return await asyncio.gather(*(send(connection, gateway.url, body) for _ in range(8)))

    deployment.broker.pause()
    try:
        answers = asyncio.run(ask())
    finally:
        deployment.broker.resume()
    assert {answer.status for answer in answers} == {503}
    behind = [answer for answer in answers if "the log is behind" in answer.text]
    assert len(behind) == 3  # one is with the broker, four are in the queue
    assert max(answer.seconds for answer in behind) < 3
    assert (
        max(answer.seconds for answer in answers) < ANSWER_S + 3
    )  # from before the body was sent, of which there is much
    gateway.wait_for(lambda: gateway.get("/readyz")[0] == 200)
    assert plain_http.post(gateway.url, content=body, headers=BATCH, timeout=30).status_code == 204
    assert set(numbers_in_topic(deployment.servers)) == set(range(16))
    assert gateway.metric("meterline_gateway_queue_bytes") == 0


def test_limits_that_change_are_followed(deployment: Deployment, gateway: Gateway) -> None:
    """An event that a new version of the configuration allows no more is refused soon, and never rejected then."""
    long = event(1, subject="x" * 100)
    assert plain_http.post(gateway.url, content=long, headers=SINGLE).status_code == 204
    limits = Limits(batch_events_max=BATCH_EVENTS, field_bytes_max=50)
    deployment.system.log.configure(LogConfig(limits=limits, meters=METERS))
    gateway.wait_for(lambda: plain_http.post(gateway.url, content=long, headers=SINGLE).status_code == 400)
