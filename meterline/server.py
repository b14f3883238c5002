"""`meterline serve`: gateway, worker, usage queries and operations in one process, on the loopback interface.

The operations have no keys, so only this machine can reach them: the server binds to the loopback address, refuses
other Host names (a page in a browser could be made to resolve to it) and takes JSON only (which no form can send).
"""

import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from inspect import signature
from pathlib import Path

import orjson
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aggregation.api import UsageApi, http_problem
from ingest.api import GroupCommit, ThreadedLog, problem_response
from ingest.api import routes as gateway_routes
from ingest.request import RefusedError
from meterline.embedded import Embedded, announced, embedded
from meterline.operations import OPERATIONS, outputs_of
from meterline.output import encode
from meterline.system import configure_meters
from stores.clickhouse import Clients, open_embedded

HOST = "127.0.0.1"

logger = logging.getLogger(__name__)


def serve(directory: Path, port: int, meters: tuple[str, str] | None) -> int:
    """Run until a signal, or until the worker fails; returns the process's exit status. Port 0 takes a free one.

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
        config = uvicorn.Config(
            application(app), host=HOST, port=port, log_config=None, access_log=False, loop="uvloop"
        )
        socket = config.bind_socket()
        url = f"http://{HOST}:{socket.getsockname()[1]}"
        with announced(directory, url):
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


def application(app: Embedded) -> Starlette:
    """The HTTP application over the open stores."""
    limits = app.log.newest_config().limits
    group_commit = GroupCommit(ThreadedLog(app.log), app.log.partitions)
    usage = UsageApi(Clients(lambda: open_embedded(app.clickhouse_directory)), app.log.meters, app.log.config)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with group_commit.running():
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
        if request.headers.get("content-type") != "application/json":
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, "allowed content type: application/json"))
        try:
            parameters = orjson.loads(await request.body())
            signature(OPERATIONS[name]).bind(app, **parameters)
        except (orjson.JSONDecodeError, TypeError) as error:
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, f"the parameters of {name}: {error}"))

        def lines() -> Iterator[bytes]:
            yield from (encode(output) for output in outputs_of(app, name, parameters))

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    return Starlette(
        routes=[
            *gateway_routes(group_commit, lambda: limits),
            *usage.routes(),
            Route("/healthz", health),
            Route("/metrics", metrics),
            Route("/api/v1/operations/{name}", operate, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])],
        exception_handlers={HTTPException: http_problem},
        lifespan=lifespan,
    )
