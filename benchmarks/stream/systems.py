"""The systems side by side, and what is asked of a run: when it was, how much it read, and what it found."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

TIMEOUT_S = 600.0


class SystemFailedError(Exception):
    """A system did not do what it was asked for; the text is its complaint."""


@dataclass(frozen=True)
class Task:
    """What a system is given: a topic from its first record to its last, and a directory of its own."""

    broker: str
    topic: str
    events: int
    directory: Path
    pids: list[int] = field(default_factory=list)
    """The system's processes, for whoever measures them; their descendants are theirs."""


@dataclass(frozen=True)
class Run:
    """What a system did: the events it read, from the first fetch to the last result, and what it found."""

    events: int
    started_at: float
    ended_at: float
    found: pl.DataFrame


@dataclass(frozen=True)
class System:
    """A system under test."""

    name: str
    work: str
    topic: str
    run: Callable[[Task], Run]
    timed_from: str
    prepare: Callable[[Task], None] = lambda _: None
    """What it does once, with the topic still empty."""
    deduplicates: bool = False


def run_programs(task: Task, commands: Sequence[Sequence[str | Path]]) -> Run:
    """Run programs that end by themselves, and put together what they say.

    A program's last argument is the CSV file for what it found, added here. Its last line on standard output is JSON
    with `events`, `started_at` and `ended_at`. Raises SystemFailedError when one fails.
    """
    results = [task.directory / f"result-{number}.csv" for number in range(len(commands))]
    with processes(task, [[*command, result] for command, result in zip(commands, results, strict=True)]) as running:
        deadline_s = time.monotonic() + TIMEOUT_S
        for process in running:
            try:
                status = process.wait(timeout=max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise SystemFailedError(f"not done after {TIMEOUT_S:.0f} s; {complaint(task)}") from error
            if status:
                raise SystemFailedError(complaint(task))
        said = [json.loads(path.read_text().splitlines()[-1]) for path in sorted(task.directory.glob("output-*.txt"))]
    found = [pl.read_csv(result) for result in results if result.exists()]
    return Run(
        events=sum(each["events"] for each in said),
        started_at=min(each["started_at"] for each in said if each["events"]),
        ended_at=max(each["ended_at"] for each in said if each["events"]),
        found=pl.concat(found),
    )


@contextmanager
def processes(
    task: Task, commands: Sequence[Sequence[str | Path]], environment: dict[str, str] | None = None
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run commands side by side, measured. Whatever still runs at the end is stopped, and then killed."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate(commands):
            with (
                (task.directory / f"output-{number}.txt").open("wb") as output,
                (task.directory / f"errors-{number}.txt").open("wb") as errors,
            ):
                process = subprocess.Popen(command, stdout=output, stderr=errors, env=environment, cwd=task.directory)
            running.append(process)
            task.pids.append(process.pid)
        yield running
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def complaint(task: Task) -> str:
    """The end of what a system's programs wrote to standard error."""
    texts = [path.read_text(errors="replace")[-3000:] for path in sorted(task.directory.glob("errors-*.txt"))]
    return "\n".join(texts)
