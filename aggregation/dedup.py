"""Which events were counted before: the identity hashes of a partition, in sorted runs.

An event is a duplicate iff one with the same identity was accepted earlier in its partition, at most `horizon_days`
UTC days of append time before it. The first one wins. The index is a cache: it can be rebuilt from the stored events.
It costs 18 bytes a key: 128 bits of hash and the day.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]  # shape (n, 2): high word, low word
Days = npt.NDArray[np.uint16]  # shape (n,): days since 1970
Mask = npt.NDArray[np.bool_]
Buffer = bytearray | mmap
Memory = Callable[[int], Buffer]
"""Gives so many bytes of writable memory: in this process, or mapped from a file."""

_MERGE_BELOW = 4
_KEY_BYTES = 18


@dataclass(frozen=True)
class _Run:
    """Keys sorted by their high word."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    day: Days

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def of(cls, hashes: Hashes, days: Days) -> Self:
        order = _order(hashes)
        return cls(hashes[order, 0], hashes[order, 1], days[order])

    @classmethod
    def within(cls, buffer: Buffer) -> Self:
        """Room for as many keys as a buffer holds."""
        keys = len(memoryview(buffer)) // _KEY_BYTES
        return cls(
            np.frombuffer(buffer, np.uint64, keys),
            np.frombuffer(buffer, np.uint64, keys, offset=8 * keys),
            np.frombuffer(buffer, np.uint16, keys, offset=16 * keys),
        )

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        return self.high, self.low, self.day

    def since(self, oldest_day: int) -> "_Run":
        """The keys that are not older."""
        kept = self.day >= oldest_day
        return self if kept.all() else _Run(*(column[kept] for column in self.columns()))

    def merged(self, newer: "_Run", memory: Memory) -> "_Run":
        """The keys of both."""
        places = np.searchsorted(self.high, newer.high, side="right") + np.arange(len(newer))
        ours = np.ones(len(self) + len(newer), dtype=np.bool_)
        ours[places] = False
        run = _Run.within(memory(_KEY_BYTES * len(ours)))
        for column, old, new in zip(run.columns(), self.columns(), newer.columns(), strict=True):
            column[ours], column[places] = old, new
        return run

    def holds(self, hashes: Hashes, oldest: npt.NDArray[np.int64]) -> Mask:
        """For each hash, whether the run has it on a day not before its `oldest`. Hashes in order are found faster."""
        found = np.zeros(len(hashes), dtype=np.bool_)
        position = np.searchsorted(self.high, hashes[:, 0])
        rows = np.arange(len(hashes))
        while len(rows):  # once, but for keys whose first 64 bits are equal
            inside = position < len(self)
            rows, position = rows[inside], position[inside]
            same = self.high[position] == hashes[rows, 0]
            rows, position = rows[same], position[same]
            match = (self.low[position] == hashes[rows, 1]) & (self.day[position] >= oldest[rows])
            found[rows[match]] = True
            rows, position = rows[~match], position[~match] + 1
        return found


class DedupIndex:
    """The keys of one partition. `fresh` asks, `add` remembers; runs are merged so that there are few of them."""

    def __init__(self, horizon_days: int, memory: Memory = bytearray) -> None:
        self._horizon_days = horizon_days
        self._memory = memory
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes that the keys take, in memory and in mapped files."""
        return sum(column.nbytes for run in self._runs for column in run.columns())

    def fresh(self, hashes: Hashes, days: Days) -> Mask:
        """For each event of a batch, in the order of the log, whether it is accepted, and no duplicate.

        `days` never descend. A batch lies within a day as a rule; around midnight, or when no worker ran for days,
        each of its days is asked with what was accepted on the days before it.
        """
        midnights = (np.flatnonzero(np.diff(days)) + 1).tolist()
        if not midnights:
            return _first(hashes) & ~self._seen(hashes, days)
        before, fresh = DedupIndex(self._horizon_days), np.zeros(len(days), dtype=np.bool_)
        for start, end in pairwise([0, *midnights, len(days)]):
            keys, day = hashes[start:end], days[start:end]
            fresh[start:end] = first = _first(keys) & ~self._seen(keys, day) & ~before._seen(keys, day)
            before.add(keys[first], day[first])
        return fresh

    def _seen(self, hashes: Hashes, days: Days) -> Mask:
        """For each hash, appended on its day: whether an event with it was accepted within the horizon before."""
        order = _order(hashes)
        ordered, oldest = hashes[order], days[order].astype(np.int64) - self._horizon_days
        found = np.zeros(len(hashes), dtype=np.bool_)
        for run in self._runs:
            found[order] |= run.holds(ordered, oldest)
        return found

    def add(self, hashes: Hashes, days: Days) -> None:
        """Remember accepted events. Keys older than the horizon are forgotten as runs are merged."""
        if not len(hashes):
            return
        self._runs.append(_Run.of(hashes, days))
        oldest_day = int(days.max()) - self._horizon_days
        while len(self._runs) > 1 and len(self._runs[-2]) < _MERGE_BELOW * len(self._runs[-1]):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(older.since(oldest_day).merged(newer.since(oldest_day), self._memory))


def _order(hashes: Hashes) -> npt.NDArray[np.intp]:
    """The rows in the order of their high words; how equal ones stand does not matter."""
    return np.argsort(np.ascontiguousarray(hashes[:, 0]))  # numpy sorts what lies together with vector instructions


def _first(hashes: Hashes) -> Mask:
    """For each hash, whether it is the first of its copies."""
    first = np.ones(len(hashes), dtype=np.bool_)
    order = _order(hashes)
    high = hashes[order, 0]
    twice = np.flatnonzero(high[1:] == high[:-1])
    rows = np.unique(order[np.concatenate((twice, twice + 1))])  # few, but all that may have copies
    copies = pl.DataFrame({"high": hashes[rows, 0], "low": hashes[rows, 1]})
    first[rows] = copies.select(pl.struct("high", "low").is_first_distinct()).to_series().to_numpy()
    return first
