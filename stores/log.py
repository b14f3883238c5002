"""The log: appended to by the gateway, cut and configured by punctuation, followed by the aggregation.

Where the records are is the subclass's business (a Kafka topic, or a table of PostgreSQL). What their punctuation
stands for, barriers and versions of the configuration, is always in PostgreSQL. Owns that a version is committed there
before a record names it, so whoever reads the record finds the version.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

import sqlalchemy as sa

from schemas.log import Configure, LogConfig, Punctuation
from schemas.meter import Meter


class MeterTimes(NamedTuple):
    """When a meter was first in force, and since when it is defined as it was last."""

    created_at: datetime
    updated_at: datetime


class Log(ABC):
    """A log by its id. Safe to share between threads."""

    def __init__(self, engine: sa.Engine, log_id: str, partitions: int) -> None:
        self._engine = engine
        self.log_id = log_id
        self.partitions = partitions
        self._configs = {0: LogConfig()}

    @abstractmethod
    def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records. On return they are durable; after an error some of them may be, too."""

    @abstractmethod
    def punctuate(self, punctuation: Punctuation, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """Write punctuation to partitions, or to all; returns, for each, the offset behind it.

        Writing the same one again, after an error, does no harm.
        """

    @abstractmethod
    def close(self) -> None:
        """Give up the connections."""

    def new_barrier(self, connection: sa.Connection, reason: str) -> int:
        """A barrier's number, inside the caller's transaction. Once that is committed, `punctuate` cuts the log."""
        number: int = connection.execute(
            sa.text("INSERT INTO barriers (reason) VALUES (:reason) RETURNING number"), {"reason": reason}
        ).scalar_one()
        return number

    def configure(self, config: LogConfig) -> int:
        """Put a configuration in force, if it is not the newest already; returns its version."""
        return self.reconfigure(lambda _newest, _known: config)

    def reconfigure(self, change: Callable[[LogConfig, tuple[Meter, ...]], LogConfig]) -> int:
        """Put in force what a change makes of the newest configuration, if that is another one; returns its version.

        `change` is called with the newest configuration and with every meter that ever was in force. No other writer
        comes in between; where it raises, nothing has changed.
        """
        with self._engine.begin() as connection:
            connection.execute(sa.text("LOCK TABLE config_versions IN EXCLUSIVE MODE"))
            versions = _versions(connection)
            newest = max(versions, default=0)
            before = versions.get(newest, LogConfig())
            config = change(before, _every_meter(versions))
            if newest and before.digest == config.digest:
                version = newest
            else:
                version = connection.execute(
                    sa.text("INSERT INTO config_versions (digest, body) VALUES (:digest, :body) RETURNING version"),
                    {"digest": config.digest, "body": config.canonical().decode()},
                ).scalar_one()
        self.publish()
        return version

    def publish(self) -> None:
        """Write the configuration's newest version to the log, unless it is there: a process may have died before.

        A new log gets the empty configuration, so that its first records name it before any event stands in it.
        """
        with self._engine.connect() as connection:
            versions = connection.execute(
                sa.text(
                    "SELECT max(version) AS newest, (SELECT max(version) FROM published_versions"
                    " WHERE log_id = :log_id) AS published FROM config_versions"
                ),
                {"log_id": self.log_id},
            ).one()
        if versions.newest is None:
            self.configure(LogConfig())
        if versions.newest in {None, versions.published}:
            return
        self.punctuate(Configure(versions.newest, self.log_id))
        with self._engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO published_versions (log_id, version) VALUES (:log_id, :version) ON CONFLICT DO NOTHING"
                ),
                {"log_id": self.log_id, "version": versions.newest},
            )

    def config(self, version: int) -> LogConfig:
        """A version of the configuration. Version 0 is the empty one, in force before the first."""
        if version not in self._configs:
            with self._engine.connect() as connection:
                body = connection.execute(
                    sa.text("SELECT body FROM config_versions WHERE version = :version"), {"version": version}
                ).scalar_one()
            self._configs[version] = LogConfig.model_validate_json(body)
        return self._configs[version]

    def newest_config(self) -> LogConfig:
        """The newest version of the configuration; the empty one if there is none."""
        with self._engine.connect() as connection:
            version = connection.execute(sa.text("SELECT max(version) FROM config_versions")).scalar_one()
        return self.config(version or 0)

    def meters(self) -> tuple[Meter, ...]:
        """Every meter that ever was in force, by slug, as defined last. Usage of a withdrawn one stays billable."""
        with self._engine.connect() as connection:
            return _every_meter(_versions(connection))

    def meter_times(self, slug: str) -> MeterTimes:
        """Since when a meter is known, and known as it is. Raises LookupError where it never was in force."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT written_at, body FROM config_versions ORDER BY version")).all()
        defined = [
            (row.written_at, meter)
            for row in rows
            for meter in LogConfig.model_validate_json(row.body).meters
            if meter.slug == slug
        ]
        if not defined:
            raise LookupError(f"{slug}: no such meter was ever in force")
        changes = [at for (at, meter), (_, before) in zip(defined[1:], defined, strict=False) if meter != before]
        return MeterTimes(defined[0][0], changes[-1] if changes else defined[0][0])


def _versions(connection: sa.Connection) -> dict[int, LogConfig]:
    """Every version of the configuration, oldest first."""
    rows = connection.execute(sa.text("SELECT version, body FROM config_versions ORDER BY version"))
    return {version: LogConfig.model_validate_json(body) for version, body in rows}


def _every_meter(versions: dict[int, LogConfig]) -> tuple[Meter, ...]:
    known = {meter.slug: meter for config in versions.values() for meter in config.meters}
    return tuple(known[slug] for slug in sorted(known))
