"""Flink SQL in a cluster inside one Java process, with as many task slots as the machine has cores."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.systems import Run, Task, run_programs

PARALLELISM = 2
HEAP = "4g"
SHORT_EVENTS = 100_000
"""A run of so few ends before Java's second compiler has earned what it takes: half of the CPU time."""
_OPENED = ("java.lang", "java.util", "java.time")  # as Flink's own start script does


def run_flink(*, deduplicate: bool) -> Callable[[Task], Run]:
    """Runs the job with or without its deduplication."""
    options = [f"-Xmx{HEAP}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    options += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    mode = "deduplicate" if deduplicate else "all"

    def run(task: Task) -> Run:
        quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] if task.events <= SHORT_EVENTS else []
        program = ["java", *options, *quick, "-cp", environment.flink(), "HourlyUsage"]
        return run_programs(task, [[*program, task.broker, task.topic, str(task.events), str(PARALLELISM), mode]])

    return run
