"""What a client sends, and what it makes of each answer: events leave it only when they are answered for."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.request import BATCH, RefusedError, events_of
from ingest.sending import (
    BACKOFF_MAX_S,
    CONTENT_TYPE,
    RETRY_AFTER_MAX_S,
    Acknowledged,
    Again,
    Blocked,
    Fault,
    Refused,
    TooLarge,
    Verdict,
    backoff_s,
    batch_length,
    headers_of,
    line_of,
    verdict_of,
)
from schemas.log import Limits

NOW = datetime(2026, 1, 31, 10, tzinfo=UTC)
EVENT = {"source": "/s", "type": "call", "subject": "a"}


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for _ in range(depth - 1):
        data = {"a": data}
    return data


def answered(status: int, *, count: int = 3, body: Any = b"", **headers: str) -> Verdict:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return verdict_of(status, named, content, count, NOW)


def test_an_event_becomes_what_the_gateway_takes() -> None:
    """Ids and times as given or as told, numbers to the last digit, and any text."""
    digits = Decimal("12345678901234567890.123456789012345678900")
    at = NOW + timedelta(microseconds=5)
    data = {
        "a": digits,
        "b": 10**30,
        "c": "ü\n\"'\u2028",
        "d": None,
        "e": [Decimal("-0.10"), at],
        "f": Decimal("1E+5000"),
    }
    own = line_of({**EVENT, "id": "own", "time": at, "note": None, "data": data}, "new", NOW)
    told = line_of({**EVENT, "time": None}, "new", NOW)
    accepted = events_of(BATCH, b"[%s,%s]" % (own, told), "default", Limits())
    assert accepted.lines == [own, told]
    assert json.loads(own) == {
        "specversion": "1.0", "id": "own", "time": "2026-01-31T10:00:00.000005+00:00", **EVENT,
        "data": {"a": str(digits), "b": 10**30, "c": "ü\n\"'\u2028", "d": None,
                 "e": ["-0.10", "2026-01-31T10:00:00.000005+00:00"], "f": "1E+5000"},
    }  # fmt: skip
    assert json.loads(told) == {"specversion": "1.0", "id": "new", "time": "2026-01-31T10:00:00+00:00", **EVENT}


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity"), datetime(2026, 1, 1), "\ud800", b"x", object(), nested(200), nested(5000)],  # noqa: DTZ001
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_has_no_exact_json_is_refused_to_the_caller(value: Any) -> None:
    """At once, and by itself: in a batch it would make the whole body unreadable."""
    with pytest.raises((ValueError, TypeError)):
        line_of({**EVENT, "data": {"value": value}}, "1", NOW)


def test_the_depth_that_is_refused_is_the_gateways() -> None:
    """An event that the client takes is one whose fault, if it has any, the gateway can name by its index."""
    deepest = line_of({**EVENT, "data": nested(127)}, "1", NOW)
    assert events_of(BATCH, b"[%s]" % deepest, "default", Limits()).lines == [deepest]
    with pytest.raises(ValueError, match="nested more than 128 deep"):
        line_of({**EVENT, "data": nested(128)}, "1", NOW)


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers(1, 10), st.integers(1, 150))
def test_a_batch_is_as_long_as_its_bounds_allow(sizes: list[int], events_max: int, bytes_max: int) -> None:
    """Never empty, never beyond a bound but for a single event, and one more would be beyond one."""
    length = batch_length(sizes, events_max, bytes_max)
    assert 1 <= length <= min(len(sizes), events_max)
    assert length == 1 or sum(sizes[:length]) <= bytes_max
    assert length in {len(sizes), events_max} or sum(sizes[: length + 1]) > bytes_max


def test_what_each_answer_means() -> None:
    """Only the gateway's 204 acknowledges; what may pass is tried again; the rest is for whoever set the client up."""
    problem = {"detail": "why", "extensions": {}}
    assert answered(204) == Acknowledged()
    for status in (408, 425, 429, 500, 502, 503, 504, 599):
        assert isinstance(answered(status, body=problem), Again)
    for status in (200, 202, 301, 302, 304, 400, 401, 402, 403, 404, 405, 409, 415, 422, 451):
        assert isinstance(answered(status, body=problem), Blocked)
    assert answered(401, body=problem) == Blocked("401 Unauthorized: why")
    assert answered(400, body=b"<html>") == Blocked("400 Bad Request")
    assert answered(413, body=problem) == TooLarge()
    alone = answered(413, count=1, body=problem)
    assert isinstance(alone, Refused)
    assert (alone.faults[0].reason, alone.faults[0].detail[-3:]) == ("too_large", "why")


def test_faults_are_those_that_the_gateway_names() -> None:
    """The gateway's own refusal of a batch, read back: each faulty event by its index, with the reason."""
    good, bad = line_of(EVENT, "1", NOW), line_of({**EVENT, "subject": ""}, "2", NOW)
    with pytest.raises(RefusedError) as error:
        events_of(BATCH, b"[%s]" % b",".join([good, bad, good, bad]), "default", Limits())
    verdict = answered(400, count=4, body=error.value.problem("urn:x"))
    fault = Fault("invalid_field", 'subject: ""; allowed: a string that is not empty')
    assert verdict == Refused({1: fault, 3: fault})


@pytest.mark.parametrize(
    "listed",
    [None, [], "x", [None], [{}], [{"index": -1}], [{"index": 3}], [{"index": "0"}], [{"index": True}], [{"index": 1.0}], {"index": 0}],
)  # fmt: skip
def test_a_fault_that_names_none_of_the_events_takes_none_out(listed: Any) -> None:
    """What cannot be pinned on an event is not: the batch stays whole."""
    assert isinstance(answered(400, body={"extensions": {"validationErrors": listed}}), Blocked)
    assert isinstance(answered(400, body={"extensions": listed}), Blocked)


@given(st.integers(100, 599), st.binary(max_size=40), st.text(max_size=20))
def test_no_answer_is_beyond_it(status: int, body: bytes, text: str) -> None:
    """Whatever a proxy says, there is a verdict, and only a 204 acknowledges."""
    verdict = verdict_of(status, {"Retry-After": text}, body, 2, NOW)
    assert isinstance(verdict, Acknowledged) == (status == 204)
    assert not isinstance(verdict, Refused)


def test_a_server_says_when_to_come_again() -> None:
    """In seconds or as an instant, within a bound; what cannot be read is nothing."""
    cases = {
        "7": 7.0, " 7 ": 7.0, "0": 0.0, "99999999": RETRY_AFTER_MAX_S, "Sat, 31 Jan 2026 10:00:09 GMT": 9.0,
        "Sat, 31 Jan 2026 09:00:00 GMT": 0.0, "Fri, 31 Dec 9999 23:59:59 GMT": RETRY_AFTER_MAX_S,
        "-1": 0.0, "soon": 0.0, "": 0.0, "1e3": 0.0, "\u0663": 0.0, "Sat, 31 Jan 2026 10:00:09 -0000": 0.0,
    }  # fmt: skip
    for text, after_s in cases.items():
        verdict = verdict_of(503, {"Retry-After": text}, b"", 1, NOW)
        assert isinstance(verdict, Again)
        assert verdict.after_s == after_s, text


def test_waits_grow_to_a_bound_and_are_spread() -> None:
    """Twice as long each time, between half and all of it; never shorter than the server asked."""
    longest = [backoff_s(failures, 0.0, 0.999999) for failures in range(1, 40)]
    assert all(later >= earlier for earlier, later in pairwise(longest))
    assert longest[0] < 0.1001
    assert BACKOFF_MAX_S * 0.99 < longest[-1] <= BACKOFF_MAX_S
    assert backoff_s(10**9, 0.0, 0.0) == BACKOFF_MAX_S / 2
    assert all(3 <= backoff_s(failures, 3.0, chance) < 4 for failures in (1, 50) for chance in (0.0, 0.9))


def test_the_content_type_is_the_gateways_and_keys_are_keys() -> None:
    """The client knows nothing of the servers' code; here they are held together."""
    assert CONTENT_TYPE == BATCH
    assert headers_of(None, "identity") == {"Content-Type": BATCH}
    for key in ("", " ml_1", "ml_1\r\nX: y", "mlü", "ml_\x00"):
        with pytest.raises(ValueError, match="no key has"):
            headers_of(key, "zstd")
