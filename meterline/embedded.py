"""The embedded runtime: PostgreSQL, ClickHouse, the log and the worker over one data directory, in one process.

Owns the directory's lock: one process has it, and it is free the moment that process ends, however it ends.
"""

import fcntl
import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from meterline.system import System
from meterline.worker import Worker
from schemas.configuration import ConfigurationError, Fault
from stores.clickhouse import Client, open_embedded, query
from stores.log import Log
from stores.postgres import embedded_server, engine_for, migrate
from stores.postgres_log import PostgresLog, open_log

PARTITIONS = 1  # one worker follows them all: more would only make its batches smaller
_ADDRESS = "server.json"
_CLICKHOUSE = "clickhouse"


class InUseError(RuntimeError):
    """Another process has the data directory, and does not answer requests."""


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
    with _locked(directory), embedded_server(directory / "postgres") as url:
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


@contextmanager
def announced(directory: Path, url: str, key: str | None = None) -> Iterator[None]:
    """Let other commands find the server of this directory, while it runs, and the key that it takes from them."""
    address = directory / _ADDRESS
    address.unlink(missing_ok=True)
    with open(os.open(address, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123  with a mode
        file.write(orjson.dumps({"url": url, "pid": os.getpid(), "key": key}))
    try:
        yield
    finally:
        address.unlink(missing_ok=True)


def server_of(directory: Path) -> tuple[str, str | None] | None:
    """The URL of the server that has the directory, and the key it takes, if any; None when nobody has the directory.

    Raises InUseError when a process has it that is no server, or one that does not listen yet.
    """
    if not directory.exists():
        return None
    try:
        with _locked(directory):
            return None
    except InUseError:
        address = directory / _ADDRESS
        if not address.exists():
            raise
        server = orjson.loads(address.read_bytes())
        return server["url"], server.get("key")


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{directory} is in use by another meterline process; wait for it to end, or use another --data"
            raise InUseError(message) from None
        yield


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
