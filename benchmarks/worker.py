"""A worker that knows millions of identities: its rate, its memory, its restart. And how fresh usage is at low load.

    python -m benchmarks.worker [--keys 20000000] [--events 2000000] [--smoke]

The identities are put into ClickHouse as if as many events had been stored, in the same number of partitions as the
events that follow in the topic. Timed is a worker that starts without any, and one that starts with all of them; both
store the same events. Then it is killed, and starts again. Freshness is told by another process, which asks a
ClickHouse server for the rollups again and again: from the broker's answer for an event to the answer that counts it.
"""

import argparse
import asyncio
import multiprocessing
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.report import report
from benchmarks.stream.payload import Payload
from benchmarks.stream.peers.meterline_worker import answer, environment, meterline, polls, prepare
from benchmarks.stream.systems import Task, processes
from benchmarks.stream.topics import PARTITIONS, SINGLE, create_topics, write
from ingest.pack import identify, pack
from stores.clickhouse import open_embedded, open_server, query
from stores.kafka_log import KafkaLog, open_log
from stores.postgres import engine_for
from stores.servers import servers_of
from tests.servers.clickhouse import ClickHouse
from tests.servers.kafka import Broker, free_port

KEYS, EVENTS = 20_000_000, 2_000_000
SMOKE_KEYS, SMOKE_EVENTS = 100_000, 20_000
FRESH_EVENTS, SMOKE_FRESH_EVENTS, FRESH_INTERVAL_S = 600, 30, 0.1
CONFIGURATIONS = 2  # records at the head of each partition: the empty one, and the meter
POLL_S = 0.01

_EVENT = (
    b'{"specversion":"1.0","type":"request","source":"/fresh","id":"%d","subject":"subject-%d",'
    b'"time":"2026-01-01T00:00:00Z"}'
)

_SEED = """
    INSERT INTO events (tenant, type, subject, source, id, time, event, log_id, partition, offset, line, appended_at,
        epoch, hash_high, hash_low)
    SELECT 'default', 'request', concat('customer-', toString(number % 20000)), '/gateway', hex(sipHash64(number)),
        now64(6), '', {log_id:String}, number % {partitions:UInt16}, 1, intDiv(number, {partitions:UInt16}), now64(3),
        0, sipHash64(number, 1), sipHash64(number, 2) FROM numbers({keys:UInt64}) SETTINGS async_insert = 0"""
_SEED_PROGRESS = """
    INSERT INTO progress (log_id, partition, first_offset, next_offset, epoch, config_version, appended_at, lines,
        accepted, duplicates, rejected)
    SELECT {log_id:String}, number, 0, {next_offset:UInt64}, 0, {version:UInt32}, now64(3), 0, 0, 0, 0
    FROM numbers({partitions:UInt16}) SETTINGS async_insert = 0"""


def run(keys: int, events: int, fresh_events: int) -> dict[str, Any]:
    """The parameters, and what was measured."""
    with tempfile.TemporaryDirectory(prefix="meterline-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        broker = Broker(folder / "broker", heap="1g").start()
        try:
            asyncio.run(create_topics(broker.bootstrap_servers))
            task = Task(broker.bootstrap_servers, SINGLE, events, folder / "worker")
            task.directory.mkdir()
            prepare(task)
            written = asyncio.run(write(broker.bootstrap_servers, Payload(events), 0))
            without = _started(replace(task, pids=[]), "without")
            spawned = multiprocessing.get_context("spawn").Process(target=_seed, args=(task, keys))
            spawned.start()  # in a process of its own: the engine takes one directory a process
            spawned.join()
            known = _started(task, "clickhouse", restart=True)
            fresh_s = _freshness(broker, folder / "fresh", fresh_events)
        finally:
            broker.kill()
    return {
        "keys": keys, "events": written.oracle.lines, "partitions": PARTITIONS,
        "events_per_second": known["rate"], "events_per_second_without_keys": without["rate"],
        "ratio": round(known["rate"] / without["rate"], 3),
        "dedup_bytes_a_key": known["bytes_a_key"], "start_to_first_commit_s": known["first_commit_s"],
        "restart_to_first_commit_s": known["restart_s"], "start_without_keys_s": without["first_commit_s"],
        "memory_mib": known["memory_mib"], "memory_without_keys_mib": without["memory_mib"],
        "freshness_events": len(fresh_s),
        **{f"freshness_p{p}_s": round(float(np.percentile(fresh_s, p)), 3) for p in (50, 99, 100)},
    }  # fmt: skip


def _seed(task: Task, keys: int) -> None:
    with environment(task) as variables:
        client = open_embedded(task.directory / "clickhouse")
        with _log(variables) as log:
            log_id = log.log_id
        parameters = {"log_id": log_id, "partitions": PARTITIONS, "keys": keys, "version": CONFIGURATIONS}
        client.command(_SEED, parameters=parameters)
        client.command(_SEED_PROGRESS, parameters={**parameters, "next_offset": CONFIGURATIONS})
        client.command("OPTIMIZE TABLE events FINAL")
        client.close()


def _started(task: Task, directory: str, *, restart: bool = False) -> dict[str, Any]:
    """Let a worker store the whole topic, over an engine's directory."""
    with environment(task) as variables:
        variables["METERLINE_CLICKHOUSE"] = f"chdb:{task.directory / directory}"
        with _worker(task, variables) as (process, client, started_at):
            first_at, first = _lines(task, process, client, 1)
            ended_at, stored = _lines(task, process, client, task.events)
            text = answer(client, "/metrics") or ""
            keys, bytes_ = (_sum(text, f"meterline_dedup_{name}") for name in ("keys", "bytes"))
            memory = psutil.Process(process.pid).memory_info()
            result = {
                "first_commit_s": round(first_at - started_at, 2),
                "rate": round((stored - first) / (ended_at - first_at)),
                "bytes_a_key": round(bytes_ / keys, 2),
                "memory_mib": (memory.rss - memory.shared) >> 20,
            }
            process.send_signal(signal.SIGKILL)
        if restart:
            (line,) = next(Payload(1, seed=2).chunks())
            with _log(variables) as log:
                log.append(pack([line], identify([line]), log.partitions))
            with _worker(task, variables) as (process, client, started_at):
                result["restart_s"] = round(_lines(task, process, client, 1)[0] - started_at, 2)
    return result


@contextmanager
def _worker(task: Task, variables: dict[str, str]) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client, float]]:
    """A worker as a process, a client of its pages, and when it was started."""
    port, started_at = free_port(), time.time()
    command = meterline("worker", "--port", str(port), "--name", "bench")
    with (
        processes(task, [command], variables) as (process,),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        yield process, client, started_at


def _lines(task: Task, process: "subprocess.Popen[bytes]", client: httpx.Client, least: int) -> tuple[float, float]:
    """When so many lines are stored, and how many are."""
    for _ in polls(task, process, POLL_S):
        if (stored := _sum(answer(client, "/metrics") or "", "meterline_lines_total")) >= least:
            return time.time(), stored
    raise AssertionError("polls end in an error")


def _sum(metrics: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}\{{.*\}} (\S+)$", metrics, re.MULTILINE))


@contextmanager
def _log(variables: dict[str, str]) -> Iterator[KafkaLog]:
    """The log that an environment names."""
    servers = servers_of(variables)
    assert servers is not None
    engine = engine_for(servers.postgres)
    log = open_log(engine, servers)
    try:
        yield log
    finally:
        log.close()
        engine.dispose()


def _freshness(broker: Broker, folder: Path, events: int) -> list[float]:
    """Seconds from the broker's answer for each event to the rollups that count it, at ten events a second."""
    folder.mkdir()
    task = Task(broker.bootstrap_servers, "bench.fresh", events, folder)
    with ClickHouse(folder / "server") as server, environment(task) as variables:
        variables["METERLINE_CLICKHOUSE"] = server.url
        created = meterline("topics", "create", "--partitions", str(PARTITIONS))
        subprocess.run(created, env=variables, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (folder / "meters.yaml").write_text("meters: [{slug: requests, eventType: request, aggregation: COUNT}]")
        with _worker(task, variables) as (_, _client, _started_at):
            subprocess.run(meterline("meters", "apply", "meters.yaml"), env=variables, cwd=folder, check=True)
            with _log(variables) as log:
                return asyncio.run(_seen(log, open_server(server.url), events))


async def _seen(log: KafkaLog, client: Any, events: int) -> list[float]:
    appended_at: dict[str, float] = {}
    seen_at: dict[str, float] = {}

    async def append() -> None:
        for number in range(events):
            line = _EVENT % (number, number)
            await asyncio.to_thread(log.append, pack([line], identify([line]), log.partitions))
            appended_at[f"subject-{number}"] = time.time()
            await asyncio.sleep(FRESH_INTERVAL_S)

    appending = asyncio.create_task(append())
    while len(seen_at) < events:
        rows = await asyncio.to_thread(query, client, "SELECT DISTINCT subject FROM rollups")
        now_s = time.time()
        seen_at = dict.fromkeys(rows["subject"].to_list(), now_s) | seen_at
        await asyncio.sleep(POLL_S)
    await appending
    return [seen_at[subject] - at for subject, at in appended_at.items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--smoke", action="store_true", help="small, and nothing is kept")
    options = parser.parse_args()
    if options.smoke:
        print(run(SMOKE_KEYS, SMOKE_EVENTS, SMOKE_FRESH_EVENTS))
        sys.exit()
    report("worker", run(options.keys, options.events, FRESH_EVENTS))
