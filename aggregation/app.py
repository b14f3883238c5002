"""The embedded worker: follows the log's partitions, folds batch after batch, and stores each one.

Crash-only: after a few tries a batch that cannot be stored ends the worker, and with it the process. A restart goes on
where the last stored batch ended.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from prometheus_client import Counter, Histogram

from aggregation.batch import next_batch
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import FoldedBatch, PartitionState, fold_batch
from aggregation.store import load_index, load_state, store_batch
from schemas.log import Record
from schemas.tables import PROGRESS
from stores.clickhouse import Client
from stores.log import PostgresLog

FLUSH_INTERVAL_S = 1.0
READ_BYTES = 4 << 20
STORE_TRIES = 4
STORE_RETRY_S = 0.5

BATCH_SECONDS = Histogram("meterline_batch_seconds", "Time a batch takes", ["step"])
LINES = Counter("meterline_lines_total", "Lines of the log by what became of them", ["outcome"])

logger = logging.getLogger(__name__)


@dataclass
class _Partition:
    state: PartitionState
    index: DedupIndex
    pending: list[Record] = field(default_factory=list)
    held_since_s: float = 0.0
    flush_asked: bool = False

    @property
    def read_offset(self) -> int:
        return self.pending[-1].offset + 1 if self.pending else self.state.next_offset


class Worker:
    """Follows the log in a thread of its own, from `start` to `stop`. A failure stops it and is raised to waiters."""

    def __init__(self, log: PostgresLog, client: Client, on_failure: Callable[[], None] = lambda: None) -> None:
        self._log = log
        self._client = client
        self._on_failure = on_failure
        self._wake = threading.Event()
        self._stopping = False
        self._stored = threading.Condition()
        self.failure: BaseException | None = None
        self._partitions: list[_Partition] = []
        self.offsets: dict[int, int] = {}
        """For each partition, the offset behind its last stored batch."""
        self._storer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._storing: Future[None] = self._storer.submit(lambda: None)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        log.on_append = self._wake.set

    def start(self) -> None:
        """Load each partition's state and dedup index, then follow the log."""
        for number in range(self._log.partitions):
            state = load_state(self._client, number, self._log.log_id, self._log.config)
            self._partitions.append(_Partition(state, load_index(self._client, state)))
            self.offsets[number] = state.next_offset
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand and stop. What is not stored yet waits in the log."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._storer.shutdown()

    def wait_for(self, offsets: dict[int, int], timeout_s: float) -> bool:
        """Wait until every partition is stored up to its offset, or the time is over. Raises the worker's failure."""
        with self._stored:
            return self._stored.wait_for(lambda: self._behind(offsets) == 0 or self._raise_failure(), timeout_s)

    def _behind(self, offsets: dict[int, int]) -> int:
        return sum(max(end - self.offsets[partition], 0) for partition, end in offsets.items())

    def _raise_failure(self) -> bool:
        if self.failure is not None:
            raise RuntimeError("the worker has stopped: a batch could not be stored") from self.failure
        return False

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                progressed = [self._advance(partition) for partition in self._partitions]
                if not any(progressed):
                    self._storing.result()
                    self._wake.wait(FLUSH_INTERVAL_S / 4 if any(p.pending for p in self._partitions) else 1.0)
            self._storing.result()
        except BaseException as failure:  # crash-only: whatever it is, the process must not live on without a worker
            logger.exception("the worker stops")
            with self._stored:
                self.failure = failure
                self._stored.notify_all()
            self._on_failure()

    def _advance(self, partition: _Partition) -> bool:
        """Read on, and fold what is whole; whether there was anything to do."""
        records = self._log.read(partition.state.partition, partition.read_offset, READ_BYTES)
        if records and not partition.pending:
            partition.held_since_s = time.monotonic()
        partition.pending += records
        folded = False
        while batch := next_batch(partition.pending, partition.state.config.limits):
            self._fold(partition, list(batch))
            del partition.pending[: len(batch)]
            partition.held_since_s, partition.flush_asked = time.monotonic(), False
            folded = True
            if self._stopping:
                return True
        held_s = time.monotonic() - partition.held_since_s
        if partition.pending and not records and not partition.flush_asked and held_s >= FLUSH_INTERVAL_S:
            self._log.flush(partition.state.partition)
            partition.flush_asked = True
        return folded or bool(records)

    def _fold(self, partition: _Partition, batch: list[Record]) -> None:
        """Fold a batch while the one before it is being stored; batches are stored in the order of their folding."""
        started_s = time.monotonic()
        folded = fold_batch(batch, partition.state, partition.index, self._log.config)
        partition.index.add(folded.hashes, folded.days)
        horizon_days = partition.state.config.limits.dedup_horizon_days
        partition.state = folded.state
        self._storing.result()
        self._storing = self._storer.submit(self._store, folded, time.monotonic() - started_s)
        if folded.state.config.limits.dedup_horizon_days != horizon_days:
            self._storing.result()
            partition.index = load_index(self._client, folded.state)

    def _store(self, folded: FoldedBatch, fold_s: float) -> None:
        started_s = time.monotonic()
        for attempt in range(STORE_TRIES):
            try:
                store_batch(self._client, folded)
                break
            except Exception:  # the engine's driver raises many kinds; after the last try it is the worker's end
                if attempt == STORE_TRIES - 1:
                    raise
                logger.warning("batch %s not stored; trying again", folded.token("*"), exc_info=True)
                time.sleep(STORE_RETRY_S * 2**attempt)
        store_s = time.monotonic() - started_s
        with self._stored:
            self.offsets[folded.state.partition] = folded.state.next_offset
            self._stored.notify_all()
        BATCH_SECONDS.labels("fold").observe(fold_s)
        BATCH_SECONDS.labels("store").observe(store_s)
        row = folded.frames[PROGRESS.name].row(0, named=True)
        for outcome in ("accepted", "duplicates", "rejected"):
            LINES.labels(outcome).inc(row[outcome])
        logger.info(
            "batch partition=%d offsets=%d-%d accepted=%d duplicates=%d rejected=%d epoch=%d fold_s=%.3f store_s=%.3f",
            row["partition"], row["first_offset"], row["next_offset"] - 1, row["accepted"], row["duplicates"],
            row["rejected"], row["epoch"], fold_s, store_s,
        )  # fmt: skip
