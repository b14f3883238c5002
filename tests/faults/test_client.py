"""`ingest.client` over a real broker: the broker and the gateway die under it, and each event counts once."""

import signal
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from ingest.client import Client, Counts
from stores.clickhouse import query
from tests.faults.conftest import Deployment
from tests.faults.gateways import Gateway, numbers_in_topic


def wait_for(condition: Callable[[], bool], client: Client) -> None:
    """Wait until something holds."""
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s, client.fault
        time.sleep(0.02)  # there is no event: the state is the client's own


def test_a_broker_and_a_gateway_die_and_each_event_counts_once(deployment: Deployment, tmp_path: Path) -> None:
    """503 while the log is away, no answer while the gateway is: the client sends again, the workers count once."""
    gateway = Gateway(deployment.servers, tmp_path / "gateway.log").start()
    deployment.worker()
    numbers = iter(range(1_000_000))
    with Client(gateway.url.removesuffix("/api/v1/events"), source="/s", batch_events_max=100) as client:

        def send(more: int) -> None:
            for _ in range(more):
                number = next(numbers)
                data = {"bytes": Decimal(number), "region": "eu"}
                client.send({"id": str(number), "type": "call", "subject": "a", "data": data})

        try:
            send(1000)
            deployment.broker.kill()
            send(1000)
            wait_for(lambda: "503 Service Unavailable" in str(client.fault), client)
            deployment.broker.start()
            send(1000)
            gateway.signal(signal.SIGKILL)
            gateway.wait()
            send(1000)
            wait_for(lambda: "no answer" in str(client.fault), client)
            gateway.start()
            send(1000)
            assert client.flush(60) == 0
            assert client.counts == Counts(sent=5_000, acknowledged=5_000, rejected=0)
        finally:
            gateway.stop()
    stored = numbers_in_topic(deployment.servers)
    assert set(stored) == set(range(5_000))
    deployment.settle(120)
    assert deployment.check() == {"events": 5_000, "duplicates": len(stored) - 5_000, "rejections": 0}
    (total,) = query(deployment.system.clickhouse, "SELECT sum(sum) FROM rollups WHERE meter = 'bytes'").row(0)
    assert total == sum(range(5_000))
