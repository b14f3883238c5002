"""Usage queries of a gateway while ClickHouse is away: told so at once, and answered again when it is back."""

import time
from pathlib import Path

import httpx

from tests.faults.conftest import Deployment, event
from tests.faults.gateways import BATCH, Gateway


def test_queries_are_refused_while_clickhouse_is_away(deployment: Deployment, tmp_path: Path) -> None:
    """503 with when to come again, within seconds, for every route of usage; events are taken; then all is as before."""
    gateway = Gateway(deployment.servers, tmp_path / "gateway.log")
    try:
        with httpx.Client(base_url=gateway.start().url.removesuffix("/events"), timeout=60) as client:
            pages = ("meters/calls/query", "meters/calls/subjects", "events", "debug/metrics")
            assert [client.get(f"/{page}").status_code for page in pages] == [200] * 4
            deployment.clickhouse.kill()
            for page in pages:
                started_s = time.monotonic()
                answer = client.get(f"/{page}")
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                assert "try again" in answer.json()["detail"]
                assert time.monotonic() - started_s < 10
            assert client.get("/meters").status_code == 200
            assert client.post("/events", content=b"[%s]" % event(1), headers=BATCH).status_code == 204
            deployment.clickhouse.start()
            assert [client.get(f"/{page}").status_code for page in pages] == [200] * 4
            assert "Traceback" not in gateway.log.read_text()
    finally:
        gateway.stop()
