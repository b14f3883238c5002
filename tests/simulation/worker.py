"""A worker without its shell: one stream's state and index, a cutter, batches that wait, and folded ones to be stored.

It does what Partition of aggregation/store.py and the agent of aggregation/app.py do, one step at a time, so that
anything may happen between two of its steps.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from aggregation.batch import Batch, Cutter
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import FoldedBatch, PartitionState, fold_batch
from aggregation.store import STORE_ORDER
from schemas.log import Records
from schemas.tables import Table
from tests.simulation.logs import Logs, Stream
from tests.simulation.tables import Row, Tables

Folded = tuple[FoldedBatch, dict[str, list[Row]]]
_known: dict[object, Folded] = {}


@dataclass(eq=False)
class Worker:
    """A worker that follows one stream."""

    logs: Logs
    tables: Tables
    stream: Stream
    waiting: deque[Batch] = field(default_factory=deque)
    unstored: deque[Iterator[tuple[Folded, Table]]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.take_up()

    def take_up(self) -> None:
        """Load the state and the index of the stream, and read on from there."""
        self.state = self.tables.load_state(self.stream, self.logs)
        self.reload()
        self.start_reading()

    def start_reading(self) -> None:
        """Cut anew, behind the last folded batch."""
        self.cutter = Cutter(self.state.next_offset, self.state.version, self.logs.version)

    def reload(self) -> None:
        """Load the index for the horizon that is in force."""
        self.index = self.tables.load_index(self.stream, self.state)
        self.horizon_days = self.state.config.limits.dedup_horizon_days

    @property
    def must_reload(self) -> bool:
        """Whether the horizon has changed."""
        return self.state.config.limits.dedup_horizon_days != self.horizon_days

    def rebalance(self) -> None:
        """The partitions were assigned anew. A state that is still the end of what is stored is kept."""
        if self.state.next_offset == self.tables.stored_offset(self.stream):
            self.start_reading()
        else:
            self.take_up()

    def read(self, count: int, end: int) -> None:
        """Fetch the next records, at most so many, below the end of the log; fold the batches that they end."""
        fetched = [r for r in self.logs.streams[self.stream] if self.cutter.read_offset <= r.offset < end][:count]
        self.waiting += self.cutter.cut(Records.of(fetched))
        self.fold()

    def fold(self) -> None:
        """Fold the batches that wait. Where the index must be loaded again, only once all before it is stored."""
        while self.waiting:
            if self.must_reload:
                if self.unstored:
                    return
                self.reload()
            batch = self.waiting.popleft()
            if batch.start != self.state.next_offset:
                continue  # left over from before a rebalance
            folded = fold_once(batch, self.state, self.index, self.logs)
            self.index.add(folded[0].hashes, folded[0].days)
            self.state = folded[0].state
            self.unstored.append(iter([(folded, table) for table in STORE_ORDER]))

    def store(self, count: int, *, again: bool = False) -> None:
        """Make the next inserts of what is folded, so many of them; each twice where the first answer is lost."""
        while count and self.unstored:
            if (insert := next(self.unstored[0], None)) is None:
                self.unstored.popleft()
                self.fold()
                continue
            (folded, rows), table = insert
            for _ in range(1 + again):
                self.tables.insert(folded, table, rows[table.name])
            count -= 1

    def finish(self, end: int) -> None:
        """Read to the end of the log, and store all of it."""
        self.read(len(self.logs.streams[self.stream]), end)
        while self.waiting or self.unstored:
            self.fold()
            self.store(1000)


def fold_once(batch: Batch, state: PartitionState, index: DedupIndex, logs: Logs) -> Folded:
    """`fold_batch`, and its rows as plain values; not done again for the same records, state and keys of the index.

    A fold takes some 10 ms, however small it is, and schedules repeat many. That it repeats itself is another law's.
    """
    records = batch.records
    read = (batch.start, *records)
    keys = frozenset(key for run in index._runs for key in zip(*(part.tolist() for part in run.columns()), strict=True))
    before = (
        state.partition,
        state.next_offset,
        state.epoch,
        state.version,
        state.log_id,
        state.config.digest,
        state.appended_at_ms,
    )
    inputs = (logs.number, read, before, keys, index._horizon_days)
    if inputs not in _known:
        folded = fold_batch(batch, state, index, logs.version)
        _known[inputs] = folded, {name: frame.rows(named=True) for name, frame in folded.frames.items()}
    return _known[inputs]
