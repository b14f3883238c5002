"""Where a batch ends. The cut is a function of the log and of the configuration in the log, and of nothing else.

    records     e500  e500  e500  FLUSH  e500  BARRIER  e500  e500 ...
    batches    [------ 1 -------------] [----- 2 -----] [-- 3, once it is full or punctuation follows

Owns that a replay, from any batch's end, on any machine, makes the same batches. The tokens of the inserts rest on it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from schemas.log import NO_PLACE, Configure, LogConfig, Record, Records, Spans, punctuation_of

ConfigVersions = Callable[[int], LogConfig]
"""Looks up a version of the configuration. Versions never change, so the answer is always the same."""


FLUSH_AGAIN_S = 10.0


def lines_in(records: Records) -> npt.NDArray[np.int64]:
    r"""How many lines each record counts for in a batch, blank ones and the one after a last newline included.

    >>> values = b'{"id":"1"}', b'{"id":"1"}\n{"id":"2"}', None
    >>> lines_in(Records.of(Record(n, 0, b"flush", value) for n, value in enumerate(values)))
    array([1, 2, 0])
    """
    counts = np.zeros(len(records), np.int64)
    _count_lines(records.buffer, records.values, counts)
    return counts


@numba.njit(cache=True, nogil=True)
def _count_lines(buffer: npt.NDArray[np.uint8], values: Spans, counts: npt.NDArray[np.int64]) -> None:
    for row in range(len(values)):
        if values[row, 0] != NO_PLACE:
            line_feeds = 0
            for byte in buffer[values[row, 0] : values[row, 1]]:
                line_feeds += byte == 0x0A
            counts[row] = line_feeds + 1


def version_after(last: Record, version: int) -> int:
    """The configuration's version in force behind a batch's last record. One that is written again changes nothing."""
    if last.value is None:
        match punctuation_of(last.key):
            case Configure(newer, _):
                return max(version, newer)
    return version


@dataclass(frozen=True)
class Batch:
    """The records from one cut to the next. `start` is the offset behind the batch before."""

    start: int
    records: Records

    @property
    def end(self) -> int:
        """The offset behind the batch."""
        return self.records.last.offset + 1


class Cutter:
    """Cuts one partition's records, as they come, into batches.

    A batch ends with the first of: a punctuation record; the record with which it reaches `batch_events_max` lines or
    `batch_bytes_max` bytes. So a record that is too large by itself still makes a batch.
    """

    def __init__(self, start: int, version: int, versions: ConfigVersions) -> None:
        self.read_offset = start
        """The offset behind the last record that came."""
        self.start = start
        """The offset behind the last batch."""
        self._version = version
        self._versions = versions
        self._open: list[Records] = []
        self._lines = self._bytes = 0

    @property
    def holds(self) -> bool:
        """Whether records wait for their batch's end."""
        return bool(self._open)

    def cut(self, records: Records) -> Iterator[Batch]:
        """Take the partition's next records; yields the batches that they end. All of it must be consumed."""
        if not len(records):
            return
        assert records.offsets[0] >= self.read_offset, "records come once, in order"
        self.read_offset = records.last.offset + 1
        counts = lines_in(records)
        punctuation = np.flatnonzero(records.punctuation)
        lines = counts.cumsum()
        sizes = records.sizes.cumsum()
        first = lines_before = bytes_before = 0
        while True:
            limits = self._versions(self._version).limits
            last = min(
                int(np.searchsorted(lines, limits.batch_events_max - self._lines + lines_before)),
                int(np.searchsorted(sizes, limits.batch_bytes_max - self._bytes + bytes_before)),
                next(iter(punctuation[punctuation >= first].tolist()), len(records)),
            )
            if last >= len(records):
                break
            yield self._end(Records.joined([*self._open, records[first : last + 1]]))
            first, lines_before, bytes_before = last + 1, int(lines[last]), int(sizes[last])
        if first < len(records):
            self._open.append(records[first:])
            self._lines += int(lines[-1]) - lines_before
            self._bytes += int(sizes[-1]) - bytes_before

    def _end(self, records: Records) -> Batch:
        batch = Batch(self.start, records)
        self.start, self._version = batch.end, version_after(records.last, self._version)
        self._open, self._lines, self._bytes = [], 0, 0
        return batch


class FlushTimer:
    """Says when the batch that waits in a cutter should be ended by a flush record.

    A flush that was asked for is on its way until the batch ends, and is asked for again after FLUSH_AGAIN_S.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._start = -1
        self._due_s = 0.0

    def due(self, cutter: Cutter, now_s: float) -> bool:
        """Whether to ask now. To be called again and again, while the partition is read to its end."""
        if not cutter.holds:
            self._start = -1
        elif cutter.start != self._start:
            self._start, self._due_s = cutter.start, now_s + self._interval_s
        elif now_s >= self._due_s:
            self._due_s = now_s + FLUSH_AGAIN_S
            return True
        return False
