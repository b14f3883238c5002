"""The log's records: usage events, one or more a record, and punctuation, which says how the log is folded.

Owns that everything which changes the folding is itself in the log: the end of a batch, the barrier that opens an
epoch, and the version of the configuration (limits and meters) in force from an offset on.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field

from schemas.identity import content_digest
from schemas.meter import Meter

DEFAULT_TENANT = "default"
"""The tenant of an event that names none."""


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
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.offsets[rows], self.appended_at_ms[rows], self.keys[rows], self.values[rows])

    @property
    def last(self) -> Record:
        """The last record."""
        return Record(int(self.offsets[-1]), int(self.appended_at_ms[-1]), self.keys[-1], self.values[-1])

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Single records as columns."""
        rows = list(records)
        return cls(
            np.array([row.offset for row in rows], np.int64),
            np.array([row.appended_at_ms for row in rows], np.int64),
            [row.key for row in rows],
            [row.value for row in rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Parts that follow each other, as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.appended_at_ms for part in parts]),
            [key for part in parts for key in part.keys],
            [value for part in parts for value in part.values],
        )


class Limits(BaseModel):
    """Bounds of batches and of events. Part of the configuration in the log, because they decide what a batch is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch_events_max: int = Field(default=65_536, ge=1, le=500_000)
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
