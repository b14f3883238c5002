"""A server with keys, from outside: who gets in, and whose usage it becomes."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from aggregation.api import UsageApi
from meterline.access import OPEN, OPEN_ON_LOOPBACK, RULES, UNLISTED, path_of
from meterline.deployed import gateway as gateway_application
from meterline.known_keys import REVOKED_WITHIN_S
from meterline.listening import Listening
from meterline.server import application
from schemas.log import LogConfig
from tests.e2e.conftest import Server
from tests.e2e.keyed import SCOPES, Keyed, is_problem
from tests.e2e.keyed import keyed as keyed_server
from tests.e2e.test_serve import BATCH, event, usage
from tests.servers import plain_http

keyed = keyed_server


def routes_of(app: Starlette) -> set[tuple[str, str]]:
    """Every method and path of an application."""
    found = set()
    for route in app.routes:
        assert isinstance(route, Route), "a route of another kind: add it to what is tried here"
        found |= {(method, route.path) for method in route.methods or {"GET", "POST", "PUT", "PATCH", "DELETE"}}
    return found


def applications() -> tuple[Starlette, Starlette]:
    """The applications over no stores: only their routes are looked at."""
    log: Any = SimpleNamespace(newest_config=LogConfig, partitions=1, meters=None, config=None, meter_times=None)
    stores: Any = SimpleNamespace(log=log, database=None, follower=None, clickhouse_directory=None)
    nothing: Any = None
    usage = UsageApi(nothing, log, nothing, nothing, nothing)
    gateway = gateway_application(log, nothing, nothing, Listening(0), None, usage)
    return application(stores, Listening(0), None), gateway


def filled(path: str) -> str:
    """A path with something for each of its parameters."""
    for name, value in {
        "name": "trial_balance",
        "id": "0" * 16,
        "slug": "x",
        "meter": "x",
        "key": "x",
        "event": "x",
        "customer:path": "x",
    }.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, "a parameter that is filled with nothing here"
    return path


SERVER, GATEWAY = (routes_of(app) for app in applications())


def test_where_others_reach_it_nothing_starts_without_a_key(server: Server) -> None:
    """Nobody could use it, and to leave it open has to be said."""
    for options in (["--host", "0.0.0.0"], ["--keys"], ["--host", "::"]):
        said = server.run("serve", "--port", "0", *options, status=1)
        assert "meterline keys create" in said
        assert "--without-keys" in said


def test_the_rules_are_of_routes_that_exist() -> None:
    """A rule of a path that is gone, or was misspelt, protects nothing."""
    names = {
        f"{method} {path_of(route)}"
        for app in applications()
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert names >= OPEN | OPEN_ON_LOOPBACK
    assert set(RULES) <= names


@pytest.mark.parametrize(("method", "path"), sorted(SERVER))
def test_every_route_wants_a_key_of_its_scope_and_tenant(keyed: Keyed, method: str, path: str) -> None:
    """No key and bad keys: 401. Another scope, or another tenant where the route is the default tenant's: 403."""
    name = f"{'GET' if method == 'HEAD' else method} {path_of(Route(path, lambda _: None))}"
    where = filled(path)
    if name in OPEN or name in OPEN_ON_LOOPBACK:
        assert keyed.ask(method, where, None).status_code == 200
        if name in OPEN:
            return
    proxied = {"X-Forwarded-For": "10.0.0.1"}
    real = keyed.all
    bad = [
        "ml_" + "0" * 16 + "_" + "0" * 64, real[:-1] + ("0" if real[-1] != "0" else "1"), real.upper(), real[:-1], "x", ".",
        "ml_" + "0" * 16 + "_" + real[-64:], "' OR '1'='1", "x" * 5000,
    ]  # fmt: skip
    headers = [
        {},
        *({"Authorization": f"Bearer {key}"} for key in bad),
        {"Authorization": f"Basic {real}"},
        {"Authorization": real},
    ]
    for header in headers:
        answer = keyed.ask(method, where, None, headers={**proxied, **header})
        assert answer.status_code == 401, header
        assert answer.headers["www-authenticate"].startswith('Bearer realm="meterline"')
        assert method == "HEAD" or is_problem(answer, 401)
    twice = httpx.Headers([("Authorization", f"Bearer {real}"), ("Authorization", f"Bearer {real}"), *proxied.items()])
    assert plain_http.request(method, keyed.url + where, headers=twice).status_code == 401
    rule = RULES.get(name, UNLISTED)
    for scope in SCOPES:
        answer = keyed.ask(method, where, keyed.keys["default", (scope,)], headers=proxied)
        assert (answer.status_code == 403) == (scope != rule.scope), scope
        assert answer.status_code < 500
    other = keyed.ask(method, where, keyed.acme, headers=proxied)
    assert (other.status_code == 403) == (not rule.every_tenant)
    assert method == "HEAD" or other.status_code != 403 or is_problem(other, 403)


def test_what_is_no_route_wants_a_key_too(keyed: Keyed) -> None:
    """Nothing is told to who has none; and to others, that it is not there."""
    for method, path, status in [
        ("GET", "/", 404),
        ("GET", "/api/v1/nothing", 404),
        ("PUT", "/api/v1/events", 405),
        ("POST", "/healthz", 405),
    ]:
        assert is_problem(keyed.ask(method, path, None), 401)
        assert keyed.ask(method, path, keyed.keys["default", ("query",)]).status_code == status
    for path in (
        "//api/v1/keys",
        "/api/v1/keys/",
        "/api/v1//keys",
        "/API/V1/KEYS",
        "/api/v1/keys%2f",
        "/healthz/../api/v1/keys",
        "/healthz%00",
        "/healthz;x",
    ):
        host = urlsplit(keyed.url)
        with socket.create_connection((host.hostname, host.port)) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 401 " in connection.makefile("rb").readline(), path


def test_a_tenants_usage_is_its_own(keyed: Keyed) -> None:
    """Events with the same ids are two tenants' events; one that names another tenant refuses its request."""
    mine = [event(number) for number in range(20)]
    for key in (keyed.all, keyed.acme, keyed.acme):
        assert keyed.ask("POST", "/api/v1/events", key, json=mine, headers=BATCH).status_code == 204
    for key, other in (
        (keyed.acme, "default"),
        (keyed.all, "acme"),
        (keyed.acme, "x"),
        (keyed.acme, ""),
        (keyed.acme, 5),
    ):
        answer = keyed.ask("POST", "/api/v1/events", key, json=[event(100), event(101, tenant=other)], headers=BATCH)
        assert is_problem(answer, 400)
        assert answer.json()["extensions"]["validationErrors"][0]["index"] == 1
    assert (
        keyed.ask("POST", "/api/v1/events", keyed.acme, json=[event(50, tenant="acme")], headers=BATCH).status_code
        == 204
    )
    shown = keyed.server.run("audit") and keyed.server.run("usage", "--period", "2013-01")
    assert usage(shown, "calls") == 20


def test_keys_over_http_stay_with_their_tenant(keyed: Keyed) -> None:
    """An admin makes, sees and revokes keys of the own tenant; others' are not there."""
    made = keyed.make(keyed.acme, name='O\'Brien "ci" $.a', scopes=["ingest", "query"])
    assert made.keys() == {"id", "tenant", "name", "scopes", "createdAt", "revokedAt", "key"}
    assert (made["tenant"], made["name"], made["scopes"]) == ("acme", 'O\'Brien "ci" $.a', ["ingest", "query"])
    listed = keyed.ask("GET", "/api/v1/keys", keyed.acme).json()
    assert {each["tenant"] for each in listed} == {"acme"}
    assert {key: value for key, value in made.items() if key != "key"} in listed
    assert made["id"] not in keyed.ask("GET", "/api/v1/keys", keyed.all).text
    assert is_problem(
        keyed.ask("POST", "/api/v1/keys", keyed.acme, json={"tenant": "default", "scopes": ["admin"]}), 403
    )
    assert is_problem(keyed.ask("DELETE", f"/api/v1/keys/{made['id']}", keyed.all), 404)
    assert keyed.ask("POST", "/api/v1/events", made["key"], json=[event(1)], headers=BATCH).status_code == 204
    assert keyed.ask("DELETE", f"/api/v1/keys/{made['id']}", keyed.acme).status_code == 204
    assert keyed.ask("DELETE", f"/api/v1/keys/{made['id']}", keyed.acme).status_code == 204  # it is revoked
    keyed.wait_until_refused(made["key"])


def test_a_revoked_key_stops_within_the_bound(keyed: Keyed) -> None:
    """Also one in use all the time, revoked by another process; and it is never in force again."""
    made = keyed.make(keyed.all, scopes=["admin"])
    with ThreadPoolExecutor(4) as pool:
        waits = [pool.submit(keyed.wait_until_refused, made["key"]) for _ in range(4)]
        assert "revoked" in keyed.server.run("keys", "revoke", made["id"])
        revoked_s = time.monotonic()
        assert all(wait.result() > 0 for wait in waits)
        assert time.monotonic() - revoked_s < REVOKED_WITHIN_S
    assert made["id"] in keyed.server.run("keys", "list", "--tenant", "default")
    assert "no key" in keyed.server.run("keys", "revoke", "0" * 16, status=1)


def test_commands_beside_a_server_with_keys_need_none(keyed: Keyed) -> None:
    """Who reads the data directory reads all of it; the key for that is in a file that nobody else reads."""
    assert "Usage of 2013-01" in keyed.server.run("usage", "--period", "2013-01")
    assert (keyed.server.directory / "server.json").stat().st_mode & 0o777 == 0o600


def test_files_of_the_servers_machine_are_not_read_for_a_key(keyed: Keyed) -> None:
    """An import by path would show any file of the machine as rejected lines."""
    answer = keyed.ask("POST", "/api/v1/operations/import_usage", keyed.all, json={"path": "/etc/passwd"})
    assert is_problem(answer, 403)
    assert (
        "root"
        not in keyed.ask(
            "POST", "/api/v1/operations/list_rejections", keyed.all, json={"reason": None, "limit": 9, "as_json": True}
        ).text
    )


def test_a_tenant_is_held_to_its_rate(keyed: Keyed) -> None:
    """After a burst of ten seconds' worth, 429 with when to come again; other tenants notice nothing."""
    slow = keyed.server.run("keys", "create", "--tenant", "slow", "--scope", "ingest").strip()
    assert "10 events a second" in keyed.server.run("keys", "limit", "--tenant", "slow", "--rate-limit", "10")
    send = [event(number) for number in range(100)]
    assert is_problem(keyed.ask("POST", "/api/v1/events", slow, json=[*send, event(1)], headers=BATCH), 413)
    assert keyed.ask("POST", "/api/v1/events", slow, json=send, headers=BATCH).status_code == 204
    answer = keyed.ask("POST", "/api/v1/events", slow, json=send, headers=BATCH)
    assert is_problem(answer, 429)
    assert 1 <= int(answer.headers["retry-after"]) <= 10
    assert answer.json()["extensions"] == {"eventsPerSecond": 10}
    assert keyed.ask("POST", "/api/v1/events", keyed.acme, json=send, headers=BATCH).status_code == 204
