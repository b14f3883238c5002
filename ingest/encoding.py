"""A request's body as it was before compression, and, for clients, what it is after it.

Owns that nobody makes us hold more than a bound: a body is inflated only until it has more bytes than are allowed, and
a Zstandard frame may ask for no larger window than HTTP allows (RFC 9659).
"""

import sys
import zlib

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GZIP_WINDOW = 16 + zlib.MAX_WBITS
ZSTD_WINDOW_LOG_MAX = 23
PARTS_MAX = 64  # each one costs a copy of what follows it


class BadBodyError(ValueError):
    """The body is not what its encoding says."""


class BodyTooLargeError(ValueError):
    """The body would have more bytes than are allowed."""


def inflated(encoding: str, body: bytes, bytes_max: int) -> bytes:
    """The body that was compressed with `encoding`, one of ENCODINGS; it may be of several members or frames.

    Raises BadBodyError, or BodyTooLargeError when it would be longer than `bytes_max`.

    >>> inflated("gzip", zlib.compress(b"[]", wbits=GZIP_WINDOW), 2)
    b'[]'
    """
    inflate = ENCODINGS[encoding]
    parts: list[bytes] = []
    room = bytes_max
    while body:
        try:
            part, whole, body = inflate(body, room + 1)
        except (zlib.error, zstd.ZstdError) as error:
            raise BadBodyError(f"the body is not {encoding}: {error}") from None
        room -= len(part)
        if room < 0:
            raise BodyTooLargeError
        if not whole:
            raise BadBodyError(f"the body ends before its {encoding} does")
        parts.append(part)
        if body and len(parts) == PARTS_MAX:
            raise BadBodyError(f"the body has more than {PARTS_MAX} {encoding} parts")
    return b"".join(parts)


def compressed(encoding: str, body: bytes) -> bytes:
    """The body in an encoding of ENCODINGS, or as it is for `identity`.

    >>> inflated("zstd", compressed("zstd", b"[]"), 2), compressed("identity", b"[]")
    (b'[]', b'[]')
    """
    match encoding:
        case "zstd":
            return zstd.compress(body)
        case "gzip":
            return zlib.compress(body, wbits=GZIP_WINDOW)
        case _:
            assert encoding == "identity", encoding
            return body


def _gunzip(body: bytes, bytes_max: int) -> tuple[bytes, bool, bytes]:
    member = zlib.decompressobj(wbits=GZIP_WINDOW)
    part = member.decompress(body, bytes_max)
    return part, member.eof, member.unused_data


def _unzstd(body: bytes, bytes_max: int) -> tuple[bytes, bool, bytes]:
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: ZSTD_WINDOW_LOG_MAX})
    part = frame.decompress(body, bytes_max)
    return part, frame.eof, frame.unused_data


ENCODINGS = {"gzip": _gunzip, "x-gzip": _gunzip, "zstd": _unzstd}
