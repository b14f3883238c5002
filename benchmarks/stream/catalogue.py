"""Which systems run side by side, in this order, and what each of them does with an event."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.systems import Run, System, Task, run_programs
from benchmarks.stream.topics import PACKED, SINGLE


def _script(name: str) -> Callable[[Task], Run]:
    def run(task: Task) -> Run:
        return run_programs(task, [[environment.python(), environment.PEERS / name, *task.arguments]])

    return run


_DECODE = "decode only: fetch, polars, count and sum"

SYSTEMS = (
    System("aiokafka+polars", _DECODE, SINGLE, _script("polars_aiokafka.py")),
    System("aiokafka+polars packed", _DECODE, PACKED, _script("polars_aiokafka.py")),
    System("confluent-kafka+polars", _DECODE, SINGLE, _script("polars_confluent.py")),
    System("confluent-kafka+polars packed", _DECODE, PACKED, _script("polars_confluent.py")),
)
