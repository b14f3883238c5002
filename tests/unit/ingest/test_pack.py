"""Packing: partitions by identity, and records of bounded size."""

import pytest

from ingest import pack as packing
from ingest.pack import identify, pack
from schemas.identity import event_key, partition_of

LINE = b'{"id": "%d", "source": "/s"}'


def test_vectors_of_the_partition_function() -> None:
    """Producers in other languages must come to the same partitions: xxh3_64 over length-prefixed parts."""
    keys = [event_key(*parts) for parts in (("default", "/s", "1"), ("acme", "/ünï", "x"), ("", "", ""))]
    assert keys == [b"7:default2:/s1:1", "4:acme6:/ünï1:x".encode(), b"0:0:0:"]
    assert [partition_of(key, 64) for key in keys] == [54, 44, 41]


def test_copies_meet_in_one_partition_in_their_order() -> None:
    """Whatever else a line holds, its identity alone decides where it goes."""
    lines = [LINE % 1, b'{"tenant": "default", "source": "/s", "id": "1", "data": {"v": 2}}', LINE % 2]
    keys = identify(lines)
    assert keys[0] == keys[1] == event_key("default", "/s", "1")
    placed = {line: partition for partition, value in pack(lines, keys, 64) for line in value.split(b"\n")}
    assert placed[lines[0]] == placed[lines[1]]


def test_a_line_that_is_no_event_is_keyed_by_its_bytes() -> None:
    """Bad lines travel too: the aggregation rejects them at their place."""
    lines = [LINE % 1, b"not json", b"\xff\xfe", b'{"id": "1"}', b"5"]
    assert identify(lines)[1:] == lines[1:]


def test_records_hold_no_more_than_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines and bytes a record are bounded; a larger line goes alone; nothing is lost."""
    monkeypatch.setattr(packing, "RECORD_LINES_MAX", 3)
    monkeypatch.setattr(packing, "RECORD_BYTES_MAX", 10)
    lines = [b"aa", b"bb", b"cc", b"dd", b"e" * 50, b"f", b"ggggg", b"hhhhh"]
    records = [value for _, value in pack(lines, [b"k"] * len(lines), 1)]
    assert records == [b"aa\nbb\ncc", b"dd", b"e" * 50, b"f\nggggg", b"hhhhh"]
