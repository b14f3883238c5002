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

from schemas.log import Barrier, Configure, Flush, LogConfig, Punctuation, Record, punctuation_key
from schemas.meter import Meter

READ_RECORDS_MAX = 4096


class PostgresLog:
    """Append to and read from the log. Safe to share between threads; each call uses a connection of its own."""

    def __init__(self, engine: sa.Engine, log_id: str, partitions: int) -> None:
        self._engine = engine
        self.log_id = log_id
        self.partitions = partitions
        self.on_append: Callable[[], None] = lambda: None
        """Called after each commit, so that a reader in the same process need not poll."""

    def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records, all or none; on return they are durable. Values are stored LZ4-compressed."""
        with self._engine.begin() as connection:
            self.append_within(connection, records)
        self.on_append()

    def append_within(self, connection: sa.Connection, records: Iterable[tuple[int, bytes]]) -> None:
        """As `append`, inside the caller's transaction; call `on_append` once it is committed."""
        _append(connection, [(partition, None, lz4.frame.compress(value)) for partition, value in records])

    def flush(self, partition: int) -> None:
        """End the batch that is open in a partition."""
        with self._engine.begin() as connection:
            _append(connection, [(partition, punctuation_key(Flush()), None)])
        self.on_append()

    def write_barrier(self, connection: sa.Connection, reason: str) -> int:
        """Cut the whole log, inside the caller's transaction; returns the barrier's number."""
        number: int = connection.execute(
            sa.text("INSERT INTO barriers (reason) VALUES (:reason) RETURNING number"), {"reason": reason}
        ).scalar_one()
        self._punctuate(connection, Barrier(number))
        return number

    def configure(self, config: LogConfig) -> int:
        """Put a configuration in force, if it is not the newest already; returns its version."""
        with self._engine.begin() as connection:
            version = self.configure_within(connection, config)
        self.on_append()
        return version

    def configure_within(self, connection: sa.Connection, config: LogConfig) -> int:
        """As `configure`, inside the caller's transaction; call `on_append` once it is committed."""
        newest = connection.execute(
            sa.text("SELECT version, digest FROM config_versions ORDER BY version DESC LIMIT 1")
        ).one_or_none()
        if newest is not None and newest.digest == config.digest:
            return int(newest.version)
        version: int = connection.execute(
            sa.text("INSERT INTO config_versions (digest, body) VALUES (:digest, :body) RETURNING version"),
            {"digest": config.digest, "body": config.canonical().decode()},
        ).scalar_one()
        self._punctuate(connection, Configure(version, self.log_id))
        return version

    def config(self, version: int) -> LogConfig:
        """A version of the configuration. Version 0 is the empty one, in force before the first."""
        if version == 0:
            return LogConfig()
        with self._engine.connect() as connection:
            body = connection.execute(
                sa.text("SELECT body FROM config_versions WHERE version = :version"), {"version": version}
            ).scalar_one()
        return LogConfig.model_validate_json(body)

    def newest_config(self) -> LogConfig:
        """The newest version of the configuration; the empty one if there is none."""
        with self._engine.connect() as connection:
            version = connection.execute(sa.text("SELECT max(version) FROM config_versions")).scalar_one()
        return self.config(version or 0)

    def meters(self) -> tuple[Meter, ...]:
        """Every meter that ever was in force, by slug, as defined last. Usage of a withdrawn one stays billable."""
        with self._engine.connect() as connection:
            bodies = connection.execute(sa.text("SELECT body FROM config_versions ORDER BY version")).scalars().all()
        known = {meter.slug: meter for body in bodies for meter in LogConfig.model_validate_json(body).meters}
        return tuple(known[slug] for slug in sorted(known))

    def read(self, partition: int, offset: int, bytes_max: int) -> list[Record]:
        """The records from an offset on, in order: about `bytes_max` stored bytes of them, at least one if any."""
        with self._engine.connect() as connection:
            cursor = _driver(connection).cursor(binary=True)
            rows = cursor.execute(_READ, (partition, offset, READ_RECORDS_MAX, bytes_max)).fetchall()
        return [
            Record(position, int(appended_at), key, None if value is None else lz4.frame.decompress(value))
            for position, appended_at, key, value in rows
        ]

    def end_offsets(self) -> dict[int, int]:
        """For each partition the offset that its next record will have."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT partition, next_offset FROM log_partitions ORDER BY partition"))
            return {row.partition: row.next_offset for row in rows}

    def _punctuate(self, connection: sa.Connection, punctuation: Punctuation) -> None:
        key = punctuation_key(punctuation)
        _append(connection, [(partition, key, None) for partition in range(self.partitions)])


def open_log(engine: sa.Engine, partitions: int) -> PostgresLog:
    """The database's log, made with this many partitions if there is none; an existing one keeps its number.

    The first record of each partition is the configuration without meters. It names the log, so that every batch knows
    from the start which log it is of.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE log IN EXCLUSIVE MODE"))
        log_id = connection.execute(sa.text("SELECT log_id FROM log")).scalar_one_or_none()
        if log_id is not None:
            count: int = connection.execute(sa.text("SELECT count(*) FROM log_partitions")).scalar_one()
            return PostgresLog(engine, log_id, count)
        log = PostgresLog(engine, uuid.uuid4().hex, partitions)
        connection.execute(sa.text("INSERT INTO log (log_id) VALUES (:log_id)"), {"log_id": log.log_id})
        connection.execute(
            sa.text("INSERT INTO log_partitions (partition) VALUES (:partition)"),
            [{"partition": partition} for partition in range(partitions)],
        )
        log.configure_within(connection, LogConfig())
        return log


_READ = """
SELECT "offset", (extract(epoch FROM appended_at) * 1000)::bigint, key, value FROM (
    SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY "offset")
        - coalesce(octet_length(value), 0) AS before
    FROM (SELECT * FROM log_records WHERE partition = %s AND "offset" >= %s ORDER BY "offset" LIMIT %s) next
) sized WHERE before < %s ORDER BY "offset"
"""


def _append(connection: sa.Connection, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> None:
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


def _driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver
