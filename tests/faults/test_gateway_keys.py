"""Gateways that ask for keys, as processes over a real broker: who gets in, as which tenant, and while PostgreSQL is away."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa

from meterline.access import OPEN, OPEN_ON_LOOPBACK, RULES, UNLISTED, path_of
from meterline.keys import make_key
from meterline.known_keys import REVOKED_WITHIN_S
from schemas.api_key import NewKey, Scope, TenantLimit
from schemas.event import decode_line
from schemas.log import Limits
from stores.api_keys import create_key, limit_tenant, revoke_key
from tests.e2e.test_keys import GATEWAY, Route, filled, is_problem
from tests.faults.conftest import PARTITIONS, Deployment, event
from tests.faults.gateways import BATCH, SINGLE, Gateway
from tests.oracles.topic import read_topic
from tests.servers import plain_http


def made(deployment: Deployment, tenant: str, *scopes: str) -> tuple[str, str]:
    """A new key, and its id."""
    text, key = make_key(NewKey(tenant=tenant, scopes=scopes), datetime.now(UTC))
    create_key(deployment.system.database, key)
    return text, key.id


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def sends(gateway: Gateway, key: str, *events: bytes) -> httpx.Response:
    body = b"[" + b",".join(events) + b"]"
    return plain_http.post(gateway.url, content=body, headers={**BATCH, **bearer(key)}, timeout=10)


@pytest.fixture
def gateways(deployment: Deployment, tmp_path: Path) -> Iterator[list[Gateway]]:
    """Two gateways that ask for keys, and a key that nobody uses, so that they start."""
    made(deployment, "nobody", "admin")
    options = ("--keys", "--rate-limit", "100")
    running = [Gateway(deployment.servers, tmp_path / f"gateway-{n}.log", options=options) for n in range(2)]
    try:
        yield [gateway.start() for gateway in running]
    finally:
        for gateway in running:
            gateway.stop()


def test_every_route_of_the_gateway_wants_a_key(deployment: Deployment, gateways: list[Gateway]) -> None:
    """Without one, with a bad one, with each other scope, and with another tenant's."""
    base = gateways[0].url.removesuffix("/api/v1/events")
    keys = {scope: made(deployment, "default", scope)[0] for scope in Scope}
    other = made(deployment, "acme", *Scope)[0]
    real = keys[Scope.ADMIN]
    proxied = {"X-Forwarded-For": "10.0.0.1"}
    assert len(GATEWAY) >= 10
    for method, path in sorted(GATEWAY):
        name = f"{'GET' if method == 'HEAD' else method} {path_of(Route(path, lambda _: None))}"
        url = base + filled(path)
        if name in OPEN or name in OPEN_ON_LOOPBACK:
            assert plain_http.request(method, url).status_code == 200
        if name in OPEN:
            continue
        for headers in ({}, bearer("x"), bearer(real[:-1] + "g"), bearer("ml_" + "0" * 16 + "_" + real[-64:])):
            answer = plain_http.request(method, url, headers={**proxied, **headers})
            assert answer.status_code == 401, (name, headers)
            assert "Bearer" in answer.headers["www-authenticate"]
        rule = RULES.get(name, UNLISTED)
        for scope, key in keys.items():
            answer = plain_http.request(method, url, headers={**proxied, **bearer(key)})
            assert (answer.status_code == 403) == (scope != rule.scope), (name, scope)
            assert answer.status_code < 500
        answer = plain_http.request(method, url, headers={**proxied, **bearer(other)})
        assert (answer.status_code == 403) == (not rule.every_tenant), name
    assert "Traceback" not in gateways[0].log.read_text()
    assert not any(key[-64:] in gateways[0].log.read_text() for key in keys.values())


def test_events_are_in_the_log_as_their_keys_tenants(deployment: Deployment, gateways: list[Gateway]) -> None:
    """Single, in batches and compressed or not: what the log holds decodes to the tenant of the key, and to no other."""
    acme, default = made(deployment, "acme", "ingest")[0], made(deployment, "default", "ingest")[0]
    assert sends(gateways[0], acme, event(1), event(2, tenant="acme"), event(3, tenant=None)).status_code == 204
    assert sends(gateways[1], default, event(1), event(4, tenant="default")).status_code == 204
    single = plain_http.post(gateways[1].url, content=event(5), headers={**SINGLE, **bearer(acme)})
    assert single.status_code == 204
    for key, tenant in ((acme, "default"), (default, "acme"), (acme, "ACME"), (acme, "")):
        assert is_problem(sends(gateways[0], key, event(6), event(7, tenant=tenant)), 400)
    records = read_topic(deployment.servers.kafka, deployment.servers.topic, PARTITIONS)
    lines = [line for own in records.values() for record in own if record.value for line in record.value.split(b"\n")]
    decoded = [decode_line(line, (), Limits()) for line in lines]
    assert sorted((each["tenant"], each["id"]) for each in decoded) == [
        ("acme", "1"), ("acme", "2"), ("acme", "3"), ("acme", "5"), ("default", "1"), ("default", "4"),
    ]  # fmt: skip


def test_the_workers_count_what_the_gateway_let_in(deployment: Deployment, gateways: list[Gateway]) -> None:
    """Two tenants' events with the same ids are no copies of each other, from the request to the rollups."""
    for tenant in ("acme", "default", "globex"):
        key = made(deployment, tenant, "ingest")[0]
        for _ in range(2):
            assert sends(gateways[0], key, *map(event, range(30))).status_code == 204
    deployment.worker()
    deployment.settle()
    rows = deployment.system.clickhouse.query("SELECT tenant, count() FROM events GROUP BY tenant ORDER BY tenant")
    assert [tuple(row) for row in rows.result_rows] == [("acme", 30), ("default", 30), ("globex", 30)]


def test_a_revoked_key_stops_at_every_gateway_within_the_bound(deployment: Deployment, gateways: list[Gateway]) -> None:
    """Each has read the key, and each finds out by itself."""
    key, key_id = made(deployment, "acme", "ingest")
    assert [sends(gateway, key, event(1)).status_code for gateway in gateways] == [204, 204]
    revoke_key(deployment.system.database, key_id, tenant=None, revoked_at=datetime.now(UTC))
    revoked_s = time.monotonic()
    for gateway in gateways:
        gateway.wait_for(lambda gateway=gateway: sends(gateway, key, event(1)).status_code == 401)
    assert time.monotonic() - revoked_s < REVOKED_WITHIN_S


def test_usage_is_taken_while_postgresql_is_away(deployment: Deployment, gateways: list[Gateway]) -> None:
    """With keys that are known; of others nothing can be said, so they get 503. After it, a revoked key is refused."""
    gateway, database = gateways[0], deployment.system.database
    known, key_id = made(deployment, "acme", "ingest")
    new = made(deployment, "acme", "ingest")[0]
    admin, reader = made(deployment, "default", "admin")[0], made(deployment, "default", "query")[0]
    base = gateway.url.removesuffix("/events")
    assert sends(gateway, known, event(1)).status_code == 204
    assert plain_http.get(f"{base}/meters", headers=bearer(reader)).status_code == 200
    assert plain_http.get(f"{base}/keys", headers=bearer(admin)).status_code == 200
    elsewhere = sa.create_engine(database.url.set(database="postgres"), isolation_level="AUTOCOMMIT")

    def allow(allowed: bool) -> None:
        with elsewhere.connect() as connection:
            connection.execute(sa.text(f"ALTER DATABASE {database.url.database} ALLOW_CONNECTIONS {allowed}"))
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": database.url.database},
            )

    allow(False)
    try:
        for _ in range(20):
            assert sends(gateway, known, event(2)).status_code == 204
        assert is_problem(sends(gateway, new, event(3)), 503)
        assert is_problem(plain_http.get(f"{base}/keys", headers=bearer(admin)), 503)
        for page in ("meters", "meters/calls/query"):
            assert is_problem(plain_http.get(f"{base}/{page}", headers=bearer(reader)), 503)
        time.sleep(REVOKED_WITHIN_S)  # an outage lasts; there is nothing to await
        assert sends(gateway, known, event(2)).status_code == 204
    finally:
        allow(True)
        elsewhere.dispose()
        database.dispose()
    gateway.wait_for(lambda: sends(gateway, new, event(3)).status_code == 204)
    revoke_key(database, key_id, tenant="acme", revoked_at=datetime.now(UTC))
    assert gateway.wait_for(lambda: sends(gateway, known, event(4)).status_code == 401) < REVOKED_WITHIN_S


def test_rates_are_per_tenant(deployment: Deployment, gateways: list[Gateway]) -> None:
    """The gateway's rate is for each tenant, a tenant's own wins, and 429 says both the limit and when to come again."""
    limit_tenant(deployment.system.database, TenantLimit(tenant="fast", events_per_second=100_000))
    keys = {tenant: made(deployment, tenant, "ingest")[0] for tenant in ("a", "b", "fast")}
    burst = [event(number) for number in range(1000)]
    for key in keys.values():
        assert sends(gateways[0], key, *burst).status_code == 204
    assert sends(gateways[0], keys["fast"], *burst).status_code == 204
    answer = sends(gateways[0], keys["a"], *burst)
    assert is_problem(answer, 429)
    assert "the tenant a may send 100 events a second" in answer.json()["detail"]
    assert 5 <= int(answer.headers["retry-after"]) <= 10
    assert sends(gateways[1], keys["a"], *burst).status_code == 204  # a limit of one process
    gateways[0].wait_for(lambda: sends(gateways[0], keys["a"], event(1)).status_code == 204)
    refused = 'meterline_gateway_requests_refused_total{reason="rate",status="429"}'
    assert gateways[0].metric(refused) >= 1


def test_where_others_reach_it_a_gateway_needs_keys(deployment: Deployment) -> None:
    """It ends before it listens, and says how to make one and how to go without."""
    environment = {
        **os.environ, "METERLINE_KAFKA": deployment.servers.kafka, "METERLINE_TOPIC": deployment.servers.topic,
        "METERLINE_CLICKHOUSE": deployment.servers.clickhouse, "METERLINE_POSTGRES": deployment.servers.postgres,
    }  # fmt: skip

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "meterline", *arguments], env=environment, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    for options in (["--host", "0.0.0.0"], ["--keys"]):
        done = run("gateway", "--port", "0", *options)
        assert done.returncode == 1
        assert "meterline keys create" in done.stderr
        assert "--without-keys" in done.stderr
    made_key = run("keys", "create", "--tenant", "acme", "--scope", "ingest,query", "--name", "ci")
    assert made_key.stdout.startswith("ml_")
    key_id = made_key.stdout.split("_")[1]
    listed = run("keys", "list").stdout
    assert key_id in listed
    assert made_key.stdout.strip()[-64:] not in listed
    run("keys", "revoke", key_id)
    assert run("gateway", "--port", "0", "--keys").returncode == 1  # a revoked key is none
