"""Lines that are usage events beyond doubt, found without the exact decoder, which takes several times as long.

Owns the law that a line passed here is one that `schemas/event.py` accepts, with the same identity (tests hold the two
against each other). A line that is not passed is only in doubt: it may be an event all the same.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from schemas.identity import event_key
from schemas.log import Limits
from schemas.tenant import DEFAULT_TENANT

NESTING_MAX = 128
"""Brackets within brackets in an event that the gateway accepts. Decoders' own limits depend on who calls them."""

_NAME = re.compile(rb'"(?:id|s(?:ource|ubject|pecversion)|t(?:ype|ime|enant)|data)"')
_ODD_ESCAPE = re.compile(rb"\\u(?:0000|00[67]|[dD][89a-fA-F])")  # NUL; a letter, which may hide a name; a surrogate
_LONG_EXPONENT = re.compile(rb"[eE][-+]?[0-9]{16}")  # Decimal takes any shorter one, whatever stands before it
_INSTANT = re.compile(r"(\d{4})-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)
_NUMBER_SHAPE = bytes.maketrans(b"123456789E-", b"000000000e+")


_ABSENT = msgspec.Raw()


class _Event(msgspec.Struct, gc=False, omit_defaults=True):
    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str
    tenant: str | None = None
    time: str | None = None
    data: msgspec.Raw = _ABSENT
    datacontenttype: msgspec.Raw = _ABSENT
    dataschema: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Event).decode
_encode = msgspec.json.Encoder().encode


def sure_keys(body: bytes, lines: Sequence[bytes], tenant: str, limits: Limits) -> list[bytes | None]:
    """For each line of a body, the key of the event that it surely is, of this tenant; None where it is in doubt."""
    if not _is_utf8(body):
        return [None] * len(lines)
    years = range(limits.event_at_min.year + 1, limits.event_at_max.year - 1)  # in bounds, whatever the offset from UTC
    doubts = _doubts(body)
    return [
        None if doubts and any(doubt.search(line) for doubt in doubts) else _sure_key(line, tenant, limits, years)
        for line in lines
    ]


def nests_too_deep(line: bytes) -> bool:
    """Whether brackets stand in brackets more than NESTING_MAX deep, in a line of JSON.

    >>> nests_too_deep(b"[" * 129 + b"]" * 129), nests_too_deep(b'["' + b"[" * 129 + b'"]')
    (True, False)
    """
    if _brackets(line) <= NESTING_MAX:
        return False
    depth = 0
    for token in _BRACKETS.finditer(line):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > NESTING_MAX:
            return True
    return False


def _doubts(body: bytes) -> list[re.Pattern[bytes]]:
    """What to look for in each line; to look for a text in the whole body first is faster than for a pattern."""
    shape = body.translate(_NUMBER_SHAPE)
    doubts = [_ODD_ESCAPE] if b"\\u" in body else []
    return [*doubts, _LONG_EXPONENT] if b"e" + b"0" * 16 in shape or b"e+" + b"0" * 16 in shape else doubts


def _sure_key(line: bytes, tenant: str, limits: Limits, years: range) -> bytes | None:
    if len(line) > limits.event_bytes_max or (len(line) > 2 * NESTING_MAX and _brackets(line) > NESTING_MAX):
        return None
    try:
        event = _decode(line)
    except msgspec.DecodeError:
        return None
    data = bytes(event.data)
    sure = (
        (DEFAULT_TENANT if event.tenant is None else event.tenant) == tenant
        and (not data or data[:1] == b"{" or data == b"null")
        and _are_sure_texts((event.id, event.source, event.type, event.subject, tenant), line, limits)
        and (event.time is None or _is_sure_instant(event.time, years))
        and _names_once(event, line, data)
    )
    return event_key(tenant, event.source, event.id) if sure else None


def _brackets(line: bytes) -> int:
    return line.count(b"{") + line.count(b"[")


def _are_sure_texts(texts: tuple[str, ...], line: bytes, limits: Limits) -> bool:
    if len(line) <= limits.field_bytes_max:
        return all(texts)
    return all(0 < len(text.encode()) <= limits.field_bytes_max for text in texts)


def _names_once(event: _Event, line: bytes, data: bytes) -> bool:
    """Whether the line has each field once: of two of a name the first counts, and this decoder takes the last.

    A line that is no longer than its fields without white space has nothing else. In others the names are counted.
    """
    if len(_encode(event)) == len(line) and b"\\" not in line:
        return True
    named = 5 + (event.tenant is not None) + (event.time is not None) + bool(data)
    return len(_NAME.findall(line)) - len(_NAME.findall(data)) == named


def _is_sure_instant(text: str, years: range) -> bool:
    match = _INSTANT.fullmatch(text)
    if match is None or int(match[1]) not in years:
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:  # no such day or hour
        return False
    return True


def _is_utf8(body: bytes) -> bool:
    try:
        return body.isascii() or bool(body.decode())
    except UnicodeDecodeError:
        return False
