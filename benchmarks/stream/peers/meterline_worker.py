"""Meterline itself: deduplication, hourly rollups, and events and rollups committed in ClickHouse.

One worker process with the engine inside it, and PostgreSQL beside it. Timed from the moment when the worker says that
it has its partitions to the moment when its metrics say that every line is stored.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import polars as pl

from benchmarks.stream.systems import TIMEOUT_S, Run, SystemFailedError, Task, complaint, processes
from benchmarks.stream.topics import PARTITIONS
from meterline.system import configure_meters
from stores.kafka_log import open_log
from stores.postgres import embedded_server, engine_for
from stores.servers import servers_of
from tests.servers.kafka import free_port

ROOT = Path(__file__).parents[3]
METERS = (
    "meters: [{slug: bytes, eventType: request, aggregation: SUM, valueProperty: $.bytes, groupBy: {region: $.region}}]"
)
READY_POLL_S, POLL_S = 0.02, 0.1
_LINES = re.compile(r"^meterline_lines_total\{.*\} (\S+)$", re.MULTILINE)


def prepare(task: Task) -> None:
    """Begin the log in the empty topic, with the meter in force from its first record on.

    `meterline meters apply` would wait for a worker to follow.
    """
    with environment(task) as variables:
        command = meterline("topics", "create", "--partitions", str(PARTITIONS))
        made = subprocess.run(command, env=variables, cwd=task.directory, capture_output=True, text=True, check=False)
        if made.returncode:
            raise SystemFailedError(made.stderr)
        servers = servers_of(variables)
        assert servers is not None
        database = engine_for(servers.postgres)
        log = open_log(database, servers)
        configure_meters(log, METERS, "the benchmark")
        log.close()
        database.dispose()


def run_meterline(task: Task) -> Run:
    """Run a worker over the topic until all of it is stored."""
    port = free_port()
    with (
        environment(task) as variables,
        processes(task, [meterline("worker", "--port", str(port))], variables) as (worker,),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        postmaster = task.directory / "postgres" / "postmaster.pid"
        task.pids.append(int(postmaster.read_text().split()[0]))
        for _ in polls(task, worker, READY_POLL_S):
            if answer(client, "/readyz") is not None:
                break
        started_at = time.time()
        for _ in polls(task, worker, POLL_S):
            stored = sum(float(count) for count in _LINES.findall(answer(client, "/metrics") or ""))
            if stored >= task.events:
                break
        ended_at = time.time()
    return Run(int(stored), started_at, ended_at, _rollups(task))


def meterline(*arguments: str) -> list[str]:
    """The command line of a process of ours."""
    return [sys.executable, "-m", "meterline", *arguments]


@contextmanager
def environment(task: Task) -> Iterator[dict[str, str]]:
    """The environment of Meterline's processes, PostgreSQL running."""
    with embedded_server(task.directory / "postgres") as postgres:
        yield {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "METERLINE_KAFKA": task.broker,
            "METERLINE_TOPIC": task.topic,
            "METERLINE_CLICKHOUSE": f"chdb:{task.directory / 'clickhouse'}",
            "METERLINE_POSTGRES": postgres,
        }


def polls(task: Task, worker: subprocess.Popen[bytes], interval_s: float) -> Iterator[None]:
    """Come back again and again while a worker runs. Raises SystemFailedError when it ends, or takes too long."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while True:
        if worker.poll() is not None:
            raise SystemFailedError(f"the worker has ended; {complaint(task)}")
        if time.monotonic() > deadline_s:
            raise SystemFailedError(f"not done after {TIMEOUT_S:.0f} s; {complaint(task)}")
        yield
        time.sleep(interval_s)


def answer(client: httpx.Client, path: str) -> str | None:
    """What the worker says; None where it does not listen yet, or says no."""
    try:
        answer = client.get(path)
    except httpx.TransportError:
        return None
    return answer.text if answer.is_success else None


def _rollups(task: Task) -> pl.DataFrame:
    """What is stored, read by another process: the engine takes one directory a process."""
    result = task.directory / "result.csv"
    program = Path(__file__).with_name("meterline_rollups.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, program, task.directory / "clickhouse", result], env=environment, check=True)
    return pl.read_csv(result)
