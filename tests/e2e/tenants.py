"""A server with keys and several tenants, asked over HTTP alone: a command of its own takes longer than a request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
EVERY_SCOPE = "ingest,query,admin"


class Tenants:
    """A running server, and a key with all scopes for each tenant."""

    def __init__(self, server: Server, *tenants: str) -> None:
        self.server = server
        first = server.run("keys", "create", "--scope", EVERY_SCOPE, "--name", "first").strip()
        server.start("--keys", verbose=True)
        self.client = httpx.Client(base_url=server.url, timeout=30)
        self.keys = {"default": first}
        for tenant in tenants:
            self.add(tenant)

    def add(self, tenant: str) -> None:
        """Make a key for one more tenant."""
        self.keys[tenant] = self.operate("create_key", tenant=tenant, scope=EVERY_SCOPE, name="first")["text"]

    def ask(self, method: str, path: str, tenant: str, **request: Any) -> httpx.Response:
        """The answer to a request with a tenant's key."""
        headers = {"Authorization": f"Bearer {self.keys[tenant]}", **request.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **request)

    def send(self, tenant: str, events: list[dict[str, Any]]) -> None:
        """Send events."""
        answer = self.ask("POST", "/api/v1/events", tenant, json=events, headers=BATCH)
        assert answer.status_code == 204, answer.text

    def operate(self, operation: str, /, **parameters: Any) -> dict[str, Any]:
        """What an operation says in the end, asked for by the tenant that runs the server."""
        answer = self.ask("POST", f"/api/v1/operations/{operation}", "default", json=parameters)
        assert answer.status_code == 200, answer.text
        last: dict[str, Any] = json.loads(answer.content.splitlines()[-1])
        assert last["kind"] != "failure", last
        return last

    def settle(self) -> None:
        """Wait until all that was sent is stored."""
        self.operate("replay_rejections", reason="none", repaired=None)


@contextmanager
def running_tenants(factory: pytest.TempPathFactory, *tenants: str) -> Iterator[Tenants]:
    """A server in a folder of its own, and the tenant default with others."""
    folder = factory.mktemp("tenants")
    for each in (folder, folder.parent):
        each.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    server = Server(folder / "data")
    server.directory.mkdir()
    try:
        running = Tenants(server, *tenants)
        try:
            yield running
        finally:
            running.client.close()
    finally:
        server.end()
