"""Identity is computed: digests of natural keys.

Owns the invariant that two different keys never share an encoding: every part is length-prefixed, because joining
parts with a separator lets ("a-b", "c") collide with ("a", "b-c").
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

EVENT_KEY = ("tenant", "source", "id")
"""The parts of an event's identity, in the order they are hashed."""


def digest(*parts: str | int) -> str:
    """The id of the thing that the parts name: 32 hexadecimal digits of SHA-256 over the length-prefixed parts.

    >>> digest("invoice", "UA", "2013-01")
    'c1cbe88d2541b13be0550dd0da620aed'
    >>> digest("a-b", "c") == digest("a", "b-c")
    False
    """
    encoded = b"".join(_prefixed(str(part).encode()) for part in parts)
    return hashlib.sha256(encoded).hexdigest()[:32]


def content_digest(content: bytes) -> str:
    """The full SHA-256 of a document's canonical bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def event_key(tenant: str, source: str, event_id: str) -> bytes:
    """The bytes that stand for an event's identity: each part as `<length in UTF-8 bytes>:<part>`.

    >>> event_key("default", "/airport/JFK", "B6-1")
    b'7:default12:/airport/JFK4:B6-1'
    """
    first, second, third = tenant.encode(), source.encode(), event_id.encode()
    return b"%d:%s%d:%s%d:%s" % (len(first), first, len(second), second, len(third), third)


def event_keys(events: pl.DataFrame) -> list[bytes]:
    """`event_key` of every row of a frame with the columns tenant, source and id, none of them null."""
    parts = [
        piece for name in EVENT_KEY for piece in (pl.col(name).str.len_bytes().cast(pl.String) + ":", pl.col(name))
    ]
    return events.select(pl.concat_str(*parts).cast(pl.Binary)).to_series().to_list()


def event_hashes(keys: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    """The 128-bit xxh3 hash of each event key, as an array of shape (n, 2): high word, low word.

    64 bits are too few for money: among 1e9 keys a collision would have a chance of 2.7 %.
    """
    hashed = b"".join([xxhash.xxh3_128_digest(key) for key in keys])
    return np.frombuffer(hashed, dtype=">u8").reshape(-1, 2).astype(np.uint64)


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that holds an event and all its copies: `xxh3_64(event key) % partitions`.

    >>> partition_of(event_key("default", "/airport/JFK", "B6-1"), 4)
    2
    """
    return xxhash.xxh3_64_intdigest(key) % partitions


def partitions_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int64]:
    """`partition_of` of each event key.

    >>> partitions_of([event_key("default", "/airport/JFK", "B6-1")], 4)
    array([2])
    """
    if partitions == 1:
        return np.zeros(len(keys), np.int64)
    hashed = b"".join([xxhash.xxh3_64_digest(key) for key in keys])
    return (np.frombuffer(hashed, dtype=">u8").astype(np.uint64) % np.uint64(partitions)).astype(np.int64)


def _prefixed(part: bytes) -> bytes:
    return b"%d:%s" % (len(part), part)
