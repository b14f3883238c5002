"""The tables in ClickHouse where aggregation, billing and dashboards meet: their columns, here and nowhere else.

Every table keeps the tokens of its last 10,000 inserts, so that a replayed batch changes nothing, and syncs an insert
to disk before it is confirmed. Decimal(38, 9) holds every quantity.
"""

from dataclasses import dataclass

import polars as pl

from schemas.money import QUANTITY

_MILLIS = pl.Datetime("ms", "UTC")
_MICROS = pl.Datetime("us", "UTC")
_HOUR = pl.Datetime("ms", "UTC")
_POSITION: dict[str, pl.DataType | type[pl.DataType]] = {
    "log_id": pl.String, "partition": pl.UInt16, "offset": pl.UInt64, "line": pl.UInt32,
}  # fmt: skip

DIMENSIONS = pl.List(pl.Struct({"key": pl.String, "value": pl.String}))
"""Dimensions of a rollup, sorted by key; a Map in ClickHouse."""


_PLACE_IN_TIME: dict[str, pl.DataType | type[pl.DataType]] = {
    "time": _MICROS, "appended_at": _MILLIS, "partition": pl.UInt16, "offset": pl.UInt64, "line": pl.UInt32,
}  # fmt: skip
LATEST_ORDER = tuple(_PLACE_IN_TIME)
"""What decides which of some values is the latest: event time, then arrival."""
LATEST = pl.List(pl.Struct({**_PLACE_IN_TIME, "value": QUANTITY}))
"""No value, or one behind LATEST_ORDER: whatever order these are merged in, the greatest is the same. A list, because
the empty one is less than all others; in ClickHouse neither an array nor a tuple can be null."""


@dataclass(frozen=True)
class Table:
    """A table: its name, its columns as polars sees them and as ClickHouse stores them, and its engine's clauses."""

    name: str
    frame: dict[str, pl.DataType | type[pl.DataType]]
    columns: dict[str, str]
    engine: str

    def ddl(self) -> str:
        """The statement that creates the table where there is none."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        settings = (
            "non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1,"
            " min_bytes_for_wide_part = 134217728"  # a batch is one file a table, and not two a column
        )
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) ENGINE = {self.engine} SETTINGS {settings}"


EVENTS = Table(
    name="events",
    frame={
        "tenant": pl.String, "type": pl.String, "subject": pl.String, "source": pl.String, "id": pl.String,
        "time": _MICROS, "event": pl.String, "validation_errors": pl.List(pl.String),
        **_POSITION, "appended_at": _MILLIS, "epoch": pl.UInt32, "hash_high": pl.UInt64, "hash_low": pl.UInt64,
    },
    columns={
        "tenant": "LowCardinality(String)", "type": "LowCardinality(String)", "subject": "String",
        "source": "LowCardinality(String)", "id": "String", "time": "DateTime64(6, 'UTC')",
        "event": "String CODEC(ZSTD(1))", "validation_errors": "Array(String)",
        "log_id": "LowCardinality(String)", "partition": "UInt16", "offset": "UInt64", "line": "UInt32",
        "appended_at": "DateTime64(3, 'UTC')", "epoch": "UInt32", "hash_high": "UInt64", "hash_low": "UInt64",
        "stored_at": "DateTime64(3, 'UTC') DEFAULT now64(3)",
    },
    engine="MergeTree PARTITION BY toYYYYMM(appended_at) ORDER BY (tenant, type, subject, time)",
)  # fmt: skip
"""Every accepted event, whole, with its place in the log. The month of its arrival is its table partition, so that a
batch may hold events of any age."""

ROLLUPS = Table(
    name="rollups",
    frame={
        "tenant": pl.String, "meter": pl.String, "subject": pl.String, "dimensions": DIMENSIONS, "window_start": _HOUR,
        "epoch": pl.UInt32, "count": pl.UInt64, "sum": QUANTITY, "min": QUANTITY, "max": QUANTITY,
        "uniques": pl.List(pl.String), "latest": LATEST,
    },
    columns={
        "tenant": "LowCardinality(String)", "meter": "LowCardinality(String)", "subject": "String",
        "dimensions": "Map(LowCardinality(String), String)", "window_start": "DateTime64(3, 'UTC')", "epoch": "UInt32",
        "count": "SimpleAggregateFunction(sum, UInt64)",
        "sum": "SimpleAggregateFunction(sum, Decimal(38, 9))",
        "min": "SimpleAggregateFunction(min, Nullable(Decimal(38, 9)))",
        "max": "SimpleAggregateFunction(max, Nullable(Decimal(38, 9)))",
        "uniques": "SimpleAggregateFunction(groupUniqArrayArray, Array(String))",
        "latest": "SimpleAggregateFunction(max, Array(Tuple(time DateTime64(6, 'UTC'),"
        " appended_at DateTime64(3, 'UTC'), partition UInt16, offset UInt64, line UInt32, value Decimal(38, 9))))",
    },
    engine="AggregatingMergeTree ORDER BY (tenant, meter, subject, dimensions, window_start, epoch)",
)  # fmt: skip
"""Usage by meter, subject, dimensions and hour of event time, and by the epoch in which it arrived. A query adds up
the rows of a key; merges do the same in the background."""

DUPLICATES = Table(
    name="duplicates",
    frame={
        "tenant": pl.String, "source": pl.String, "id": pl.String, **_POSITION, "appended_at": _MILLIS,
        "hash_high": pl.UInt64, "hash_low": pl.UInt64,
    },
    columns={
        "tenant": "LowCardinality(String)", "source": "LowCardinality(String)", "id": "String",
        "log_id": "LowCardinality(String)", "partition": "UInt16", "offset": "UInt64", "line": "UInt32",
        "appended_at": "DateTime64(3, 'UTC')",
        "hash_high": "UInt64", "hash_low": "UInt64",
    },
    engine="MergeTree ORDER BY (tenant, source, id)",
)  # fmt: skip
"""Every copy of an event that was already counted, with its place in the log."""

REJECTIONS = Table(
    name="rejections",
    frame={"reason": pl.String, "detail": pl.String, "raw": pl.Binary, **_POSITION, "appended_at": _MILLIS},
    columns={
        "reason": "LowCardinality(String)", "detail": "String", "raw": "String CODEC(ZSTD(1))",
        "log_id": "LowCardinality(String)", "partition": "UInt16", "offset": "UInt64", "line": "UInt32",
        "appended_at": "DateTime64(3, 'UTC')",
        "rejected_at": "DateTime64(3, 'UTC') DEFAULT now64(3)",
    },
    engine="MergeTree ORDER BY (partition, offset, line)",
)  # fmt: skip
"""Every line that is no usage event, whole, with the reason."""

PROGRESS = Table(
    name="progress",
    frame={
        "log_id": pl.String, "partition": pl.UInt16, "first_offset": pl.UInt64, "next_offset": pl.UInt64,
        "epoch": pl.UInt32, "config_version": pl.UInt32, "appended_at": _MILLIS,
        "lines": pl.UInt64, "accepted": pl.UInt64, "duplicates": pl.UInt64, "rejected": pl.UInt64,
    },
    columns={
        "log_id": "LowCardinality(String)", "partition": "UInt16", "first_offset": "UInt64", "next_offset": "UInt64",
        "epoch": "UInt32", "config_version": "UInt32", "appended_at": "DateTime64(3, 'UTC')",
        "lines": "UInt64", "accepted": "UInt64", "duplicates": "UInt64", "rejected": "UInt64",
        "stored_at": "DateTime64(3, 'UTC') DEFAULT now64(3)",
    },
    engine="MergeTree ORDER BY (partition, first_offset)",
)  # fmt: skip
"""One row a batch, written last: what the batch held, and the epoch and configuration in force after it."""

TABLES = (EVENTS, ROLLUPS, DUPLICATES, REJECTIONS, PROGRESS)


@dataclass(frozen=True)
class View:
    """A view for dashboards: its name, and the SELECT behind it. Its columns are a promise: there may only be more."""

    name: str
    select: str

    def ddl(self) -> str:
        """The statement that creates the view where there is none."""
        return f"CREATE VIEW IF NOT EXISTS {self.name} AS {self.select}"


def _usage_by(window: str, name: str) -> str:
    return (
        f"SELECT tenant, meter, subject, dimensions, {window} AS {name}, sum(count) AS events, sum(sum) AS sum,"  # noqa: S608
        " min(min) AS min, max(max) AS max, length(groupUniqArrayArray(uniques)) AS uniques"
        f" FROM {ROLLUPS.name} GROUP BY tenant, meter, subject, dimensions, {name}"
    )


USAGE_HOURLY = View("usage_hourly", _usage_by("window_start", "hour"))
"""Usage by meter, subject, dimensions and hour, over all epochs."""
USAGE_DAILY = View("usage_daily", _usage_by("toDate32(window_start, 'UTC')", "day"))
"""The same by day of UTC."""

USAGE_UNIQUES = View(
    "usage_uniques",
    "SELECT tenant, meter, subject, dimensions, window_start AS hour, arrayJoin(uniques) AS value"  # noqa: S608
    f" FROM {ROLLUPS.name} WHERE notEmpty(uniques)",
)
"""The values of UNIQUE_COUNT meters, one a row and some of them several times: their numbers do not add up over rows of
the other views, but here `uniqExact(value)` is right over any range, subjects and dimensions."""

VIEWS = (USAGE_HOURLY, USAGE_DAILY, USAGE_UNIQUES)
