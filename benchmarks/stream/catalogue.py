"""Which systems run side by side, in this order, and what each of them does with an event."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.systems import Run, System, Task, run_programs
from benchmarks.stream.topics import FIRST, PACKED, SINGLE


def _script(name: str, processes: int = 1) -> Callable[[Task], Run]:
    def run(task: Task) -> Run:
        return run_programs(task, [[environment.python(), environment.PEERS / name, *task.arguments]] * processes)

    return run


_DECODE = "decode only: fetch, polars, count and sum"

SYSTEMS = (
    System("faust", "hourly sum by subject, in a table", FIRST, _script("faust_table.py", 1), timed_from="the first event"),
    System("faust 2", "hourly sum by subject, in a table", FIRST, _script("faust_table.py", 2), timed_from="the first event"),
    System("quix 1", "hourly sum by subject", SINGLE, _script("quix_windows.py", 1), timed_from="the first event"),
    System("quix 2", "hourly sum by subject", SINGLE, _script("quix_windows.py", 2), timed_from="the first event"),
    System("aiokafka+polars", _DECODE, SINGLE, _script("polars_aiokafka.py")),
    System("aiokafka+polars packed", _DECODE, PACKED, _script("polars_aiokafka.py")),
    System("confluent-kafka+polars", _DECODE, SINGLE, _script("polars_confluent.py")),
    System("confluent-kafka+polars packed", _DECODE, PACKED, _script("polars_confluent.py")),
)
