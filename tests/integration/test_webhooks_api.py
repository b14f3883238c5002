"""Webhook endpoints over HTTP, on a real database: each answer, whose it is, and that a secret is shown once."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from invoicing.deliveries.app import Sender
from invoicing.outbox.store import emit
from meterline.access import RULES, Keys, guarded, path_of
from meterline.keys import make_key
from meterline.known_keys import KnownKeys
from meterline.webhooks_api import webhook_routes
from schemas.api_key import ApiKey, NewKey
from schemas.domain_event import DomainEvent, EventType, PeriodClosedData
from schemas.webhook import ENDPOINTS_MAX

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = {"acme": make_key(NewKey(tenant="acme", scopes=("admin",)), NOW), "other": make_key(NewKey(tenant="other", scopes=("admin", "query")), NOW),
         "query": make_key(NewKey(tenant="acme", scopes=("query",)), NOW), "ingest": make_key(NewKey(tenant="acme", scopes=("ingest",)), NOW)}  # fmt: skip
HOOKS, EVENTS = "/api/v1/billing/webhooks", "/api/v1/billing/events"
URL = {"url": "https://example.com/hooks"}


def look_up(ids: Sequence[str]) -> dict[str, ApiKey]:
    return {key.id: key for _, key in TEXTS.values() if key.id in ids}


@dataclass
class Client:
    """Speaks with the application."""

    database: sa.Engine
    private: bool = False

    def ask(self, method: str, path: str, who: str = "acme", **options: Any) -> httpx.Response:
        """The answer to a request with somebody's key."""

        async def answered() -> httpx.Response:
            routes = webhook_routes(self.database, private=self.private, now=lambda: NOW)
            application = guarded(routes, Keys(KnownKeys(look_up)), lifespan=lambda _: nullcontext())  # type: ignore[arg-type]
            headers = {"Authorization": f"Bearer {TEXTS[who][0]}", **options.pop("headers", {})}
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(answered())

    def made(self, who: str = "acme", **fields: Any) -> dict[str, Any]:
        """A new endpoint, as it was answered."""
        answer = self.ask("POST", HOOKS, who, json={**URL, **fields})
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document


@pytest.fixture
def client(database: sa.Engine) -> Client:
    """A client of the routes."""
    return Client(database)


def closed(database: sa.Engine, tenant: str = "acme", version: int = 1) -> str:
    event = DomainEvent(EventType.PERIOD_CLOSED, "ledger", version, NOW, PeriodClosedData(through=date(2026, 1, 1)))
    with database.begin() as connection:
        emit(connection, tenant, [event])
    return event.id_of(tenant)


def test_an_endpoint_is_made_changed_and_deleted(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """With its version as ETag; the secret is in the first answer alone, and in no log."""
    caplog.set_level(logging.DEBUG)
    made = client.made(description="Books", types=["invoice.paid", "invoice.finalized", "invoice.paid"])
    path = f"{HOOKS}/{made['id']}"
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert made == {
        **URL, "id": made["id"], "description": "Books", "types": ["invoice.finalized", "invoice.paid"], "state": "enabled", "disabledReason": None, "version": 1,
        "pausedUntil": None, "lastSuccessAt": None, "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    got = client.ask("GET", path)
    assert (got.json(), got.headers["etag"], got.headers["cache-control"]) == (made, '"1"', "no-store")
    assert client.ask("GET", HOOKS).json() == {"items": [made]}
    changed = client.ask("PATCH", path, json={"types": [], "state": "disabled"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["etag"]) == (200, '"2"')
    assert changed.json() == {**made, "types": [], "state": "disabled", "disabledReason": "by hand", "version": 2}
    stale = client.ask("PATCH", path, json={"state": "enabled"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"2"')
    assert client.ask("POST", f"{path}/test").status_code == 400
    enabled = client.ask("PATCH", path, json={"state": "enabled", "url": "https://example.org/"}).json()
    assert (enabled["state"], enabled["disabledReason"], enabled["url"], enabled["description"]) == (
        "enabled",
        None,
        "https://example.org/",
        "Books",
    )
    rotated = client.ask("POST", f"{path}/secret", json={"oldValidSeconds": 60}).json()
    assert rotated["oldSecretValidUntil"] == "2026-01-01T00:01:00Z"
    assert client.ask("DELETE", path, headers={"If-Match": '"9"'}).status_code == 412
    gone = client.ask("DELETE", path, headers={"If-Match": "*"})
    assert (gone.status_code, gone.content) == (204, b"")
    answers = [
        client.ask(method, path + more, json={})
        for method, more in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"))
    ]
    assert [each.status_code for each in answers] == [404] * 5
    assert client.ask("GET", HOOKS).json() == {"items": []}
    for each in (secret, rotated["secret"]):
        assert each not in caplog.text + got.text + changed.text


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "url: Field required"), ({"url": "http://example.com/"}, "https://"), ({"url": "https://127.0.0.1/"}, "no address of the internet"), ({"url": "https://[::ffff:10.0.0.1]/"}, "no address of the internet"),
        ({"url": "https://x@example.com/"}, "user name"), ({**URL, "types": ["invoice.eaten"]}, "unknown: invoice.eaten; allowed: "), ({**URL, "types": ["webhook.test"]}, "unknown"),
        ({**URL, "description": "a\nb"}, "printable"), ({**URL, "description": "a\x00b"}, "printable"), ({**URL, "secret": "whsec_x"}, "secret"), ({"url": 5}, "url"), ({**URL, "types": "invoice.paid"}, "types"), ([URL], "an object"),
    ],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(client: Client, body: Any, detail: str) -> None:
    """With a problem document that says what is allowed; nothing is made."""
    answer = client.ask("POST", HOOKS, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert detail in answer.json()["detail"]
    assert client.ask("GET", HOOKS).json() == {"items": []}


def test_every_route_was_decided_on(database: sa.Engine) -> None:
    """Who may call it: none is left to the rule for what was forgotten."""
    named = {
        f"{method} {path_of(route)}"
        for route in webhook_routes(database)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert named == {name for name in RULES if "/billing/" in name and ("webhooks" in name or "events" in name)}
    assert all(RULES[name].every_tenant for name in named)


def test_a_tenant_sees_its_own_and_needs_the_scope(client: Client, database: sa.Engine) -> None:
    """Another tenant's endpoint is not there for it; events are for keys that query, endpoints for those that administer."""
    made, event = client.made(), closed(database)
    path = f"{HOOKS}/{made['id']}"
    for method, more in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/secret"), ("POST", "/test"), ("GET", "/deliveries"), ("GET", f"/deliveries/{event}"),
                         ("POST", f"/deliveries/{event}/redeliver")):  # fmt: skip
        assert client.ask(method, path + more, "other", json={}).status_code == 404
    assert client.ask("POST", f"{path}/redeliver", "other", json={"since": "2020-01-01T00:00:00Z"}).status_code == 404
    assert client.ask("GET", HOOKS, "other").json() == {"items": []}
    mine = client.made("other")
    assert client.ask("POST", f"{HOOKS}/{mine['id']}/deliveries/{event}/redeliver", "other").status_code == 404
    assert [client.ask("GET", path, who).status_code for who in ("query", "ingest")] == [403, 403]
    assert [
        client.ask("GET", f"{EVENTS}/{event}", who).status_code for who in ("query", "ingest", "acme", "other")
    ] == [200, 403, 403, 404]
    assert client.ask("GET", f"{EVENTS}/{event}", "query").json()["id"] == event
    assert client.ask("GET", EVENTS, "other").json() == {"items": []}
    for number in range(2, 5):
        closed(database, version=number)
    page = client.ask("GET", f"{EVENTS}?after=1&limit=2", "query").json()["items"]
    assert [each["sequence"] for each in page] == [2, 3]
    for broken in ("after=x", "limit=1001", "after=-1", "limit=" + "9" * 40, "limit=²"):
        assert client.ask("GET", f"{EVENTS}?{broken}", "query").status_code == 400
    for hostile in ("we_%00", "we_'--", "we_" + "a" * 300):
        assert client.ask("GET", f"{HOOKS}/{hostile}").status_code == 404
    assert client.ask("GET", f"{EVENTS}/%00", "query").status_code in {400, 404}


def test_deliveries_are_listed_and_sent_again(client: Client, database: sa.Engine) -> None:
    """With every attempt; a test goes to its endpoint alone, whatever types it wants."""
    client.private = True
    nobody = client.made(url="http://127.0.0.1:9/", types=["invoice.paid"])
    path = f"{HOOKS}/{nobody['id']}"
    other = client.made(url="http://127.0.0.1:9/", types=["invoice.paid"])
    tested = client.ask("POST", f"{path}/test", headers={"Idempotency-Key": "t"})
    again = client.ask("POST", f"{path}/test", headers={"Idempotency-Key": "t"})
    assert (tested.status_code, again.json(), again.headers["idempotent-replayed"]) == (202, tested.json(), "true")

    async def send() -> int:
        sender = Sender(database, private_allowed=True, now=lambda: NOW)
        async with sender.running():
            return await sender.send_due()

    assert asyncio.run(send()) == 1
    event = tested.json()["eventId"]
    listed = client.ask("GET", f"{path}/deliveries").json()
    assert [(each["eventId"], each["state"], each["attempts"], each["lastStatus"]) for each in listed["items"]] == [
        (event, "pending", 1, None)
    ]
    one = client.ask("GET", f"{path}/deliveries/{event}").json()
    assert one["type"] == "webhook.test"
    assert [(each["status"], each["answer"][:20]) for each in one["log"]] == [(None, "ClientConnectorError")]
    assert client.ask("GET", f"{HOOKS}/{other['id']}/deliveries").json() == {"items": []}
    assert client.ask("POST", f"{path}/deliveries/{event}/redeliver").json() == {"events": 1}
    assert asyncio.run(send()) == 1
    assert client.ask("POST", f"{path}/redeliver", json={"since": "2020-01-01T00:00:00Z"}).json() == {"events": 0}
    for body in (
        {},
        {"since": "yesterday"},
        {"since": "2020-01-01T00:00:00"},
        {"since": "2020-01-01T00:00:00Z", "alsoDelivered": 1},
    ):
        assert client.ask("POST", f"{path}/redeliver", json=body).status_code == 400
    page = client.ask("GET", f"{path}/deliveries?limit=1&state=pending").json()
    assert client.ask("GET", f"{path}/deliveries?before={page['nextBefore']}").json() == {"items": []}
    assert client.ask("GET", f"{path}/deliveries?state=eaten").status_code == 400


def test_making_one_twice_under_a_key_makes_one(client: Client) -> None:
    """The answer that was lost comes again, with the secret: without it the endpoint would be of no use."""
    headers = {"Idempotency-Key": "make"}
    first, again = (client.ask("POST", HOOKS, json=URL, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert len(client.ask("GET", HOOKS).json()["items"]) == 1
    assert client.ask("POST", HOOKS, "other", json=URL, headers=headers).headers.get("idempotent-replayed") is None


def test_a_tenant_has_so_many_endpoints_at_most(client: Client) -> None:
    """Each one may hold connections."""
    with client.database.begin() as connection:
        connection.execute(
            sa.text("""INSERT INTO webhook_endpoints
                           (id, tenant, url, description, types, state, version, from_sequence, created_at, updated_at)
                       SELECT 'we_' || lpad(to_hex(n), 24, '0'), 'acme', 'https://x', '', '{}', 'enabled', 1, 0, now(), now()
                       FROM generate_series(1, :count) n"""),
            {"count": ENDPOINTS_MAX - 1},
        )
    last = client.made()
    assert client.ask("POST", HOOKS, json=URL).status_code == 400
    client.ask("DELETE", f"{HOOKS}/{last['id']}")
    client.made()
