"""The log as a table of PostgreSQL, for the embedded mode.

Owns that a record, once its transaction is committed, has a place in its partition for ever, and that a reader never
overtakes a writer: a partition's row is locked while records are added, so offsets become visible in their order.
"""

import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lz4.frame
import psycopg
import sqlalchemy as sa

from schemas.log import Punctuation, Record, Records, punctuation_key
from stores.log import Log

READ_RECORDS_MAX = 4096


class PostgresLog(Log):
    """Append to and read from the log; each call uses a connection of its own."""

    def __init__(self, engine: sa.Engine, log_id: str, partitions: int) -> None:
        super().__init__(engine, log_id, partitions)
        self.on_append: Callable[[], None] = lambda: None
        """Called after each commit, so that a reader in the same process need not poll."""

    def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records, all or none; on return they are durable. Values are stored LZ4-compressed."""
        self._append([(partition, None, lz4.frame.compress(value)) for partition, value in records])

    def punctuate(self, punctuation: Punctuation, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """Write punctuation to partitions, or to all; returns, for each, the offset behind it."""
        key = punctuation_key(punctuation)
        return self._append([(partition, key, None) for partition in partitions or range(self.partitions)])

    def close(self) -> None:
        """Nothing to do: the engine is the caller's."""

    def read(self, partition: int, offset: int, bytes_max: int) -> Records:
        """The records from an offset on, in order: about `bytes_max` stored bytes of them, at least one if any."""
        with self._engine.connect() as connection:
            cursor = _driver(connection).cursor(binary=True)
            rows = cursor.execute(_READ, (partition, offset, READ_RECORDS_MAX, bytes_max)).fetchall()
        return Records.of(
            Record(position, int(appended_at), key, None if value is None else lz4.frame.decompress(value))
            for position, appended_at, key, value in rows
        )

    def end_offsets(self) -> dict[int, int]:
        """For each partition the offset that its next record will have."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT partition, next_offset FROM log_partitions ORDER BY partition"))
            return {row.partition: row.next_offset for row in rows}

    def _append(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> dict[int, int]:
        with self._engine.begin() as connection:
            offsets = _append(connection, records)
        self.on_append()
        return offsets


def open_log(engine: sa.Engine, partitions: int) -> PostgresLog:
    """The log of this database, made with so many partitions if it is new; a log keeps the number it was made with.

    The first record of every partition is a configuration, the empty one, and names the log. So no insert token is
    ever made of a log without its id.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE log IN EXCLUSIVE MODE"))
        log_id = connection.execute(sa.text("SELECT log_id FROM log")).scalar_one_or_none()
        if log_id is None:
            log_id = uuid.uuid4().hex
            connection.execute(sa.text("INSERT INTO log (log_id) VALUES (:log_id)"), {"log_id": log_id})
            connection.execute(
                sa.text("INSERT INTO log_partitions (partition) VALUES (:partition)"),
                [{"partition": partition} for partition in range(partitions)],
            )
        count: int = connection.execute(sa.text("SELECT count(*) FROM log_partitions")).scalar_one()
    log = PostgresLog(engine, log_id, count)
    log.publish()
    return log


_READ = """
SELECT "offset", (extract(epoch FROM appended_at) * 1000)::bigint, key, value FROM (
    SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY "offset")
        - coalesce(octet_length(value), 0) AS before
    FROM (SELECT * FROM log_records WHERE partition = %s AND "offset" >= %s ORDER BY "offset" LIMIT %s) next
) sized WHERE before < %s ORDER BY "offset"
"""


def _append(connection: sa.Connection, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> dict[int, int]:
    """Add (partition, key, value) records; returns, for each partition, the offset behind its last one."""
    counts: dict[int, int] = {}
    for partition, _, _ in records:
        counts[partition] = counts.get(partition, 0) + 1
    offsets = {}
    for partition in sorted(counts):  # in one order, so that two writers cannot wait for each other
        offsets[partition] = connection.execute(
            sa.text(
                "UPDATE log_partitions SET next_offset = next_offset + :count WHERE partition = :partition"
                " RETURNING next_offset - :count"
            ),
            {"count": counts[partition], "partition": partition},
        ).scalar_one()
    copy = 'COPY log_records (partition, "offset", key, value) FROM STDIN WITH (FORMAT BINARY)'
    with _driver(connection).cursor().copy(copy) as rows:
        rows.set_types(["int4", "int8", "bytea", "bytea"])
        for partition, key, value in records:
            rows.write_row((partition, offsets[partition], key, value))
            offsets[partition] += 1
    return offsets


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
