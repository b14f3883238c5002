"""Routes that read from PostgreSQL, and the numbers that they are asked with."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from ingest.api import problem_response
from ingest.request import RefusedError
from meterline.idempotency import Handler


def reading(database: sa.Engine, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette route that answers from a connection of its own; what is refused is a problem."""

    def read(request: Request) -> Response:
        try:
            with database.connect() as connection:
                return handler(request, connection)
        except RefusedError as refused:
            return problem_response(refused)
        except sa.exc.DataError as error:  # a text that PostgreSQL has no place for, such as one with a NUL
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error.orig)))

    async def route(request: Request) -> Response:
        return await asyncio.to_thread(read, request)

    return route


def number_of(request: Request, name: str, default: int, most: int) -> int:
    """A whole number of the query. Raises RefusedError."""
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{name}: allowed: 0 to {most}")
    return int(text)
