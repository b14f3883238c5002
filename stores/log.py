"""The log: appended to by the gateway, cut and configured by punctuation, followed by the aggregation.

Where the records are is the subclass's business (a Kafka topic, or a table of PostgreSQL). What their punctuation
stands for, barriers and versions of the configuration, is always in PostgreSQL. Owns that a version is committed there
before a record names it, so whoever reads the record finds the version.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from schemas.log import Configure, LogConfig, Punctuation
from schemas.meter import Meter, MeterTimes


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
        return _every_meter({number: config for number, (_, config) in enumerate(self._written())})

    def meter_times(self) -> dict[str, MeterTimes]:
        """Of each meter that ever was in force, since when it is known, is known as it is, and is withdrawn."""
        times: dict[str, MeterTimes] = {}
        known: dict[str, Meter] = {}
        for written_at, config in self._written():
            for meter in config.meters:
                before = times.get(meter.slug, MeterTimes(written_at, written_at))
                changed = known.get(meter.slug, meter) != meter
                times[meter.slug] = MeterTimes(before.created_at, written_at if changed else before.updated_at)
                known[meter.slug] = meter
            for slug in times.keys() - {meter.slug for meter in config.meters}:
                times[slug] = times[slug]._replace(withdrawn_at=times[slug].withdrawn_at or written_at)
        return times

    def _written(self) -> list[tuple[datetime, LogConfig]]:
        """Every version of the configuration with when it was written, oldest first. Each is read once."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT version, written_at FROM config_versions ORDER BY version")).all()
            unread = [row.version for row in rows if row.version not in self._configs]
            if unread:
                bodies = sa.text("SELECT version, body FROM config_versions WHERE version = ANY(:unread)")
                for version, body in connection.execute(bodies, {"unread": unread}):
                    self._configs[version] = LogConfig.model_validate_json(body)
        return [(row.written_at, self._configs[row.version]) for row in rows]


def _versions(connection: sa.Connection) -> dict[int, LogConfig]:
    """Every version of the configuration, oldest first."""
    rows = connection.execute(sa.text("SELECT version, body FROM config_versions ORDER BY version"))
    return {version: LogConfig.model_validate_json(body) for version, body in rows}


def _every_meter(versions: dict[int, LogConfig]) -> tuple[Meter, ...]:
    known = {meter.slug: meter for config in versions.values() for meter in config.meters}
    return tuple(known[slug] for slug in sorted(known))
