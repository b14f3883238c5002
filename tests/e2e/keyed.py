"""A server that asks for keys, with a key of each kind, and what its refusals look like."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, server_in
from tests.servers import plain_http

SCOPES = ("ingest", "query", "admin")
PROBLEM = "application/problem+json"


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
        return plain_http.request(method, self.url + path, headers=headers, timeout=30, **request)

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

    def stop_and_search(self) -> None:
        """Assert that the server ended in order, and that no secret, forged line or trace is in what it wrote."""
        assert self.server.stop() == 0
        secrets = [key.rpartition("_")[2].encode() for key in self.keys.values()]
        assert len(set(secrets)) == 5
        files = [path for path in self.server.directory.parent.rglob("*") if path.is_file()]
        assert len(files) > 100
        for path in files:
            content = path.read_bytes()
            assert not any(secret in content or bytes.fromhex(secret.decode()) in content for secret in secrets), path
        log = self.server.log.read_text()
        assert "key " in log
        assert "INFO forged line" not in [line[:16] for line in log.splitlines()]
        assert "Traceback" not in log


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """A server with keys that runs. Whatever was tried on it, no secret is in a file at the end."""
    with server_in(tmp_path_factory.mktemp("keyed")) as server:
        made = Keyed(server)
        yield made
        made.stop_and_search()


def is_problem(answer: httpx.Response, status: int) -> bool:
    body = answer.json()
    return (answer.status_code, answer.headers["content-type"], body["status"], body["type"]) == (
        status,
        PROBLEM,
        status,
        "about:blank",
    ) and {"title", "detail", "instance", "extensions"} <= body.keys()
