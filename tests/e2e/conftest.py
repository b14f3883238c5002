"""A running `meterline serve`, as a process of its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from tests.servers import plain_http

METERS = """
meters:
  - {slug: calls, eventType: call, aggregation: COUNT}
  - {slug: bytes, eventType: call, aggregation: SUM, valueProperty: $.bytes, groupBy: {region: $.region}}
"""
START_TIMEOUT_S = 60.0


@dataclass
class Server:
    """A `meterline serve` over a data directory, and the command line over the same directory."""

    directory: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens, as it tells other commands."""
        return str(orjson.loads((self.directory / "server.json").read_bytes())["url"])

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory.parent / "server.log"

    def start(self, *options: str, verbose: bool = False, meters: str = METERS) -> None:
        """Start it with these meters, or, where none are named, with those in force, and wait until it answers."""
        (self.directory / "server.json").unlink(missing_ok=True)
        if meters:
            file = self.directory.parent / "meters.yaml"
            file.write_text(meters)
            options = ("--meters", str(file), *options)
        command = [sys.executable, "-m", "meterline", *(["--verbose"] if verbose else []), "serve", "--port", "0"]
        command += ["--data", str(self.directory), *options]
        with self.log.open("ab") as log:
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if plain_http.get(f"{self.url}/healthz").status_code == 200:
                    return
            except (OSError, httpx.HTTPError, ValueError):
                assert self.processes[-1].poll() is None, self.log.read_text()
                assert time.monotonic() < deadline_s, "the server did not answer"
                time.sleep(0.05)  # there is no event to wait for before the first answer

    def kill(self) -> None:
        """As a power switch would."""
        self.processes[-1].kill()
        self.processes[-1].wait()

    def stop(self) -> int:
        """As an operator would; the exit status."""
        self.processes[-1].send_signal(signal.SIGTERM)
        return self.processes[-1].wait(timeout=30)

    def run(self, *arguments: str, status: int = 0) -> str:
        """What a command over the data directory prints: its answer, or, with another status than 0, its complaint."""
        command = [sys.executable, "-m", "meterline", *arguments, "--data", str(self.directory)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def end(self) -> None:
        """Leave nothing running: neither a server nor a database that a killed server left behind."""
        for process in self.processes:
            process.kill()
            process.communicate()
        postmaster = self.directory / "postgres" / "postmaster.pid"
        if postmaster.exists():
            database = psutil.Process(int(postmaster.read_text().split()[0]))
            database.send_signal(signal.SIGQUIT)
            psutil.wait_procs([database], timeout=30)


@contextmanager
def server_in(folder: Path) -> Iterator[Server]:
    """A server over a new data directory in a folder, not started yet. At the end nothing of it runs."""
    for each in (folder, folder.parent):
        each.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    running = Server(folder / "data")
    running.directory.mkdir()
    try:
        yield running
    finally:
        running.end()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet."""
    with server_in(tmp_path) as made:
        yield made
