"""The log and the tables, on a real PostgreSQL and a real ClickHouse engine."""

import threading
from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import psycopg
import pytest
import sqlalchemy as sa

from schemas.log import Barrier, Configure, LogConfig, Records, punctuation_of
from schemas.meter import Meter
from schemas.tables import PROGRESS, REJECTIONS, ROLLUPS
from stores.clickhouse import Client, insert, query
from stores.postgres import copy_out
from stores.postgres_log import PostgresLog, open_log


@pytest.fixture
def log(database: sa.Engine) -> PostgresLog:
    return open_log(database, 3)


def columns(records: Records) -> tuple[list[int], list[bytes | None]]:
    return records.offsets.tolist(), [record.value for record in records]


def test_records_come_back_in_order_from_any_offset(log: PostgresLog) -> None:
    """Offsets are dense in each partition, and a read starts where it is asked to."""
    log.append([(0, b"a"), (1, b"b"), (0, b"c")])
    log.append([(0, b"d" * 100_000)])
    assert [*zip(*columns(log.read(0, 2, 1 << 20)), strict=True)] == [(2, b"c"), (3, b"d" * 100_000)]
    assert log.end_offsets() == {0: 4, 1: 2, 2: 1}


def test_a_read_is_bounded_but_never_empty(log: PostgresLog) -> None:
    """However small the bound, the next record comes."""
    log.append([(0, bytes([n]) * 1000) for n in range(5)])
    assert log.read(0, 2, 1).offsets.tolist() == [2]


def test_an_append_is_all_or_nothing(log: PostgresLog) -> None:
    """A record for a partition that is not there takes the whole append with it."""
    with pytest.raises(sa.exc.NoResultFound):
        log.append([(0, b"a"), (9, b"b")])
    assert log.end_offsets() == {0: 1, 1: 1, 2: 1}


def test_concurrent_writers_leave_no_gap_and_a_reader_never_misses_one(log: PostgresLog) -> None:
    """A reader that follows the log sees every offset, in order, while four writers append to two partitions."""
    seen: list[int] = []
    done = threading.Event()

    def write(number: int) -> None:
        for n in range(25):
            log.append(
                [(0, b"%d-%d" % (number, n)), (1, b"x")] if number % 2 else [(1, b"x"), (0, b"%d-%d" % (number, n))]
            )

    def follow() -> None:
        while len(seen) <= 100:
            seen.extend(log.read(0, len(seen), 1 << 20).offsets.tolist())
        done.set()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)] + [threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    assert done.wait(60)
    for thread in threads:
        thread.join()
    assert seen == list(range(101))


def test_punctuation_reaches_every_partition(log: PostgresLog, database: sa.Engine) -> None:
    """A configuration and a barrier stand at one place in each partition; the same configuration stands only once."""
    config = LogConfig(meters=(Meter(slug="calls", event_type="call", aggregation="COUNT"),))
    assert (log.configure(config), log.configure(config)) == (2, 2)
    with database.begin() as connection:
        number = log.new_barrier(connection, "test")
    assert log.punctuate(Barrier(number)) == {0: 3, 1: 3, 2: 3}
    for partition in range(3):
        keys = [punctuation_of(record.key) for record in log.read(partition, 0, 1 << 20)]
        assert keys == [Configure(1, log.log_id), Configure(2, log.log_id), Barrier(number)]
    assert log.config(2) == config == log.newest_config()


def test_a_record_never_changes(log: PostgresLog, database: sa.Engine) -> None:
    """The database refuses to change, delete or truncate what is in the log."""
    log.append([(0, b"a")])
    for statement in ("UPDATE log_records SET value = ''", "DELETE FROM log_records", "TRUNCATE log_records CASCADE"):
        with pytest.raises(sa.exc.DBAPIError, match="its rows never change") as error, database.begin() as connection:
            connection.execute(sa.text(statement))
        assert isinstance(error.value.orig, psycopg.errors.RestrictViolation)


def test_a_log_keeps_its_id_and_partitions(log: PostgresLog, database: sa.Engine) -> None:
    """Opening again, even asking for other partitions, gives the same log."""
    again = open_log(database, 7)
    assert (again.log_id, again.partitions) == (log.log_id, 3)


def rollup(subject: str, count: int, total: str) -> pl.DataFrame:
    row = {
        "tenant": "default", "meter": "m", "subject": subject, "dimensions": [{"key": "a", "value": "b"}],
        "window_start": datetime(2013, 1, 31, 23, tzinfo=UTC), "epoch": 3, "count": count, "sum": total,
        "min": None, "max": total, "uniques": [subject], "latest": [],
    }  # fmt: skip
    schema = {**ROLLUPS.frame, **dict.fromkeys(("sum", "min", "max"), pl.String)}
    return pl.DataFrame([row], schema=schema).cast(ROLLUPS.frame)


def test_a_token_counts_once_and_deltas_add_up(clickhouse: Client) -> None:
    """The same token again changes nothing; another one adds to the same key, exactly, to the last of 38 digits."""
    most = "99999999999999999999999999999.999999999"
    insert(clickhouse, ROLLUPS, rollup("x", 1, "0.000000001"), "t1")
    insert(clickhouse, ROLLUPS, rollup("x", 1, "0.000000001"), "t1")
    insert(clickhouse, ROLLUPS, rollup("x", 2, most), "t2")
    clickhouse.command("OPTIMIZE TABLE rollups FINAL")
    row = query(clickhouse, "SELECT count, toString(max) AS max, dimensions['a'] AS a, uniques FROM rollups").row(
        0, named=True
    )
    assert row == {"count": 3, "max": most, "a": "b", "uniques": ["x"]}


def test_views_add_up_the_rollups(clickhouse: Client) -> None:
    """A row an hour, and a row a day, whatever epochs the usage came in; their columns are those that are documented."""
    insert(clickhouse, ROLLUPS, rollup("x", 1, "0.5"), "t1")
    later = rollup("y", 2, "1.25").with_columns(epoch=pl.lit(9, pl.UInt32), subject=pl.lit("x"))
    insert(clickhouse, ROLLUPS, later, "t2")
    for view, window in (("usage_hourly", "hour"), ("usage_daily", "day")):
        rows = query(clickhouse, f"SELECT * FROM {view} WHERE {window} < '2013-02-01'")
        assert rows.columns == [
            "tenant", "meter", "subject", "dimensions", window, "events", "sum", "min", "max", "uniques",
        ]  # fmt: skip
        assert rows.select("subject", "events", "uniques").rows() == [("x", 3, 2)]
        assert [str(value) for value in rows.select("sum", "max").row(0)] == ["1.750000000", "1.250000000"]
    values = query(clickhouse, "SELECT * FROM usage_uniques ORDER BY value")
    assert values.columns == ["tenant", "meter", "subject", "dimensions", "hour", "value"]
    assert values["value"].to_list() == ["x", "y"]


def test_bytes_survive(clickhouse: Client) -> None:
    """A rejected line is stored byte for byte, whatever its bytes are."""
    raw = bytes(range(256))
    row = {
        "reason": "not_utf8",
        "detail": "",
        "raw": raw,
        "partition": 1,
        "offset": 2,
        "line": 3,
        "appended_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    insert(clickhouse, REJECTIONS, pl.DataFrame([row], schema=REJECTIONS.frame), "t")
    assert query(clickhouse, "SELECT hex(raw) AS raw FROM rejections")["raw"].item() == raw.hex().upper()


def test_an_empty_frame_is_no_insert(clickhouse: Client) -> None:
    """A batch of punctuation alone stores its progress and nothing else."""
    insert(clickhouse, PROGRESS, pl.DataFrame(schema=PROGRESS.frame), "t")
    assert query(clickhouse, "SELECT count() AS n FROM progress")["n"].item() == 0


def test_rows_are_copied_out_each_value_of_its_type(database: sa.Engine) -> None:
    """Exact decimals, instants with and without parts of a second, days, truth, an empty text and none, and a line end."""
    at = datetime(2026, 1, 31, 23, 59, 59, 120_000, tzinfo=UTC)
    row = {
        "n": -(2**62), "d": Decimal("0.000000001"), "at": at, "whole": at.replace(microsecond=0), "day": at.date(),
        "yes": True, "no": False, "text": 'a "b",\n\\N é', "empty": "", "none": None,
    }  # fmt: skip
    schema = {
        "n": pl.Int64, "d": pl.Decimal(38, 9), "at": pl.Datetime("us", "UTC"), "whole": pl.Datetime("us", "UTC"),
        "day": pl.Date, "yes": pl.Boolean, "no": pl.Boolean, "text": pl.String, "empty": pl.String, "none": pl.Date,
    }  # fmt: skip
    kinds = (
        "bigint",
        "numeric(38, 9)",
        "timestamptz",
        "timestamptz",
        "date",
        "boolean",
        "boolean",
        "text",
        "text",
        "date",
    )
    values = ", ".join(f"CAST(%({name})s AS {kind})" for name, kind in zip(row, kinds, strict=True))
    with database.connect() as connection:
        assert copy_out(connection, f"SELECT {values}", row, schema).rows(named=True) == [row]
        assert copy_out(connection, f"SELECT {values} LIMIT 0", row, schema).schema == schema
