"""Which systems run side by side, in this order, and what each of them does with an event."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.peers.flink_sql import run_flink
from benchmarks.stream.peers.meterline_worker import prepare, run_meterline
from benchmarks.stream.systems import Run, System, Task, run_programs
from benchmarks.stream.topics import FIRST, PACKED, SINGLE

REFERENCE = "meterline"
_STORED = "deduplication, hourly sum by subject and region; events and sums committed in ClickHouse"
_DECODE = "the ceiling: fetch and decode, nothing else"
_SUBJECT_SUMS = "hourly sum by subject; no sink"
_REGION_SUMS = "hourly sum by subject and region; no sink"


def _script(name: str, processes: int = 1) -> Callable[[Task], Run]:
    def run(task: Task) -> Run:
        return run_programs(task, [[environment.python(), environment.PEERS / name, *task.arguments]] * processes)

    return run


SYSTEMS = (
    System(REFERENCE, _STORED, SINGLE, run_meterline, prepare=prepare, deduplicates=True),
    System("meterline, packed records", _STORED, PACKED, run_meterline, prepare=prepare, deduplicates=True),
    System(
        "Flink SQL, deduplication", f"deduplication by id, {_REGION_SUMS}", SINGLE, run_flink(deduplicate=True),
        deduplicates=True, timed_from="the job runs",
    ),
    System(
        "Flink SQL", _REGION_SUMS, SINGLE, run_flink(deduplicate=False),
        timed_from="the job runs",
    ),
    System("Quix Streams, a process a core", _SUBJECT_SUMS, SINGLE, _script("quix_windows.py", 2), timed_from="the first event"),
    System("Quix Streams", _SUBJECT_SUMS, SINGLE, _script("quix_windows.py"), timed_from="the first event"),
    # one process: with two, the standby copy of the table costs what the second core gives, and a rebalance counts twice
    System("Faust, a table", _SUBJECT_SUMS, FIRST, _script("faust_table.py"), timed_from="the first event"),
    System("aiokafka + polars", _DECODE, SINGLE, _script("polars_aiokafka.py")),
    System("aiokafka + polars, packed records", _DECODE, PACKED, _script("polars_aiokafka.py")),
    System("confluent-kafka + polars", _DECODE, SINGLE, _script("polars_confluent.py")),
    System("confluent-kafka + polars, packed records", _DECODE, PACKED, _script("polars_confluent.py")),
)  # fmt: skip
