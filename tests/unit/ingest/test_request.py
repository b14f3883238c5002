"""A request's body: what is accepted, as it was sent, and how a refusal reads."""

import gzip
import json
from http import HTTPStatus
from typing import Any

import pytest

from ingest import request
from ingest.request import BATCH, EITHER, SINGLE, Refusal, RefusedError, encoding_of, events_of, plain_body
from schemas.event import decode_line
from schemas.identity import event_key
from schemas.log import Limits

EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "call", "subject": "a"}


def accepted(content_type: str, body: Any) -> list[bytes]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    return events_of(content_type, encoded, "default", Limits()).lines


def refused(content_type: str, body: Any) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        accepted(content_type, body)
    return error.value


@pytest.mark.parametrize(
    ("content_type", "body", "count"),
    [(SINGLE, EVENT, 1), (BATCH, [EVENT, EVENT], 2), (EITHER, EVENT, 1), (EITHER, [EVENT], 1)],
)
def test_the_three_content_types(content_type: str, body: Any, count: int) -> None:
    """One event, a batch, or either, as the content type says."""
    assert accepted(content_type, body) == [json.dumps(EVENT).encode()] * count


def test_an_event_is_taken_byte_for_byte() -> None:
    """No digit is lost, and line ends between the parts of an event do not break the log's lines."""
    event = json.dumps(EVENT)[:-1] + ',\r\n "data": {"v": 12345678901234567890.000000001000}}'
    assert accepted(BATCH, f"[{event}]".encode()) == [event.replace("\r\n", "  ").encode()]


def test_keys_are_the_identity() -> None:
    """The key decides the partition, so it holds tenant, source and id and nothing else."""
    events = events_of(SINGLE, json.dumps(EVENT).encode(), "default", Limits())
    assert events.keys == [event_key("default", "/s", "1")]


@pytest.mark.parametrize("content_type", ["", "text/plain", SINGLE + "; charset=utf-8"])
def test_another_content_type_is_refused(content_type: str) -> None:
    """The message names the type that came and the types that are allowed."""
    error = refused(content_type, EVENT)
    assert error.status is HTTPStatus.BAD_REQUEST
    assert error.detail.startswith(f"invalid content type: {content_type}")
    assert error.extensions == {"contentType": content_type}
    assert error.refusal is Refusal.CONTENT_TYPE


@pytest.mark.parametrize("body", [b"", b"{", b"[1", b'{"a": NaN}', b"\xff", b"[]"])
def test_a_body_without_events_is_refused(body: bytes) -> None:
    """What is not JSON, or holds nothing, is a 400 that says so."""
    assert refused(BATCH, body).detail.startswith("invalid event: ")


def test_one_bad_event_refuses_the_request_and_every_fault_is_listed() -> None:
    """All or nothing: the answer lists each faulty event with its place and reason."""
    bad = [EVENT, {**EVENT, "id": ""}, {**EVENT, "time": "1970-01-01T00:00:00Z"}, {**EVENT, "tenant": "other"}, 5]
    problem = refused(BATCH, bad).problem("urn:request:x")
    assert (problem["status"], problem["title"]) == (400, "Bad Request")
    assert problem["detail"] == "4 of 5 events are invalid; none was stored"
    assert [(fault["index"], fault["reason"]) for fault in problem["extensions"]["validationErrors"]] == [
        (1, "invalid_field"), (2, "time_out_of_range"), (3, "invalid_field"), (4, "not_an_object"),
    ]  # fmt: skip
    assert refused(BATCH, bad).reasons == {"invalid_field": 2, "time_out_of_range": 1, "not_an_object": 1}


@pytest.mark.parametrize(("depth", "taken"), [(126, True), (127, False), (800, False)])
def test_nesting_has_a_bound(depth: int, taken: bool) -> None:
    """A decoder gives up at a depth that depends on who calls it; here it is always the same, and well below."""
    event = json.dumps({**EVENT, "data": {"v": 0}}).replace("0}", "[" * depth + "]" * depth + "}").encode()
    if taken:
        assert accepted(SINGLE, event) == [event]
    else:
        assert "deep" in refused(SINGLE, event).problem("x")["extensions"]["validationErrors"][0]["detail"]


def test_a_body_that_is_only_brackets_is_refused() -> None:
    """The decoder's own limit is no error of ours."""
    assert refused(BATCH, b"[" * 100_000).refusal is Refusal.NOT_JSON


def test_numbers_of_events_and_of_faults_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small body can hold millions of things that are no events; it costs neither the time nor the answer."""
    monkeypatch.setattr(request, "EVENTS_MAX", 3)
    monkeypatch.setattr(request, "FAULTS_LISTED_MAX", 2)
    assert refused(BATCH, [5, 5, 5, 5]).status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    problem = refused(BATCH, [5, 5, 5]).problem("x")
    assert problem["detail"] == "3 of 3 events are invalid; none was stored; the first 2 are listed"
    assert len(problem["extensions"]["validationErrors"]) == 2


def test_encodings() -> None:
    """None, gzip and zstd are allowed, in any case; others are a 415 that names them."""
    headers = ("", "identity", "GZIP", "x-gzip", " zstd ")
    assert [encoding_of(header) for header in headers] == [None, None, "gzip", "x-gzip", "zstd"]
    for header in ("br", "gzip, gzip", "deflate"):
        with pytest.raises(RefusedError, match="allowed: gzip, zstd, or none") as error:
            encoding_of(header)
        assert error.value.status is HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def test_a_body_is_inflated_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not so encoded is a 400, and what is too large once inflated a 413."""
    assert plain_body(None, b"[]") == plain_body("gzip", gzip.compress(b"[]")) == b"[]"
    with pytest.raises(RefusedError, match="is not gzip") as bad:
        plain_body("gzip", b"[]")
    monkeypatch.setattr(request, "BODY_BYTES_MAX", 1)
    with pytest.raises(RefusedError, match="more than 1 bytes") as large:
        plain_body("gzip", gzip.compress(b"[]"))
    assert (bad.value.status.value, large.value.status.value) == (400, 413)


TENANTS = [
    ({}, True), ({"tenant": "acme"}, True), ({"tenant": None}, True), ({"tenant": "default"}, False), ({"tenant": "other"}, False),
    ({"tenant": ""}, False), ({"tenant": 5}, False), ({"tenant": {}}, False), ({"tenant": "ACME"}, False), ({"tenant": "acme "}, False),
    ({"data": {"tenant": "other"}}, True), ({"subject": '"tenant":"other"'}, True),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "taken"), TENANTS)
@pytest.mark.parametrize("escape", [False, True])
def test_an_event_is_its_keys_tenants_or_refused(fields: dict[str, Any], taken: bool, escape: bool) -> None:
    """What is stored decodes to the tenant of the key, by the exact decoder; an event that names another is refused."""
    body = json.dumps({**EVENT, **fields})
    body = body.replace('"tenant":', '"\\u0074enant":') if escape else body
    if not taken:
        with pytest.raises(RefusedError, match="1 of 1 events") as error:
            events_of(SINGLE, body.encode(), "acme", Limits())
        assert "tenant" in str(error.value.extensions)
        return
    events = events_of(SINGLE, body.encode(), "acme", Limits())
    assert decode_line(events.lines[0], (), Limits())["tenant"] == "acme"
    assert events.keys == [event_key("acme", "/s", "1")]
    if "tenant" not in fields:
        assert events.lines == [b'{"tenant":"acme",' + body[1:].encode()]


def test_of_two_tenants_the_first_counts_here_as_in_the_log() -> None:
    """A second field of the name can neither lend an event to another tenant nor hide one."""
    first = json.dumps({**EVENT, "tenant": "acme"})[:-1] + ',"tenant":"other"}'
    assert decode_line(events_of(SINGLE, first.encode(), "acme", Limits()).lines[0], (), Limits())["tenant"] == "acme"
    for second in (first.replace("acme", "x"), first.replace('"acme"', '"other"').replace('other"}', 'acme"}')):
        with pytest.raises(RefusedError, match="1 of 1 events"):
            events_of(SINGLE, second.encode(), "acme", Limits())


@pytest.mark.parametrize("body", [b"5", b"{}", b"{ }", b"[1]", b'"{"', b"null", b'{"a":1}', b'{"tenant":"acme"}'])
def test_what_is_no_event_is_refused_for_every_tenant(body: bytes) -> None:
    """To write a tenant into it does not change what is wrong with it."""
    for tenant in ("default", "acme"):
        with pytest.raises(RefusedError, match="1 of 1 events") as error:
            events_of(SINGLE, body, tenant, Limits())
        reason = error.value.extensions["validationErrors"][0]["reason"]
        assert reason == ("missing_field" if body[:1] == b"{" else "not_an_object")


def test_an_event_that_is_too_large_with_its_tenant_is_refused() -> None:
    """The limit is for what is stored: the aggregation would reject it."""
    line = json.dumps(EVENT).encode()
    limits = Limits(event_bytes_max=len(line) + len('"tenant":"acme",'))
    assert events_of(SINGLE, line, "acme", limits).keys
    with pytest.raises(RefusedError, match="1 of 1 events"):
        events_of(SINGLE, line + b" ", "acme", limits.model_copy(update={"event_bytes_max": len(line)}))
