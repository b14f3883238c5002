"""`meterline serve`: gateway, worker, usage queries and operations in one process.

On the loopback address no keys are needed, so only this machine may reach it: the server refuses other Host names (a
page in a browser could be made to resolve to it) and takes JSON only (which no form can send). At other addresses keys
are in use, and it does not start without any.
"""

import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aggregation.api import UsageApi
from ingest.api import GroupCommit, ThreadedLog, problem_response
from ingest.api import routes as gateway_routes
from ingest.rate_limit import RateLimits
from ingest.request import Refusal, RefusedError
from ingest.store import replays_of
from meterline.access import Keys, body_of, guarded, may_read_files
from meterline.billing_api import billing_routes
from meterline.customers import customers_of
from meterline.directory import announced
from meterline.embedded import Embedded, embedded
from meterline.keys import key_routes, local_key, refuse_without_keys
from meterline.known_keys import KnownKeys
from meterline.listening import HOST, Listening, is_loopback
from meterline.meters_api import meter_routes
from meterline.operations import LOCAL_OPERATIONS, OPERATIONS, checked_parameters, outputs_of
from meterline.output import encode
from meterline.publisher import sending_webhooks
from meterline.rollups import backfills_of
from meterline.system import configure_meters
from meterline.webhooks import private_allowed
from stores.api_keys import look_up
from stores.clickhouse import Clients, open_embedded

OPERATION_BYTES_MAX = 32 << 20  # a list of repaired rejections may be long

logger = logging.getLogger(__name__)


def serve(directory: Path, listening: Listening, meters: tuple[str, str] | None) -> int:
    """Run until a signal, or until the worker fails; returns the process's exit status.

    `meters` is the text of a meter file and the file's name.

    Raises ConfigurationError and InUseError before anything is served.
    """
    failed = False
    server: uvicorn.Server | None = None

    def stop_serving() -> None:
        nonlocal failed
        failed = True
        if server:
            server.should_exit = True

    with embedded(directory, on_failure=stop_serving) as app:
        if meters:
            configure_meters(app.log, *meters)
        key, keys = None, None
        if listening.uses_keys:
            refuse_without_keys(app.database, listening.host)
            key, local = local_key()
            keys = Keys(KnownKeys(partial(look_up, app.database)), local)
        config = uvicorn.Config(
            application(app, listening, keys),
            host=listening.host,
            port=listening.port,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            ws="none",
            loop="uvloop",
        )
        socket = config.bind_socket()
        url = f"http://{_local_host(listening.host)}:{socket.getsockname()[1]}"
        with announced(directory, url, key):
            logger.info("serving %s data=%s", url, directory)
            server = Server(config)
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, server.handle_exit)
            if not failed:
                server.run(sockets=[socket])
    return 1 if failed else 0


class Server(uvicorn.Server):
    """A server that leaves the signals to us: uvicorn would raise them again, before the stores are closed."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture nothing."""
        yield


def application(app: Embedded, listening: Listening, keys: Keys | None) -> Starlette:
    """The HTTP application over the open stores."""
    limits = app.log.newest_config().limits
    group_commit = GroupCommit(ThreadedLog(app.log), app.log.partitions)
    usage = UsageApi(
        Clients(lambda: open_embedded(app.clickhouse_directory)),
        app.log,
        partial(backfills_of, app.database, app.log),
        partial(customers_of, app.database),
        partial(replays_of, app.database),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with group_commit.running(), sending_webhooks(app.database):
            yield
        usage.close()

    async def health(_: Request) -> Response:
        healthy = app.follower.failure is None
        return JSONResponse(
            {"status": "ok" if healthy else "the worker has stopped"},
            status_code=HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE,
        )

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    async def operate(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in OPERATIONS:
            return problem_response(RefusedError(HTTPStatus.NOT_FOUND, f"no operation {name}"))
        if name in LOCAL_OPERATIONS and not may_read_files(request):
            detail = f"{name} is about files of the server's machine; send usage to /api/v1/events, or run it there"
            return problem_response(RefusedError(HTTPStatus.FORBIDDEN, detail, Refusal.SCOPE))
        try:
            parameters = checked_parameters(name, orjson.loads(await body_of(request, OPERATION_BYTES_MAX)))
        except RefusedError as refused:
            return problem_response(refused)
        except ValueError as error:
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, f"the parameters of {name}: {error}"))

        def lines() -> Iterator[bytes]:
            yield from (encode(output) for output in outputs_of(app, name, parameters))

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    hosts = [HOST, "localhost", listening.host]
    return guarded(
        [
            *gateway_routes(group_commit, lambda: limits, RateLimits(time.monotonic_ns, listening.events_per_second)),
            *key_routes(app.database),
            *meter_routes(app.log),
            *billing_routes(app.database, private_targets=private_allowed(os.environ)),
            *usage.routes(),
            Route("/healthz", health),
            Route("/metrics", metrics),
            Route("/api/v1/operations/{name}", operate, methods=["POST"]),
        ],
        keys,
        middleware=[]
        if keys or not is_loopback(listening.host)
        else [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        lifespan=lifespan,
    )


def _local_host(host: str) -> str:
    """Where commands of this machine find a server that listens there.

    >>> _local_host("0.0.0.0"), _local_host("::"), _local_host("10.0.0.5")
    ('127.0.0.1', '[::1]', '10.0.0.5')
    """
    local = {"0.0.0.0": HOST, "": HOST, "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound
    return f"[{local}]" if ":" in local else local
