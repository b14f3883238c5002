"""Rollups counted again from stored events: what they must be, if every batch was folded and stored as it should be.

Owns that a recount is the worker's own fold: the line of an event is decoded and aggregated again, by the configuration
that was in force where it stands in the log. A meter that was backfilled also counts where it was not in force yet.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import NamedTuple

import numpy as np
import polars as pl

from aggregation.batch import ConfigVersions
from aggregation.decode import Lines, decode
from aggregation.fold import rollup_deltas
from schemas.identity import event_hashes, event_keys
from schemas.meter import Meter, all_paths
from schemas.tables import EVENTS, ROLLUPS

_READ_FROM_THE_LINE = ("tenant", "type", "subject", "source", "id", "time", "hash_high", "hash_low")
RECOUNTED_COLUMNS = (*_READ_FROM_THE_LINE, "event", "log_id", "partition", "offset", "line", "appended_at", "epoch")
"""The columns of EVENTS that a recount needs."""


class Recounted(NamedTuple):
    """Rollup rows, several a key where the key's events came in several chunks; and how many events are `altered`."""

    rollups: pl.DataFrame
    altered: int
    """Events whose columns are not what their line says."""


@dataclass(frozen=True)
class Backfill:
    """A meter that counts events of a range though it was not in force where they stand in the log."""

    meter: Meter
    start: datetime
    end: datetime
    """Of event time: the range is [start, end)."""
    ends: Mapping[str, Sequence[int]]
    """For each log, and each partition of it, the offset behind the events that may count."""

    def covers(self) -> pl.Expr:
        """Whether an event is in the range and below the offsets."""
        below = [
            (pl.col("log_id") == log_id) & (pl.col("partition") == partition) & (pl.col("offset") < end)
            for log_id, ends in self.ends.items()
            for partition, end in enumerate(ends)
        ]
        in_range = (pl.col("time") >= self.start) & (pl.col("time") < self.end)
        return in_range & reduce(pl.Expr.or_, below, pl.lit(value=False))


def recount(
    events: pl.DataFrame,
    stretches: pl.DataFrame,
    versions: ConfigVersions,
    backfills: Collection[Backfill] = (),
    only: Meter | None = None,
) -> Recounted:
    """Recount some stored events, in any order, for all meters or for one; `events` has RECOUNTED_COLUMNS.

    `stretches` has log_id, partition, offset and config_version: from this offset of the partition on, batches were
    folded by this version of the configuration. An event that a meter counted there is not counted by its backfill,
    too; and where backfills of a meter overlap, once.
    """
    placed = (
        events.cast({name: EVENTS.frame[name] for name in events.columns})
        .sort("offset")
        .join_asof(stretches.sort("offset"), on="offset", by=["log_id", "partition"], check_sortedness=False)
    )
    rollups, altered = [pl.DataFrame(schema=ROLLUPS.frame)], 0
    for (version, epoch), rows in placed.partition_by("config_version", "epoch", as_dict=True).items():
        config = versions(int(version))
        live = [meter for meter in config.meters if only is None or meter.slug == only.slug]
        added = _added([each for each in backfills if only is None or each.meter.slug == only.slug], config.meters)
        places = ("offset", "line", "appended_at", "log_id", "partition")
        columns = rows.select(*places, pl.col(_READ_FROM_THE_LINE).name.prefix("stored "))
        buffer = np.frombuffer(bytearray("\n".join([*rows["event"].to_list(), ""]).encode()), np.uint8)
        lines = Lines.of(buffer, np.flatnonzero(buffer == ord("\n")), columns)
        paths = all_paths((*live, *(meter for meter, _ in added)))
        decoded = decode(lines, paths, config.limits).events
        rollups.append(rollup_deltas(decoded, live, int(epoch)))
        rollups += [rollup_deltas(decoded.filter(covered), [meter], int(epoch)) for meter, covered in added]
        altered += len(lines) - _as_stored(decoded)
    return Recounted(pl.concat(rollups), altered)


def _added(backfills: Collection[Backfill], live: Collection[Meter]) -> list[tuple[Meter, pl.Expr]]:
    """The meters that backfills add where others are live, each with the events that it counts."""
    slugs = {meter.slug for meter in live}
    meters = {each.meter.slug: each.meter for each in backfills if each.meter.slug not in slugs}
    return [
        (meter, reduce(pl.Expr.or_, [each.covers() for each in backfills if each.meter.slug == slug]))
        for slug, meter in sorted(meters.items())
    ]


def _as_stored(decoded: pl.DataFrame) -> int:
    hashes = event_hashes(event_keys(decoded))
    read = decoded.with_columns(hash_high=pl.Series(hashes[:, 0]), hash_low=pl.Series(hashes[:, 1]))
    same = pl.all_horizontal(pl.col(name).eq_missing(pl.col(f"stored {name}")) for name in _READ_FROM_THE_LINE)
    return int(read.select(same.sum()).item())
