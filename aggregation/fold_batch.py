"""One batch's way through the core: records in, rows of all tables and the partition's next state out.

Owns that the result is a function of the partition's log up to the batch's end: no clock, no randomness, no setting.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from aggregation.batch import Batch, ConfigVersions, version_after
from aggregation.decode import decode, lines_of
from aggregation.dedup import Days, DedupIndex, Hashes
from aggregation.fold import rollup_deltas, validation_errors
from schemas.identity import event_hashes, event_keys, partitions_of
from schemas.log import Barrier, Configure, LogConfig, Record, Records, punctuation_of
from schemas.meter import all_paths
from schemas.tables import DUPLICATES, EVENTS, PROGRESS, REJECTIONS, ROLLUPS


@dataclass(frozen=True)
class PartitionState:
    """What of a partition's log so far decides how the next batch is folded."""

    partition: int
    next_offset: int = 0
    epoch: int = 0
    version: int = 0
    config: LogConfig = field(default_factory=LogConfig)
    log_id: str = ""
    appended_at_ms: int = 0
    """The newest time of its records. The time of the ones to come is no older, even if their clock was set back."""


@dataclass(frozen=True)
class FoldedBatch:
    """The rows that a batch adds to each table, the keys that it adds to the dedup index, and the state after it.

    `misplaced` events have another partition than this one by their identity. They count, and copies that do lie in
    that partition count again, unnoticed.
    """

    first_offset: int
    frames: dict[str, pl.DataFrame]
    hashes: Hashes
    days: Days
    state: PartitionState
    misplaced: int

    def token(self, table: str) -> str:
        """The insert token of the batch's rows in a table: the same batch always has the same one."""
        return f"{self.state.log_id}:{self.state.partition}:{self.first_offset}:{table}"


def fold_batch(
    batch: Batch,
    state: PartitionState,
    index: DedupIndex,
    versions: ConfigVersions,
    done: Callable[[str], None] = lambda _: None,
    *,
    partitions: int = 1,
) -> FoldedBatch:
    """Fold one batch in this order, naming each step when it is `done`; the index is read, not changed.

    The log has so many `partitions`, which decides nothing but what is counted as misplaced.

    1. decode: every line is an event or a rejection. Its record's time is that of a clock that is never set back;
    2. dedup: the first event of an identity is accepted. Before the fold, so that a copy with other properties
       cannot count twice, and after the decoding, since a line that is no event has no identity;
    3. fold: accepted events to rollup deltas and validation errors;
    4. punctuation, at the batch's end, decides the epoch and the configuration of the *next* batch.
    """
    assert batch.start == state.next_offset, "a batch starts where the last one ended"
    # 1. decode
    records = _clocked(batch.records, state)
    decoded = decode(lines_of(records), all_paths(state.config.meters), state.config.limits)
    done("decode")
    # 2. dedup
    events, rejections = decoded.events, decoded.rejections
    keys = event_keys(events)
    hashes = event_hashes(keys)
    days = events["appended_at"].dt.epoch("d").cast(pl.UInt16).to_numpy()
    events = events.with_columns(hash_high=pl.Series(hashes[:, 0]), hash_low=pl.Series(hashes[:, 1]))
    fresh = index.fresh(hashes, days)
    events = events.with_columns(partition=pl.lit(state.partition, pl.UInt16))
    accepted, duplicates = events.filter(fresh), events.filter(~fresh)
    done("dedup")
    # 3. fold
    rollups = rollup_deltas(accepted, state.config.meters, state.epoch)
    accepted = accepted.with_columns(
        validation_errors=validation_errors(accepted, state.config.meters), epoch=pl.lit(state.epoch, pl.UInt32)
    )
    done("fold")
    # 4. punctuation
    after = _state_after(records.last, state, versions)
    progress = _progress(state, after, len(accepted), duplicates=len(duplicates), rejected=len(rejections))
    place = (pl.lit(after.log_id).alias("log_id"), pl.lit(state.partition, pl.UInt16).alias("partition"))
    return FoldedBatch(
        first_offset=batch.start,
        frames={
            EVENTS.name: accepted.with_columns(*place).select(EVENTS.frame.keys()),
            ROLLUPS.name: rollups,
            DUPLICATES.name: duplicates.with_columns(*place).select(DUPLICATES.frame.keys()),
            REJECTIONS.name: rejections.with_columns(*place).select(REJECTIONS.frame.keys()),
            PROGRESS.name: progress,
        },
        hashes=hashes[fresh],
        days=days[fresh],
        state=after,
        misplaced=int(np.count_nonzero(partitions_of(keys, partitions) != state.partition)),
    )


def _clocked(records: Records, state: PartitionState) -> Records:
    """Records whose time never goes back: a loaded index has forgotten what lies beyond the newest event's horizon."""
    newest_ms = np.maximum.accumulate(np.maximum(records.appended_at_ms, state.appended_at_ms))
    return replace(records, appended_at_ms=newest_ms)


def _state_after(last: Record, state: PartitionState, versions: ConfigVersions) -> PartitionState:
    after = replace(state, next_offset=last.offset + 1, appended_at_ms=last.appended_at_ms)
    if last.value is not None:
        return after
    match punctuation_of(last.key):
        case Barrier(number):
            return replace(after, epoch=max(state.epoch, number))
        case Configure(_, log_id):
            assert state.log_id in {"", log_id}, "a log keeps its id"
            newest = version_after(last, state.version)
            return replace(after, version=newest, config=versions(newest), log_id=log_id)
        case _:
            return after


def _progress(
    before: PartitionState, after: PartitionState, accepted: int, *, duplicates: int, rejected: int
) -> pl.DataFrame:
    lines = accepted + duplicates + rejected
    row = {
        "log_id": after.log_id, "partition": before.partition, "first_offset": before.next_offset,
        "next_offset": after.next_offset, "epoch": after.epoch, "config_version": after.version,
        "appended_at": after.appended_at_ms, "lines": lines,
        "accepted": accepted, "duplicates": duplicates, "rejected": rejected,
    }  # fmt: skip
    return pl.DataFrame({name: [value] for name, value in row.items()}).cast(PROGRESS.frame)  # type: ignore[arg-type]
