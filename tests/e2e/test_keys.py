"""A server with keys, from outside: who gets in, whose usage it becomes, and what hostile requests come to."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from aggregation.api import UsageApi
from meterline.access import OPEN, OPEN_ON_LOOPBACK, RULES, UNLISTED, path_of
from meterline.deployed import gateway as gateway_application
from meterline.known_keys import REVOKED_WITHIN_S
from meterline.server import Listening, application
from schemas.api_key import TENANT
from schemas.log import LogConfig
from tests.e2e.conftest import Server
from tests.e2e.test_serve import BATCH, event, usage

SCOPES = ("ingest", "query", "admin")
PROBLEM = "application/problem+json"
HOSTILE = [
    "'; DROP TABLE api_keys; --", '"', "\\", "' OR '1'='1", "$.a[?(@.b)]", "a\r\nSet-Cookie: x=1", "a\nINFO forged line", "\x00", "a\x00b",
    "%00", "%0d%0aX: y", "../../etc/passwd", "${jndi:ldap://x}", "{{7*7}}", "<script>", "\x1b[2J", "\u202e", "\u2028", "ünï\U0001f4a9", "x" * 6000,
    "", " ", "-1", "null", "%s%n",
]  # fmt: skip


def routes_of(app: Starlette) -> set[tuple[str, str]]:
    """Every method and path of an application."""
    found = set()
    for route in app.routes:
        assert isinstance(route, Route), "a route of another kind: add it to what is tried here"
        found |= {(method, route.path) for method in route.methods or {"GET", "POST", "PUT", "PATCH", "DELETE"}}
    return found


def applications() -> tuple[Starlette, Starlette]:
    """The applications over no stores: only their routes are looked at."""
    log: Any = SimpleNamespace(newest_config=LogConfig, partitions=1, meters=None, config=None)
    stores: Any = SimpleNamespace(log=log, database=None, follower=None, clickhouse_directory=None)
    nothing: Any = None
    usage = UsageApi(nothing, nothing, nothing, nothing)
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
    }.items():
        path = path.replace(f"{{{name}}}", value)
    assert "{" not in path, "a parameter that is filled with nothing here"
    return path


SERVER, GATEWAY = (routes_of(app) for app in applications())


class Keyed:
    """A server that asks for keys, and one key of each kind, by tenant and scopes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        first = server.run("keys", "create", "--scope", "ingest,query,admin", "--name", "first").strip()
        server.start("--keys", verbose=True)
        self.url = server.url
        self.keys = {("default", SCOPES): first}
        for tenant, scopes in [("default", (scope,)) for scope in SCOPES] + [("acme", SCOPES)]:
            made = server.run("keys", "create", "--tenant", tenant, "--scope", ",".join(scopes))
            self.keys[tenant, scopes] = made.strip()
        self.all, self.acme = first, self.keys["acme", SCOPES]

    def ask(self, method: str, path: str, key: str | None, **request: Any) -> httpx.Response:
        """The answer to a request."""
        headers = {**({"Authorization": f"Bearer {key}"} if key else {}), **request.pop("headers", {})}
        return httpx.request(method, self.url + path, headers=headers, timeout=30, **request)

    def make(self, key: str, **fields: Any) -> dict[str, Any]:
        """A new key of the same tenant."""
        answer = self.ask("POST", "/api/v1/keys", key, json=fields)
        assert answer.status_code == 201, answer.text
        assert answer.headers["cache-control"] == "no-store"
        made: dict[str, Any] = answer.json()
        return made

    def wait_until_refused(self, key: str, path: str = "/api/v1/keys") -> float:
        """How long a key goes on."""
        started_s = time.monotonic()
        while self.ask("GET", path, key).status_code != 401:
            assert time.monotonic() - started_s < 30
            time.sleep(0.05)  # there is no event: the key is forgotten in another process
        return time.monotonic() - started_s


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys that runs."""
    folder = tmp_path_factory.mktemp("keyed")
    for each in (folder, folder.parent):
        each.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    server = Server(folder / "data")
    server.directory.mkdir()
    try:
        yield Keyed(server)
    finally:
        server.end()


def is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    return (answer.status_code, answer.headers["content-type"], body["status"], body["type"]) == (
        status,
        PROBLEM,
        status,
        "about:blank",
    ) and {"title", "detail", "instance", "extensions"} <= body.keys()


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
    assert httpx.request(method, keyed.url + where, headers=twice).status_code == 401
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


def escaped(text: str) -> bytes:
    """What of a text may stand in a header, as a client without scruples sends it."""
    return text.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: quote(text)[:20])
def test_hostile_texts_are_refused_or_kept_as_they_are(keyed: Keyed, text: str) -> None:
    """In every field, path and header: never a 5xx, never another header, and what is stored is what was sent."""
    admin = keyed.all
    answers = []
    made = keyed.ask("POST", "/api/v1/keys", admin, json={"name": text, "scopes": ["query"]})
    answers.append(made)
    if made.status_code == 201:
        assert made.json()["name"] == text
        assert text in [each["name"] for each in keyed.ask("GET", "/api/v1/keys", admin).json()]
    else:
        assert is_problem(made, 400)
    answers += [
        keyed.ask("POST", "/api/v1/keys", admin, json={"tenant": text, "scopes": ["query"]}),
        keyed.ask("POST", "/api/v1/keys", admin, json={"scopes": [text]}),
        keyed.ask("POST", "/api/v1/keys", admin, json={"scopes": text}),
        keyed.ask("POST", "/api/v1/keys", admin, json={text: text, "scopes": ["query"]}),
        keyed.ask("POST", "/api/v1/keys", admin, content=escaped(text), headers={"Content-Type": "application/json"}),
        keyed.ask("DELETE", f"/api/v1/keys/{quote(text, safe='')}", admin),
        keyed.ask("POST", f"/api/v1/operations/{quote(text, safe='')}", admin, json={}),
        keyed.ask("GET", "/api/v1/keys", admin, params={"id": text}),
        keyed.ask("POST", "/api/v1/operations/show_invoice", admin, json={"number": 5}),
    ]
    assert all(answer.status_code in range(300, 500) for answer in answers[1:-2])  # 307: a path that ends in a slash
    assert answers[-1].status_code == 400
    for operation, parameters in [
        ("show_invoice", {"number": text}), ("list_invoices", {"period": text}), ("show_usage", {"period": text}), ("bill", {"period": text}),
        ("list_keys", {"tenant": text}), ("revoke_key", {"key_id": text}), ("list_rejections", {"reason": text, "limit": 1, "as_json": False}),
        ("limit_tenant", {"tenant": text, "events_per_second": 1}), ("create_key", {"tenant": text, "scope": "query", "name": ""}),
    ]:  # fmt: skip
        answer = keyed.ask("POST", f"/api/v1/operations/{operation}", admin, json=parameters)
        assert answer.status_code == 200, operation
        kinds = [json.loads(line)["kind"] for line in answer.content.splitlines()]
        assert kinds, operation
        assert operation.startswith("list") or kinds[-1] == "failure" or TENANT.fullmatch(text), operation
        answers.append(answer)
    for field in ("id", "source", "subject", "type", "tenant", "time", "specversion", "note"):
        sent = keyed.ask("POST", "/api/v1/events", keyed.acme, json=[event(7000, **{field: text})], headers=BATCH)
        assert sent.status_code == 204 or is_problem(sent, 400), field
        answers.append(sent)
    assert not any("x" in answer.headers or "set-cookie" in answer.headers for answer in answers)
    assert not any(answer.status_code >= 500 for answer in answers)


HEADERS = (
    "Authorization",
    "Content-Type",
    "Content-Encoding",
    "Content-Length",
    "Transfer-Encoding",
    "Host",
    "X-Forwarded-For",
    "Accept",
    "Expect",
)


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_headers_are_refused(keyed: Keyed, name: str) -> None:
    """Bytes that no client library would send: the answer is a 4xx or the end of the connection, and never a 5xx."""
    host = urlsplit(keyed.url)
    for text in [*HOSTILE, "Bearer \xff", "Bearer " + keyed.all + "\x00", "1e3", "+5", "99999999999999999999", "0x10"]:
        head = {
            "Host": "x",
            "Authorization": f"Bearer {keyed.all}",
            "Content-Type": "application/json",
            "Content-Length": "2",
        }
        lines = b"".join(
            each.encode() + b": " + escaped(value) + b"\r\n" for each, value in {**head, name: text}.items()
        )
        with socket.create_connection((host.hostname, host.port), timeout=5) as connection:
            connection.sendall(b"POST /api/v1/events HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n{}")
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer[:11] in {b"", b"HTTP/1.1 40", b"HTTP/1.1 41"}, (text, answer)
        assert b"\r\nSet-Cookie" not in answer
        assert b"\r\nX: y" not in answer


def test_bodies_that_are_no_parameters_are_refused(keyed: Keyed) -> None:
    """Of every JSON kind, too long, or of another content type."""
    for path in ("/api/v1/keys", "/api/v1/operations/show_invoice"):
        for body in (
            b"",
            b"{",
            b"[]",
            b"5",
            b"null",
            b'"x"',
            b'{"a":1}',
            b'{"scopes":null}',
            b'{"scopes":[null]}',
            b'{"name":5,"scopes":["query"]}',
            b'{"number":"\\ud800"}',
            b"\xff",
            b"[" * 5000,
        ):
            answer = keyed.ask("POST", path, keyed.all, content=body, headers={"Content-Type": "application/json"})
            assert is_problem(answer, 400), (path, body)
        assert is_problem(
            keyed.ask("POST", path, keyed.all, content=b"{}", headers={"Content-Type": "text/plain"}), 400
        )
        large = keyed.ask(
            "POST", path, keyed.all, content=b" " * (33 << 20), headers={"Content-Type": "application/json"}
        )
        assert is_problem(large, 413)


def test_no_secret_is_in_a_log_or_in_the_data(keyed: Keyed) -> None:
    """Of no key that was made here, in any file, while it runs or after; nor a line that a request forged, nor a trace."""
    keyed.make(keyed.all, name="last", scopes=["query"])
    assert keyed.server.stop() == 0
    secrets = [key.rpartition("_")[2].encode() for key in keyed.keys.values()]
    assert len(set(secrets)) == 5
    files = [path for path in keyed.server.directory.parent.rglob("*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        content = path.read_bytes()
        assert not any(secret in content or bytes.fromhex(secret.decode()) in content for secret in secrets), path
    log = keyed.server.log.read_text()
    assert "key " in log
    assert "INFO forged line" not in [line[:16] for line in log.splitlines()]
    assert "Traceback" not in log
