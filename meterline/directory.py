"""Who has a data directory: one process at a time, and where it listens if it is a server.

Owns the directory's lock: one process has it, and it is free the moment that process ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

_ADDRESS = "server.json"


class InUseError(RuntimeError):
    """Another process has the data directory, and does not answer requests."""


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
        with locked(directory):
            return None
    except InUseError:
        address = directory / _ADDRESS
        if not address.exists():
            raise
        server = orjson.loads(address.read_bytes())
        return server["url"], server.get("key")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Have a data directory to oneself. Raises InUseError when another process has it."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{directory} is in use by another meterline process; wait for it to end, or use another --data"
            raise InUseError(message) from None
        yield
