"""Identity is computed: digests of natural keys.

Owns the invariant that two different keys never share an encoding: every part is length-prefixed, because joining
parts with a separator lets ("a-b", "c") collide with ("a", "b-c").
"""

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash
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


def digests(*parts: pl.Expr | str) -> pl.Expr:
    """`digest` of each row: the parts are columns of text, or a text that all rows share.

    >>> rows = pl.DataFrame({"customer": ["UA", "a-b"], "period": ["2013-01", "c"]})
    >>> rows.select(digests("invoice", pl.col("customer"), pl.col("period"))).to_series()[0]
    'c1cbe88d2541b13be0550dd0da620aed'
    """
    texts = [pl.lit(part) if isinstance(part, str) else part for part in parts]
    return sha256_of(pl.concat_str(*[prefixed(text) for text in texts])).str.slice(0, 32)


def content_digest(content: bytes) -> str:
    """The full SHA-256 of a document's canonical bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def prefixed(part: pl.Expr) -> pl.Expr:
    """A text with its length in bytes before it, as `digest` encodes parts: what follows it can't be taken for it.

    >>> pl.select(prefixed(pl.lit(pl.Series(["a-b", "ü", ""])))).to_series().to_list()
    ['3:a-b', '2:ü', '0:']
    """
    return pl.concat_str(part.str.len_bytes().cast(pl.String), pl.lit(":"), part)


def sha256_of(texts: pl.Expr) -> pl.Expr:
    """The SHA-256 of texts without nulls, as 64 hexadecimal digits.

    >>> frame = pl.DataFrame({"text": ["", "a"]})
    >>> frame.select(sha256_of(pl.col("text"))).to_series().str.slice(0, 8).to_list()
    ['e3b0c442', 'ca978112']
    """
    hashed: pl.Expr = texts.chash.sha2_256()  # type: ignore[attr-defined]
    return hashed


def event_key(tenant: str, source: str, event_id: str) -> bytes:
    """The bytes that stand for an event's identity: each part as `<length in UTF-8 bytes>:<part>`.

    >>> event_key("default", "/airport/JFK", "B6-1")
    b'7:default12:/airport/JFK4:B6-1'
    """
    first, second, third = tenant.encode(), source.encode(), event_id.encode()
    return b"%d:%s%d:%s%d:%s" % (len(first), first, len(second), second, len(third), third)


def event_keys(events: pl.DataFrame) -> pl.Series:
    """`event_key` of every row of a frame with the columns tenant, source and id, none of them null, as text."""
    parts = [
        piece for name in EVENT_KEY for piece in (pl.col(name).str.len_bytes().cast(pl.String) + ":", pl.col(name))
    ]
    return events.select(key=pl.concat_str(*parts)).to_series()


def event_hashes(keys: pl.Series) -> npt.NDArray[np.uint64]:
    """The 128-bit xxh3 hash of each event key, as an array of shape (n, 2): high word, low word.

    64 bits are too few for money: among 1e9 keys a collision would have a chance of 2.7 %.

    >>> [hex(word) for word in event_hashes(pl.Series(["7:default12:/airport/JFK4:B6-1"]))[0]]
    ['0x4ff92c6673796dbe', '0x279013ff305d1818']
    """
    hashed = keys.to_frame("key").select(hash=polars_hash.col("key").nchash.xxh3_128())
    word = pl.lit(1 << 64, pl.UInt128)
    words = {"high": pl.col("hash") // word, "low": pl.col("hash") % word}
    return hashed.select(part.cast(pl.UInt64).alias(name) for name, part in words.items()).to_numpy()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that holds an event and all its copies: `xxh3_64(event key) % partitions`.

    >>> partition_of(event_key("default", "/airport/JFK", "B6-1"), 4)
    2
    """
    return xxhash.xxh3_64_intdigest(key) % partitions


def partitions_of(keys: pl.Series, partitions: int) -> npt.NDArray[np.int64]:
    """`partition_of` of each event key.

    >>> partitions_of(pl.Series(["7:default12:/airport/JFK4:B6-1"]), 4)
    array([2])
    """
    hashed = keys.to_frame("key").select((polars_hash.col("key").nchash.xxh3_64() % partitions).cast(pl.Int64))
    return hashed.to_series().to_numpy()


def _prefixed(part: bytes) -> bytes:
    return b"%d:%s" % (len(part), part)
