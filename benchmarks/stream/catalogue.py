"""Which systems run side by side, in this order, and what each of them does with an event."""

from collections.abc import Callable

from benchmarks.stream import environment
from benchmarks.stream.peers.flink_sql import run_flink
from benchmarks.stream.peers.meterline_worker import prepare, run_meterline
from benchmarks.stream.systems import Run, System, Task, run_programs
from benchmarks.stream.topics import FIRST, PACKED, SINGLE

REFERENCE = "meterline"
_ASSIGNED, _RUNNING, _FIRST_EVENT = "the partitions are assigned", "the job is running", "the first event"
_STORED = "deduplication, hourly sum by subject and region; events and sums committed in ClickHouse"
_REGION_SUMS = "hourly sum by subject and region; no sink"
_SUBJECT_SUMS = "hourly sum by subject; no sink"
_DECODE = "the ceiling: fetch and decode, nothing else"


def _script(name: str, processes: int = 1) -> Callable[[Task], Run]:
    def run(task: Task) -> Run:
        program = [str(environment.python()), str(environment.PEERS / name), task.broker, task.topic, str(task.events)]
        return run_programs(task, [program] * processes)

    return run


_DISTINCT_FLINK, _FLINK = run_flink(deduplicate=True), run_flink(deduplicate=False)
_QUIX, _TWO_QUIX = _script("quix_windows.py"), _script("quix_windows.py", processes=2)
_FAUST = _script("faust_table.py")  # with a second process, standby copies of the table cost what the second core gives
_AIOKAFKA, _CONFLUENT = _script("polars_aiokafka.py"), _script("polars_confluent.py")

SYSTEMS = (
    System(REFERENCE, _STORED, SINGLE, run_meterline, _ASSIGNED, prepare, deduplicates=True),
    System("meterline, packed", _STORED, PACKED, run_meterline, _ASSIGNED, prepare, deduplicates=True),
    System("Flink SQL", f"deduplication, {_REGION_SUMS}", SINGLE, _DISTINCT_FLINK, _RUNNING, deduplicates=True),
    System("Flink SQL, plain", _REGION_SUMS, SINGLE, _FLINK, _RUNNING),
    System("Quix Streams, 2 processes", _SUBJECT_SUMS, SINGLE, _TWO_QUIX, _FIRST_EVENT),
    System("Quix Streams, 1 process", _SUBJECT_SUMS, SINGLE, _QUIX, _FIRST_EVENT),
    System("Faust with a table", _SUBJECT_SUMS, FIRST, _FAUST, _FIRST_EVENT),
    System("aiokafka + polars", _DECODE, SINGLE, _AIOKAFKA, _ASSIGNED),
    System("aiokafka + polars, packed", _DECODE, PACKED, _AIOKAFKA, _ASSIGNED),
    System("confluent + polars", _DECODE, SINGLE, _CONFLUENT, _ASSIGNED),
    System("confluent + polars, packed", _DECODE, PACKED, _CONFLUENT, _ASSIGNED),
)
