"""The processes of a deployment over Kafka, ClickHouse and PostgreSQL: the gateway and the workers."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import NoReturn

import uvicorn
from faust.worker import Worker
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aggregation.app import worker_app
from ingest.api import GroupCommit
from ingest.api import routes as gateway_routes
from meterline.system import System, connected
from stores.clickhouse import open_clickhouse
from stores.kafka_log import create_topic
from stores.postgres import engine_for, migrate
from stores.servers import Servers

logger = logging.getLogger(__name__)


def create_log(servers: Servers, *, partitions: int, replication: int, replace_lost_log: bool) -> str:
    """Make the tables, the topic and the log where they are missing; returns what is there now, in words.

    Raises ConfigurationError when topic and log do not belong together.
    """
    database = engine_for(servers.postgres)
    try:
        migrate(database)
        open_clickhouse(servers.clickhouse).close()
        log = create_topic(
            database, servers, partitions=partitions, replication=replication, replace_lost_log=replace_lost_log
        )
        log.close()
        return f"{servers.topic}: the log {log.log_id} in {log.partitions} partitions"
    finally:
        database.dispose()


def run_gateway(servers: Servers, host: str, port: int) -> int:
    """Run the gateway until a signal; returns the process's exit status."""
    with connected(servers) as system:
        config = uvicorn.Config(gateway(system), host=host, port=port, log_config=None, access_log=False, loop="uvloop")
        socket = config.bind_socket()
        logger.info("gateway http://%s:%d topic=%s", *socket.getsockname()[:2], servers.topic)
        uvicorn.Server(config).run(sockets=[socket])
    return 0


def gateway(system: System) -> Starlette:
    """The gateway as an HTTP application."""
    group_commit = GroupCommit(system.log.append, system.log.partitions)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        committing = asyncio.create_task(group_commit.run())
        yield
        committing.cancel()

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        fault = group_commit.fault
        return JSONResponse(
            {"status": fault or "ok"}, status_code=HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK
        )

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            *gateway_routes(group_commit, system.log.newest_config().limits),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/metrics", metrics),
        ],
        lifespan=lifespan,
    )


def run_worker(servers: Servers, name: str | None, port: int) -> NoReturn:
    """Run a worker until a signal, and end the process with its status."""
    Worker(worker_app(servers, name=name, port=port), override_logging=False).execute_from_commandline()
    raise AssertionError("it ends the process")
