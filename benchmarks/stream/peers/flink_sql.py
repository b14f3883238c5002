"""Flink SQL in a cluster inside one Java process, with as many task slots as the machine has cores."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.systems import Run, Task, run_programs

PARALLELISM = 2
HEAP = "4g"
_OPENED = ("java.lang", "java.util", "java.time")  # as Flink's own start script does


def run_flink(*, deduplicate: bool) -> Callable[[Task], Run]:
    """Runs the job with or without its deduplication."""

    def run(task: Task) -> Run:
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        java = ["java", f"-Xmx{HEAP}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", *opened, "-cp", environment.flink()]
        mode = "deduplicate" if deduplicate else "all"
        return run_programs(task, [[*java, "HourlyUsage", *task.arguments, str(PARALLELISM), mode]])

    return run
