"""The run: one broker, one payload, and each system in turn on the machine that is then its own."""

import asyncio
import hashlib
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.stream import environment
from benchmarks.stream.measure import Sampler
from benchmarks.stream.oracle import Oracle, difference
from benchmarks.stream.payload import Payload
from benchmarks.stream.systems import Run, System, SystemFailedError, Task
from benchmarks.stream.topics import FIRST, PARTITIONS, Written, create_topics, write
from tests.servers.kafka import Broker

BROKER_HEAP = "1g"
BROKER_SETTINGS = "group.initial.rebalance.delay.ms=3000"  # so that all members of a group start together


def run(payload: Payload, first_events: int, systems: Sequence[System]) -> dict[str, Any]:
    """Write the payload, and let each system read it; parameters and a result for each system, in order."""
    environment.python()
    environment.flink()
    with tempfile.TemporaryDirectory(prefix="meterline-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        broker = Broker(folder / "broker", heap=BROKER_HEAP, settings=BROKER_SETTINGS).start()
        try:
            asyncio.run(create_topics(broker.bootstrap_servers))
            tasks = [_prepared(system, broker, folder, payload.events, first_events) for system in systems]
            started_s = time.perf_counter()
            written = asyncio.run(write(broker.bootstrap_servers, payload, first_events))
            print(f"wrote {payload.events:,} events, {time.perf_counter() - started_s:.0f} s", flush=True)
            results = [_measured(system, task, broker, written) for system, task in zip(systems, tasks, strict=True)]
        finally:
            broker.kill()
    return {
        "events": payload.events,
        "event_bytes": round(written.bytes / payload.events),
        "distinct_events": written.oracle.distinct,
        "first_events": written.first.lines,
        "events_a_packed_record": round(payload.events / written.packed_records),
        "customers": payload.customers,
        "seed": payload.seed,
        "partitions": PARTITIONS,
        "digest": _digest(written.oracle),
        "systems": results,
    }


def _prepared(system: System, broker: Broker, folder: Path, events: int, first_events: int) -> Task:
    directory = folder / re.sub(r"\W+", "-", system.name)
    directory.mkdir()
    count = min(events, first_events) if system.topic == FIRST else events
    task = Task(broker.bootstrap_servers, system.topic, count, directory)
    system.prepare(task)
    return task


def _measured(system: System, task: Task, broker: Broker, written: Written) -> dict[str, Any]:
    """The result of a system. One that fails does not take the others with it."""
    print(f"{system.name} ...", flush=True)
    own, brokers = Sampler(lambda: list(task.pids)), Sampler(lambda: [broker.pid])
    own.start()
    brokers.start()
    try:
        done = system.run(task)
    except SystemFailedError as error:
        print(f"  failed: {error}", flush=True)
        return {"system": system.name, "work": system.work, "failed": str(error)}
    finally:
        own.stop()
        brokers.stop()
    return _result(system, done, own, brokers, written.first if system.topic == FIRST else written.oracle)


def _result(system: System, done: Run, own: Sampler, brokers: Sampler, oracle: Oracle) -> dict[str, Any]:
    seconds = done.ended_at - done.started_at
    cpu_s = own.cpu_s(done.started_at, done.ended_at)
    wrong = difference(done.found, oracle.groups(deduplicated=system.deduplicates))
    if done.events != oracle.lines:
        wrong = f"{done.events:,} of {oracle.lines:,} events read; {wrong}"
    result = {
        "system": system.name,
        "work": system.work,
        "timed_from": system.timed_from,
        "events": done.events,
        "seconds": round(seconds, 2),
        "events_per_second": round(done.events / seconds),
        "events_per_cpu_second": round(done.events / cpu_s) if cpu_s else None,
        "cores_busy": round(cpu_s / seconds, 2),
        "broker_cores_busy": round(brokers.cpu_s(done.started_at, done.ended_at) / seconds, 2),
        "peak_memory_mib": own.peak_memory_mib(done.ended_at),
        "deduplicates": system.deduplicates,
        "equals_oracle": not wrong,
        "difference": wrong,
    }
    print(f"  {result['events_per_second']:,} events/s; {wrong or 'equal to the oracle'}", flush=True)
    return result


def _digest(oracle: Oracle) -> str:
    groups = oracle.groups(deduplicated=True).sort("subject", "region", "hour")
    return hashlib.sha256(groups.write_csv().encode()).hexdigest()[:16]
