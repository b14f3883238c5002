"""The scanner: where it is sure it is right, whatever bytes it is given, and about usual lines it is sure."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aggregation.decode import decode, lines_of
from aggregation.instants import instants
from aggregation.scan import DEPTH_MAX, Names, Scanned, scan, views
from schemas.event import NotAnEventError, decode_line
from schemas.log import Limits, Record, Records

FIELDS = ("id", "time")
PATHS = ("$.a", "$.deep.b", "$.deep.c.d", "$.é")
GOOD = (
    b'{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"x","time":"2026-01-02T03:04:05.678Z","tenant":null,'
    b'"data":{"a":12.50,"deep":{"b":"text","c":{"d":-7}},"other":[1,{"a":2},"]",true,null,1e5,-0.0,"\\n\\""],"\xc3\xa9":"\xc3\xbc"}}'
)


def scanned(*lines: bytes) -> Scanned:
    buffer = np.frombuffer(b"".join(line + b"\n" for line in lines), np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    return scan(buffer, np.concatenate(([0], ends[:-1] + 1)), ends, Names.of(FIELDS, PATHS))


def found(line: bytes) -> list[str | None] | None:
    """The values of a line by slot; None where it is doubtful."""
    result = scanned(line)
    return None if result.doubtful[0] else [result.text(slot)[0] for slot in range(len(FIELDS) + len(PATHS))]


def test_the_values_of_a_usual_line() -> None:
    """Texts as they stand, numbers in their shortest form, at every depth, and nothing of what only looks alike."""
    assert found(GOOD) == ["1", "2026-01-02T03:04:05.678Z", "12.5", "text", "-7", "ü"]
    assert found(b' {\t"data" : { "deep" : [ ] , "a" : true } , "id":null } \r') == [
        None,
        None,
        "true",
        None,
        None,
        None,
    ]
    assert found(b'{"data":{"a":{"b":1},"deep":{"c":5,"b":false}},"a":1,"deep":{"b":1}}') == [
        None,
        None,
        None,
        "false",
        None,
        None,
    ]
    assert found(b"{}") == [None] * 6


@pytest.mark.parametrize(
    ("number", "text"),
    [("0", "0"), ("-1", "-1"), ("1.0", "1"), ("100", "100"), ("1.500", "1.5"), ("12345678901234567890.000000001", "12345678901234567890.000000001"),
     ("0.0", "0"), ("-0", None), ("-0.5", None), ("1e5", None), ("1E-5", None), ("01", None), ("1.", None), (".5", None), ("+1", None),
     ("-", None), ("1.5.5", None), ("1e", None), ("0x1", None), ("NaN", None), ("Infinity", None), ("truex", None), ("nul", None), ("tru", None)],
)  # fmt: skip
def test_the_shortest_form_of_a_number_or_a_doubt(number: str, text: str | None) -> None:
    """Every digit is kept; what would have to be calculated is doubtful, as is what is no number."""
    values = found(b'{"data":{"a":%s}}' % number.encode())
    assert (values and values[2]) == text


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b"[]", b"5", b'"x"', b"null", b"{", b"}", b"{}}", b"{} {}", b'{"id"}', b'{"id":}', b'{"id":"1",}', b'{,"id":"1"}',
     b'{"id":"1" "time":"2"}', b'{"id":"1"', b'{"id":"1', b'{"id":5}', b'{"id":true}', b'{"id":{}}', b'{"id":[]}', b'{"data":5}', b'{"data":"x"}',
     b'{"data":[]}', b'{"data":true}', b'{"id":"1","id":"2"}', b'{"data":{},"data":{"a":1}}', b'{"data":{"a":1,"a":2}}', b'{"data":{"deep":{},"deep":{}}}',
     b'{"id":"a\\nb"}', b'{"\\u0069d":"1"}', b'{"x":"\\u0041"}', b'{"x":"\\x"}', b'{"x":"\\', b'{"x":"a\tb"}', b'{"x":"\x00"}', b'{"x":[1,]}', b'{"x":[,1]}',
     b'{"x":[1}', b'{"x":{"y":1]}', b'{"x":1]', b"{x:1}", b"{'id':'1'}", b'{"x":tru}', b'{"x":[1 2]}', b'{"x"::1}', b'{"x" 1}'],
)  # fmt: skip
def test_what_is_doubtful(line: bytes) -> None:
    """No line that is no JSON object, that names a wanted thing twice, or that would have to be unescaped is sure."""
    assert found(line) is None


@pytest.mark.parametrize("bracket", [b"[]", b"{}"])
def test_depth(bracket: bytes) -> None:
    """So deep it goes, and no deeper."""
    opened, closed = (b"[", b"]") if bracket == b"[]" else (b'{"":', b"}")
    for depth, sure in ((DEPTH_MAX - 1, True), (DEPTH_MAX, False), (10_000, False)):
        line = b'{"x":' + opened * depth + (b"0" if bracket == b"{}" else b"") + closed * depth + b"}"
        assert (found(line) is not None) is sure


def test_lines_do_not_touch_each_other() -> None:
    """A broken line takes nothing of the next one, and leaves it nothing."""
    result = scanned(b'{"id":"', b'{"id":"2"}', b'{"id":', b"tru", b"-", b'{"id":"3"}')
    assert result.doubtful.tolist() == [True, False, True, True, True, False]
    assert result.text(0).filter(pl.Series(~result.doubtful)).to_list() == ["2", "3"]


def test_views_of_every_length() -> None:
    """Short texts stand in the view itself, longer ones in the buffer."""
    buffer = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    lengths = np.array([-1, *range(27)], np.int32)
    series = views(buffer, np.zeros(28, np.int64), lengths, pa.string_view())
    assert series.to_list() == [None, *("abcdefghijklmnopqrstuvwxyz"[:length] for length in range(27))]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good line, and some bytes of it deleted, repeated, or others put in their place."""
    line = draw(st.sampled_from([GOOD, GOOD.replace(b",", b" , ").replace(b":", b": "), b'{"id":"1","data":{"a":1}}']))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(line)))
        end = min(len(line), start + draw(st.integers(0, 12)))
        inserted = draw(
            st.sampled_from([b"", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u00", b"0", b"-", b".", b"e", b" ", b"\t", b"\x01", b"\xff",
                             b"null", b"true", b'"id":"2",', b'"data":null,', b'"a":"\xf0\x9f\x98\x80"'])
            | st.just(line[start:end] * 2) | st.binary(max_size=3)
        )  # fmt: skip
        line = line[:start] + inserted + line[end:]
    return line.replace(b"\n", b"")


@given(st.lists(mutated(), min_size=1, max_size=20))
@example([b'{"id":"1","data":{"a":1}}' * 2])
def test_damaged_lines_are_what_the_exact_decoder_says(lines: list[bytes]) -> None:
    """However a line is damaged: an event with the same texts, or a rejection for the same reason."""
    limits = Limits()
    result = decode(lines_of(Records.of([Record(0, 0, None, b"\n".join(lines))])), PATHS, limits)
    events, rejections = dict[int, Any](), dict[int, str]()
    for number, line in enumerate(lines):
        try:
            expected = decode_line(line, PATHS, limits)
            events[number] = {**expected, "time": expected["time"] or datetime(1970, 1, 1, tzinfo=UTC)}
        except NotAnEventError as error:
            if line.strip(b" \t\r") or len(line) > 64:
                rejections[number] = error.detail
    assert {row.pop("line"): row for row in result.events.drop("offset", "appended_at", "event").to_dicts()} == events
    assert dict(result.rejections.select("line", "detail").rows()) == rejections


def understood(*texts: str) -> list[int | None]:
    """The instants of some texts in microseconds; None where they are not understood."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([len(text) for text in encoded])
    micros, sure = instants(
        np.frombuffer(b"".join(encoded), np.uint8),
        np.concatenate(([0], ends[:-1])),
        np.diff(ends, prepend=0).astype(np.int32),
    )
    return [int(micro) if ok else None for micro, ok in zip(micros, sure, strict=True)]


@given(
    st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29)),  # noqa: DTZ001  the offset is drawn beside it
    st.integers(-1439, 1439),
    st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]),
)
def test_an_instant_is_what_the_calendar_says(naive: datetime, offset_minutes: int, precision: str) -> None:
    """Any day of any year, in any offset of whole minutes, with a fraction of any usual length."""
    text = naive.replace(tzinfo=timezone(timedelta(minutes=offset_minutes))).isoformat(timespec=precision)
    expected = (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert understood(text) == [expected]
    if not offset_minutes:
        assert understood(text.replace("+00:00", "Z")) == [expected]


@pytest.mark.parametrize(
    "text",
    ["2013-02-29T00:00:00Z", "2013-13-01T00:00:00Z", "2013-00-01T00:00:00Z", "2013-01-00T00:00:00Z", "2013-01-32T00:00:00Z", "2013-01-31T24:00:00Z",
     "2013-01-31T00:60:00Z", "2013-01-31T00:00:60Z", "2013-01-31T00:00:00", "2013-01-31T00:00:00.Z", "2013-01-31T00:00:00.1234567Z", "2013-01-31 00:00:00Z",
     "2013-01-31T00:00:00z", "2013-01-31T00:00:00+5:30", "2013-01-31T00:00:00+24:00", "2013-01-31T00:00:00+05:60", "2013-01-31T00:00:00ZZ", "0000-01-01T00:00:00Z",
     "1900-02-29T00:00:00Z", "2013-1-31T00:00:00ZZ", "2013-01-31T00:00:00+0530", "", "Z", "20130131T000000Z....."],
)  # fmt: skip
def test_no_other_instant_is_understood(text: str) -> None:
    """What is no instant, or an unusual one, is left to the exact decoder."""
    assert understood(text) == [None]
    assert understood("2000-02-29T23:59:59Z", text, "2000-02-29T23:59:59Z") == [951868799000000, None, 951868799000000]


def test_json_that_python_writes_is_sure() -> None:
    """What services send is not doubtful, however it is spaced: the exact decoder takes a hundred times as long."""
    event = {"id": "1", "time": "2026-01-02T03:04:05Z", "data": {"a": 1.25, "deep": {"b": "x"}, "z": [None, {"a": []}]}}
    for text in (
        json.dumps(event),
        json.dumps(event, indent=1).replace("\n", " "),
        json.dumps(event, separators=(",", ":")),
    ):
        assert found(text.encode()) == ["1", "2026-01-02T03:04:05Z", "1.25", "x", None, None]
