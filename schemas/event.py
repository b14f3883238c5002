"""What a usage event is: a CloudEvents 1.0 JSON object with a subject. Decided exactly, a line at a time.

Owns the reasons for rejection, and the text of a value: a JSON number keeps every digit, because it is never a float.
The gateway asks here before it accepts an event; the aggregation decodes whole batches at once and asks here about
each line that it is not sure of.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from schemas.log import Limits
from schemas.outcomes import Reason
from schemas.tenant import DEFAULT_TENANT

IDENTITY_FIELDS = ("id", "source", "type", "subject")

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(\.\d+)?(?:([Zz])|([+-]\d\d:\d\d))", re.ASCII)
_PLAIN_EXPONENT_MAX = 400


class NotAnEventError(ValueError):
    """The line is no usage event, for this reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_line(raw: bytes, paths: Sequence[str], limits: Limits) -> dict[str, Any]:
    """The event on a line: tenant, id, source, type, subject, time (None: as appended), and the text at each path.

    Raises NotAnEventError with the first reason, in the order of `Reason`, that applies.

    >>> line = b'{"specversion":"1.0","id":"1","source":"/s","type":"call","subject":"a","data":{"ms":1.50}}'
    >>> decode_line(line, ["$.ms"], Limits())["$.ms"]
    '1.5'
    """
    if len(raw) > limits.event_bytes_max:
        raise NotAnEventError(Reason.TOO_LARGE, f"{len(raw)} bytes; at most {limits.event_bytes_max} are allowed")
    event = _parsed(raw)
    if not isinstance(event, dict):
        raise NotAnEventError(Reason.NOT_AN_OBJECT, f"a JSON {_kind(event)}; allowed: an object")
    for field in ("specversion", *IDENTITY_FIELDS):
        if event.get(field) is None:
            raise NotAnEventError(
                Reason.MISSING_FIELD, f"{field}; a usage event needs specversion, id, source, type and subject"
            )
    decoded = {field: _text_field(event, field, limits) for field in IDENTITY_FIELDS}
    if event["specversion"] != "1.0":
        raise NotAnEventError(Reason.INVALID_FIELD, f'specversion: {_shown(event["specversion"])}; allowed: "1.0"')
    decoded["tenant"] = DEFAULT_TENANT if event.get("tenant") is None else _text_field(event, "tenant", limits)
    data = event.get("data")
    if data is not None and not isinstance(data, dict):
        raise NotAnEventError(Reason.INVALID_FIELD, f"data: a JSON {_kind(data)}; allowed: an object or null")
    return {**decoded, "time": _instant(event.get("time"), limits), **{path: _text_at(data, path) for path in paths}}


def names_tenant(raw: bytes) -> bool:
    """Whether an event says itself whose it is. Of what is no JSON object, False.

    >>> names_tenant(b'{"tenant": "acme"}'), names_tenant(b'{"tenant": null}'), names_tenant(b'{"data":{"tenant":1}}')
    (True, False, False)
    """
    if b'"tenant"' not in raw and b"\\u" not in raw:  # a name may be hidden in escapes
        return False
    try:
        event = _parsed(raw)
    except NotAnEventError:
        return False
    return isinstance(event, dict) and event.get("tenant") is not None


def number_text(number: Decimal) -> str:
    """A JSON number as plain decimal text, without trailing zeros after the point.

    >>> number_text(Decimal("1.50")), number_text(Decimal("1e5")), number_text(Decimal("-2.0"))
    ('1.5', '100000', '-2')
    """
    if abs(number.adjusted()) > _PLAIN_EXPONENT_MAX:
        return str(number)
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parsed(raw: bytes) -> Any:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise NotAnEventError(Reason.NOT_UTF8, f"byte {error.start}: {error.reason}") from None
    if "\0" in text:
        raise NotAnEventError(Reason.NULL_BYTE, "a NUL byte in the line")
    try:
        parsed = json.loads(
            text,
            parse_float=Decimal,
            parse_int=_integer,
            parse_constant=_refuse_constant,
            object_pairs_hook=_first_wins,
        )
    except (ValueError, ArithmeticError) as error:
        raise NotAnEventError(Reason.NOT_JSON, str(error)) from None
    except RecursionError:
        raise NotAnEventError(Reason.NOT_JSON, "nested too deeply") from None
    if "\\u" in text:
        for string in _strings(parsed):
            if "\0" in string:
                raise NotAnEventError(Reason.NULL_BYTE, "a \\u0000 in a string")
            if any("\ud800" <= character <= "\udfff" for character in string):
                raise NotAnEventError(Reason.NOT_JSON, "half of a surrogate pair in a string")
    return parsed


def _integer(text: str) -> Decimal:
    return Decimal(0) if text == "-0" else Decimal(text)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)


def _text_field(event: Mapping[str, Any], field: str, limits: Limits) -> str:
    value = event[field]
    if not isinstance(value, str) or not value:
        raise NotAnEventError(Reason.INVALID_FIELD, f"{field}: {_shown(value)}; allowed: a string that is not empty")
    if len(value.encode()) > limits.field_bytes_max:
        raise NotAnEventError(
            Reason.INVALID_FIELD, f"{field}: {len(value.encode())} bytes; at most {limits.field_bytes_max} are allowed"
        )
    return value


def _instant(value: Any, limits: Limits) -> datetime | None:
    if value is None:
        return None
    match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is None:
            raise ValueError(value)  # noqa: TRY301  one answer for both ways to be no instant
        date, clock, fraction, _, offset = match.groups()
        instant = datetime.fromisoformat(
            f"{date}T{clock}{(fraction or '')[:7]:0<7}"[: 26 if fraction else 19] + (offset or "+00:00")
        )
    except ValueError:
        detail = f"time: {_shown(value)}; allowed: an RFC 3339 instant such as 2013-01-31T10:00:00Z"
        raise NotAnEventError(Reason.INVALID_FIELD, detail) from None
    if not limits.event_at_min <= instant < limits.event_at_max:
        allowed = f"from {limits.event_at_min:%Y-%m-%d} and before {limits.event_at_max:%Y-%m-%d}"
        raise NotAnEventError(Reason.TIME_OUT_OF_RANGE, f"time: {_shown(value)}; allowed: {allowed}")
    return instant.astimezone(UTC)


def _text_at(data: Any, path: str) -> str | None:
    value = data
    for name in path.removeprefix("$.").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return number_text(value)
        case _:
            return None


def _kind(value: Any) -> str:
    kinds = {type(None): "null", bool: "boolean", str: "string", Decimal: "number", list: "array", dict: "object"}
    return kinds[type(value)]


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a JSON {_kind(value)}"
    text = json.dumps(value) if isinstance(value, str | bool) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
