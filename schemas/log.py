"""The log's records: usage events, one or more a record, and punctuation, which says how the log is folded.

Owns that everything which changes the folding is itself in the log: the end of a batch, the barrier that opens an
epoch, and the version of the configuration (limits and meters) in force from an offset on.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple, Self

import numba
import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.identity import content_digest
from schemas.meter import Meter

Bytes = npt.NDArray[np.uint8]
Spans = npt.NDArray[np.int64]
"""Shape (n, 2): where each of some stretches of a buffer starts and ends; NO_PLACE twice for one that is not there."""
NO_PLACE = -1


class Record(NamedTuple):
    """One record of a partition. A record without a value is punctuation, named by its key."""

    offset: int
    appended_at_ms: int  # milliseconds since 1970, UTC, as the log's clock had it
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True)
class Records:
    """Records of a partition in their order, in columns: an object a record would cost more than its decoding."""

    offsets: npt.NDArray[np.int64]
    appended_at_ms: npt.NDArray[np.int64]
    buffer: Bytes
    """Where keys and values stand, with whatever else between them."""
    keys: Spans
    values: Spans

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, rows: slice) -> Self:
        return replace(
            self,
            offsets=self.offsets[rows],
            appended_at_ms=self.appended_at_ms[rows],
            keys=self.keys[rows],
            values=self.values[rows],
        )

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """The bytes of each value."""
        return self.values[:, 1] - self.values[:, 0]

    @property
    def punctuation(self) -> npt.NDArray[np.bool_]:
        """Which records have no value."""
        return np.equal(self.values[:, 0], NO_PLACE)

    def __iter__(self) -> Iterator[Record]:
        """One record after the other: for the last of a batch, and for tests."""
        for row in range(len(self)):
            value = self._bytes(self.values[row])
            yield Record(int(self.offsets[row]), int(self.appended_at_ms[row]), self.key(row), value)

    def key(self, row: int) -> bytes | None:
        """The key of a record."""
        return self._bytes(self.keys[row])

    def _bytes(self, span: npt.NDArray[np.int64]) -> bytes | None:
        start, end = span.tolist()
        return None if start == NO_PLACE else self.buffer[start:end].tobytes()

    @property
    def last(self) -> Record:
        """The last record."""
        return next(iter(self[-1:]))

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Single records as columns."""
        rows = list(records)
        parts = [part for row in rows for part in (row.key, row.value)]
        ends = np.cumsum([len(part or b"") for part in parts], dtype=np.int64)
        spans = np.stack([np.concatenate(([0], ends[:-1]))[: len(ends)], ends], axis=1)
        spans[[part is None for part in parts]] = NO_PLACE
        loose = cls(
            np.array([row.offset for row in rows], np.int64),
            np.array([row.appended_at_ms for row in rows], np.int64),
            np.frombuffer(bytearray().join([part or b"" for part in parts]), np.uint8),
            spans[0::2],
            spans[1::2],
        )
        return cls.joined([loose])

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Parts that follow each other, as one: all values from the buffer's start on, a line feed behind each.

        Keys are kept where there is no value, behind the values. No other key means anything.
        """
        values = np.concatenate([np.where(part.punctuation, 0, part.sizes + 1) for part in parts]).cumsum()
        rows = [(part, row) for part in parts for row in np.flatnonzero(part.punctuation).tolist()]
        names = [part.key(row) or b"" for part, row in rows]
        keys = np.cumsum([values[-1] if len(values) else 0, *map(len, names)])
        buffer = np.empty(int(keys[-1]), np.uint8)
        place = 0
        for part in parts:
            place = _copy_lines(part.buffer, np.ascontiguousarray(part.values), buffer, place)
        buffer[place:] = np.frombuffer(b"".join(names), np.uint8)
        punctuation = np.concatenate([part.punctuation for part in parts])
        joined = cls(
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.appended_at_ms for part in parts]),
            buffer,
            np.full((len(values), 2), NO_PLACE),
            np.stack([np.concatenate(([0], values[:-1]))[: len(values)], values - 1], axis=1),
        )
        joined.values[punctuation] = NO_PLACE
        named = [part.keys[row, 0] != NO_PLACE for part, row in rows]
        joined.keys[np.flatnonzero(punctuation)[named]] = np.stack([keys[:-1], keys[1:]], axis=1)[named]
        return joined


@numba.njit(cache=True, nogil=True)
def _copy_lines(buffer: Bytes, values: Spans, lines: Bytes, place: int) -> int:
    """Copy values behind a place, a line feed behind each; returns the place behind them."""
    for start, end in values:
        if start != NO_PLACE:
            lines[place : place + end - start] = buffer[start:end]
            place += end - start + 1
            lines[place - 1] = 0x0A
    return place


class Limits(BaseModel):
    """Bounds of batches and of events. Part of the configuration in the log, because they decide what a batch is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_events_max: int = Field(default=131_072, ge=1, le=500_000)
    batch_bytes_max: int = Field(default=32 << 20, ge=1)
    event_bytes_max: int = Field(default=1 << 20, ge=1)
    field_bytes_max: int = Field(default=512, ge=1)
    event_at_min: datetime = datetime(2000, 1, 1, tzinfo=UTC)
    event_at_max: datetime = datetime(2100, 1, 1, tzinfo=UTC)
    dedup_horizon_days: int = Field(default=35, ge=0, le=3650)


class LogConfig(BaseModel):
    """One immutable version of all that decides how the log is folded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limits: Limits = Limits()
    meters: tuple[Meter, ...] = ()

    def canonical(self) -> bytes:
        """The version as canonical JSON: the same definition always gives the same bytes."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return content_digest(self.canonical())


@dataclass(frozen=True)
class Flush:
    """Ends a batch so that fresh usage shows; changes nothing else."""


@dataclass(frozen=True)
class Barrier:
    """Cuts the whole log: the events behind barrier N, in every partition, belong to epoch N or a later one."""

    number: int


@dataclass(frozen=True)
class Configure:
    """From here on the log is folded by this version of the configuration. The first one also names the log."""

    version: int
    log_id: str


Punctuation = Flush | Barrier | Configure

_PUNCTUATION = re.compile(rb"^(?:(flush)|barrier:([0-9]{1,18})|config:([0-9]{1,9}):([0-9a-f]{32}))$")


def punctuation_key(punctuation: Punctuation) -> bytes:
    """The record key that stands for a punctuation.

    >>> punctuation_key(Barrier(7))
    b'barrier:7'
    """
    match punctuation:
        case Flush():
            return b"flush"
        case Barrier(number):
            return b"barrier:%d" % number
        case Configure(version, log_id):
            return b"config:%d:%s" % (version, log_id.encode())


def punctuation_of(key: bytes | None) -> Punctuation:
    """The punctuation that a record key stands for. An unknown key is a Flush: it ends a batch, and harms nothing.

    >>> punctuation_of(b"barrier:7")
    Barrier(number=7)
    >>> punctuation_of(b"someone else's tombstone")
    Flush()
    """
    match = _PUNCTUATION.match(key or b"")
    if match is None or match[1]:
        return Flush()
    if match[2]:
        return Barrier(int(match[2]))
    return Configure(int(match[3]), match[4].decode())
