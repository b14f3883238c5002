"""Flink SQL in a cluster inside one Java process, with as many task slots as the machine has cores."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.systems import Run, Task, run_programs

PARALLELISM = 2
HEAP = "4g"
_OPENED = ("java.lang", "java.util", "java.time")  # as Flink's own start script does


def run_flink(*, deduplicate: bool) -> Callable[[Task], Run]:
    """Runs the job with or without its deduplication."""
    options = [f"-Xmx{HEAP}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
    options += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    mode = "deduplicate" if deduplicate else "all"

    def run(task: Task) -> Run:
        program = ["java", *options, "-cp", environment.flink(), "HourlyUsage"]
        return run_programs(task, [[*program, task.broker, task.topic, str(task.events), str(PARALLELISM), mode]])

    return run
