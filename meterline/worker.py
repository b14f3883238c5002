"""The embedded worker: follows the log's partitions, folds batch after batch, and stores each one.

Crash-only: a batch that cannot be stored ends the worker, and with it the process. A restart goes on where the last
stored batch ended.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from aggregation.batch import Batch, Cutter, FlushTimer
from aggregation.fold_batch import FoldedBatch
from aggregation.store import Partition
from schemas.log import Flush
from stores.clickhouse import Client
from stores.postgres_log import PostgresLog

FLUSH_INTERVAL_S = 1.0
READ_BYTES = 4 << 20

logger = logging.getLogger(__name__)


@dataclass
class _Following:
    """A partition, how far it is read, and when a batch that waits is to be ended."""

    partition: Partition
    cutter: Cutter
    flush_timer: FlushTimer = field(default_factory=lambda: FlushTimer(FLUSH_INTERVAL_S))


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
        self._following: list[_Following] = []
        self._offsets: dict[int, int] = {}
        self._storer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._storing: Future[None] = self._storer.submit(lambda: None)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        log.on_append = self._wake.set

    def start(self) -> None:
        """Load each partition's state and dedup index, then follow the log."""
        for number in range(self._log.partitions):
            partition = Partition(self._client, self._log, number)
            self._following.append(_Following(partition, partition.cutter()))
            self._offsets[number] = partition.state.next_offset
        self._thread.start()

    def stop(self) -> None:
        """Finish the batch at hand and stop. What is not stored yet waits in the log."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self._storer.shutdown()

    def offsets(self) -> dict[int, int]:
        """For each partition, the offset behind its last stored batch."""
        return dict(self._offsets)

    def wait_for(self, offsets: dict[int, int], timeout_s: float) -> bool:
        """Wait until every partition is stored up to its offset, or the time is over. Raises the worker's failure."""
        with self._stored:
            return self._stored.wait_for(lambda: self._reached(offsets) or self._raise_failure(), timeout_s)

    def _reached(self, offsets: dict[int, int]) -> bool:
        return all(self._offsets[partition] >= end for partition, end in offsets.items())

    def _raise_failure(self) -> bool:
        if self.failure is not None:
            raise RuntimeError("the worker has stopped: a batch could not be stored") from self.failure
        return False

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                progressed = [self._advance(following) for following in self._following]
                if not any(progressed):
                    self._storing.result()
                    waiting = any(following.cutter.holds for following in self._following)
                    self._wake.wait(FLUSH_INTERVAL_S / 4 if waiting else 1.0)
            self._storing.result()
        except BaseException as failure:  # crash-only: whatever it is, the process must not live on without a worker
            logger.exception("the worker stops")
            with self._stored:
                self.failure = failure
                self._stored.notify_all()
            self._on_failure()

    def _advance(self, following: _Following) -> bool:
        """Read on, and fold what is whole; whether there was anything to do."""
        number = following.partition.state.partition
        records = self._log.read(number, following.cutter.read_offset, READ_BYTES)
        for batch in following.cutter.cut(records):
            self._fold(following.partition, batch)
            if self._stopping:
                return True
        if not len(records) and following.flush_timer.due(following.cutter, time.monotonic()):
            self._log.punctuate(Flush(), [number])
        return bool(len(records))

    def _fold(self, partition: Partition, batch: Batch) -> None:
        """Fold a batch while the one before it is being stored; batches are stored in the order of their folding."""
        folded = partition.fold(batch)
        self._storing.result()
        self._storing = self._storer.submit(self._store, partition, folded)
        if partition.must_reload:
            self._storing.result()
            partition.reload()

    def _store(self, partition: Partition, folded: FoldedBatch) -> None:
        partition.store(folded)
        with self._stored:
            self._offsets[folded.state.partition] = folded.state.next_offset
            self._stored.notify_all()
