"""Where batches end."""

from aggregation.batch import Batch, Cutter, FlushTimer
from schemas.log import Limits, LogConfig, Record, Records

LIMITS = Limits(batch_events_max=4, batch_bytes_max=100)
LOG_ID = b"0" * 32


def record(offset: int, lines: int = 1, *, line: bytes = b"x") -> Record:
    return Record(offset, 0, None, b"\n".join([line] * lines))


def punctuation(offset: int, key: bytes = b"flush") -> Record:
    return Record(offset, 0, key, None)


def cutter(start: int = 0) -> Cutter:
    versions = {0: LogConfig(limits=LIMITS), 1: LogConfig(limits=Limits(batch_events_max=2))}
    return Cutter(start, 0, versions.__getitem__)


def cut(*records: Record) -> list[tuple[int, int]]:
    """The batches, as (start, end)."""
    return bounds(cutter(records[0].offset if records else 0).cut(Records.of(records)))


def bounds(batches: object) -> list[tuple[int, int]]:
    return [(batch.start, batch.end) for batch in batches]  # type: ignore[attr-defined]


def test_no_batch_ends_before_a_limit_or_punctuation() -> None:
    """Three of four lines are not a batch yet."""
    assert cut(record(0), record(1), record(2)) == []
    assert cut() == []


def test_a_batch_ends_with_the_record_that_reaches_the_line_limit() -> None:
    """The record that reaches the limit is the batch's last."""
    assert cut(record(0, 3), record(1, 3), record(2)) == [(0, 2)]


def test_a_batch_ends_with_the_record_that_reaches_the_byte_limit() -> None:
    """Bytes count as lines do, and a record too large by itself still makes a batch."""
    assert cut(record(0, line=b"x" * 500), record(1)) == [(0, 1)]
    assert cut(record(0, line=b"x" * 60), record(1, line=b"x" * 60), record(2)) == [(0, 2)]


def test_punctuation_ends_a_batch_and_belongs_to_it() -> None:
    """A batch may be punctuation alone."""
    assert cut(record(0), punctuation(1), punctuation(2, b"barrier:1"), record(3)) == [(0, 2), (2, 3)]


def test_the_cut_does_not_depend_on_how_much_is_read_at_once() -> None:
    """Records that come one by one, or in any portions, make the same batches."""
    log = [record(0, 2), punctuation(1), record(2, 3), record(3, 3), record(4), punctuation(5), record(6, 9), record(7)]
    whole = cut(*log)
    assert whole == [(0, 2), (2, 4), (4, 6), (6, 7)]
    for first in range(len(log)):
        for second in range(first, len(log)):
            portions = cutter()
            parts = (log[:first], log[first:second], log[second:])
            assert [place for part in parts for place in bounds(portions.cut(Records.of(part)))] == whole


def test_offsets_that_are_no_records_are_in_the_batch_around_them() -> None:
    """The marks of transactions leave gaps; the next batch starts where the last one ended."""
    assert cut(record(0), record(7), punctuation(9), record(20, 4)) == [(0, 10), (10, 21)]


def test_limits_change_behind_the_configuration_record() -> None:
    """The record itself ends a batch of the old limits; a version that is written again, late, changes nothing."""
    config, old = punctuation(2, b"config:1:" + LOG_ID), punctuation(5, b"config:0:" + LOG_ID)
    assert cut(record(0), record(1), config, record(3), record(4), old, record(6), record(7)) == [
        (0, 3), (3, 5), (5, 6), (6, 8),
    ]  # fmt: skip


def test_a_batch_that_waits_is_flushed_once_after_the_interval() -> None:
    """Asked for once, and again only after a while: the flush record may be on its way."""
    waiting, timer = cutter(), FlushTimer(1.0)
    assert not timer.due(waiting, 0.0)
    list(waiting.cut(Records.of([record(0)])))
    #   0.5  seen    1.0        1.5  due   2.0 asked   11.5  asked again
    assert [timer.due(waiting, now_s) for now_s in (0.5, 1.0, 1.5, 2.0, 11.5)] == [False, False, True, False, True]
    list(waiting.cut(Records.of([punctuation(1), record(2)])))
    assert [timer.due(waiting, now_s) for now_s in (11.6, 12.7)] == [False, True]


def test_a_batch_names_where_it_starts_and_ends() -> None:
    """The start is the end of the batch before, whatever the offset of the first record."""
    batch = Batch(3, Records.of([record(5), record(6)]))
    assert (batch.start, batch.end, len(batch.records)) == (3, 7, 2)
