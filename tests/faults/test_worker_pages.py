"""What a worker says of itself over HTTP: /healthz, /readyz and /metrics, with real servers that fail."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import httpx

from tests.faults.conftest import Deployment, Supervised, event
from tests.servers import plain_http
from tests.servers.kafka import free_port


def ask(worker: Supervised, page: str) -> tuple[int, str]:
    """The status and the body of a page; 0 where nobody answers."""
    try:
        answer = plain_http.get(f"http://127.0.0.1:{worker.port}{page}", timeout=5)
    except httpx.TransportError:
        return 0, ""
    return answer.status_code, answer.text


def wait_for(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)  # there is no event: the state is another process's


def test_a_worker_tells_what_it_does_and_what_keeps_it_from_it(deployment: Deployment) -> None:
    """Not ready before it has partitions; ready with them; and not while the broker says nothing, though healthy."""
    worker, answers = deployment.worker(), list[tuple[int, str]]()
    wait_for(lambda: (answers.append(ask(worker, "/readyz")) or answers[-1][0]) == 200)
    assert {answer for answer in answers if answer[0]} <= {
        (503, '{"status": "no partitions are assigned yet"}'), (200, '{"status": "ok"}'),
    }  # fmt: skip
    deployment.append([*(event(n % 80) for n in range(100)), b"not json"])
    deployment.settle()
    wait_for(lambda: 'meterline_lag_records{partition="3"} 0.0' in ask(worker, "/metrics")[1])
    status, metrics = ask(worker, "/metrics")
    assert status == 200
    for line in (
        'meterline_lines_total{outcome="accepted"} 80.0', 'meterline_lines_total{outcome="duplicates"} 20.0',
        'meterline_lines_total{outcome="rejected"} 1.0', 'meterline_rejected_total{reason="not_json"} 1.0',
        'meterline_lag_seconds{partition="0"} 0.0', 'meterline_batch_seconds_count{step="progress"}',
        'meterline_dedup_keys{partition="0"}',
    ):  # fmt: skip
        assert line in metrics, line
    deployment.broker.pause()
    try:
        wait_for(lambda: ask(worker, "/readyz")[0] == 503)
        assert "the broker has not said where the log ends" in ask(worker, "/readyz")[1]
        assert ask(worker, "/healthz") == (200, '{"status": "ok"}')
    finally:
        deployment.broker.resume()
    wait_for(lambda: ask(worker, "/readyz")[0] == 200)
    deployment.append([event(n) for n in range(80, 100)])
    deployment.settle()
    assert deployment.check()["events"] == 100


def test_a_worker_that_faust_itself_starts(deployment: Deployment) -> None:
    """`faust -A aggregation.app worker`, with the servers in the environment, is the same worker."""
    servers = deployment.servers
    environment = {
        **os.environ, "METERLINE_KAFKA": servers.kafka, "METERLINE_TOPIC": servers.topic, "METERLINE_WORKER": "plain",
        "METERLINE_CLICKHOUSE": servers.clickhouse, "METERLINE_POSTGRES": servers.postgres,
    }  # fmt: skip
    command = [sys.executable, "-m", "faust", "-A", "aggregation.app", "worker", "--web-port", str(free_port())]
    with (deployment.directory / "faust.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deployment.append([event(n % 80) for n in range(100)])
        deployment.settle()
        assert deployment.check() == {"events": 80, "duplicates": 20, "rejections": 0}
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
