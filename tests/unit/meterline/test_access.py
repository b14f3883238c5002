"""The guard before the routes: what is not listed is closed, and what it lets in knows whose it is."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from meterline import access
from meterline.access import RULES, Keys, RequireAccess, Rule, may_read_files
from meterline.keys import make_key
from meterline.known_keys import KnownKeys
from schemas.api_key import ApiKey, NewKey, Scope

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DECIDED = {
    "POST /api/v1/events": Rule(Scope.INGEST, every_tenant=True),
    "GET /api/v1/keys": Rule(Scope.ADMIN, every_tenant=True),
    "POST /api/v1/keys": Rule(Scope.ADMIN, every_tenant=True),
    "DELETE /api/v1/keys/{}": Rule(Scope.ADMIN, every_tenant=True),
    "POST /api/v1/operations/{}": Rule(Scope.ADMIN, every_tenant=False),
    "GET /metrics": Rule(Scope.ADMIN, every_tenant=False),
}


def made(tenant: str, *scopes: Scope) -> tuple[str, ApiKey]:
    return make_key(NewKey(tenant=tenant, scopes=tuple(scopes)), NOW)


ADMIN, ACME, INGEST = made("default", Scope.ADMIN), made("acme", *Scope), made("default", Scope.INGEST)
LOCAL = made("default", *Scope)


def look_up(ids: Sequence[str]) -> dict[str, ApiKey]:
    return {key.id: key for _, key in (ADMIN, ACME, INGEST) if key.id in ids}


def away(ids: Sequence[str]) -> dict[str, ApiKey]:
    raise ConnectionError


async def told(request: Request) -> Response:
    """What a route knows of who asks."""
    who = request.state.access
    return JSONResponse([who.tenant, sorted(who.scopes), who.key_id, may_read_files(request)])


def ask(
    routes: list[BaseRoute],
    keys: Keys | None,
    method: str,
    path: str,
    key: str | None,
    client: str = "10.0.0.1",
    **headers: str,
) -> httpx.Response:
    """The answer of an application of these routes."""

    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(access.guarded(routes, keys, lifespan=nothing), client=(client, 1))
        given = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as asking:
            return await asking.request(method, path, headers={**given, **headers})

    return asyncio.run(run())


nothing: Any = None
ROUTES: list[BaseRoute] = [
    Route("/new/{id}", told), Route("/any", told, methods=["GET", "POST"]), Route("/healthz", told), Route("/metrics", told),
    Route("/api/v1/events", told, methods=["POST"]), Mount("/mounted", routes=[Route("/x", told)]),
]  # fmt: skip


def keys() -> Keys:
    return Keys(KnownKeys(look_up), LOCAL[1])


def test_the_rules_are_what_was_decided() -> None:
    """A rule that opens more than before has to be changed here too."""
    assert {name: rule for name, rule in RULES.items() if name in DECIDED} == DECIDED
    assert Rule(Scope.ADMIN, every_tenant=False) == access.UNLISTED
    assert {"GET /healthz", "GET /readyz", "GET /api/swagger.json"} == access.OPEN


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/new/5"), ("HEAD", "/new/5"), ("POST", "/any"), ("GET", "/mounted/x")]
)
def test_a_route_that_nobody_listed_is_the_default_tenants_admins(method: str, path: str) -> None:
    """Also one with parameters, of more methods, or below another application."""
    statuses = [ask(ROUTES, keys(), method, path, key).status_code for key in (None, INGEST[0], ACME[0], ADMIN[0])]
    assert statuses == [401, 403, 403, 200]


def test_a_listed_route_is_told_whose_request_it_is() -> None:
    """The tenant of the key, its scopes and its id, and nothing that the request says itself."""
    answer = ask(ROUTES, keys(), "POST", "/api/v1/events?tenant=default", ACME[0], **{"X-Tenant": "default"})
    assert answer.json() == ["acme", ["admin", "ingest", "query"], ACME[1].id, False]


def test_without_keys_in_use_all_is_the_default_tenants() -> None:
    """A key that is sent all the same means nothing; files are read only for who is on this machine."""
    for client, forwarded, here in (
        ("10.0.0.1", {}, False),
        ("127.0.0.1", {}, True),
        ("127.0.0.1", {"Via": "proxy"}, False),
    ):
        for key in (None, ACME[0], "x"):
            answer = ask(ROUTES, None, "GET", "/new/5", key, client, **forwarded)
            assert answer.json() == ["default", ["admin", "ingest", "query"], None, here]


def test_the_local_key_is_all_of_the_default_tenant() -> None:
    """Whoever has it can read the data directory."""
    assert ask(ROUTES, keys(), "GET", "/any", LOCAL[0]).json() == [
        "default",
        ["admin", "ingest", "query"],
        LOCAL[1].id,
        True,
    ]
    assert ask(ROUTES, Keys(KnownKeys(look_up)), "GET", "/any", LOCAL[0]).status_code == 401


def test_metrics_are_open_on_this_machine_alone() -> None:
    """A request that a proxy of this machine passed on comes from elsewhere."""
    for client, headers, status in (
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("10.0.0.1", {}, 401),
        ("127.0.0.1", {"Forwarded": "for=x"}, 401),
    ):
        assert ask(ROUTES, keys(), "GET", "/metrics", None, client, **headers).status_code == status
    assert ask(ROUTES, keys(), "GET", "/healthz", None).json() == ["default", [], None, False]
    assert ask(ROUTES, keys(), "POST", "/healthz", None).status_code == 401


def test_while_nobody_can_say_it_is_neither_yes_nor_no() -> None:
    """503 with Retry-After: a 401 would make a client throw its key away."""
    answer = ask(ROUTES, Keys(KnownKeys(away)), "POST", "/api/v1/events", INGEST[0])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_refusal_says_what_is_needed() -> None:
    """As RFC 6750 has it, and as a problem document."""
    for key, status, challenge in (
        (None, 401, 'Bearer realm="meterline"'),
        ("x", 401, 'Bearer realm="meterline", error="invalid_token"'),
        (INGEST[0], 403, 'Bearer realm="meterline", error="insufficient_scope", scope="admin"'),
    ):
        answer = ask(ROUTES, keys(), "GET", "/any", key)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (status, challenge)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
        assert INGEST[0] not in answer.text


def test_websockets_are_for_nobody() -> None:
    """No route takes one, and the guard would not ask for its key."""

    async def run() -> None:
        await RequireAccess(nothing, ROUTES, None)({"type": "websocket"}, nothing, nothing)

    with pytest.raises(AssertionError, match="no route takes anything else"):
        asyncio.run(run())
