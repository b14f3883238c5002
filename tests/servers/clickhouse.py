"""A ClickHouse server for tests and benchmarks: chdb in a process of its own, behind ClickHouse's HTTP interface.

    python -m tests.servers.clickhouse --path DIR --port 0

Owns the life of that process: it can be killed, stopped and frozen, and starts again over the same directory and on the
same port, with all that was acknowledged.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.servers import plain_http

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT_S = 60.0
CONTROL_TIMEOUT_S = 10.0


@dataclass
class ClickHouse:
    """A server over a directory, on a port that it keeps: give one, or take the one it finds free."""

    directory: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start it, and wait until it answers. The faults asked for before are forgotten."""
        assert self.process is None, "it runs"
        command = [
            sys.executable,
            "-m",
            "tests.servers.clickhouse",
            "--path",
            str(self.directory),
            "--port",
            str(self.port),
        ]
        self.process = subprocess.Popen([*command, "--child"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        told = self.process.stdout.readline()
        if not told:
            self._reap()
            raise RuntimeError(f"the ClickHouse of {self.directory} did not start; it says why on standard error")
        self.port = int(told.rpartition(":")[2])
        return self

    @property
    def url(self) -> str:
        """Where it listens, be it running or not."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self.process, "it does not run"
        return self.process.pid

    def kill(self) -> None:
        """End it at once, whatever it does."""
        os.kill(self.pid, signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """Let it answer what it was asked, and end it. Does nothing where it does not run."""
        if self.process:
            self.process.terminate()
            self.resume()
            self._reap()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Thaw it."""
        os.kill(self.pid, signal.SIGCONT)

    def lose_answers(self, count: int, matching: str = "") -> None:
        """Execute the next `count` statements that contain this text, and hang up without an answer.

        The client asks a query again once by itself, so that two lost answers are one error. It does not repeat an
        an insert, whose body it holds in a buffer of Arrow's; there one lost answer is one error.
        """
        self._add({"kind": "lose", "count": count, "matching": matching})

    def refuse(self, count: int, matching: str = "") -> None:
        """Answer the next `count` statements that contain this text with status 503, and do not execute them."""
        self._add({"kind": "refuse", "count": count, "matching": matching})

    def slow_down(self, seconds: float, matching: str = "") -> None:
        """Let every statement that contains this text wait before it is executed."""
        self._add({"kind": "slow", "seconds": seconds, "matching": matching})

    def heal(self) -> None:
        """Let nothing more go wrong."""
        plain_http.delete(f"{self.url}/faults", timeout=CONTROL_TIMEOUT_S).raise_for_status()

    def _add(self, rule: dict[str, Any]) -> None:
        plain_http.put(f"{self.url}/faults", json=rule, timeout=CONTROL_TIMEOUT_S).raise_for_status()

    def _reap(self) -> None:
        assert self.process
        assert self.process.stdout
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Serve a directory until SIGTERM or SIGINT."""
    from tests.servers.clickhouse_http import Server  # the engine belongs in the process that serves, and in no other

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--path", type=Path, required=True, help="the directory of the tables")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--child", action="store_true", help="end when the process that started this one ends")
    chosen = options.parse_args()
    chosen.path.mkdir(parents=True, exist_ok=True)
    parent = os.getppid()
    server = Server(chosen.path.resolve(), chosen.port)
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked_to_stop.set())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening on {server.url}", flush=True)  # noqa: T201 - it is how a starter learns the port
    while not asked_to_stop.wait(0.5):
        if chosen.child and os.getppid() != parent:
            break
    server.shutdown()
    server.finish()


if __name__ == "__main__":
    main()
