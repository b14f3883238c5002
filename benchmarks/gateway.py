"""Meterline's gateway beside a plain FastAPI route over the same broker, under the same load, in one run.

    python -m benchmarks.gateway [--smoke]

Batches of 500 events and single events, over real sockets, from a load generator in a process of its own. Every request
counts that was answered 204, which both systems say when the broker has confirmed its events with acks=all. Load
generator, broker and the system share the machine's cores; the systems take turns, and the median round is told. At
the end Meterline's topic is read back: it has to hold exactly the events that were sent. The peer's packages are
installed at first use under the user's cache directory.
"""

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import psutil
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, made_by
from benchmarks.stream.payload import Payload
from stores.postgres import embedded_server
from tests.oracles.topic import read_topic
from tests.servers.installed import python_with
from tests.servers.kafka import LIBRARIES, Broker, free_port

PEER = Path(__file__).with_name("gateway_peer")
OWN, OTHER = "meterline", "FastAPI + aiokafka"
PARTITIONS = 8
ROUNDS = 3
START_TIMEOUT_S, LOAD_TIMEOUT_S = 60.0, 300.0
WIDTH_MIN = 120


@dataclass(frozen=True)
class Workload:
    """What is sent in a round: events to Meterline's gateway, and fewer to the other, which takes them more slowly."""

    name: str
    batch: int
    connections: int
    events: int
    events_to_other: int


WORKLOADS = (
    Workload("batches of 500", 500, 16, 600_000, 60_000),
    Workload("single events", 1, 64, 40_000, 20_000),
)
SMOKE = (Workload("batches of 500", 500, 4, 5_000, 2_000), Workload("single events", 1, 8, 500, 500))


@dataclass(frozen=True)
class System:
    """A gateway that runs: its port, its process, and the topic that it writes to."""

    name: str
    port: int
    pid: int
    topic: str


def run(workloads: tuple[Workload, ...], rounds: int) -> dict[str, Any]:
    """Send every workload to both systems in turn; the parameters, and the median round of each."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    sent: list[tuple[int, int]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="meterline-bench-")))
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        broker = Broker(folder / "broker", heap="1g").start()
        stack.callback(broker.kill)
        systems = [stack.enter_context(_own(broker, folder)), stack.enter_context(_other(broker))]
        for number in range(rounds + 1):  # the first one warms up, and is not told
            for place, workload in enumerate(workloads):
                for system in systems:
                    events = workload.events if system.name == OWN else workload.events_to_other
                    seed = 10 * number + place + 1
                    measured = _measured(system, broker, workload, events if number else min(events, 5_000), seed)
                    if system.name == OWN:
                        sent.append((measured["events"], seed))
                    if number:
                        found.setdefault((system.name, workload.name), []).append(measured)
        digest = _digest_of_topic(broker.bootstrap_servers, systems[0].topic)
    expected = _digest(line for events, seed in sent for chunk in Payload(events, seed=seed).chunks() for line in chunk)
    assert digest == expected, "the topic does not hold what was acknowledged"
    return {
        "partitions": PARTITIONS,
        "rounds": rounds,
        "acks": "all",
        "digest": digest,
        "workloads": [_compared(workload, found) for workload in workloads],
    }


def _compared(workload: Workload, found: dict[tuple[str, str], list[dict[str, Any]]]) -> dict[str, Any]:
    """The median rounds of a workload, and how many times the events a second, and a CPU second, of the other."""
    own, other = (
        sorted(found[name, workload.name], key=lambda each: each["events_per_second"])[
            len(found[name, workload.name]) // 2
        ]
        for name in (OWN, OTHER)
    )
    return {
        "workload": workload.name,
        "connections": workload.connections,
        OWN: own,
        OTHER: other,
        "times_the_events_per_second": round(own["events_per_second"] / other["events_per_second"], 1),
        "times_the_cpu": round(other["cpu_s_per_million_events"] / own["cpu_s_per_million_events"], 1),
        "events_per_second_of_all_rounds": [each["events_per_second"] for each in found[OWN, workload.name]],
    }


def _measured(system: System, broker: Broker, workload: Workload, events: int, seed: int) -> dict[str, Any]:
    """Send a workload to a system; rates, latencies, and the CPU time of the system and of the broker."""
    numbers = {"--events": events, "--batch": workload.batch, "--connections": workload.connections, "--seed": seed}
    arguments = [str(word) for pair in numbers.items() for word in pair]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.http_load", str(system.port), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as generator:  # fmt: skip
        assert generator.stdout is not None
        assert generator.stdout.readline() == "ready\n"
        before = _cpu_s(system.pid), _cpu_s(broker.pid)
        told, _ = generator.communicate("go\n", timeout=LOAD_TIMEOUT_S)
        cpu_s, broker_cpu_s = _cpu_s(system.pid) - before[0], _cpu_s(broker.pid) - before[1]
    result = json.loads(told)
    assert list(result["statuses"]) == ["204"], result["statuses"]
    seconds = result["ended_at"] - result["started_at"]
    measured = {
        "events": events,
        "seconds": round(seconds, 2),
        "events_per_second": round(events / seconds),
        "requests_per_second": round(result["statuses"]["204"] / seconds),
        **{name: result[name] for name in ("p50_ms", "p99_ms", "max_ms")},
        "cpu_s_per_million_events": round(cpu_s / events * 1e6, 1),
        "broker_cpu_s_per_million_events": round(broker_cpu_s / events * 1e6, 1),
        "memory_mib": psutil.Process(system.pid).memory_info().rss >> 20,
    }
    print(f"{system.name}, {workload.name}: {measured['events_per_second']:,} events/s", flush=True)
    return measured


def _cpu_s(pid: int) -> float:
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)


@contextmanager
def _own(broker: Broker, folder: Path) -> Iterator[System]:
    """Meterline's gateway, with the PostgreSQL that it reads its limits from."""
    with embedded_server(folder / "postgres") as url:
        port, topic = free_port(), "bench.meterline"
        environment = {
            **os.environ, "METERLINE_KAFKA": broker.bootstrap_servers, "METERLINE_TOPIC": topic,
            "METERLINE_CLICKHOUSE": f"chdb:{folder}/clickhouse", "METERLINE_POSTGRES": url,
        }  # fmt: skip
        command = [sys.executable, "-m", "meterline"]
        create = [*command, "topics", "create", "--partitions", str(PARTITIONS)]
        subprocess.run(create, env=environment, check=True, stdout=subprocess.DEVNULL)
        with _running([*command, "gateway", "--port", str(port)], environment, port) as pid:
            yield System(OWN, port, pid, topic)


@contextmanager
def _other(broker: Broker) -> Iterator[System]:
    """The plain route, in an environment of its own."""
    port, topic = free_port(), "bench.fastapi"
    asyncio.run(_create_topic(broker.bootstrap_servers, topic))
    environment = {**os.environ, "PEER_KAFKA": broker.bootstrap_servers, "PEER_TOPIC": topic}
    serve = ["uvicorn", "app:app", "--port", str(port), "--no-access-log", "--log-level", "warning", "--loop", "uvloop"]
    command = [str(python_with("gateway-peer", PEER / "requirements.txt")), "-m", *serve, "--app-dir", str(PEER)]
    with _running(command, environment, port) as pid:
        yield System(OTHER, port, pid, topic)


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int) -> Iterator[int]:
    process = subprocess.Popen(command, env=environment)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz")
                break
            except httpx.TransportError:
                assert process.poll() is None, "it ended"
                assert time.monotonic() < deadline_s, "it did not answer"
                time.sleep(0.05)  # there is no event to wait for before the first answer
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _create_topic(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        settings = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(2 << 20)}
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=settings)])
    finally:
        await admin.close()


def _digest_of_topic(servers: str, topic: str) -> str:
    records = read_topic(servers, topic, PARTITIONS)
    values = (record.value for own in records.values() for record in own if record.value is not None)
    return _digest(line for value in values for line in value.split(b"\n"))


def _digest(lines: Iterator[bytes]) -> str:
    """Of the events, each byte of them, in whatever order."""
    hashed = hashlib.sha256()
    for line in sorted(lines):
        hashed.update(line + b"\n")
    return hashed.hexdigest()[:16]


def show(result: dict[str, Any]) -> None:
    """Print a row for each workload and system. CPU is in seconds a million events."""
    columns = ("events/s", "requests/s", "p50 ms", "p99 ms", "CPU s/M", "broker s/M", "MiB", "times")
    table = Table("workload", "system")
    for name in columns:
        table.add_column(name, justify="right")
    for each in result["workloads"]:
        for name in (OWN, OTHER):
            found = each[name]
            keys = ("cpu_s_per_million_events", "broker_cpu_s_per_million_events", "memory_mib")
            table.add_row(
                each["workload"],
                name,
                f"{found['events_per_second']:,}",
                f"{found['requests_per_second']:,}",
                *(f"{found[key]:,.1f}" for key in ("p50_ms", "p99_ms")),
                *(f"{found[key]:,}" for key in keys),
                f"{each['times_the_events_per_second']}" if name == OWN else "1",
            )
    Console(width=None if sys.stdout.isatty() else WIDTH_MIN).print(table)
    print(f"digest {result['digest']}")


def keep(result: dict[str, Any]) -> None:
    """Write the result as results/gateway.json."""
    RESULTS.mkdir(exist_ok=True)
    pinned = [line.split("==") for line in (PEER / "requirements.txt").read_text().splitlines() if "==" in line]
    versions = {name: version(name) for name in ("aiokafka", "msgspec", "starlette", "uvicorn")}
    versions |= {f"peer's {name}": number for name, number in pinned}
    versions["kafka broker"] = LIBRARIES.name.removeprefix("kafka-")
    text = json.dumps({"benchmark": "gateway", **result, "made_by": made_by() | versions}, indent=2)
    (RESULTS / "gateway.json").write_text(text + "\n")


def main() -> None:
    """Run the benchmark, show the result, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small, and nothing is kept")
    options = parser.parse_args()
    result = run(SMOKE, 1) if options.smoke else run(WORKLOADS, ROUNDS)
    show(result)
    if not options.smoke:
        keep(result)


if __name__ == "__main__":
    main()
