"""A request's body to lines for the log: all of its events, or none and every reason why.

Follows OpenMeter's v1 API: three content types, the events as CloudEvents JSON. An event is taken as it was sent, byte
for byte (white space between its parts aside), so that no digit of a number is lost on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from schemas.event import NotAnEventError, decode_line
from schemas.identity import event_key
from schemas.log import Limits

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
EITHER = "application/json"

_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw = msgspec.json.Decoder(msgspec.Raw)


@dataclass(frozen=True)
class Accepted:
    """The events of a request: each one's line, and the key that decides its partition."""

    lines: list[bytes]
    keys: list[bytes]


class RefusedError(ValueError):
    """The request is refused as a whole: nothing of it was stored."""

    def __init__(self, status: HTTPStatus, detail: str, **extensions: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extensions = extensions

    def problem(self, instance: str) -> dict[str, Any]:
        """The answer's body, as RFC 7807 has it."""
        return {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "instance": instance,
            "extensions": self.extensions,
        }


def events_of(content_type: str, body: bytes, tenant: str, limits: Limits) -> Accepted:
    """The events of a request's body. Raises RefusedError, with all faulty events listed under validationErrors."""
    raw_events = _split(content_type, body)
    lines, keys, faults = [], [], []
    for index, raw in enumerate(raw_events):
        line = raw.strip().replace(b"\n", b" ").replace(b"\r", b" ")
        try:
            event = decode_line(line, (), limits)
        except NotAnEventError as error:
            faults.append({"index": index, "reason": error.reason.value, "detail": error.detail})
            continue
        if event["tenant"] != tenant:
            faults.append({"index": index, **_foreign_tenant(event, tenant)})
            continue
        lines.append(line)
        keys.append(event_key(tenant, event["source"], event["id"]))
    if faults:
        detail = f"{len(faults)} of {len(raw_events)} events are invalid; none was stored"
        raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=faults)
    return Accepted(lines, keys)


def _split(content_type: str, body: bytes) -> list[bytes]:
    try:
        match content_type:
            case _ if content_type == SINGLE:
                return [bytes(_raw.decode(body))]
            case _ if content_type == BATCH:
                events = [bytes(raw) for raw in _raw_list.decode(body)]
            case _ if content_type == EITHER:
                batch = body.lstrip()[:1] == b"["
                events = [bytes(raw) for raw in _raw_list.decode(body)] if batch else [bytes(_raw.decode(body))]
            case _:
                detail = f"invalid content type: {content_type}; allowed: {SINGLE}, {BATCH}, {EITHER}"
                raise RefusedError(HTTPStatus.BAD_REQUEST, detail, contentType=content_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"invalid event: the body is not JSON: {error}") from None
    if not events:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "invalid event: no events found")
    return events


def _foreign_tenant(event: Mapping[str, Any], tenant: str) -> dict[str, str]:
    return {
        "reason": "invalid_field",
        "detail": f'tenant: "{event["tenant"]}"; allowed: none, or "{tenant}", as the gateway sets it',
    }
