"""Compressed bodies: inflated within a bound, whatever they say of themselves."""

import gzip
import tracemalloc
from collections.abc import Callable

import pytest

from ingest.encoding import PARTS_MAX, BadBodyError, BodyTooLargeError, inflated, zstd

Compress = Callable[[bytes], bytes]
both = pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
TEXT = b'[{"id":"1"}]' * 100


@both
def test_a_body_comes_out_as_it_was(encoding: str, compress: Compress) -> None:
    """In one piece or in several, and an empty one, too."""
    assert inflated(encoding, compress(TEXT), len(TEXT)) == TEXT
    assert inflated(encoding, compress(TEXT) + compress(b"") + compress(TEXT), 2 * len(TEXT)) == TEXT + TEXT
    assert inflated(encoding, compress(b""), 0) == inflated(encoding, b"", 0) == b""


@both
def test_one_byte_too_many_is_too_many(encoding: str, compress: Compress) -> None:
    """The bound holds for the whole, not for each part."""
    with pytest.raises(BodyTooLargeError):
        inflated(encoding, compress(TEXT), len(TEXT) - 1)
    with pytest.raises(BodyTooLargeError):
        inflated(encoding, compress(TEXT) + compress(TEXT), 2 * len(TEXT) - 1)


@both
def test_a_bomb_is_not_inflated(encoding: str, compress: Compress) -> None:
    """A gigabyte of nothing takes no more memory than is allowed."""
    bomb = compress(bytes(1 << 30))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            inflated(encoding, bomb, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@both
def test_what_is_not_so_encoded_is_refused(encoding: str, compress: Compress) -> None:
    """Cut short, followed by something else, something else from the start, or of too many parts."""
    whole = compress(TEXT)
    for body in (whole[:-1], whole[:3], whole + b"junk", TEXT, compress(b"") * (PARTS_MAX + 1)):
        with pytest.raises(BadBodyError, match=encoding):
            inflated(encoding, body, 1 << 20)


def test_a_frame_that_asks_for_a_large_window_is_refused() -> None:
    """HTTP allows windows of 8 MiB; more would be memory that a client makes us take."""
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    body = compressor.compress(bytes(20 << 20)) + compressor.flush()
    with pytest.raises(BadBodyError, match="memory"):
        inflated("zstd", body, 64 << 20)
