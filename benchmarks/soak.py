"""What becomes of memory: minutes of steady load through HTTP, with a query a second, and every event counted.

    python -m benchmarks.soak [--seconds 600] [--smoke]

A gateway and a worker over a real broker, with ClickHouse's engine behind HTTP and PostgreSQL. Requests are due at
fixed instants, batches and single events among each other, and are sent then, whatever became of those before; a
latency counts from the instant at which a request was due. The resident memory of both processes is sampled. The
identities that the worker knows take 18 bytes each, by design: what they take, as its metrics tell, is told apart from
the rest. The rest has the room in which the index merges its runs: about as much again, until runs have 1 MiB and are
mapped from files. A slope is the median of the slopes between all pairs of samples after the warm-up (Theil and Sen).
At the end events are counted again: all that was acknowledged, copies once, by subject, region and hour, as plain
Python counts them.
"""

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import polars as pl
import psutil

from benchmarks.report import report
from benchmarks.stream.oracle import Oracle, difference
from benchmarks.stream.payload import Payload
from benchmarks.stream.peers.meterline_rollups import ROLLUPS
from benchmarks.stream.peers.meterline_worker import METERS, POLL_S, answer, environment, meterline, polls
from benchmarks.stream.systems import Task, processes
from schemas.identity import content_digest
from stores.clickhouse import open_server, query
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Broker, free_port

SECONDS, SMOKE_SECONDS = 600, 4
PARTITIONS = 4
BATCHES_A_SECOND, BATCH, SINGLES_A_SECOND = 4, 240, 40
SAMPLES = 200
WARM, END = (0.1, 0.2), 0.9
"""Parts of the whole time: the second of ten minutes is the one that the last is held against."""
MIB = 1 << 20
_LINES, _KEYS, _KEY_BYTES = "meterline_lines_total", "meterline_dedup_keys", "meterline_dedup_bytes"


@dataclass(frozen=True)
class Sample:
    """What was held at an instant, in bytes; `key_bytes` of the worker's are the identities that it knows."""

    at_s: float
    gateway: int
    worker: int
    keys: int
    key_bytes: int


@dataclass
class Found:
    """What came of the load: statuses, seconds that requests took by their kind, and the samples."""

    statuses: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    took_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class Running:
    """The two processes under test, and where they listen."""

    gateway: "subprocess.Popen[bytes]"
    worker: "subprocess.Popen[bytes]"
    gateway_port: int
    worker_port: int


def run(seconds: int) -> dict[str, Any]:
    """Load for so many seconds; the parameters, and what was measured."""
    events = seconds * (BATCHES_A_SECOND * BATCH + SINGLES_A_SECOND)
    lines = [line for chunk in Payload(events).chunks() for line in chunk]
    with tempfile.TemporaryDirectory(prefix="meterline-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        broker = Broker(folder / "broker").start()
        try:
            task = Task(broker.bootstrap_servers, "bench.soak", events, folder / "soak")
            task.directory.mkdir()
            with ClickHouse(folder / "clickhouse") as server:
                found, stored = _measured(task, server, lines, seconds)
                client = open_server(server.url)
                rollups = query(client, ROLLUPS)
                client.close()
        finally:
            broker.kill()
    oracle = Oracle()
    oracle.observe(lines)
    expected = oracle.groups(deduplicated=True)
    assert set(found.statuses) == {204}, dict(found.statuses)
    assert stored == events, f"{events:,} events were acknowledged, and {stored:,} lines are stored"
    differs = difference(rollups, expected)
    assert not differs, differs
    return {
        "seconds": seconds, "partitions": PARTITIONS, "events_per_second": events // seconds,
        "requests": found.statuses[204], "acknowledged_events": events, "counted_events": int(rollups["count"].sum()),
        "duplicates": events - oracle.distinct,
        **_latencies(found.took_s),
        **memory(found.samples, seconds),
        "digest": content_digest(expected.sort(pl.all()).write_csv().encode()),
    }  # fmt: skip


def _measured(task: Task, server: ClickHouse, lines: list[bytes], seconds: int) -> tuple[Found, int]:
    """Load a gateway and a worker; what was found, and how many lines are stored when all of them are."""
    with environment(task) as variables:
        variables["METERLINE_CLICKHOUSE"] = server.url
        _command(task, variables, "topics", "create", "--partitions", str(PARTITIONS))
        ports = free_port(), free_port()
        commands = [
            meterline("gateway", "--port", str(ports[0])),
            meterline("worker", "--port", str(ports[1]), "--name", "soak"),
        ]
        with (
            processes(task, commands, variables) as (gateway, worker),
            httpx.Client(base_url=f"http://127.0.0.1:{ports[0]}", timeout=30) as gateway_pages,
            httpx.Client(base_url=f"http://127.0.0.1:{ports[1]}", timeout=30) as worker_pages,
        ):
            for process, pages in ((gateway, gateway_pages), (worker, worker_pages)):
                for _ in polls(task, process, POLL_S):
                    if answer(pages, "/readyz") is not None:
                        break
            (task.directory / "meters.yaml").write_text(METERS)
            _command(task, variables, "meters", "apply", "meters.yaml")
            found = asyncio.run(_load(Running(gateway, worker, *ports), lines, seconds))
            for _ in polls(task, worker, POLL_S):
                stored = _sum(answer(worker_pages, "/metrics") or "", _LINES)
                if stored >= len(lines):
                    return found, stored
    raise AssertionError("polls end in an error")


def _command(task: Task, variables: dict[str, str], *arguments: str) -> None:
    command = meterline(*arguments)
    subprocess.run(command, env=variables, cwd=task.directory, check=True, stdout=subprocess.DEVNULL)


async def _load(running: Running, lines: list[bytes], seconds: int) -> Found:
    """Send all the lines, ask a query a second, and sample the processes."""
    found = Found()
    done = asyncio.Event()
    url = f"http://127.0.0.1:{running.gateway_port}/api/v1"
    timeout = aiohttp.ClientTimeout(total=60)
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64)) as session,
        asyncio.TaskGroup() as beside,
    ):
        started_s = time.monotonic()
        beside.create_task(_every(seconds / SAMPLES, done, lambda: _sample(found, running, session, started_s)))
        beside.create_task(_every(1, done, lambda: _ask(found, session, f"{url}/meters/bytes/query")))
        async with asyncio.TaskGroup() as sending:
            for due_s, kind, body in _requests(lines, seconds):
                await asyncio.sleep(max(0.0, started_s + due_s - time.monotonic()))
                sending.create_task(_send(found, session, f"{url}/events", kind, body, started_s + due_s))
        done.set()
    return found


def _requests(lines: list[bytes], seconds: int) -> Iterator[tuple[float, str, bytes]]:
    """When each request is due, counted from the start; its kind; and its body."""
    kinds = [(each / BATCHES_A_SECOND, BATCH) for each in range(BATCHES_A_SECOND)]
    kinds += [((each + 0.5) / SINGLES_A_SECOND, 1) for each in range(SINGLES_A_SECOND)]
    unsent = iter(lines)
    for second in range(seconds):
        for due_s, events in sorted(kinds):
            body = [*islice(unsent, events)]
            yield second + due_s, "single" if events == 1 else "batch", body[0] if events == 1 else _array(body)


def _array(events: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(events) + b"]"


async def _send(found: Found, session: aiohttp.ClientSession, url: str, kind: str, body: bytes, due_s: float) -> None:
    content = "application/cloudevents+json" if kind == "single" else "application/cloudevents-batch+json"
    async with session.post(url, data=body, headers={"Content-Type": content}) as response:
        await response.read()
    found.statuses[response.status] += 1
    found.took_s[kind].append(time.monotonic() - due_s)


async def _every(interval_s: float, done: asyncio.Event, work: Callable[[], Any]) -> None:
    """Do something at once and again and again, until it is done."""
    due_s = time.monotonic()
    while not done.is_set():
        await work()
        due_s = max(due_s + interval_s, time.monotonic())
        try:
            await asyncio.wait_for(done.wait(), due_s - time.monotonic())
        except TimeoutError:
            continue


async def _ask(found: Found, session: aiohttp.ClientSession, url: str) -> None:
    """A subject's day by the hour."""
    started_s = time.monotonic()
    asked = {"subject": "customer-00001", "windowSize": "HOUR"} | {
        "from": "2026-10-28T00:00:00Z", "to": "2026-10-29T00:00:00Z",
    }  # fmt: skip
    async with session.get(url, params=asked) as response:
        assert response.status == 200, await response.text()
        await response.read()
    found.took_s["query"].append(time.monotonic() - started_s)


async def _sample(found: Found, running: Running, session: aiohttp.ClientSession, started_s: float) -> None:
    async with session.get(f"http://127.0.0.1:{running.worker_port}/metrics") as response:
        metrics = await response.text()
    gateway, worker = (psutil.Process(each.pid).memory_info().rss for each in (running.gateway, running.worker))
    keys, key_bytes = _sum(metrics, _KEYS), _sum(metrics, _KEY_BYTES)
    found.samples.append(Sample(time.monotonic() - started_s, gateway, worker, keys, key_bytes))


def _sum(metrics: str, name: str) -> int:
    return round(sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", metrics, re.MULTILINE)))


def _latencies(took_s: dict[str, list[float]]) -> dict[str, float]:
    """Milliseconds at the median and at the 99th percentile, and the most, of every kind of request."""
    return {
        f"{kind}_p{percent}_ms": round(1000 * float(np.percentile(took_s[kind], percent)), 1)
        for kind in ("batch", "single", "query")
        for percent in (50, 99, 100)
    }


def memory(samples: Sequence[Sample], seconds: int) -> dict[str, Any]:
    """Of each process: memory when warm and at the end, and the slope since; of the worker also without its keys."""
    at_s = np.array([each.at_s for each in samples])
    warm = (at_s >= WARM[0] * seconds) & (at_s < WARM[1] * seconds)
    end = at_s >= END * seconds
    measured = {
        "gateway": np.array([each.gateway for each in samples]) / MIB,
        "worker": np.array([each.worker for each in samples]) / MIB,
        "worker_keys": np.array([each.key_bytes for each in samples]) / MIB,
        "worker_without_keys": np.array([each.worker - each.key_bytes for each in samples]) / MIB,
    }
    result: dict[str, Any] = {
        "keys": samples[-1].keys,
        "bytes_a_key": round(samples[-1].key_bytes / samples[-1].keys, 2),
    }
    for name, held in measured.items():
        before, after = float(np.median(held[warm])), float(np.median(held[end]))
        result |= {
            f"{name}_warm_mib": round(before, 1),
            f"{name}_end_mib": round(after, 1),
            f"{name}_growth_mib": round(after - before, 1),
            f"{name}_slope_mib_a_minute": round(
                60 * slope(at_s[at_s >= WARM[1] * seconds], held[at_s >= WARM[1] * seconds]), 2
            ),
        }
    tenths = np.minimum((at_s * 10 / seconds).astype(int), 9)
    for name in ("gateway", "worker", "worker_keys"):
        result[f"{name}_mib_by_tenth"] = [round(float(np.median(measured[name][tenths == n])), 1) for n in range(10)]
    return result


def slope(at: "np.ndarray[Any, Any]", values: "np.ndarray[Any, Any]") -> float:
    """The median of the slopes between all pairs of points: nearly a third of them may be anything.

    >>> slope(np.array([0.0, 1, 2, 3, 4]), np.array([1.0, 3, 90, 7, 9]))
    2.0
    """
    first, second = np.triu_indices(len(at), 1)
    return float(np.median((values[second] - values[first]) / (at[second] - at[first])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--smoke", action="store_true", help="small, and nothing is kept")
    options = parser.parse_args()
    if options.smoke:
        print(run(SMOKE_SECONDS))
        sys.exit()
    report("soak", run(options.seconds))
