"""The fast check against the exact decoder: what it passes is an event, with that identity; common events are passed."""

import json
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.fast_check import sure_keys
from schemas.event import NotAnEventError, decode_line
from schemas.identity import event_key
from schemas.log import Limits

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "call", "subject": "a"}
FULL = {
    **EVENT,
    "time": "2026-01-31T10:00:00.123456789Z",
    "tenant": "default",
    "data": {"id": 1.5, "v": [1, None, "x"]},
}
SEEDS = [
    json.dumps(EVENT).encode(), json.dumps(FULL, separators=(",", ":")).encode(), json.dumps(FULL).encode(),
    json.dumps({**FULL, "source": "/ünï", "more": {"id": "x", "type": 5}}, ensure_ascii=False).encode(),
    rb'{"specversion":"1.0","id":"a\u00e9\n","source":"\/s","type":"call","subject":"a","data":null,"x":-1.5e-7}',
]  # fmt: skip
PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"\x00", b"\xff", b"\xc3", b"0", b"9", b"-", b"+", b".", b"e",
    b'"id"', b'"id":"2",', b'"id":null,', b'"data":{},', b'"data":5,', b'"data":{"id":1},', b'"time":null,', b'"tenant":"x",',
    b'"tenant":null,', rb'"\u0069d":"2",', rb"\u0000", rb"\ud800", rb"\u00e9", b"1e9999999999999999999", b"1E-9999999999999999999",
    b'"time":"2026-02-30T10:00:00Z",', b'"time":"2026-02-03T10:00:00+23:59",', b'"time":"1999-12-31T10:00:00Z",', b'"specversion":"1.1",',
    b'"subject":"",', b'"type":"' + b"x" * 600 + b'",', b"[" * 130 + b"]" * 130, b"null", b"true", b"NaN", b"1.50",
]  # fmt: skip


def exact(line: bytes, tenant: str, limits: Limits) -> bytes | None:
    try:
        event = decode_line(line, (), limits)
    except NotAnEventError:
        return None
    return event_key(tenant, event["source"], event["id"]) if event["tenant"] == tenant else None


def check(lines: list[bytes], limits: Limits) -> int:
    """Hold the fast check against the exact one; how many lines were passed."""
    found = sure_keys(b",".join(lines), lines, "default", limits)
    for line, key in zip(lines, found, strict=True):
        assert key is None or key == exact(line, "default", limits), line
    return sum(key is not None for key in found)


def mutated(rng: random.Random, count: int) -> Iterator[bytes]:
    for _ in range(count):
        line = rng.choice(SEEDS)
        for _ in range(rng.randint(0, 3)):
            start = rng.randrange(len(line))
            line = line[:start] + rng.choice(PIECES) + line[start + rng.choice((0, 0, 1, 2)) :]
        yield line


@given(st.integers(0, 2**32), st.sampled_from([Limits(), Limits(field_bytes_max=3), Limits(event_bytes_max=120)]))
def test_what_is_passed_is_an_event_with_that_identity(seed: int, limits: Limits) -> None:
    """Events with something put in, cut out or replaced, alone and in a body with others."""
    lines = list(mutated(random.Random(seed), 30))
    check(lines, limits)
    for line in lines[:10]:
        check([line], limits)


def test_an_event_that_names_no_tenant_is_the_default_tenants_alone() -> None:
    """That is how the log is read, so for any other tenant it is in doubt until its tenant is written into it."""
    for fields, passed in (({}, {"default"}), ({"tenant": None}, {"default"}), ({"tenant": "acme"}, {"acme"})):
        line = json.dumps({**EVENT, **fields}).encode()
        for tenant in ("default", "acme", "x"):
            (key,) = sure_keys(line, [line], tenant, Limits())
            assert key is None or key == exact(line, tenant, Limits())
            assert (key is not None) == (tenant in passed and fields != {"tenant": None}), (fields, tenant)


def test_the_law_is_tried_on_both_sides() -> None:
    """Of the mutated lines some are passed, some are events and not passed, and some are no events."""
    lines = list(mutated(random.Random(1), 3000))
    passed = sum(check([line], Limits()) for line in lines)
    events = sum(exact(line, "default", Limits()) is not None for line in lines)
    assert 500 < passed < events < 2500


@pytest.mark.parametrize(
    "event",
    [
        EVENT, FULL, {**EVENT, "datacontenttype": "application/json", "dataschema": "https://x/y"}, {**EVENT, "data": None},
        {**EVENT, "id": "ünï"}, {**EVENT, "time": "2026-01-31T10:00:00+02:00"}, {**EVENT, "traceparent": {"id": 1, "data": "x"}.popitem()[1]},
        {**EVENT, "data": {"id": 1, "source": 2, "type": 3, "subject": 4, "time": 5, "data": 6}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("spaced", [True, False])
def test_events_as_clients_write_them_are_passed(event: dict[str, object], spaced: bool) -> None:
    """Compact or spaced, in ASCII or in UTF-8: the exact decoder need not be asked."""
    separators = None if spaced else (",", ":")
    for ascii_only in (True, False):
        assert check([json.dumps(event, separators=separators, ensure_ascii=ascii_only).encode()], Limits())


@pytest.mark.parametrize(
    "piece",
    [
        b'"id":"2"', rb'"\u0069d":"2"', b'"source":"/t"', b'"data":{},"data":{}', b'"data":[]', b'"tenant":"other"', b'"tenant":""', b'"time":5',
        b'"time":"2026-02-30T10:00:00Z"', b'"time":"1970-01-01T00:00:00Z"', b'"x":1e10000000000000000000', b'"x":1E-10000000000000000000',
        rb'"x":"\u0000"', rb'"x":"\udc00"', b'"x":"\xff"', b'"x":' + b"[" * 129 + b"]" * 129,
    ],
)  # fmt: skip
def test_what_the_decoders_might_see_differently_is_in_doubt(piece: bytes) -> None:
    """A name that stands twice, a hidden name, an exponent beyond bounds, half a surrogate pair, and other traps."""
    for line in (SEEDS[0], json.dumps(EVENT, separators=(",", ":")).encode()):
        assert check([b"{" + piece + b"," + line[1:]], Limits()) == 0
        assert check([line[:-1] + b"," + piece + b"}"], Limits()) == 0
