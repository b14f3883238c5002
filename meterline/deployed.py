"""The gateway of a deployment over Kafka, ClickHouse and PostgreSQL, and the log that it and the workers need."""

import asyncio
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import sqlalchemy as sa
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aggregation.api import UsageApi
from ingest.api import GroupCommit
from ingest.api import routes as gateway_routes
from ingest.rate_limit import RateLimits
from ingest.store import replays_of
from meterline.access import Keys, guarded
from meterline.billing_api import billing_routes
from meterline.customers import customers_of
from meterline.keys import key_routes, refuse_without_keys
from meterline.known_keys import KnownKeys
from meterline.listening import Listening
from meterline.meters_api import meter_routes
from meterline.rollups import backfills_of
from meterline.server import Server
from meterline.webhooks import private_allowed
from schemas.log import Limits
from stores.api_keys import look_up
from stores.clickhouse import Clients, open_clickhouse
from stores.kafka_log import create_topic, open_log
from stores.kafka_producer import EVENT_BYTES_MAX, Producer
from stores.log import Log
from stores.postgres import engine_for, migrate
from stores.servers import Servers

KEEP_ALIVE_S = 75  # longer than load balancers keep a connection, so that it is theirs to close
SHUTDOWN_S = 8  # that requests in flight have; each of them is answered sooner, once its body is there
LIMITS_INTERVAL_S = 10.0
KEYS_ANSWER_S = 2
QUERY_ANSWER_S = 30
"""How long ClickHouse may keep silent about a usage query: a server that hangs must not hold all the threads."""

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


def run_gateway(servers: Servers, listening: Listening) -> int:
    """Run the gateway until a signal; returns the process's exit status. Requests in flight get their answer.

    Raises ConfigurationError before anything is served, when the log is not made yet, or no key where keys are in use.
    """
    database = engine_for(servers.postgres)
    keys_database = engine_for(servers.postgres, answers_within_s=KEYS_ANSWER_S)
    keys = Keys(KnownKeys(partial(look_up, keys_database))) if listening.uses_keys else None
    try:
        migrate(database)
        if keys:
            refuse_without_keys(database, listening.host)
        log = open_log(database, servers)
        try:
            config = uvicorn.Config(
                gateway(
                    log,
                    Producer(servers, log.partitions),
                    keys_database,
                    listening,
                    keys,
                    usage_of(servers, database, log),
                ),
                host=listening.host,
                port=listening.port,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ws="none",
                loop="uvloop",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=SHUTDOWN_S,
            )
            socket = config.bind_socket()
            logger.info("gateway http://%s:%d topic=%s", *socket.getsockname()[:2], servers.topic)
            server = Server(config)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, server.handle_exit)
            gc.freeze()  # what lives now lives as long as the process; collections need not look at it
            server.run(sockets=[socket])
        finally:
            log.close()
    finally:
        keys_database.dispose()
        database.dispose()
    return 0


def usage_of(servers: Servers, database: sa.Engine, log: Log) -> UsageApi | None:
    """Usage queries over a deployment's ClickHouse; None where it is the engine inside the worker's own process."""
    if servers.clickhouse.startswith("chdb:"):
        return None
    return UsageApi(
        Clients(partial(open_clickhouse, servers.clickhouse, answers_within_s=QUERY_ANSWER_S)),
        log,
        partial(backfills_of, database, log),
        partial(customers_of, database),
        partial(replays_of, database),
    )


def gateway(
    log: Log,
    producer: Producer,
    database: sa.Engine,
    listening: Listening,
    keys: Keys | None = None,
    usage: UsageApi | None = None,
) -> Starlette:
    """The gateway as an HTTP application. To take events it needs Kafka alone; PostgreSQL may be away once it runs.

    Usage queries need ClickHouse and PostgreSQL, and only they fail without them.
    """
    group_commit = GroupCommit(producer, log.partitions)
    limits = _limits(log)

    async def follow_limits() -> None:
        nonlocal limits
        while True:
            await asyncio.sleep(LIMITS_INTERVAL_S)
            try:
                limits = await asyncio.to_thread(_limits, log)
            except sa.exc.SQLAlchemyError as error:
                logger.warning("the limits are those of before: %r", error)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(follow_limits())
        async with group_commit.running():
            yield
        following.cancel()
        await producer.close()
        if usage:
            usage.close()

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        fault = group_commit.fault
        return JSONResponse(
            {"status": fault or "ok"}, status_code=HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK
        )

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return guarded(
        [
            *gateway_routes(group_commit, lambda: limits, RateLimits(time.monotonic_ns, listening.events_per_second)),
            *key_routes(database),
            *meter_routes(log),
            *billing_routes(database, private_targets=private_allowed(os.environ)),
            *(usage.routes() if usage else []),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/metrics", metrics),
        ],
        keys,
        lifespan=lifespan,
    )


def _limits(log: Log) -> Limits:
    """The limits in force; an event that is allowed by them, and that no record takes, is refused all the same."""
    limits = log.newest_config().limits
    return limits.model_copy(update={"event_bytes_max": min(limits.event_bytes_max, EVENT_BYTES_MAX)})
