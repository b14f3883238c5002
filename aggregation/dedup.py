"""Which events were counted before: the identity hashes of a partition, in sorted runs.

An event is a duplicate iff one with the same identity was accepted earlier in its partition, at most `horizon_days`
UTC days of append time before it. The first one wins. The index is a cache: it can be rebuilt from the stored events.
It costs 18 bytes a key: 128 bits of hash and the day.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

Hashes = npt.NDArray[np.uint64]  # shape (n, 2): high word, low word
Days = npt.NDArray[np.uint16]  # shape (n,): days since 1970
Mask = npt.NDArray[np.bool_]

_MERGE_BELOW = 4


@dataclass(frozen=True)
class _Run:
    """Keys sorted by their high word."""

    high: npt.NDArray[np.uint64]
    low: npt.NDArray[np.uint64]
    day: Days

    @classmethod
    def of(cls, high: npt.NDArray[np.uint64], low: npt.NDArray[np.uint64], day: Days) -> Self:
        order = np.argsort(high, kind="stable")
        return cls(high[order], low[order], day[order])

    def merged(self, other: "_Run", oldest_day: int) -> "_Run":
        high = np.concatenate((self.high, other.high))
        low = np.concatenate((self.low, other.low))
        day = np.concatenate((self.day, other.day))
        kept = day >= oldest_day
        return _Run.of(high[kept], low[kept], day[kept])

    def columns(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Days]:
        return self.high, self.low, self.day

    def holds(self, hashes: Hashes, oldest: npt.NDArray[np.int64]) -> Mask:
        """For each hash, whether the run has it on a day not before its `oldest`."""
        found = np.zeros(len(hashes), dtype=np.bool_)
        position = np.searchsorted(self.high, hashes[:, 0])
        rows = np.arange(len(hashes))
        while len(rows):  # once, but for keys whose first 64 bits are equal
            inside = position < len(self.high)
            rows, position = rows[inside], position[inside]
            same = self.high[position] == hashes[rows, 0]
            rows, position = rows[same], position[same]
            match = (self.low[position] == hashes[rows, 1]) & (self.day[position] >= oldest[rows])
            found[rows[match]] = True
            rows, position = rows[~match], position[~match] + 1
        return found


class DedupIndex:
    """The keys of one partition. `fresh` asks, `add` remembers; runs are merged so that there are few of them."""

    def __init__(self, horizon_days: int) -> None:
        self._horizon_days = horizon_days
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return sum(len(run.high) for run in self._runs)

    @property
    def nbytes(self) -> int:
        """Bytes that the keys take in memory."""
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
        oldest = days.astype(np.int64) - self._horizon_days
        found = np.zeros(len(hashes), dtype=np.bool_)
        for run in self._runs:
            found |= run.holds(hashes, oldest)
        return found

    def add(self, hashes: Hashes, days: Days) -> None:
        """Remember accepted events. Keys older than the horizon are forgotten as runs are merged."""
        if not len(hashes):
            return
        self._runs.append(_Run.of(hashes[:, 0], hashes[:, 1], days))
        oldest_day = int(days.max()) - self._horizon_days
        while len(self._runs) > 1 and len(self._runs[-2].high) < _MERGE_BELOW * len(self._runs[-1].high):
            newer, older = self._runs.pop(), self._runs.pop()
            self._runs.append(older.merged(newer, oldest_day))


def _first(hashes: Hashes) -> Mask:
    keys = pl.DataFrame({"high": hashes[:, 0], "low": hashes[:, 1]})
    first: Mask = keys.select(pl.struct("high", "low").is_first_distinct()).to_series().to_numpy()
    return first
