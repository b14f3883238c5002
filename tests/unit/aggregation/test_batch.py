"""Where batches end."""

from aggregation.batch import next_batch
from schemas.log import Limits, Record

LIMITS = Limits(batch_events_max=4, batch_bytes_max=100)


def record(offset: int, lines: int = 1, *, line: bytes = b"x") -> Record:
    return Record(offset, 0, None, b"\n".join([line] * lines))


def punctuation(offset: int, key: bytes = b"flush") -> Record:
    return Record(offset, 0, key, None)


def test_no_batch_ends_before_a_limit_or_punctuation() -> None:
    """Three of four lines are not a batch yet."""
    assert next_batch([record(0), record(1), record(2)], LIMITS) is None
    assert next_batch([], LIMITS) is None


def test_a_batch_ends_with_the_record_that_reaches_the_line_limit() -> None:
    """The record that reaches the limit is the batch's last."""
    records = [record(0, 3), record(1, 3), record(2)]
    assert next_batch(records, LIMITS) == records[:2]


def test_a_batch_ends_with_the_record_that_reaches_the_byte_limit() -> None:
    """Bytes count as lines do, and a record too large by itself still makes a batch."""
    large = record(0, line=b"x" * 500)
    assert next_batch([large, record(1)], LIMITS) == [large]


def test_punctuation_ends_a_batch_and_belongs_to_it() -> None:
    """A batch may be punctuation alone."""
    records = [record(0), punctuation(1), punctuation(2, b"barrier:1"), record(3)]
    first = next_batch(records, LIMITS)
    assert first == records[:2]
    assert next_batch(records[2:], LIMITS) == records[2:3]


def test_the_cut_does_not_depend_on_how_much_was_read() -> None:
    """Reading further into the log never moves the end of a batch."""
    log = [record(0, 2), punctuation(1), record(2, 3), record(3, 3), record(4), punctuation(5)]
    for read in range(2, len(log) + 1):
        assert next_batch(log[:read], LIMITS) == log[:2]
