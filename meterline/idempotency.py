"""Idempotency keys: a call that is made again has its effect once, and gets the same answer.

Owns that key, effect and answer are committed together, under a unique constraint: nobody looks first and acts then.
Killed at any moment, either all three are there or none. A call that was refused leaves no key: it may be mended and
sent again under the same one.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from ingest.api import problem_response
from ingest.request import RefusedError
from schemas.api_key import Access
from schemas.configuration import ConfigurationError
from schemas.identity import content_digest, digest

HEADER = "Idempotency-Key"
KEY_LENGTH_MAX = 255
KEPT = timedelta(days=4)  # longer than a webhook is tried; a key that moved money is kept for ever
BODY_BYTES_MAX = 256 << 10
RETRY_AFTER_S = 1

logger = logging.getLogger(__name__)

Handler = Callable[[Request, sa.Connection], Response]
"""What a route does with a request, whose body is `body_of(request)`, in a transaction. An answer from 400 on, or an
exception, takes back all that it did."""


class _Unshown(bytes):
    """An answer's body: it may hold a secret, and is not shown in the error of a statement."""

    def __repr__(self) -> str:
        return "..."


@dataclass(frozen=True)
class Call:
    """A request that has an idempotency key."""

    tenant: str
    key: str
    request_hash: str


def idempotent(
    database: sa.Engine,
    handler: Handler,
    *,
    moves_money: bool = False,
    bytes_max: int = BODY_BYTES_MAX,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Callable[[Request], Awaitable[Response]]:
    """A Starlette route that runs the handler in a transaction of its own, once an idempotency key.

    Without a key each call has its effect. With one that was used, the stored answer comes again, marked
    `Idempotent-Replayed: true`; 422 where the request is another one, 409 while the first is still in flight.
    """

    async def route(request: Request) -> Response:
        try:
            call = await call_of(request, bytes_max)
        except RefusedError as refused:
            return problem_response(refused)
        return await asyncio.to_thread(answered, database, handler, request, call, moves_money, now)

    return route


async def call_of(request: Request, bytes_max: int = BODY_BYTES_MAX) -> Call | None:
    """Read a request's body, for `body_of`, and its key; None when it has none. Raises RefusedError."""
    request.state.body = await _read(request, bytes_max)
    keys = request.headers.getlist(HEADER)
    if not keys:
        return None
    if len(keys) > 1 or not 0 < len(keys[0]) <= KEY_LENGTH_MAX or not (keys[0].isascii() and keys[0].isprintable()):
        detail = f"{HEADER}: allowed: one, of 1 to {KEY_LENGTH_MAX} printable ASCII characters"
        raise RefusedError(HTTPStatus.BAD_REQUEST, detail)
    access: Access = request.state.access
    body = content_digest(request.state.body)
    hashed = digest(request.method, request.url.path, request.url.query, body)
    return Call(access.tenant, keys[0], hashed)


def exact_body_of(request: Request) -> dict[str, Any]:
    """As `body_of`, with numbers as they were written: a Decimal where they have a point. Raises RefusedError."""
    body_of(request)
    try:
        parsed: dict[str, Any] = json.loads(request.state.body, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
    return parsed


def answered(
    database: sa.Engine,
    handler: Handler,
    request: Request,
    call: Call | None,
    moves_money: bool,
    now: Callable[[], datetime],
) -> Response:
    """The answer to one request, in a transaction of its own: what a route of `idempotent` does."""
    try:
        with database.connect() as connection:  # which takes back what is not committed
            answer = call and _begun(connection, call, moves_money, now())
            if not answer:
                answer = handler(request, connection)
                if call:
                    _finish(connection, call, answer)
            if answer.status_code < HTTPStatus.BAD_REQUEST:
                connection.commit()
            return answer
    except RefusedError as refused:
        return problem_response(refused)
    except sa.exc.DataError as error:  # a text that PostgreSQL has no place for, such as one with a NUL
        return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error.orig)))
    except ConfigurationError as error:
        listed = [{"field": fault.key, "value": fault.value, "message": fault.allowed} for fault in error.faults]
        return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error), validationErrors=listed))


def body_of(request: Request) -> dict[str, Any]:
    """The object of JSON that a request to an idempotent route sent. Raises RefusedError."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(HTTPStatus.BAD_REQUEST, "allowed content type: application/json")
    try:
        parsed = orjson.loads(request.state.body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "allowed: a body that is an object")
    return parsed


def unused(connection: sa.Connection, calls: Sequence[Call]) -> set[Call]:
    """Those of one tenant's calls whose key is new, and which nobody else answers until the transaction ends."""
    query = """SELECT key, pg_try_advisory_xact_lock(hashtextextended('idempotency ' || :tenant || ' ' || key, 0))
                   AND NOT EXISTS (SELECT FROM idempotency_keys k WHERE k.tenant = :tenant AND k.key = wanted.key)
               FROM unnest(CAST(:keys AS text[])) AS wanted (key)"""
    by_key = {call.key: call for call in reversed(calls)}  # of two with one key the first
    if not by_key:
        return set()
    keys = {"tenant": calls[0].tenant, "keys": list(by_key)}
    return {by_key[key] for key, free in connection.execute(sa.text(query), keys) if free}


def keep(connection: sa.Connection, answers: Mapping[Call, Response], *, moves_money: bool, now: datetime) -> None:
    """Store the answers to calls that `unused` gave. Raises IntegrityError where somebody was faster after all."""
    query = """INSERT INTO idempotency_keys (tenant, key, request_hash, moves_money, created_at, status, headers, body)
               VALUES (:tenant, :key, :request_hash, :moves_money, :now, :status, CAST(:headers AS json), :body)"""
    rows = [{**vars(call), "moves_money": moves_money, "now": now, **_stored(answer)}
            for call, answer in answers.items()]  # fmt: skip
    if rows:
        connection.execute(sa.text(query), rows)


def forget_keys(connection: sa.Connection, now: datetime) -> int:
    """Delete the keys that are older than KEPT and moved no money; returns how many."""
    done = connection.execute(
        sa.text("DELETE FROM idempotency_keys WHERE NOT moves_money AND created_at < :before"), {"before": now - KEPT}
    )
    return done.rowcount


def _begun(connection: sa.Connection, call: Call, moves_money: bool, now: datetime) -> Response | None:
    """Take the key for this transaction, or return the answer that was given under it. Raises RefusedError."""
    # The lock only says "in flight" at once, where the constraint would wait. It is the constraint that decides.
    free = connection.execute(
        sa.text("SELECT pg_try_advisory_xact_lock(hashtextextended('idempotency ' || :tenant || ' ' || :key, 0))"),
        vars(call),
    ).scalar_one()
    if not free:
        refused = RefusedError(HTTPStatus.CONFLICT, "a request with this idempotency key is in flight; try again")
        refused.headers["Retry-After"] = str(RETRY_AFTER_S)
        raise refused
    new = connection.execute(
        sa.text("""INSERT INTO idempotency_keys (tenant, key, request_hash, moves_money, created_at)
                   VALUES (:tenant, :key, :request_hash, :moves_money, :now) ON CONFLICT DO NOTHING"""),
        {**vars(call), "moves_money": moves_money, "now": now},
    ).rowcount
    if new:
        return None
    row = connection.execute(
        sa.text("""SELECT request_hash, status, CAST(headers AS text) AS headers, body FROM idempotency_keys
                   WHERE tenant = :tenant AND key = :key"""),
        vars(call),
    ).one()
    if row.request_hash != call.request_hash:
        detail = "this idempotency key was used for another request; a new request needs a new key"
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    headers = {**json.loads(row.headers), "Idempotent-Replayed": "true"}
    return Response(bytes(row.body), status_code=row.status, headers=headers)


def _finish(connection: sa.Connection, call: Call, answer: Response) -> None:
    connection.execute(
        sa.text("""UPDATE idempotency_keys SET status = :status, headers = CAST(:headers AS json), body = :body
                   WHERE tenant = :tenant AND key = :key"""),
        {**vars(call), **_stored(answer)},
    )


def _stored(answer: Response) -> dict[str, Any]:
    headers = {name: value for name, value in answer.headers.items() if name != "content-length"}
    return {"status": answer.status_code, "headers": json.dumps(headers), "body": _Unshown(answer.body)}


async def _read(request: Request, bytes_max: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > bytes_max:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {bytes_max} bytes")
    return bytes(body)
