"""Where a batch ends. The cut is a function of the log and of the configuration in the log, and of nothing else.

    records     e500  e500  e500  FLUSH  e500  BARRIER  e500  e500 ...
    batches    [------ 1 -------------] [----- 2 -----] [-- 3, once it is full or punctuation follows

Owns that a replay, from any batch's end, on any machine, makes the same batches. The tokens of the inserts rest on it.
"""

from collections.abc import Sequence

from schemas.log import Limits, Record


def lines_in(value: bytes) -> int:
    r"""How many lines a record's value counts for in a batch, blank ones and the one after a last newline included.

    >>> lines_in(b'{"id":"1"}'), lines_in(b'{"id":"1"}\n{"id":"2"}')
    (1, 2)
    """
    return value.count(b"\n") + 1


def next_batch(records: Sequence[Record], limits: Limits) -> Sequence[Record] | None:
    """The first batch of the records, which start where the last batch ended; None when its end is not there yet.

    A batch ends with the first of: a punctuation record; the record with which it reaches `batch_events_max` lines or
    `batch_bytes_max` bytes. So a record that is too large by itself still makes a batch.
    """
    lines = 0
    size = 0
    for position, record in enumerate(records):
        if record.value is None:
            return records[: position + 1]
        lines += lines_in(record.value)
        size += len(record.value)
        if lines >= limits.batch_events_max or size >= limits.batch_bytes_max:
            return records[: position + 1]
    return None
