"""The tables in ClickHouse: storing a folded batch, reading what a restart needs, and usage as of a cut."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import polars as pl

from aggregation.dedup import DedupIndex
from aggregation.fold_batch import ConfigVersions, FoldedBatch, PartitionState
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from schemas.tables import DUPLICATES, EVENTS, PROGRESS, REJECTIONS, ROLLUPS
from stores.clickhouse import Client, insert, query

STORE_ORDER = (EVENTS, ROLLUPS, DUPLICATES, REJECTIONS, PROGRESS)
"""The order of a batch's inserts. Progress is last: where it stands, all the rest is there. A crash anywhere before it
replays the batch, with the same tokens."""


_MEASURE = {
    Aggregation.COUNT: pl.col("count").cast(QUANTITY),
    Aggregation.SUM: pl.col("sum"),
    Aggregation.MIN: pl.col("min"),
    Aggregation.MAX: pl.col("max"),
}


def store_batch(client: Client, folded: FoldedBatch) -> None:
    """Store a batch. Storing it again, in this process or another one, changes nothing."""
    for table in STORE_ORDER:
        insert(client, table, folded.frames[table.name], folded.token(table.name))


def load_state(client: Client, partition: int, log_id: str, versions: ConfigVersions) -> PartitionState:
    """Where a partition's last stored batch left off."""
    rows = query(
        client,
        "SELECT next_offset, epoch, config_version FROM progress"
        " WHERE partition = {partition:UInt16} AND log_id = {log_id:String} ORDER BY first_offset DESC LIMIT 1",
        partition=partition,
        log_id=log_id,
    )
    if rows.is_empty():
        return PartitionState(partition)
    next_offset, epoch, version = rows.row(0)
    return PartitionState(partition, next_offset, epoch, version, versions(version), log_id)


def load_index(client: Client, state: PartitionState) -> DedupIndex:
    """The dedup index of a partition, from the events stored below the state's offset."""
    horizon_days = state.config.limits.dedup_horizon_days
    index = DedupIndex(horizon_days)
    rows = query(
        client,
        "WITH (SELECT max(toDate(appended_at)) FROM events WHERE partition = {partition:UInt16}"
        " AND offset < {next_offset:UInt64}) AS newest_day"
        " SELECT hash_high, hash_low, toUInt16(toDate(appended_at)) AS day FROM events"
        " WHERE partition = {partition:UInt16} AND offset < {next_offset:UInt64}"
        " AND toDate(appended_at) >= newest_day - {horizon_days:UInt16}",
        partition=state.partition,
        next_offset=state.next_offset,
        horizon_days=horizon_days,
    )
    hashes = rows.select(pl.col("hash_high", "hash_low")).to_numpy().astype(np.uint64).reshape(-1, 2)
    index.add(hashes, rows["day"].to_numpy().astype(np.uint16))
    return index


def usage_between(
    client: Client, tenant: str, meters: Sequence[Meter], start: datetime, end: datetime, cut: int
) -> pl.DataFrame:
    """What each subject used of each meter in whole hours of [start, end), of the epochs before the cut.

    Columns subject, meter, quantity (Decimal(38, 9)) and uniques: a UNIQUE_COUNT meter has its distinct values there
    and no quantity, so that several subjects can still be counted together; for other meters uniques is null.
    """
    rows = query(
        client,
        "SELECT subject, meter, sum(count) AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,"
        " arraySort(groupUniqArrayArray(uniques)) AS uniques FROM rollups"
        " WHERE tenant = {tenant:String} AND window_start >= {start:DateTime64(3, 'UTC')}"
        " AND window_start < {end:DateTime64(3, 'UTC')} AND epoch < {cut:UInt32}"
        " GROUP BY subject, meter ORDER BY subject, meter",
        tenant=tenant,
        start=start,
        end=end,
        cut=cut,
    )
    by_aggregation = {kind: [m.slug for m in meters if m.aggregation is kind] for kind in Aggregation}
    quantity = pl.coalesce(
        pl.when(pl.col("meter").is_in(by_aggregation[kind])).then(measure.cast(QUANTITY))
        for kind, measure in _MEASURE.items()
    )
    unique = pl.col("meter").is_in(by_aggregation[Aggregation.UNIQUE_COUNT])
    known = pl.col("meter").is_in([meter.slug for meter in meters])
    return rows.filter(known).select(
        "subject", "meter", quantity=quantity, uniques=pl.when(unique).then(pl.col("uniques"))
    )


def has_late_usage(client: Client, tenant: str, start: datetime, end: datetime, since_cut: int, cut: int) -> bool:
    """Whether usage of [start, end) arrived in the epochs from one cut to the next."""
    found = query(
        client,
        "SELECT count() > 0 AS late FROM (SELECT 1 FROM rollups WHERE tenant = {tenant:String}"
        " AND window_start >= {start:DateTime64(3, 'UTC')} AND window_start < {end:DateTime64(3, 'UTC')}"
        " AND epoch >= {since_cut:UInt32} AND epoch < {cut:UInt32} LIMIT 1)",
        tenant=tenant,
        start=start,
        end=end,
        since_cut=since_cut,
        cut=cut,
    )
    return bool(found.item())
