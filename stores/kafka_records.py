"""Fetched records in columns, a whole batch of the producer at once.

aiokafka makes an object a record, which takes longer than all the rest of the fetch. Its own reading of a batch's
header, checksum and compression is used as it is; here a batch's records become arrays. What is left out is the same:
batches of the broker's own, batches of aborted transactions, and records before the offset that was asked for.
"""

from collections.abc import Iterator
from typing import Any

import aiokafka.consumer.fetcher
import numba
import numpy as np
import numpy.typing as npt
from aiokafka.consumer.fetcher import READ_COMMITTED
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from schemas.log import NO_PLACE, Records, Spans

_MAGIC = 2
_MAGIC_PLACE = 16

compiled: Any = numba.njit(cache=True, nogil=True)


def fetch_columns() -> None:
    """Let every consumer of this process hand out Records, one a batch of the producer, in the place of records."""
    aiokafka.consumer.fetcher.MemoryRecords = _Batches
    aiokafka.consumer.fetcher.PartitionRecords = _Columns


class _Batches(_MemoryRecordsPy):  # type: ignore[misc]
    """The batches of a fetch, each as aiokafka's class of it that lets its bytes be seen."""

    def next_batch(self) -> Any:
        batch = self._next_slice
        if batch[_MAGIC_PLACE] != _MAGIC:
            raise CorruptRecordException(f"a batch in the format {batch[_MAGIC_PLACE]}; Kafka 4 writes {_MAGIC} alone")
        self._cache_next()
        return _DefaultRecordBatchPy(batch)


class _Columns(aiokafka.consumer.fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of a fetch of one partition."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Records]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"a batch of {self._tp} was damaged on its way")
            asked, self.next_fetch_offset = self.next_fetch_offset, batch.next_offset
            if not (self._aborted(batch) or batch.is_control_batch):
                records = columns(batch)
                yield records[int(np.searchsorted(records.offsets, asked)) :]

    def _aborted(self, batch: Any) -> bool:
        """Whether a batch is of a transaction that was aborted. To be asked of every batch, in order."""
        if self._isolation_level != READ_COMMITTED or batch.producer_id is None:
            return False
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and self._contains_abort_marker(batch):
            self._aborted_producers.discard(batch.producer_id)
        return bool(batch.is_transactional and batch.producer_id in self._aborted_producers)


def columns(batch: _DefaultRecordBatchPy) -> Records:
    """The records of a batch. All have the time at which the broker took it.

    Raises CorruptRecordException when its bytes are not the records that its header promises.
    """
    batch._maybe_uncompress()  # noqa: SLF001
    buffer, count = np.frombuffer(batch._buffer, np.uint8), batch._num_records  # noqa: SLF001
    offsets, keys, values = np.empty(count, np.int64), np.empty((count, 2), np.int64), np.empty((count, 2), np.int64)
    if not _read(buffer, batch._pos, offsets, keys, values):  # noqa: SLF001
        raise CorruptRecordException(f"the batch at offset {batch.base_offset} is not what its header says")
    offsets += batch.base_offset
    return Records(offsets, np.full(count, batch.max_timestamp, np.int64), buffer, keys, values)


@compiled
def _read(
    buffer: npt.NDArray[np.uint8], place: int, offsets: npt.NDArray[np.int64], keys: Spans, values: Spans
) -> bool:
    """Read records: length, attributes, time, offset, key, value and headers, each number as a varint."""
    for row in range(len(offsets)):
        length, place = _varint(buffer, place)
        end = place + length
        if length < 0 or end > len(buffer):
            return False
        _, place = _varint(buffer, place + 1)
        offsets[row], place = _varint(buffer, place)
        for spans in (keys, values):
            length, place = _varint(buffer, place)
            spans[row, 0], spans[row, 1] = (NO_PLACE, NO_PLACE) if length < 0 else (place, place + length)
            place += max(length, 0)
            if place > end:
                return False
        place = end
    return place == len(buffer)


@compiled
def _varint(buffer: npt.NDArray[np.uint8], place: int) -> tuple[Any, int]:
    """A zigzag number of variable length, and the place behind it."""
    number, shift = np.int64(0), 0
    while place < len(buffer) and shift < 64:
        byte = np.int64(buffer[place])
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return (number >> 1) ^ -(number & 1), place
