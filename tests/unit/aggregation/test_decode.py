"""Decoding: good lines, each way to be bad, and the law that the fast decoder says what the exact one says."""

import json
import math
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.decode import decode, lines_of
from schemas.event import NotAnEventError, decode_line
from schemas.log import Limits, Record, Records
from schemas.outcomes import Reason

PATHS = ("$.deep.value", "$.name", "$.quantity")
LIMITS = Limits(event_bytes_max=4096, field_bytes_max=64)
GOOD = {
    "specversion": "1.0", "id": "1", "source": "/s", "type": "call", "subject": "a", "time": "2013-01-31T10:00:00Z",
    "data": {"quantity": 1.5},
}  # fmt: skip
APPENDED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def decoded(*lines: bytes | str | dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    record = Record(7, int(APPENDED_AT.timestamp() * 1000), None, b"\n".join(encoded))
    result = decode(lines_of(Records.of([record])), PATHS, LIMITS)
    return result.events.to_dicts(), result.rejections.to_dicts()


def test_a_good_event() -> None:
    """All fields of an event, its text as it came, and its place."""
    events, rejections = decoded(GOOD)
    assert rejections == []
    assert events == [
        {
            "tenant": "default", "id": "1", "source": "/s", "type": "call", "subject": "a",
            "time": datetime(2013, 1, 31, 10, tzinfo=UTC), "$.deep.value": None, "$.name": None, "$.quantity": "1.5",
            "offset": 7, "line": 0, "appended_at": APPENDED_AT, "event": json.dumps(GOOD),
        }
    ]  # fmt: skip


def test_an_event_without_time_happened_when_it_was_appended() -> None:
    """The log's clock stands in for a missing time, so a replay gives the same."""
    for without in ({k: v for k, v in GOOD.items() if k != "time"}, {**GOOD, "time": None}):
        events, _ = decoded(without)
        assert events[0]["time"] == APPENDED_AT


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"{" + b" " * 5000 + b"}", Reason.TOO_LARGE, "5002 bytes; at most 4096 are allowed"),
        (b'{"id": "\xff"}', Reason.NOT_UTF8, "byte 8: invalid start byte"),
        (b'{"id": "\x00"}', Reason.NULL_BYTE, "a NUL byte"),
        ({**GOOD, "id": "a\0"}, Reason.NULL_BYTE, "\\u0000"),
        ({**GOOD, "data": {"deep": [["\0"]]}}, Reason.NULL_BYTE, "\\u0000"),
        (b'{"id": "\\ud800"}', Reason.NOT_JSON, "surrogate"),
        (b"not json", Reason.NOT_JSON, "Expecting value"),
        (b" " * 100, Reason.NOT_JSON, "Expecting value"),
        (b'{"id": NaN}', Reason.NOT_JSON, "NaN is no JSON number"),
        (b"[" * 2000 + b"]" * 2000, Reason.NOT_JSON, "nested too deeply"),
        (b'{"a": 1} {"b": 2}', Reason.NOT_JSON, "Extra data"),
        (b"5", Reason.NOT_AN_OBJECT, "a JSON number"),
        (b"null", Reason.NOT_AN_OBJECT, "a JSON null"),
        (json.dumps([GOOD]), Reason.NOT_AN_OBJECT, "a JSON array"),
        *[(without(field), Reason.MISSING_FIELD, field) for field in ("specversion", "id", "source", "type", "subject")],
        ({**GOOD, "subject": None}, Reason.MISSING_FIELD, "subject"),
        *[({**GOOD, "id": value}, Reason.INVALID_FIELD, "id: ") for value in (5, True, 1.5, {}, [1], "", "x" * 65)],
        ({**GOOD, "tenant": 5}, Reason.INVALID_FIELD, "tenant: 5"),
        ({**GOOD, "specversion": "0.3"}, Reason.INVALID_FIELD, "specversion"),
        ({**GOOD, "specversion": 1.0}, Reason.INVALID_FIELD, "specversion"),
        ({**GOOD, "data": [1]}, Reason.INVALID_FIELD, "data: a JSON array"),
        ({**GOOD, "data": 5}, Reason.INVALID_FIELD, "data: a JSON number"),
        *[
            ({**GOOD, "time": value}, Reason.INVALID_FIELD, "time: ")
            for value in (5, "", "yesterday", "2013-02-30T00:00:00Z", "2013-01-31", "2013-01-31T10:00:60Z", "2013-01-31T24:00:00Z")
        ],
        ({**GOOD, "time": "1970-01-01T00:00:00Z"}, Reason.TIME_OUT_OF_RANGE, "1970"),
        ({**GOOD, "time": "9999-12-31T23:59:59Z"}, Reason.TIME_OUT_OF_RANGE, "9999"),
        ({**GOOD, "time": "0001-01-01T00:00:00+14:00"}, Reason.TIME_OUT_OF_RANGE, "0001"),
    ],
)  # fmt: skip
def test_each_way_to_be_no_event(line: bytes | str | dict[str, Any], reason: Reason, detail: str) -> None:
    """A bad line is rejected with its reason and place, and the lines around it are events."""
    events, rejections = decoded(GOOD, line, {**GOOD, "id": "2"})
    assert [event["line"] for event in events] == [0, 2]
    assert [(row["reason"], row["line"], row["offset"]) for row in rejections] == [(reason.value, 1, 7)]
    assert detail in rejections[0]["detail"]


def test_blank_lines_are_nothing() -> None:
    """Blank lines, also with Windows line ends, are neither events nor rejections, and lines keep their numbers."""
    events, rejections = decoded(b"", GOOD, b" \t\r", b"")
    assert ([event["line"] for event in events], rejections) == ([1], [])


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("12345678.000000001", "12345678.000000001"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("123456789012345678901234567890123456789012345", "123456789012345678901234567890123456789012345"),
        ("1.50", "1.5"), ("1e5", "100000"), ("-2.0", "-2"), ("1e-7", "0.0000001"), ("1e-320", "0." + "0" * 319 + "1"),
        ("1e400", "1" + "0" * 400), ("-0", "0"), ('"007"', "007"), ("true", "true"), ("{}", None), ("[1]", None), ("null", None),
    ],
)  # fmt: skip
def test_a_number_keeps_every_digit(number: str, text: str | None) -> None:
    """A value's text is exact, however many digits it has."""
    line = json.dumps({**GOOD, "data": None}).replace("null", f'{{"quantity": {number}}}')
    events, rejections = decoded(line)
    assert rejections == []
    assert events[0]["$.quantity"] == text


text = st.text(max_size=12)
plain_number = st.decimals(allow_nan=False, allow_infinity=False, places=9).map(str) | st.integers().map(str)
number = plain_number | st.floats(allow_nan=False, allow_infinity=False).map(repr).filter(
    lambda t: not math.isnan(float(t))
)
json_text = (
    st.sampled_from(["null", "true", "false", '""', "{}", "[]", '"5"', '"true"', "1.0", '"1.0"', '"[x"'])
    | number
    | text.map(json.dumps)
    | text.map(lambda t: json.dumps(t, ensure_ascii=False))
)
instant = st.sampled_from(
    ["2013-01-31T10:00:00Z", "2013-01-31t10:00:00.5z", "2013-01-31 10:00:00+05:30", "2013-01-31T10:00:00.123456789-23:59",
     "1999-12-31T23:59:59Z", "2000-01-01T00:00:00+00:01", "2099-12-31T23:59:59.999999Z", "2016-12-31T23:59:60Z"]
).map(json.dumps)  # fmt: skip
data = st.one_of(
    st.just(None), json_text,
    st.fixed_dictionaries({}, optional={"quantity": json_text, "name": json_text, "deep": json_text | st.just('{"value": 7}')}).map(
        lambda fields: "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"
    ),
)  # fmt: skip
fields = st.fixed_dictionaries(
    {"specversion": st.sampled_from(['"1.0"'] * 9 + ["1.0"])},
    optional=dict.fromkeys(("id", "source", "type", "subject"), json_text)
    | {"tenant": json_text, "time": instant | json_text},
)
mostly_good = st.fixed_dictionaries(
    {"specversion": st.just('"1.0"'), **{name: text.map(json.dumps) for name in ("id", "source", "type", "subject")}},
    optional={"tenant": json_text, "time": instant},
)


@st.composite
def line(draw: st.DrawFn) -> bytes:
    members = draw(fields | mostly_good)
    if (drawn := draw(data)) is not None:
        members = {**members, "data": drawn}
    return ("{" + draw(st.sampled_from([",", ", "])).join(f'"{k}":{v}' for k, v in members.items()) + "}").encode(
        errors="surrogatepass"
    )


@given(st.lists(line(), min_size=1, max_size=30))
def test_the_batch_decoder_says_what_the_exact_decoder_says(lines: list[bytes]) -> None:
    """For any lines: the same events with the same texts, the same rejections with the same reasons."""
    result = decode(lines_of(Records.of([Record(0, 0, None, b"\n".join(lines))])), PATHS, LIMITS)
    events, rejections = {}, {}
    for number, raw in enumerate(lines):
        try:
            expected = decode_line(raw, PATHS, LIMITS)
            events[number] = {**expected, "time": expected["time"] or datetime(1970, 1, 1, tzinfo=UTC)}
        except NotAnEventError as error:
            rejections[number] = (error.reason.value, error.detail)
    got = result.events.drop("offset", "appended_at", "event").to_dicts()
    assert {row.pop("line"): row for row in got} == events
    assert {row["line"]: (row["reason"], row["detail"]) for row in result.rejections.to_dicts()} == rejections


def test_a_batch_with_no_line_has_the_columns_all_the_same() -> None:
    """Punctuation alone decodes to empty frames of the right shape."""
    result = decode(lines_of(Records.of([Record(0, 0, b"flush", None)])), PATHS, LIMITS)
    assert result.events.is_empty()
    assert result.events.schema["$.quantity"] == pl.String
    assert result.rejections.columns == ["reason", "detail", "raw", "offset", "line", "appended_at"]
