"""The aggregation's tables in ClickHouse: storing a folded batch, and reading back what a restart needs."""

import numpy as np
import polars as pl

from aggregation.dedup import DedupIndex
from aggregation.fold_batch import ConfigVersions, FoldedBatch, PartitionState
from schemas.tables import DUPLICATES, EVENTS, PROGRESS, REJECTIONS, ROLLUPS
from stores.clickhouse import Client, insert, query

STORE_ORDER = (EVENTS, ROLLUPS, DUPLICATES, REJECTIONS, PROGRESS)
"""The order of a batch's inserts. Progress is last: where it stands, all the rest is there. A crash anywhere before it
replays the batch, with the same tokens."""


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
