"""A request's body to lines for the log: all of its events, or none and every reason why.

Follows OpenMeter's v1 API: three content types, the events as CloudEvents JSON. An event is taken as it was sent, byte
for byte (white space between its parts aside), so that no digit of a number is lost on the way. Owns that what is
accepted here is never rejected by the aggregation later: what is in doubt is decided by `schemas/event.py`, as there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import msgspec

from ingest.encoding import ENCODINGS, BadBodyError, BodyTooLargeError, inflated
from ingest.fast_check import NESTING_MAX, nests_too_deep, sure_keys
from schemas.event import NotAnEventError, decode_line, names_tenant
from schemas.identity import event_key
from schemas.log import Limits
from schemas.outcomes import Reason
from schemas.problem import problem
from schemas.tenant import DEFAULT_TENANT

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
EITHER = "application/json"
BODY_BYTES_MAX = 16 << 20
EVENTS_MAX = 100_000
FAULTS_LISTED_MAX = 1000

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw = msgspec.json.Decoder(msgspec.Raw)
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


class Refusal(StrEnum):
    """Why a request is refused as a whole, as metrics name it."""

    CONTENT_TYPE = "content_type"
    CONTENT_ENCODING = "content_encoding"
    TOO_LARGE = "too_large"
    NOT_INFLATED = "not_inflated"
    NOT_JSON = "not_json"
    NO_EVENTS = "no_events"
    INVALID_EVENTS = "invalid_events"
    SLOW = "slow"
    HUNG_UP = "hung_up"
    BUSY = "busy"
    LOG_AWAY = "log_away"
    OPERATION = "operation"
    KEY = "key"
    SCOPE = "scope"
    RATE = "rate"


@dataclass(frozen=True)
class Accepted:
    """The events of a request: each one's line, and the key that decides its partition."""

    lines: list[bytes]
    keys: list[bytes]


class RefusedError(ValueError):
    """The request is refused as a whole."""

    def __init__(
        self, status: HTTPStatus, detail: str, refusal: Refusal = Refusal.OPERATION, **extensions: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.refusal = refusal
        self.extensions = extensions
        self.reasons: Counter[str] = Counter()
        """How many of its events have which fault."""
        self.headers: dict[str, str] = {}
        """What the answer says in headers of its own."""

    def problem(self, instance: str) -> dict[str, Any]:
        """The answer's body, as RFC 7807 has it."""
        return problem(self.status, self.detail, instance, self.extensions)


def encoding_of(header: str) -> str | None:
    """The encoding that a Content-Encoding header names; None for a body as it is. Raises RefusedError for others."""
    encoding = header.strip().lower()
    if encoding in {"", "identity"}:
        return None
    if encoding not in ENCODINGS:
        detail = f"the content encoding {header} is not supported; allowed: gzip, zstd, or none"
        raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, detail, Refusal.CONTENT_ENCODING)
    return encoding


def plain_body(encoding: str | None, body: bytes) -> bytes:
    """The body without its encoding. Raises RefusedError when it is not so encoded, or larger than BODY_BYTES_MAX."""
    if encoding is None:
        return body
    try:
        return inflated(encoding, body, BODY_BYTES_MAX)
    except BodyTooLargeError:
        raise too_large() from None
    except BadBodyError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, str(error), Refusal.NOT_INFLATED) from None


def too_large() -> RefusedError:
    """The refusal of a body that has more than BODY_BYTES_MAX."""
    detail = f"the body has more than {BODY_BYTES_MAX} bytes; send fewer events a request"
    return RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, Refusal.TOO_LARGE)


def events_of(content_type: str, body: bytes, tenant: str, limits: Limits) -> Accepted:
    """The events of a request's body. Raises RefusedError, with the faulty events listed under validationErrors.

    In the log an event that names no tenant is the default tenant's, so another tenant's name is written into it.
    """
    lines = _split(content_type, body)
    if b"\n" in body or b"\r" in body:
        lines = [line.translate(_LINE_ENDS) for line in lines]
    if tenant != DEFAULT_TENANT:
        lines = [line if names_tenant(line) else _with_tenant(line, tenant) for line in lines]
    keys, faults = [], []
    for index, (line, sure) in enumerate(zip(lines, sure_keys(body, lines, tenant, limits), strict=True)):
        try:
            keys.append(sure or _exact_key(line, tenant, limits))
        except NotAnEventError as error:
            faults.append({"index": index, "reason": error.reason.value, "detail": error.detail})
    if faults:
        raise _invalid_events(faults, len(lines))
    return Accepted(lines, keys)


def _exact_key(line: bytes, tenant: str, limits: Limits) -> bytes:
    event = decode_line(line, (), limits)
    if nests_too_deep(line):
        raise NotAnEventError(Reason.NOT_JSON, f"nested more than {NESTING_MAX} deep")
    if event["tenant"] != tenant:
        detail = f'tenant: "{event["tenant"]}"; allowed: none, or "{tenant}", as the gateway sets it'
        raise NotAnEventError(Reason.INVALID_FIELD, detail)
    return event_key(tenant, event["source"], event["id"])


def _with_tenant(line: bytes, tenant: str) -> bytes:
    """The event with its tenant as the first field. What is no object with fields stays as it is: it is no event."""
    if line[:1] != b"{" or line[1:].lstrip()[:1] == b"}":
        return line
    return b'{"tenant":%s,%s' % (msgspec.json.encode(tenant), line[1:])


def _invalid_events(faults: Sequence[Mapping[str, Any]], count: int) -> RefusedError:
    detail = f"{len(faults)} of {count} events are invalid; none was stored"
    if len(faults) > FAULTS_LISTED_MAX:
        detail += f"; the first {FAULTS_LISTED_MAX} are listed"
    listed = faults[:FAULTS_LISTED_MAX]
    refused = RefusedError(HTTPStatus.BAD_REQUEST, detail, Refusal.INVALID_EVENTS, validationErrors=listed)
    refused.reasons.update(fault["reason"] for fault in faults)
    return refused


def _split(content_type: str, body: bytes) -> list[bytes]:
    try:
        match content_type:
            case _ if content_type == SINGLE:
                return [_only(body)]
            case _ if content_type == BATCH:
                return _each(body)
            case _ if content_type == EITHER:
                return _each(body) if body.lstrip()[:1] == b"[" else [_only(body)]
            case _:
                detail = f"invalid content type: {content_type}; allowed: {SINGLE}, {BATCH}, {EITHER}"
                raise RefusedError(HTTPStatus.BAD_REQUEST, detail, Refusal.CONTENT_TYPE, contentType=content_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = f"invalid event: the body is not JSON: {error}"
        raise RefusedError(HTTPStatus.BAD_REQUEST, detail, Refusal.NOT_JSON) from None


def _each(body: bytes) -> list[bytes]:
    events = _raw_list.decode(body)
    if not events:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "invalid event: no events found", Refusal.NO_EVENTS)
    if len(events) > EVENTS_MAX:
        detail = f"the body has {len(events)} events; at most {EVENTS_MAX} are allowed; send fewer events a request"
        raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, Refusal.TOO_LARGE)
    return [bytes(event) for event in events]


def _only(body: bytes) -> bytes:
    return bytes(_raw.decode(body)).strip()
