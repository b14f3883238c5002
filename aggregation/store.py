"""The tables in ClickHouse: storing a folded batch, reading what a restart needs, and usage as of a cut."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from mmap import mmap
from os import posix_fallocate
from tempfile import TemporaryFile

import numpy as np
import polars as pl

from aggregation.batch import Batch, ConfigVersions, Cutter
from aggregation.dedup import Buffer, DedupIndex
from aggregation.fold_batch import FoldedBatch, PartitionState, fold_batch
from aggregation.metered import ranges, sampled_subjects_statement, usage_for
from aggregation.metrics import BATCH_SECONDS, DEDUP_BYTES, DEDUP_KEYS, LINES, MISPLACED, REJECTED, STORE_RETRIES
from aggregation.plan import VALUES, Statement, SubjectRange
from aggregation.recount import Backfill
from schemas.configuration import ConfigurationError, Fault
from schemas.invoice import Columns
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from schemas.tables import DUPLICATES, EVENTS, PROGRESS, REJECTIONS, ROLLUPS
from schemas.wanted import Want
from stores.clickhouse import Client, insert, query, stream
from stores.faults import reached
from stores.log import Log

STORE_TRIES = 6
LOAD_KEYS = 4 << 20  # at once: so many are sorted faster than many small runs are merged
MAPPED_BYTES = 1 << 20
STORE_RETRY_S = 0.5  # doubled after each try: all of them take some 15 s

STORE_ORDER = (EVENTS, ROLLUPS, DUPLICATES, REJECTIONS, PROGRESS)
"""The order of a batch's inserts. Progress is last: where it stands, all the rest is there. A crash anywhere before it
replays the batch, with the same tokens."""

logger = logging.getLogger(__name__)


class Partition:
    """A partition in a worker: its state and dedup index, one batch ahead of what is stored.

    `fold` and `store` may run in two threads, each of them for one batch at a time, in the order of the log.
    """

    def __init__(self, client: Client, log: Log, number: int) -> None:
        self._client = client
        self._log = log
        self.state = load_state(client, number, log.log_id, log.config)
        self._index = load_index(client, self.state)
        self._indexed_horizon_days = self.state.config.limits.dedup_horizon_days

    def cutter(self) -> Cutter:
        """A cutter that starts where the last folded batch ended."""
        return Cutter(self.state.next_offset, self.state.version, self._log.config)

    @property
    def must_reload(self) -> bool:
        """Whether the horizon has changed. Then `reload` once all folded batches are stored, before the next fold."""
        return self.state.config.limits.dedup_horizon_days != self._indexed_horizon_days

    def reload(self) -> None:
        """Load the dedup index from the stored events."""
        self._index = load_index(self._client, self.state)
        self._indexed_horizon_days = self.state.config.limits.dedup_horizon_days

    def fold(self, batch: Batch) -> FoldedBatch:
        """Fold the next batch. Raises ConfigurationError when the log does not begin by naming itself."""
        done = _timed()
        folded = fold_batch(batch, self.state, self._index, self._log.config, done, partitions=self._log.partitions)
        if folded.state.log_id != self._log.log_id:
            value = f"the log {folded.state.log_id}" if folded.state.log_id else "records before the log's name"
            allowed = f"allowed: the log {self._log.log_id}, as `meterline topics create` began it"
            raise ConfigurationError([Fault("the log", f"partition {batch.start}", value, allowed)])
        self._index.add(folded.hashes, folded.days)
        self.state = folded.state
        done("index")
        self.measure_index()
        return folded

    def measure_index(self) -> None:
        """Tell the metrics how large the dedup index is."""
        DEDUP_KEYS.labels(self.state.partition).set(len(self._index))
        DEDUP_BYTES.labels(self.state.partition).set(self._index.nbytes)

    def store(self, folded: FoldedBatch) -> None:
        """Store a folded batch, and say so: in the metrics, and in one line of the process's log."""
        started_s = time.monotonic()
        store_batch(self._client, folded, _timed())
        row = folded.frames[PROGRESS.name].row(0, named=True)
        for outcome in ("accepted", "duplicates", "rejected"):
            LINES.labels(outcome).inc(row[outcome])
        for reason, count in folded.frames[REJECTIONS.name]["reason"].value_counts().iter_rows():
            REJECTED.labels(reason).inc(count)
        MISPLACED.inc(folded.misplaced)
        logger.info(
            "batch partition=%d offsets=%d-%d accepted=%d duplicates=%d rejected=%d misplaced=%d epoch=%d config=%d"
            " store_s=%.3f",
            row["partition"], row["first_offset"], row["next_offset"] - 1, row["accepted"], row["duplicates"],
            row["rejected"], folded.misplaced, row["epoch"], row["config_version"], time.monotonic() - started_s,
        )  # fmt: skip


def _timed() -> Callable[[str], None]:
    """Tells how long each step took, counted from here or from the step before."""
    before_s = time.monotonic()

    def done(step: str) -> None:
        nonlocal before_s
        now_s = time.monotonic()
        BATCH_SECONDS.labels(step).observe(now_s - before_s)
        before_s = now_s
        reached(step)

    return done


def store_batch(client: Client, folded: FoldedBatch, done: Callable[[str], None] = lambda _: None) -> None:
    """Store a batch, naming each table when it is `done`. Storing it again, here or elsewhere, changes nothing.

    Raises what the engine's driver raised at the last of STORE_TRIES.
    """
    for table in STORE_ORDER:
        for tries in range(STORE_TRIES):
            try:
                insert(client, table, folded.frames[table.name], folded.token(table.name))
                break
            except Exception:  # a driver raises many kinds; the last try ends the worker
                if tries == STORE_TRIES - 1:
                    raise
                STORE_RETRIES.inc()
                logger.warning("%s not stored; trying again", folded.token(table.name), exc_info=True)
                time.sleep(STORE_RETRY_S * 2**tries)
        done(table.name)


def stored_offsets(client: Client, log_id: str) -> dict[int, int]:
    """For each partition of a log, the offset behind its last stored batch."""
    rows = query(
        client,
        "SELECT partition, max(next_offset) AS next_offset FROM progress WHERE log_id = {log_id:String}"
        " GROUP BY partition ORDER BY partition",
        log_id=log_id,
    )
    return dict(rows.iter_rows())


def load_state(client: Client, partition: int, log_id: str, versions: ConfigVersions) -> PartitionState:
    """Where a partition's last stored batch left off."""
    rows = query(
        client,
        "SELECT next_offset, epoch, config_version, toUnixTimestamp64Milli(appended_at) FROM progress"
        " WHERE partition = {partition:UInt16} AND log_id = {log_id:String} ORDER BY first_offset DESC LIMIT 1",
        partition=partition,
        log_id=log_id,
    )
    if rows.is_empty():
        return PartitionState(partition)
    next_offset, epoch, version, appended_at_ms = rows.row(0)
    return PartitionState(partition, next_offset, epoch, version, versions(version), log_id, appended_at_ms)


def load_index(client: Client, state: PartitionState) -> DedupIndex:
    """The dedup index of a partition, from the events stored below the state's offset."""
    horizon_days = state.config.limits.dedup_horizon_days
    index = DedupIndex(horizon_days, index_memory)
    for keys in stream(
        client,
        "WITH (SELECT max(toDate(appended_at)) FROM events WHERE log_id = {log_id:String}"
        " AND partition = {partition:UInt16} AND offset < {next_offset:UInt64}) AS newest_day"
        " SELECT hash_high, hash_low, toUInt16(toDate(appended_at)) AS day FROM events"
        " WHERE log_id = {log_id:String} AND partition = {partition:UInt16} AND offset < {next_offset:UInt64}"
        " AND toDate(appended_at) >= newest_day - {horizon_days:UInt16}",
        rows_min=LOAD_KEYS,
        log_id=state.log_id,
        partition=state.partition,
        next_offset=state.next_offset,
        horizon_days=horizon_days,
    ):
        hashes = np.stack([keys[word].to_numpy() for word in ("hash_high", "hash_low")], axis=1)
        index.add(hashes, keys["day"].to_numpy())
    return index


def index_memory(size: int) -> Buffer:
    """So many bytes for the dedup index. Large ones are mapped from a file of TMPDIR that has no name.

    Then the operating system holds in memory what is asked for, and may write the rest out while memory is short.
    """
    if size < MAPPED_BYTES:
        return bytearray(size)
    with TemporaryFile() as file:
        posix_fallocate(file.fileno(), 0, size)  # a full disk is an error here, and not a fault at some write
        return mmap(file.fileno(), size)


def usage_between(
    client: Client, tenant: str, meters: Sequence[Meter], start: datetime, end: datetime, cut: int
) -> pl.DataFrame:
    """What each subject used of each meter in whole hours of [start, end), of the epochs before the cut.

    Columns subject, meter and quantity (Decimal(38, 9)), and what the quantities of several subjects are put together
    from, null for other meters: for a UNIQUE_COUNT meter its distinct values as uniques, and no quantity; for an AVG
    meter the sum and count of its values; for a LATEST meter where in time and in the log its value stands, as latest.
    """
    rows = query(
        client,
        "SELECT subject, meter, sum(count) AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,"
        " arraySort(groupUniqArrayArray(uniques)) AS uniques, max(latest) AS latest FROM rollups"
        " WHERE tenant = {tenant:String} AND window_start >= {start:DateTime64(3, 'UTC')}"
        " AND window_start < {end:DateTime64(3, 'UTC')} AND epoch < {cut:UInt32}"
        " GROUP BY subject, meter ORDER BY subject, meter",
        tenant=tenant,
        start=start,
        end=end,
        cut=cut,
    )
    meter = pl.col("meter")
    of = {kind: meter.is_in([m.slug for m in meters if m.aggregation is kind]) for kind in Aggregation}
    quantity = pl.coalesce(
        pl.when(of[kind]).then(measure.cast(QUANTITY))
        for kind, measure in VALUES.items()
        if kind is not Aggregation.UNIQUE_COUNT
    )
    return rows.filter(meter.is_in([m.slug for m in meters])).select(
        "subject",
        "meter",
        quantity=quantity,
        uniques=pl.when(of[Aggregation.UNIQUE_COUNT]).then("uniques"),
        sum=pl.when(of[Aggregation.AVG]).then("sum"),
        count=pl.when(of[Aggregation.AVG]).then("count"),
        latest=pl.when(of[Aggregation.LATEST]).then(pl.col("latest").list.first()),
    )


def metered_usage(
    client: Client,
    versions: ConfigVersions,
    tenant: str,
    meters: Sequence[Meter],
    wants: Sequence[Want],
    cut: int,
    subjects: Sequence[str] | SubjectRange | None = None,
    *,
    backfills: Mapping[str, Sequence[Backfill]] | None = None,
) -> pl.DataFrame:
    """The usage that is wanted for rating, as `aggregation.metered.usage_for` has it."""
    return usage_for(_reader(client), versions, tenant, meters, wants, cut, subjects, backfills=backfills)


def subject_ranges(
    client: Client, tenant: str, wants: Sequence[Want], cut: int, subjects_at_once: int
) -> list[SubjectRange]:
    """Ranges of about so many subjects with usage of what is wanted; together they are all."""
    if not wants:
        return []
    sampled = _reader(client)(sampled_subjects_statement(tenant, wants, cut))
    return list(ranges(sampled["subject"].to_list(), subjects_at_once))


def _reader(client: Client) -> Callable[[Statement], pl.DataFrame]:
    return lambda statement: query(client, statement.sql, **statement.bound)


def first_usage_at(client: Client, tenant: str, cut: int) -> datetime | None:
    """The start of the first window with usage of the epochs before a cut, UTC; None where there is none."""
    found = query(
        client,
        "SELECT min(window_start) AS at, count() AS n FROM rollups"
        " WHERE tenant = {tenant:String} AND epoch < {cut:UInt32}",
        tenant=tenant,
        cut=cut,
    )
    at: datetime = found["at"].dt.replace_time_zone("UTC")[0]
    return at if found["n"][0] else None


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


LATE_USAGE: Columns = {
    "meter": pl.String,
    "subject": pl.String,
    "window_start": pl.Datetime("us", "UTC"),
    "events": pl.Int64,
}
"""Columns of a frame of late usage: how many events, by meter, subject and hour."""


def late_usage(client: Client, tenant: str, start: datetime, end: datetime, since_cut: int, cut: int) -> pl.DataFrame:
    """What arrived of the usage of [start, end) in the epochs from one cut to the next (columns LATE_USAGE)."""
    found = query(
        client,
        "SELECT meter, subject, window_start, toInt64(sum(count)) AS events FROM rollups WHERE tenant = {tenant:String}"
        " AND window_start >= {start:DateTime64(3, 'UTC')} AND window_start < {end:DateTime64(3, 'UTC')}"
        " AND epoch >= {since_cut:UInt32} AND epoch < {cut:UInt32}"
        " GROUP BY meter, subject, window_start ORDER BY meter, subject, window_start",
        tenant=tenant,
        start=start,
        end=end,
        since_cut=since_cut,
        cut=cut,
    )
    if found.is_empty():
        return pl.DataFrame(schema=LATE_USAGE)
    return found.select(pl.col(name).cast(kind) for name, kind in LATE_USAGE.items())
