"""Batches of records as producers write them, to columns: what aiokafka's own reading says, or a damaged batch."""

import pytest
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder, _DefaultRecordBatchPy
from hypothesis import given
from hypothesis import strategies as st

from schemas.log import Record
from stores.kafka_records import columns

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
part = st.none() | st.binary(max_size=300)
records = st.lists(
    st.tuples(part, part, st.lists(st.tuples(st.text(max_size=3), part), max_size=2)), min_size=1, max_size=30
)
Written = list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]]


def written(rows: Written, codec: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 20)
    for offset, (key, value, headers) in enumerate(rows):
        assert builder.append(offset, timestamp=1_700_000_000_000 + offset, key=key, value=value, headers=headers)
    return bytearray(builder.build())


@given(records, st.sampled_from(sorted(CODECS)))
def test_columns_are_what_aiokafka_reads(rows: Written, codec: str) -> None:
    """Any keys, values and headers, under any compression."""
    batch = written(rows, CODECS[codec])
    read = columns(_DefaultRecordBatchPy(batch))
    expected = [(record.offset, record.key, record.value) for record in DefaultRecordBatch(batch)]
    assert [(record.offset, record.key, record.value) for record in read] == expected
    assert {record.appended_at_ms for record in read} == {1_700_000_000_000 + len(rows) - 1}
    assert isinstance(next(iter(read)), Record)


@given(records, st.data())
def test_a_damaged_batch_is_an_error_or_has_its_records(rows: Written, data: st.DataObject) -> None:
    """The checksum finds damage; should it not, nothing is read from beyond the batch."""
    batch = written(rows)
    place = data.draw(st.integers(61, len(batch) - 1))
    batch[place] ^= data.draw(st.integers(1, 255))
    try:
        read = columns(_DefaultRecordBatchPy(batch))
    except CorruptRecordException:
        return
    for record, (start, end) in zip(read, read.values.tolist(), strict=True):
        assert (record.value is None) == (start < 0)
        assert end <= len(batch)


def test_a_batch_that_was_cut_off() -> None:
    """It has fewer records than its header says."""
    batch = written([(None, b"x" * 50, []), (b"key", b"y" * 50, [])])
    for end in range(61, len(batch)):
        with pytest.raises(CorruptRecordException, match="is not what its header says"):
            columns(_DefaultRecordBatchPy(batch[:end]))
