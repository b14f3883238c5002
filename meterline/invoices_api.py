"""Invoices over HTTP: read, rendered, and taken along their lives; and what customers have in credit.

Every call keeps to the tenant of its key. Changes take an Idempotency-Key, kept for ever where money moves, and
If-Match with the ETag of what was read. What the state of an invoice does not take is 409, with what it does take.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
import polars as pl
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.invoices import store
from invoicing.invoices.lifecycle import NotTakenError, due_of
from invoicing.invoices.store import ChangedMeanwhileError
from invoicing.ledger.store import OtherContentError
from invoicing.settlement import app
from invoicing.settlement import store as settlement
from invoicing.settlement.app import Act, ClosedPeriodError, NoCreditError
from meterline.formats import DEFAULT_LOCALE, ENDINGS, FORMATS
from meterline.idempotency import Handler, body_of, idempotent
from meterline.invoice_json import invoice_documents
from meterline.reading import number_of, reading
from meterline.rendering import document_of_invoice, rendered
from meterline.versions import etag_of, refuse_other_version
from schemas.api_key import Access
from schemas.configuration import faults_of
from schemas.domain_event import instant_text
from schemas.invoice import LINES, State
from schemas.money import MINOR_UNITS
from schemas.payment import CreditApplication, FailedPayment, Payment, Reason, Refund, WriteOff

PATH = "/api/v1/billing/invoices"
CUSTOMER = "/api/v1/billing/customers/{customer}/credit"
LIMIT_MAX = 1_000
TYPES = {
    "text": "text/plain; charset=utf-8", "json": "application/json", "html": "text/html; charset=utf-8",
    "pdf": "application/pdf", "ubl": "application/xml", "facturx": "application/pdf",
}  # fmt: skip
"""What an invoice is sent as, by its format."""
_ASKED_FOR = {"text/html": "html", "application/pdf": "pdf", "application/xml": "ubl", "text/plain": "text"}
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"

_CHECK_NOW = "SET CONSTRAINTS check_at_commit, check_ledger_at_commit IMMEDIATE"

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]
Told = TypeVar("Told", bound=BaseModel)


def invoice_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of invoices and of customers' credit."""
    changes = _Changes(now)
    money: list[tuple[str, Handler]] = [
        ("/{id}/finalize", changes.finalize), ("/{id}/payments", changes.pay), ("/{id}/apply_credit", changes.apply),
        ("/{id}/void", changes.void), ("/{id}/uncollectible", changes.give_up),
    ]  # fmt: skip
    failures = idempotent(database, _told(changes.fail), now=now)
    refunds = idempotent(database, _told(changes.refund), moves_money=True, now=now)
    return [
        Route(PATH, reading(database, _told(_list)), methods=["GET"]),
        Route(f"{PATH}/{{id}}", reading(database, _told(_get)), methods=["GET"]),
        *(
            Route(PATH + path, idempotent(database, _told(change), moves_money=True, now=now), methods=["POST"])
            for path, change in money
        ),
        Route(f"{PATH}/{{id}}/payment_failures", failures, methods=["POST"]),
        Route(CUSTOMER, reading(database, _told(_credit)), methods=["GET"]),
        Route(f"{CUSTOMER}/refunds", refunds, methods=["POST"]),
    ]


class _Changes:
    """What changes an invoice. Each runs in a transaction that commits its effect with its answer."""

    def __init__(self, now: Clock) -> None:
        self._now = now

    def finalize(self, request: Request, connection: sa.Connection) -> Response:
        """Issue a draft."""
        return _changed(connection, app.finalize(connection, self._act(request), _id(request)))

    def pay(self, request: Request, connection: sa.Connection) -> Response:
        """Book a payment: 201, or 200 where it was told before."""
        after, new = app.pay(connection, self._act(request), _id(request), _parsed(request, Payment))
        return _changed(connection, after, HTTPStatus.CREATED if new else HTTPStatus.OK)

    def fail(self, request: Request, connection: sa.Connection) -> Response:
        """Note a payment that failed: 201, or 200 where it was told before."""
        after, new = app.fail_payment(connection, self._act(request), _id(request), _parsed(request, FailedPayment))
        return _changed(connection, after, HTTPStatus.CREATED if new else HTTPStatus.OK)

    def apply(self, request: Request, connection: sa.Connection) -> Response:
        """Settle it by customer credit."""
        at_most = _parsed(request, CreditApplication).amount_minor
        return _changed(connection, app.apply_credit(connection, self._act(request), _id(request), at_most)[0])

    def void(self, request: Request, connection: sa.Connection) -> Response:
        """Void it."""
        reason = _parsed(request, Reason).reason
        return _changed(connection, app.void(connection, self._act(request), _id(request), reason))

    def give_up(self, request: Request, connection: sa.Connection) -> Response:
        """Write off what is due."""
        why = _parsed(request, WriteOff)
        return _changed(connection, app.mark_uncollectible(connection, self._act(request), _id(request), why))

    def refund(self, request: Request, connection: sa.Connection) -> Response:
        """Pay credit back: 201, or 200 where it was told before."""
        act, customer = self._act(request), request.path_params["customer"]
        new = app.refund(connection, act, customer, _parsed(request, Refund))
        connection.exec_driver_sql(_CHECK_NOW)
        return _json(_credit_document(connection, act.tenant, customer), HTTPStatus.CREATED if new else HTTPStatus.OK)

    def _act(self, request: Request) -> Act:
        access: Access = request.state.access
        by = f"key {access.key_id}" if access.key_id else "api"
        return Act(access.tenant, by, self._now(), lambda version: refuse_other_version(request, version))


def _list(request: Request, connection: sa.Connection) -> Response:
    asked = dict(request.query_params)
    if unknown := sorted(set(asked) - {"customer", "period", "state", "after", "limit"}):
        raise RefusedError(
            HTTPStatus.BAD_REQUEST, f"{', '.join(unknown)}; allowed: customer, period, state, after, limit"
        )
    state = asked.get("state")
    if state is not None and state not in set(State):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"state: allowed: {', '.join(State)}")
    limit = number_of(request, "limit", 100, LIMIT_MAX)
    found = store.invoices_of(
        connection, _tenant(request), asked.get("period"), customer=asked.get("customer"),
        state=State(state) if state else None, after=asked.get("after"), limit=limit,
    )  # fmt: skip
    documents = [_head(each) for each in invoice_documents(found, pl.DataFrame(schema=LINES))]
    more = {"next_after": documents[-1]["id"]} if documents and len(documents) == limit else {}
    return _json({"items": documents, **more})


def _get(request: Request, connection: sa.Connection) -> Response:
    form = request.query_params.get("format") or _accepted(request)
    if form is not None and form not in FORMATS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"format: allowed: {', '.join(FORMATS)}")
    found = store.invoice(connection, _tenant(request), _id(request))
    etag = etag_of(found["version"].item())
    if form is None:
        answer = _json(_document(connection, found))
    else:
        document = document_of_invoice(connection, _tenant(request), found)
        try:
            content = rendered(document, form, request.query_params.get("locale", DEFAULT_LOCALE))
        except ValueError as error:  # what the format cannot express, or a locale that there is none of
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
        name = f'inline; filename="{document.number}.{ENDINGS[form]}"'
        headers = {"Content-Disposition": name, "Content-Security-Policy": _NO_SCRIPTS, "Cache-Control": "no-store"}
        answer = Response(content, headers={**headers, "Content-Type": TYPES[form]})
    answer.headers["ETag"] = etag
    answer.headers["Vary"] = "Accept"
    return answer


def _credit(request: Request, connection: sa.Connection) -> Response:
    return _json(_credit_document(connection, _tenant(request), request.path_params["customer"]))


def _credit_document(connection: sa.Connection, tenant: str, customer: str) -> dict[str, Any]:
    found = settlement.credit(connection, tenant, [customer])
    rows = [
        {"currency": currency, "minor_units": MINOR_UNITS[currency], "credit_minor": minor}
        for currency, minor in found.select("currency", "credit_minor").rows()
    ]
    return {"customer": customer, "credit": rows}


def _changed(connection: sa.Connection, after: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The invoice as it is now. The checks of the commit run here, where they can still be told of."""
    connection.exec_driver_sql(_CHECK_NOW)
    found = store.invoice(connection, after["tenant"], after["id"])
    logger.info("invoice %s of %s is %s, version %s", after["id"], after["tenant"], after["state"], after["version"])
    answer = _json(_document(connection, found), status)
    answer.headers["ETag"] = etag_of(found["version"].item())
    return answer


def _document(connection: sa.Connection, invoice: pl.DataFrame) -> dict[str, Any]:
    """An invoice with its lines, what settled it, and who changed it."""
    key = invoice["id"].item()
    [document] = invoice_documents(invoice, store.lines_of(connection, key))
    applied = [
        {**row, "applied_at": instant_text(row["applied_at"])} for row in settlement.applications(connection, key)
    ]
    changes = [{**row, "changed_at": instant_text(row["changed_at"])} for row in settlement.changes(connection, key)]
    return {**document, "due_minor": due_of(document), "applications": applied, "changes": changes}


def _head(document: dict[str, Any]) -> dict[str, Any]:
    head = {name: value for name, value in document.items() if name != "lines"}
    return {**head, "due_minor": due_of(document)}


def _accepted(request: Request) -> str | None:
    """The format of the first type that the Accept header names and that an invoice is rendered to; None for JSON."""
    for each in request.headers.get("accept", "").split(","):
        media_type = each.partition(";")[0].strip().lower()
        if media_type in _ASKED_FOR:
            return _ASKED_FOR[media_type]
        if media_type in {"application/json", "*/*"}:
            return None
    return None


def _told(handler: Handler) -> Handler:
    """The handler, whose refusals say what is allowed."""

    def told(request: Request, connection: sa.Connection) -> Response:
        try:
            return handler(request, connection)
        except LookupError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, str(error)) from None
        except NotTakenError as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error), allowed=list(error.allowed)) from None
        except (OtherContentError, ChangedMeanwhileError, ClosedPeriodError, NoCreditError) as error:
            raise RefusedError(HTTPStatus.CONFLICT, str(error)) from None
        except RefusedError:
            raise
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from None
        except sa.exc.IntegrityError as error:  # a rule of the books, such as a period that was closed meanwhile
            reason = str(error.orig).splitlines()[0]
            raise RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason) from None

    return told


def _parsed(request: Request, model: type[Told]) -> Told:
    try:
        return model.model_validate(body_of(request))
    except ValidationError as error:
        faults = faults_of(error, "the request")
        listed = [{"field": fault.key, "value": fault.value, "message": fault.allowed} for fault in faults]
        detail = "; ".join(f"{fault.key}: {fault.allowed}" for fault in faults)
        raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=listed) from None


def _id(request: Request) -> str:
    key: str = request.path_params["id"]
    return key


def _tenant(request: Request) -> str:
    access: Access = request.state.access
    return access.tenant


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)
