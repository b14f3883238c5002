"""`python -m meterline.compile`: compile what Numba compiles, and keep it, so that no first batch waits for it.

It is kept beside the sources, or, where they cannot be written, in the user's cache folder.
"""

import numpy as np
import polars as pl
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy

from aggregation.batch import Batch
from aggregation.dedup import DedupIndex
from aggregation.fold_batch import PartitionState, fold_batch
from schemas.log import LogConfig, Records
from stores.kafka_records import columns

EVENT = b'{"specversion":"1.0","id":"1","source":"/","type":"t","subject":"s","time":"2026-01-01T00:00:00Z"}'


def compile_all() -> pl.DataFrame:
    """Take one event the whole way from a producer's batch to its rows; returns the event."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, len(EVENT) + 100)
    builder.append(0, timestamp=0, key=None, value=EVENT, headers=[])
    records = Records.joined([columns(_DefaultRecordBatchPy(bytes(builder.build())))])
    assert np.array_equal(records.offsets, [0])
    folded = fold_batch(Batch(0, records), PartitionState(0), DedupIndex(1), lambda _: LogConfig())
    return folded.frames["events"]


if __name__ == "__main__":
    assert len(compile_all()) == 1
