"""What a client makes of usage events, and what it does after each answer of a server. `ingest/client.py` does it.

Owns that an event leaves a client for two reasons only: the server has acknowledged it, or has refused it by its index
(or as too large, when it was alone). Whatever else an answer says, the events stay, and are sent again as they were.
Imports nothing of the servers: a service that sends events should not load their engines.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

CONTENT_TYPE = "application/cloudevents-batch+json"
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
RETRY_AFTER_MAX_S = 300.0  # of a server that asks for more, we do not believe it
_DETAIL_LENGTH_MAX = 500
_NESTING_MAX = 128  # as the gateway has it; of a body that is nested much deeper it cannot say which event is wrong
_PLAIN_EXPONENT_MAX = 400
_COME_AGAIN = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


@dataclass(frozen=True)
class Fault:
    """Why an event is refused."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Acknowledged:
    """The server has every event of the batch."""


@dataclass(frozen=True)
class Refused:
    """Nothing was stored, because of the events at these indices; the others are good."""

    faults: Mapping[int, Fault]


@dataclass(frozen=True)
class TooLarge:
    """Nothing was stored; fewer events may be taken."""


@dataclass(frozen=True)
class Again:
    """Nobody knows, or the server wants the batch later."""

    detail: str
    after_s: float = 0.0


@dataclass(frozen=True)
class Blocked:
    """No batch of this client is taken until its key, its URL or the server is set up otherwise."""

    detail: str


Verdict = Acknowledged | Refused | TooLarge | Again | Blocked


def headers_of(key: str | None, encoding: str) -> dict[str, str]:
    """The headers of a batch. Raises ValueError for a key that no header can hold.

    >>> headers_of("ml_1", "gzip")["Authorization"]
    'Bearer ml_1'
    """
    if key is not None and not (key.isascii() and key.isprintable() and key.strip() == key != ""):
        raise ValueError("key: it has characters that no key has; allowed: ml_..., as `meterline keys create` shows it")
    headers = {"Content-Type": CONTENT_TYPE}
    if encoding != "identity":
        headers["Content-Encoding"] = encoding
    return headers if key is None else {**headers, "Authorization": f"Bearer {key}"}


def line_of(event: Mapping[str, Any], event_id: str, at: datetime) -> bytes:
    """An event as JSON on one line, with this id and time where it has none. Decimals become texts: no digit is lost.

    Raises TypeError or ValueError for what has no exact JSON.

    >>> line_of({"type": "call", "data": {"price": Decimal("0.10")}}, "1", datetime.fromisoformat("2026-01-31T10:00Z"))
    b'{"specversion":"1.0","id":"1","time":"2026-01-31T10:00:00+00:00","type":"call","data":{"price":"0.10"}}'
    """
    given = {name: value for name, value in event.items() if value is not None}
    whole = {"specversion": "1.0", "id": event_id, "time": at, **given}
    try:
        line = _encoder.encode(whole).encode()
    except RecursionError:
        raise ValueError("the event is nested too deeply") from None
    if line.count(b"{") + line.count(b"[") > _NESTING_MAX and _depth(whole) > _NESTING_MAX:
        raise ValueError(f"the event is nested more than {_NESTING_MAX} deep")
    return line


def batch_length(sizes: Iterable[int], events_max: int, bytes_max: int) -> int:
    """How many of the events, whose sizes these are, go into the next batch. A single larger event goes alone.

    >>> batch_length([4, 4, 4], events_max=10, bytes_max=9), batch_length([20, 4], events_max=10, bytes_max=9)
    (2, 1)
    """
    count = total = 0
    for size in sizes:
        total += size
        if count == events_max or (count and total > bytes_max):
            break
        count += 1
    return count


def verdict_of(status: int, headers: Mapping[str, str], body: bytes, count: int, now: datetime) -> Verdict:
    """What an answer says about a batch of `count` events. `now` is for a Retry-After that is a date.

    Only the gateway's own 204 acknowledges: a page that some proxy shows with 200 means that nobody has the events.

    >>> verdict_of(503, {"Retry-After": "2"}, b"", 1, datetime.min)
    Again(detail='503 Service Unavailable', after_s=2.0)
    """
    said = _problem(body)
    detail = f"{_words(status)}: {said['detail']}"[:_DETAIL_LENGTH_MAX] if "detail" in said else _words(status)
    if status == HTTPStatus.NO_CONTENT:
        return Acknowledged()
    if status in _COME_AGAIN or status >= 500:
        return Again(detail, _retry_after_s(headers, now))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge() if count > 1 else Refused({0: Fault("too_large", detail)})
    if status == HTTPStatus.BAD_REQUEST and (faults := _faults(said, count)):
        return Refused(faults)
    return Blocked(detail)


def backoff_s(failures: int, after_s: float, chance: float) -> float:
    """How long to wait after so many failures in a row; where the server says for how long, a little longer than that.

    `chance` in [0, 1) spreads clients that have failed together.

    >>> backoff_s(1, 0.0, 0.0), backoff_s(3, 0.0, 0.0), backoff_s(99, 0.0, 0.0), backoff_s(99, 2.0, 0.5)
    (0.05, 0.2, 5.0, 2.25)
    """
    if after_s:
        return after_s * (1 + chance / 4)
    own_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * (1 << min(failures - 1, 30)))
    return own_s * (1 + chance) / 2


def _default(value: Any) -> str:
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f") if abs(value.adjusted()) <= _PLAIN_EXPONENT_MAX else str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise ValueError(f"{value!r}; allowed: what JSON has, finite Decimals, and datetimes with a time zone")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)


def _depth(event: Mapping[str, Any]) -> int:
    depth, level = 0, [list(event.values())]
    while level:
        depth += 1
        inner = [child for each in level for child in each]
        level = [list(child.values() if isinstance(child, dict) else child) for child in inner if _nests(child)]
    return depth


def _nests(value: Any) -> bool:
    return isinstance(value, dict | list | tuple)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _faults(said: Mapping[str, Any], count: int) -> dict[int, Fault]:
    """The faults that an answer lists by index, as `ingest/request.py` writes them."""
    extensions = said.get("extensions")
    listed = extensions.get("validationErrors") if isinstance(extensions, dict) else None
    return {
        fault["index"]: Fault(str(fault.get("reason", "")), str(fault.get("detail", "")))
        for fault in (listed if isinstance(listed, list) else [])
        if isinstance(fault, dict) and type(fault.get("index")) is int and 0 <= fault["index"] < count
    }


def _words(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """The seconds of a Retry-After header, which has them or names an instant; 0 without one that can be read."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        wait_s = (parsedate_to_datetime(text) - now).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(wait_s, 0.0), RETRY_AFTER_MAX_S)
