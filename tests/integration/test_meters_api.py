"""Meters over HTTP, on the application that serves them, over a real log: each answer, and writers at the same time."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from meterline.meters_api import meter_routes
from meterline.system import configure_meters
from schemas.log import Configure, Flush, Record, punctuation_of
from stores.postgres_log import PostgresLog, open_log

CALLS = {"slug": "calls", "eventType": "call", "aggregation": "COUNT", "groupBy": {"region": "$.region"}}
BYTES = {
    "slug": "bytes", "eventType": "call", "aggregation": "LATEST", "valueProperty": "$['bytes']", "name": "Bytes",
    "metadata": {"team": "edge"}, "filters": {"$.region": ["eu"]}, "eventAgeMax": 35,
}  # fmt: skip


@pytest.fixture
def log(database: sa.Engine) -> PostgresLog:
    """A log without meters."""
    return open_log(database, 2)


@dataclass
class Client:
    """Speaks HTTP with an application, from any thread."""

    application: Starlette

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer to a request."""

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(self.application)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, f"/api/v1/meters{path}", **options)

        return asyncio.run(answered())


@pytest.fixture
def client(log: PostgresLog) -> Client:
    """A client of the routes."""
    return Client(Starlette(routes=meter_routes(log)))


def slugs(log: PostgresLog) -> list[str]:
    """The meters in force."""
    return [meter.slug for meter in log.newest_config().meters]


def versions_in(log: PostgresLog, partition: int) -> list[int]:
    """The versions that the partition's records name, in their order."""
    records: list[Record] = list(log.read(partition, 0, 1 << 20))
    found = [punctuation_of(record.key) for record in records if record.value is None]
    return [each.version for each in found if isinstance(each, Configure)]


def test_a_meter_is_made_described_and_withdrawn(log: PostgresLog, client: Client) -> None:
    """201, 200 and 204; each change is a version in every partition, and usage of the withdrawn one stays billable."""
    made = client.request("POST", "", json=BYTES)
    assert made.status_code == 201
    document = made.json()
    assert {name: document[name] for name in BYTES} == {
        **BYTES, "valueProperty": "$.bytes", "filters": {"$.region": {"in": ["eu"]}}, "eventAgeMax": "P35D",
    }  # fmt: skip
    assert len(document["id"]) == 26
    assert document["createdAt"] == document["updatedAt"]
    assert client.request("POST", "", json={**CALLS, "description": None}).status_code == 201
    described = client.request("PUT", "/bytes", json={"description": "What was sent", "aggregation": "LATEST"})
    assert described.status_code == 200
    changed = described.json()
    assert (changed["description"], changed["id"], changed["name"]) == ("What was sent", document["id"], "bytes")
    assert changed["filters"] == document["filters"]
    assert changed["updatedAt"] > changed["createdAt"] == document["createdAt"]
    gone = client.request("DELETE", "/bytes")
    assert (gone.status_code, gone.content) == (204, b"")
    assert slugs(log) == ["calls"]
    assert [meter.slug for meter in log.meters()] == ["bytes", "calls"]
    assert versions_in(log, 0) == versions_in(log, 1) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "detail"),
    [
        ("POST", "", {**CALLS, "aggregation": "SUM", "valueProperty": "$.v"}, 409, "meter with the same slug already exists"),
        ("POST", "", BYTES, 409, "meters.bytes.aggregation: 'LATEST': allowed: 'MAX', as already counted"),
        ("POST", "", {"slug": "Bad"}, 400, "slug: 'Bad'"), ("POST", "", {"slug": "torn", "eventType": "e", "aggregation": "MAX", "valueProperty": "$.region.x"}, 400, "a value or an object, not both"),
        ("POST", "", [CALLS], 400, "allowed: an object, the definition of a meter"), ("POST", "", {**CALLS, "slug": "x", "windowSize": "HOUR"}, 400, "windowSize"),
        ("PUT", "/calls", {"groupBy": {}}, 400, "meters.calls.groupBy: None: allowed: {'region': '$.region'}, as already counted; give a new meter its own slug"),
        ("PUT", "/calls", {"aggregation": "SUM"}, 400, "SUM needs a valueProperty"), ("PUT", "/calls", {"slug": "other"}, 400, "allowed: 'calls', for ever"),
        ("PUT", "/calls", {"eventAgeMax": 3}, 400, "meters.calls.eventAgeMax: 'P3D': allowed: None, as already counted"),
        ("PUT", "/nothing", {"name": "x"}, 404, "meter not found: nothing"), ("PUT", "/bytes", {"name": "x"}, 404, "meter not found: bytes"),
        ("DELETE", "/nothing", None, 404, "meter not found: nothing"),
    ],
)  # fmt: skip
def test_what_is_refused_changes_nothing(
    log: PostgresLog, client: Client, method: str, path: str, body: Any, status: int, detail: str
) -> None:
    """A problem document that says why; no version of the configuration comes of it."""
    text = "meters: [{slug: bytes, eventType: call, aggregation: MAX, valueProperty: $.bytes}]"
    configure_meters(log, text, "before.yaml")
    configure_meters(
        log, "meters: [{slug: calls, eventType: call, aggregation: COUNT, groupBy: {region: $.region}}]", "m"
    )
    before = versions_in(log, 0)
    answer = client.request(method, path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert slugs(log) == ["calls"]
    assert versions_in(log, 0) == before


def test_other_bodies_are_refused(client: Client) -> None:
    """A form's content type, no JSON, and more than a definition can be."""
    headers = {"Content-Type": "application/json"}
    assert client.request("POST", "", content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 400
    assert client.request("POST", "", content=b"{", headers=headers).status_code == 400
    assert client.request("POST", "", content=b" " * (300 << 10), headers=headers).status_code == 413


def test_writers_at_the_same_time_lose_nothing(log: PostgresLog, client: Client) -> None:
    """Thirty meters made by six writers, and half of them withdrawn meanwhile: all of it is in force at the end."""
    base = {"eventType": "call", "aggregation": "COUNT"}

    def write(number: int) -> tuple[int, int]:
        made = client.request("POST", "", json={**base, "slug": f"m{number}"}).status_code
        again = client.request("POST", "", json={**base, "slug": f"m{number}"}).status_code
        if number % 2:
            assert client.request("DELETE", f"/m{number}").status_code == 204
        return made, again

    with ThreadPoolExecutor(6) as writers:
        assert set(writers.map(write, range(30))) == {(201, 409)}
    assert slugs(log) == sorted(f"m{number}" for number in range(0, 30, 2))
    assert max(versions_in(log, 0)) == max(versions_in(log, 1)) == 1 + 30 + 15


def test_a_withdrawn_meter_may_come_back_as_it_was(log: PostgresLog, client: Client) -> None:
    """It keeps its id, and what it counts."""
    first = client.request("POST", "", json=CALLS).json()
    client.request("DELETE", "/calls")
    back = client.request("POST", "", json={**CALLS, "name": "Calls"})
    assert (back.status_code, back.json()["id"]) == (201, first["id"])
    log.punctuate(Flush())
    assert slugs(log) == ["calls"]
