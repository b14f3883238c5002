"""Credit notes over HTTP. Every call keeps to the tenant of its key.

A note takes an Idempotency-Key, which is kept for ever because it moves money, and If-Match with the ETag of the
invoice: its version goes on with each note.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.api import problem_response
from ingest.request import RefusedError
from invoicing.credit_notes import store
from invoicing.credit_notes.amounts import NotCreditableError
from invoicing.invoices.store import ChangedMeanwhileError
from invoicing.invoices.store import invoice as invoice_of
from invoicing.rendering.en16931 import NotExpressibleError
from meterline.credit_notes import document, note_document, parsed, summary, write_note
from meterline.formats import DEFAULT_LOCALE, FORMATS
from meterline.idempotency import Handler, body_of, idempotent
from meterline.rendering import rendered
from meterline.versions import etag_of, refuse_other_version
from schemas.api_key import Access
from schemas.configuration import ConfigurationError

PATH = "/api/v1/billing/credit_notes"
LIMIT_MAX = 1_000
_MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8", "json": "application/json", "html": "text/html; charset=utf-8",
    "pdf": "application/pdf", "ubl": "application/xml", "facturx": "application/pdf",
}  # fmt: skip

Clock = Callable[[], datetime]


def credit_note_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of credit notes: write one, list them, fetch one in a format."""

    def create(request: Request, connection: sa.Connection) -> Response:
        return _create(request, connection, now())

    return [
        Route(PATH, idempotent(database, _told(create), moves_money=True), methods=["POST"]),
        Route(PATH, _reading(database, _list), methods=["GET"]),
        Route(f"{PATH}/{{id}}", _reading(database, _get), methods=["GET"]),
    ]


def _create(request: Request, connection: sa.Connection, now: datetime) -> Response:
    access: Access = request.state.access
    dry_run = request.query_params.get("dry_run", "false")
    if dry_run not in {"true", "false"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "dry_run: allowed: true, false")
    wanted = parsed(body_of(request))
    invoice_id = invoice_of(connection, access.tenant, wanted.invoice)["id"].item()
    version = store.locked_version(connection, access.tenant, invoice_id)
    refuse_other_version(request, version)
    by = access.key_id or "somebody without a key"
    note = write_note(connection, access.tenant, wanted, now=now, by=by, dry_run=dry_run == "true")
    if dry_run == "true":
        return _json(note)
    answer = _json(note, HTTPStatus.CREATED)
    answer.headers["Location"] = f"{PATH}/{note['id']}"
    answer.headers["ETag"] = etag_of(note["invoice"]["version"])
    return answer


def _list(request: Request, connection: sa.Connection) -> Response:
    asked = _asked(request, {"customer", "invoice", "after", "limit"})
    limit = asked.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 0 < int(limit) <= LIMIT_MAX):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"limit: allowed: 1 to {LIMIT_MAX}")
    tenant = request.state.access.tenant
    about = invoice_of(connection, tenant, asked["invoice"])["id"].item() if "invoice" in asked else None
    found = store.notes_of(
        connection, tenant, customer=asked.get("customer"), invoice_id=about, after=asked.get("after"), limit=int(limit)
    )
    items = [summary(row) for row in found.iter_rows(named=True)]
    more = {"nextAfter": items[-1]["number"]} if len(items) == int(limit) else {}
    return _json({"items": items, **more})


def _get(request: Request, connection: sa.Connection) -> Response:
    asked = _asked(request, {"format", "locale"})
    note = store.note(connection, request.state.access.tenant, request.path_params["id"])
    form = asked.get("format")
    if form is None:
        return _json(note_document(connection, note))
    if form not in FORMATS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"format: allowed: {', '.join(FORMATS)}")
    try:
        content = rendered(document(connection, note), form, asked.get("locale", DEFAULT_LOCALE))
    except NotExpressibleError as error:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_MEDIA_TYPES[form], headers=headers)


def _told(handler: Handler) -> Handler:
    """The handler, whose refusals say what is allowed."""

    def told(request: Request, connection: sa.Connection) -> Response:
        try:
            return handler(request, connection)
        except RefusedError:  # a ValueError, too
            raise
        except ConfigurationError as error:
            faults = [{"field": fault.key, "value": fault.value, "message": fault.allowed} for fault in error.faults]
            detail = "; ".join(f"{fault.key}: {fault.allowed}" for fault in error.faults)
            raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=faults) from None
        except LookupError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, str(error)) from None
        except ChangedMeanwhileError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from None
        except NotCreditableError as error:
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        except sa.exc.IntegrityError as error:  # a rule of the books, such as a closed period
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error.orig).splitlines()[0]) from None
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None

    return told


def _reading(database: sa.Engine, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    def read(request: Request) -> Response:
        try:
            with database.connect() as connection:
                return _told(handler)(request, connection)
        except RefusedError as refused:
            return problem_response(refused)
        except sa.exc.DataError as error:  # a text that PostgreSQL has no place for, such as one with a NUL
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error.orig)))

    async def route(request: Request) -> Response:
        return await asyncio.to_thread(read, request)

    return route


def _asked(request: Request, allowed: set[str]) -> dict[str, str]:
    asked = dict(request.query_params)
    if unknown := sorted(set(asked) - allowed):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}")
    return asked


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)
