"""Credit notes over HTTP. Every call keeps to the tenant of its key.

A note takes an Idempotency-Key, which is kept for ever because it moves money, and If-Match with the ETag of the
invoice: its version goes on with each note.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.credit_notes import store
from invoicing.invoices.store import invoice as invoice_of
from invoicing.rendering.en16931 import NotExpressibleError
from meterline.credit_notes import document, note_document, parsed, summary, write_note
from meterline.formats import DEFAULT_LOCALE, FORMATS
from meterline.idempotency import body_of, idempotent
from meterline.reading import reading
from meterline.refusals import asked, json_answer, told
from meterline.rendering import rendered
from meterline.versions import etag_of, refuse_other_version
from schemas.api_key import Access

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
        Route(PATH, idempotent(database, told(create), moves_money=True), methods=["POST"]),
        Route(PATH, reading(database, told(_list)), methods=["GET"]),
        Route(f"{PATH}/{{id}}", reading(database, told(_get)), methods=["GET"]),
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
        return json_answer(note)
    answer = json_answer(note, HTTPStatus.CREATED)
    answer.headers["Location"] = f"{PATH}/{note['id']}"
    answer.headers["ETag"] = etag_of(note["invoice"]["version"])
    return answer


def _list(request: Request, connection: sa.Connection) -> Response:
    query = asked(request, "customer", "invoice", "after", "limit")
    limit = query.get("limit", "100")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 0 < int(limit) <= LIMIT_MAX):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"limit: allowed: 1 to {LIMIT_MAX}")
    tenant = request.state.access.tenant
    about = invoice_of(connection, tenant, query["invoice"])["id"].item() if "invoice" in query else None
    found = store.notes_of(
        connection, tenant, customer=query.get("customer"), invoice_id=about, after=query.get("after"), limit=int(limit)
    )
    items = [summary(row) for row in found.iter_rows(named=True)]
    more = {"next_after": items[-1]["number"]} if len(items) == int(limit) else {}
    return json_answer({"items": items, **more})


def _get(request: Request, connection: sa.Connection) -> Response:
    query = asked(request, "format", "locale")
    note = store.note(connection, request.state.access.tenant, request.path_params["id"])
    form = query.get("format")
    if form is None:
        return json_answer(note_document(connection, note))
    if form not in FORMATS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"format: allowed: {', '.join(FORMATS)}")
    try:
        content = rendered(document(connection, note), form, query.get("locale", DEFAULT_LOCALE))
    except NotExpressibleError as error:
        raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type=_MEDIA_TYPES[form], headers=headers)
