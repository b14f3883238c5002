"""The embedded runtime: PostgreSQL, ClickHouse, the log and the worker over one data directory, in one process."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from meterline.directory import locked
from meterline.system import System
from meterline.worker import Worker
from schemas.configuration import ConfigurationError, Fault
from stores.clickhouse import Client, open_embedded, query
from stores.log import Log
from stores.postgres import embedded_server, engine_for, migrate
from stores.postgres_log import PostgresLog, open_log

PARTITIONS = 1  # one worker follows them all: more would only make its batches smaller
_CLICKHOUSE = "clickhouse"


@dataclass(frozen=True)
class Embedded(System):
    """The open stores of a data directory, and the worker that follows the log."""

    log: PostgresLog
    follower: Worker
    directory: Path

    @property
    def clickhouse_directory(self) -> Path:
        """Where the engine keeps its tables."""
        return self.directory / _CLICKHOUSE


@contextmanager
def embedded(directory: Path, on_failure: Callable[[], None] = lambda: None) -> Iterator[Embedded]:
    """Open the stores of a data directory, made if it is new, and start the worker; all is closed at the end.

    Raises InUseError when another process has the directory.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory), embedded_server(directory / "postgres") as url:
        database = engine_for(url)
        migrate(database)
        clickhouse = open_embedded(directory / _CLICKHOUSE)
        try:
            log = open_log(database, PARTITIONS)
            _refuse_other_log(clickhouse, log, directory)
            worker = Worker(log, clickhouse, on_failure)
            worker.start()
            gc.freeze()  # what lives now lives as long as the process; collections need not look at it
            try:
                yield Embedded(database, clickhouse, log, worker, directory)
            finally:
                worker.stop()
        finally:
            clickhouse.close()
            database.dispose()


def _refuse_other_log(clickhouse: Client, log: Log, directory: Path) -> None:
    others = query(
        clickhouse, "SELECT DISTINCT log_id FROM progress WHERE log_id != {log_id:String}", log_id=log.log_id
    )
    if len(others):
        value = f"the usage of the log {others['log_id'][0]}"
        allowed = (
            f"allowed: that of the log in postgres/, {log.log_id}; both folders are one whole: restore or remove both"
        )
        raise ConfigurationError([Fault(str(directory), "clickhouse/", value, allowed)])
