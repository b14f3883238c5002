"""Manual invoices over HTTP: written, written anew and deleted while they are drafts. Every call keeps to its tenant.

Calls take an Idempotency-Key, which is kept for ever, and If-Match with the ETag of what was read.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.invoices import store
from invoicing.invoices.manual import ManualInvoice, invoices_of
from invoicing.invoices.store import ChangedMeanwhileError
from invoicing.ledger.store import OtherContentError
from meterline.idempotency import Handler, exact_body_of, idempotent
from meterline.invoice_json import invoice_documents
from meterline.manual_invoices import Fate, Kept, keep, lock, remove
from meterline.versions import etag_of, refuse_other_version
from schemas.api_key import Access
from schemas.configuration import ConfigurationError

PATH = "/api/v1/billing/invoices"
_SOURCE = "the request"

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


def manual_invoice_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes that make, change and delete manual invoices."""

    def create(request: Request, connection: sa.Connection) -> Response:
        """Keep an invoice as a draft: 201 for a new reference; 200 where it is the draft's, which it replaces."""
        written = _written(request)
        known = _found(connection, _tenant(request), written.id_of(_tenant(request)))
        if known is not None:
            refuse_other_version(request, known["version"].item())
        return _shown(_kept(connection, request, written, now()))

    def replace(request: Request, connection: sa.Connection) -> Response:
        """Replace the draft with an id; its reference stays."""
        known = _draft(connection, request)
        refuse_other_version(request, known["version"].item())
        written = _written(request)
        if written.id_of(_tenant(request)) != known["id"].item():
            detail = "reference: allowed: that of the draft; an invoice of another reference is another invoice"
            raise RefusedError(HTTPStatus.BAD_REQUEST, detail)
        return _shown(_kept(connection, request, written, now()))

    def delete(request: Request, connection: sa.Connection) -> Response:
        """Delete a draft."""
        known = _draft(connection, request)
        refuse_other_version(request, known["version"].item())
        remove(connection, _tenant(request), known)
        logger.info("draft %s of %s deleted", known["id"].item(), _tenant(request))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    writes: list[tuple[str, str, Handler]] = [
        ("POST", PATH, create), ("PUT", f"{PATH}/{{id}}", replace), ("DELETE", f"{PATH}/{{id}}", delete),
    ]  # fmt: skip
    return [
        Route(path, idempotent(database, _told(write), moves_money=True, now=now), methods=[method])
        for method, path, write in writes
    ]


def _kept(connection: sa.Connection, request: Request, written: ManualInvoice, at: datetime) -> Kept:
    [kept] = keep(connection, _tenant(request), [written], source=_SOURCE, at=at)
    return kept


def _written(request: Request) -> ManualInvoice:
    """The invoice that a request holds; its numbers are texts or exact, never floats."""
    [written] = invoices_of([exact_body_of(request)], _SOURCE)
    return written


def _found(connection: sa.Connection, tenant: str, invoice_id: str) -> pl.DataFrame | None:
    """The invoice with an id, which nobody else writes until the commit; None when there is none."""
    lock(connection, invoice_id)
    try:
        found = store.invoice(connection, tenant, invoice_id)
    except LookupError:
        return None
    return found if found["id"].item() == invoice_id else None


def _draft(connection: sa.Connection, request: Request) -> pl.DataFrame:
    """The manual draft that a request names by its id. Raises RefusedError."""
    found = _found(connection, _tenant(request), request.path_params["id"])
    if found is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such invoice")
    kind, state = found["kind"].item(), found["state"].item()
    if (kind, state) != ("manual", "draft"):
        raise RefusedError(HTTPStatus.CONFLICT, f"the invoice is {kind} and {state}; allowed: a manual draft")
    return found


def _told(handler: Handler) -> Handler:
    """The handler, whose refusals say what is allowed."""

    def told(request: Request, connection: sa.Connection) -> Response:
        try:
            return handler(request, connection)
        except (OtherContentError, ChangedMeanwhileError) as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from None
        except ConfigurationError as error:
            faults = [
                {"field": _text(fault.key), "value": _text(fault.value), "message": _text(fault.allowed)}
                for fault in error.faults
            ]
            detail = f"{len(faults)} faults; nothing was stored"
            raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=faults) from None

    return told


def _shown(kept: Kept) -> Response:
    [document] = invoice_documents(kept.invoices, kept.lines)
    status = HTTPStatus.CREATED if kept.fate is Fate.CREATED else HTTPStatus.OK
    headers = {"ETag": etag_of(document["version"]), "Cache-Control": "no-store"}
    if kept.fate is Fate.CREATED:
        headers["Location"] = f"{PATH}/{document['id']}"
    return Response(_json(document), status_code=status, media_type="application/json", headers=headers)


def _json(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document)


def _tenant(request: Request) -> str:
    access: Access = request.state.access
    return access.tenant


def _text(said: str) -> str:
    """A text that UTF-8 can have: half of a surrogate pair becomes a question mark."""
    return said.encode("utf-8", "replace").decode()
