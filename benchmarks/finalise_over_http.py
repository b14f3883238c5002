"""The API that finalises invoices as a process of its own, and a client that asks it at a steady rate.

    python -m benchmarks.finalise_over_http DATABASE_URL

serves the routes of invoices, without keys, until it is killed; the first line on standard output is its port.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from aiohttp import ClientSession, TCPConnector

from meterline.access import guarded
from meterline.invoices_api import PATH, invoice_routes
from stores.postgres import engine_for

HOST = "127.0.0.1"
CONNECTIONS = 100


@dataclass(frozen=True)
class Server:
    """A server's address, and its process."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """The processor time that it has used so far."""
        used = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(used[11]) + int(used[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def server(database_url: str) -> Iterator[Server]:
    """The API in a process of its own, over a database that is migrated."""
    command = [sys.executable, "-m", "benchmarks.finalise_over_http", database_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield Server(f"http://{HOST}:{process.stdout.readline().strip()}{PATH}", process.pid)
        finally:
            process.kill()


def paced(url: str, ids: Sequence[str], per_second: int) -> list[float]:
    """The seconds from the instant that each request was to come until its answer was there; all are 200.

    Each has an idempotency key, and comes whether or not those before it are answered.
    """

    async def all_of_them() -> list[float]:
        async with ClientSession(connector=TCPConnector(limit=CONNECTIONS)) as session:
            begin = time.perf_counter() + 0.1

            async def one(place: int, key: str) -> float:
                due = begin + place / per_second
                await asyncio.sleep(max(due - time.perf_counter(), 0))
                headers = {"Idempotency-Key": f"finalise {key}", "Content-Type": "application/json"}
                async with session.post(f"{url}/{key}/finalize", data=b"{}", headers=headers) as answer:
                    said = await answer.read()
                    assert answer.status == 200, said
                return time.perf_counter() - due

            return await asyncio.gather(*(one(*each) for each in enumerate(ids)))

    return asyncio.run(all_of_them())


def serve(database_url: str) -> None:
    """Serve until killed."""
    database = engine_for(database_url)
    application = guarded(invoice_routes(database), None, lifespan=lambda _: nullcontext())
    config = uvicorn.Config(application, host=HOST, port=0, log_config=None, access_log=False, ws="none", loop="uvloop")
    socket = config.bind_socket()
    print(socket.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[socket])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database_url")
    serve(parser.parse_args().database_url)
