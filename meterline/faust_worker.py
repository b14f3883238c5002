"""A worker of a deployment, as a process. Loads what a worker needs and no more, so that it restarts quickly."""

from typing import NoReturn

from faust.worker import Worker

from aggregation.app import worker_app
from stores.servers import Servers


def run_worker(servers: Servers, name: str | None, port: int) -> NoReturn:
    """Run a worker until a signal, and end the process with its status."""
    Worker(worker_app(servers, name=name, port=port), override_logging=False).execute_from_commandline()
    raise AssertionError("it ends the process")
