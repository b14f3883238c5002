"""Rollups counted again from stored events: what they must be, if every batch was folded and stored as it should be.

Owns that a recount is the worker's own fold: the line of an event is decoded and aggregated again, by the configuration
that was in force where it stands in the log.
"""

from typing import NamedTuple

import numpy as np
import polars as pl

from aggregation.batch import ConfigVersions
from aggregation.decode import Lines, decode
from aggregation.fold import rollup_deltas
from schemas.identity import event_hashes, event_keys
from schemas.meter import all_paths
from schemas.tables import EVENTS, ROLLUPS

_READ_FROM_THE_LINE = ("tenant", "type", "subject", "source", "id", "time", "hash_high", "hash_low")
RECOUNTED_COLUMNS = (*_READ_FROM_THE_LINE, "event", "log_id", "partition", "offset", "line", "appended_at", "epoch")
"""The columns of EVENTS that a recount needs."""


class Recounted(NamedTuple):
    """Rollup rows, several a key where the key's events came in several chunks; and how many events are `altered`."""

    rollups: pl.DataFrame
    altered: int
    """Events whose columns are not what their line says."""


def recount(events: pl.DataFrame, stretches: pl.DataFrame, versions: ConfigVersions) -> Recounted:
    """Recount some stored events, in any order; `events` has RECOUNTED_COLUMNS.

    `stretches` has log_id, partition, offset and config_version: from this offset of the partition on, batches were
    folded by this version of the configuration.
    """
    placed = (
        events.cast({name: EVENTS.frame[name] for name in events.columns})
        .sort("offset")
        .join_asof(stretches.sort("offset"), on="offset", by=["log_id", "partition"], check_sortedness=False)
    )
    rollups, altered = [pl.DataFrame(schema=ROLLUPS.frame)], 0
    for (version, epoch), rows in placed.partition_by("config_version", "epoch", as_dict=True).items():
        config = versions(int(version))
        columns = rows.select("offset", "line", "appended_at", pl.col(_READ_FROM_THE_LINE).name.prefix("stored "))
        buffer = np.frombuffer(bytearray("\n".join([*rows["event"].to_list(), ""]).encode()), np.uint8)
        lines = Lines.of(buffer, np.flatnonzero(buffer == ord("\n")), columns)
        decoded = decode(lines, all_paths(config.meters), config.limits).events
        rollups.append(rollup_deltas(decoded, config.meters, int(epoch)))
        altered += len(lines) - _as_stored(decoded)
    return Recounted(pl.concat(rollups), altered)


def _as_stored(decoded: pl.DataFrame) -> int:
    hashes = event_hashes(event_keys(decoded))
    read = decoded.with_columns(hash_high=pl.Series(hashes[:, 0]), hash_low=pl.Series(hashes[:, 1]))
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"stored {name}")) for name in _READ_FROM_THE_LINE)
    return int(read.select(same.sum()).item())
