"""The tables of ClickHouse in memory: rows by insert, and what a worker reads of them when it takes a partition up.

Owns what ClickHouse does not check, and all of exactly-once rests on: an insert under a used token, which it drops
without a word, has the very rows that are stored under that token.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np

from aggregation.dedup import DedupIndex
from aggregation.fold_batch import FoldedBatch, PartitionState
from aggregation.store import STORE_ORDER
from schemas.tables import EVENTS, PROGRESS, ROLLUPS, Table
from tests.oracles.log_oracle import DAY_MS, Recount
from tests.simulation.logs import Logs, Stream, recount

Row = dict[str, Any]


@dataclass(frozen=True)
class Insert:
    """The rows that came under a token."""

    stream: Stream
    first_offset: int
    table: str
    rows: list[Row]


@dataclass
class Tables:
    """All that is stored."""

    inserts: dict[str, Insert] = field(default_factory=dict)
    dropped: int = 0

    def insert(self, folded: FoldedBatch, table: Table, rows: list[Row]) -> None:
        """Store a batch's rows of a table, or drop them, if its token was used. Empty inserts are held to it, too."""
        stream = (folded.state.log_id, folded.state.partition)
        insert = Insert(stream, folded.first_offset, table.name, rows)
        known = self.inserts.setdefault(folded.token(table.name), insert)
        self.dropped += known is not insert
        assert known == insert, f"two contents under the token {folded.token(table.name)}"

    def rows(self, table: Table, stream: Stream, end: int | None = None) -> list[Row]:
        """A stream's rows, of the batches that begin below an offset, in the order of the log."""
        inserts = [
            each for each in self.inserts.values()
            if each.table == table.name and each.stream == stream and (end is None or each.first_offset < end)
        ]  # fmt: skip
        return [row for each in sorted(inserts, key=lambda each: each.first_offset) for row in each.rows]

    def stored_offset(self, stream: Stream) -> int:
        """The offset behind the last stored batch: as `stored_offsets` of aggregation/store.py reads it."""
        return max((row["next_offset"] for row in self.rows(PROGRESS, stream)), default=0)

    def load_state(self, stream: Stream, logs: Logs) -> PartitionState:
        """As `load_state` of aggregation/store.py reads it."""
        progress = self.rows(PROGRESS, stream)
        if not progress:
            return PartitionState(stream[1])
        last = max(progress, key=lambda row: row["first_offset"])
        version, appended_at_ms = last["config_version"], _milliseconds(last["appended_at"])
        config = logs.version(version)
        return PartitionState(stream[1], last["next_offset"], last["epoch"], version, config, stream[0], appended_at_ms)

    def load_index(self, stream: Stream, state: PartitionState) -> DedupIndex:
        """As `load_index` of aggregation/store.py reads it."""
        horizon_days = state.config.limits.dedup_horizon_days
        index = DedupIndex(horizon_days)
        events = [row for row in self.rows(EVENTS, stream) if row["offset"] < state.next_offset]
        days = [_milliseconds(row["appended_at"]) // DAY_MS for row in events]
        oldest = max(days, default=0) - horizon_days
        kept = [n for n, day in enumerate(days) if day >= oldest]
        hashes = np.array([(events[n]["hash_high"], events[n]["hash_low"]) for n in kept], np.uint64).reshape(-1, 2)
        index.add(hashes, np.array([days[n] for n in kept], np.uint16))
        return index

    def check(self, logs: Logs) -> None:
        """Assert that what is stored, up to each stream's last stored batch, is what the oracle says."""
        ends = {stream: self.stored_offset(stream) for stream in logs.streams}
        assert self.recount(ends) == recount(logs.number, tuple(ends.items()))

    def recount(self, ends: dict[Stream, int]) -> Recount:
        """What is stored of the batches that begin below these offsets, in the oracle's words."""
        found = Recount()
        for stream, end in ends.items():
            for table, places in found.places.items():
                rows = self.rows(_BY_NAME[table], stream, end)
                stood = [(stream, row["offset"], row["line"]) for row in rows]
                assert len(stood) == len(set(stood)), f"{table}: a place stands twice"
                counted = sum(row[_COUNTED[table]] for row in self.rows(PROGRESS, stream, end))
                assert counted == len(stood), f"{table}: progress says {counted}"
                places.update(stood)
            found.epochs |= {
                (stream, row["offset"], row["line"]): row["epoch"] for row in self.rows(EVENTS, stream, end)
            }
            for row in self.rows(ROLLUPS, stream, end):
                dimensions = tuple((each["key"], each["value"]) for each in row["dimensions"])
                start = int(row["window_start"].timestamp())
                key = (row["meter"], row["subject"], dimensions, start, row["epoch"])
                count, total = found.rollups.get(key, (0, Decimal(0)))
                found.rollups[key] = (count + row["count"], total + row["sum"])
                for value in row["latest"]:
                    assert value["partition"] == stream[1]
                    at, place = (value["time"], _milliseconds(value["appended_at"])), (value["offset"], value["line"])
                    latest = (*at, stream, *place, value["value"])
                    found.latest[key] = max(latest, found.latest.get(key, latest))
            if progress := self.rows(PROGRESS, stream, end):
                names = ("first_offset", "next_offset", "epoch", "config_version")
                found.batches[stream] = [tuple(row[name] for name in names) for row in progress]
        return found


_COUNTED = {"events": "accepted", "duplicates": "duplicates", "rejections": "rejected"}
_BY_NAME = {table.name: table for table in STORE_ORDER}


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
