"""Lines to log records: all copies of an event meet in one partition, and many events share a record.

Owns the partition of an event, a function of its identity alone: a huge customer never makes a hot partition.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import polars as pl

from schemas.identity import event_key, event_keys, partition_of
from schemas.ndjson import read_lines, text_of
from schemas.tenant import DEFAULT_TENANT

RECORD_LINES_MAX = 1000
RECORD_BYTES_MAX = 768 * 1024  # below the megabyte that brokers take by default; a single larger event still goes alone


def pack(lines: Sequence[bytes], keys: Sequence[bytes], partitions: int) -> list[tuple[int, bytes]]:
    r"""The lines as (partition, value) records. Lines keep their order within a partition.

    >>> pack([b'{"id":"1"}', b'{"id":"2"}'], [b"same", b"same"], 4)
    [(0, b'{"id":"1"}\n{"id":"2"}')]
    """
    if partitions == 1:
        return [(0, record) for record in _records(lines)]
    by_partition: dict[int, list[bytes]] = defaultdict(list)
    for line, key in zip(lines, keys, strict=True):
        by_partition[partition_of(key, partitions)].append(line)
    return [(partition, record) for partition in sorted(by_partition) for record in _records(by_partition[partition])]


def identify(lines: Sequence[bytes]) -> list[bytes]:
    """The event key of each line. A line that has none, being no event, is keyed by its own bytes."""
    text = text_of(pl.Series(lines, dtype=pl.Binary)).fill_null("{}")
    events = read_lines(text, dict.fromkeys(("tenant", "source", "id"), pl.String))
    known = events.select(pl.col("tenant").fill_null(DEFAULT_TENANT), pl.col("source", "id"))
    if known["id"].null_count() + known["source"].null_count() == 0:
        return event_keys(known).cast(pl.Binary).to_list()
    return [
        line if source is None or event_id is None else event_key(tenant, source, event_id)
        for line, (tenant, source, event_id) in zip(lines, known.iter_rows(), strict=True)
    ]


def _records(lines: Sequence[bytes]) -> list[bytes]:
    """The lines joined to as few records as their limits allow."""
    ends = list(accumulate(len(line) + 1 for line in lines))
    records: list[bytes] = []
    start = before = 0
    while start < len(lines):
        end = max(start + 1, min(start + RECORD_LINES_MAX, bisect_right(ends, before + RECORD_BYTES_MAX)))
        records.append(b"\n".join(lines[start:end]))
        start, before = end, ends[end - 1]
    return records
