"""Invoices over HTTP: read, rendered, and taken along their lives; and what customers have in credit.

Every call keeps to the tenant of its key. Changes take an Idempotency-Key, kept for ever where money moves, and
If-Match with the ETag of what was read. What the state of an invoice does not take is 409, with what it does take.
"""

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import polars as pl
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.invoices import store
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.lifecycle import due_of
from invoicing.recognition.store import schedule_of
from invoicing.settlement import app
from invoicing.settlement import store as settlement
from invoicing.settlement.app import Act
from meterline.finalising import Finalising
from meterline.formats import DEFAULT_LOCALE, ENDINGS, FORMATS
from meterline.idempotency import Handler, idempotent
from meterline.invoice_json import invoice_documents
from meterline.reading import number_of, reading
from meterline.refusals import asked, check_now, json_answer, parsed, tenant_of, told, who_asks
from meterline.rendering import document_of_invoice, rendered
from meterline.versions import etag_of, refuse_other_version
from schemas.domain_event import instant_text
from schemas.invoice import LINES, State
from schemas.money import MINOR_UNITS
from schemas.payment import CreditApplication, FailedPayment, Payment, Reason, Refund, WriteOff

PATH = "/api/v1/billing/invoices"
CUSTOMER = "/api/v1/billing/customers/{customer:path}/credit"
"""A customer's name may hold slashes: what stands behind it is the end of the path."""
LIMIT_MAX = 1_000
TYPES = {
    "text": "text/plain; charset=utf-8", "json": "application/json", "html": "text/html; charset=utf-8",
    "pdf": "application/pdf", "ubl": "application/xml", "facturx": "application/pdf",
}  # fmt: skip
"""What an invoice is sent as, by its format."""
_ASKED_FOR = {"text/html": "html", "application/pdf": "pdf", "application/xml": "ubl", "text/plain": "text"}
_NO_SCRIPTS = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


def invoice_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of invoices and of customers' credit."""
    changes = _Changes(now)
    money: list[tuple[str, Handler]] = [
        ("/{id}/payments", changes.pay), ("/{id}/apply_credit", changes.apply), ("/{id}/void", changes.void),
        ("/{id}/uncollectible", changes.give_up),
    ]  # fmt: skip
    finalising = Finalising(database, alone=told(changes.finalize), issued=_issued, act=changes.act, now=now)
    failures = idempotent(database, told(changes.fail), now=now)
    refunds = idempotent(database, told(changes.refund), moves_money=True, now=now)
    return [
        Route(PATH, reading(database, told(_list)), methods=["GET"]),
        Route(f"{PATH}/{{id}}", reading(database, told(_get)), methods=["GET"]),
        Route(f"{PATH}/{{id}}/schedule", reading(database, told(_schedule)), methods=["GET"]),
        *(
            Route(PATH + path, idempotent(database, told(change), moves_money=True, now=now), methods=["POST"])
            for path, change in money
        ),
        Route(f"{PATH}/{{id}}/finalize", finalising.route, methods=["POST"]),
        Route(f"{PATH}/{{id}}/payment_failures", failures, methods=["POST"]),
        Route(CUSTOMER, reading(database, told(_credit)), methods=["GET"]),
        Route(f"{CUSTOMER}/refunds", refunds, methods=["POST"]),
    ]


class _Changes:
    """What changes an invoice. Each runs in a transaction that commits its effect with its answer."""

    def __init__(self, now: Clock) -> None:
        self._now = now

    def finalize(self, request: Request, connection: sa.Connection) -> Response:
        """Issue a draft."""
        act, key = self.act(request), _id(request)
        return _issued(connection, act, app.held_draft(connection, act, key))[key]

    def pay(self, request: Request, connection: sa.Connection) -> Response:
        """Book a payment: 201, or 200 where it was told before."""
        after, new = app.pay(connection, self.act(request), _id(request), parsed(request, Payment))
        return _changed(connection, after, HTTPStatus.CREATED if new else HTTPStatus.OK)

    def fail(self, request: Request, connection: sa.Connection) -> Response:
        """Note a payment that failed: 201, or 200 where it was told before."""
        after, new = app.fail_payment(connection, self.act(request), _id(request), parsed(request, FailedPayment))
        return _changed(connection, after, HTTPStatus.CREATED if new else HTTPStatus.OK)

    def apply(self, request: Request, connection: sa.Connection) -> Response:
        """Settle it by customer credit."""
        at_most = parsed(request, CreditApplication).amount_minor
        return _changed(connection, app.apply_credit(connection, self.act(request), _id(request), at_most)[0])

    def void(self, request: Request, connection: sa.Connection) -> Response:
        """Void it."""
        reason = parsed(request, Reason).reason
        return _changed(connection, app.void(connection, self.act(request), _id(request), reason))

    def give_up(self, request: Request, connection: sa.Connection) -> Response:
        """Write off what is due."""
        why = parsed(request, WriteOff)
        return _changed(connection, app.mark_uncollectible(connection, self.act(request), _id(request), why))

    def refund(self, request: Request, connection: sa.Connection) -> Response:
        """Pay credit back: 201, or 200 where it was told before."""
        act, customer = self.act(request), request.path_params["customer"]
        new = app.refund(connection, act, customer, parsed(request, Refund))
        check_now(connection)
        return json_answer(
            _credit_document(connection, act.tenant, customer), HTTPStatus.CREATED if new else HTTPStatus.OK
        )

    def act(self, request: Request) -> Act:
        """Who asks for what they ask, and when."""
        by, tenant = who_asks(request), tenant_of(request)
        return Act(tenant, by, self._now(), lambda version: refuse_other_version(request, version))


def _list(request: Request, connection: sa.Connection) -> Response:
    query = asked(request, "customer", "period", "state", "after", "limit")
    state = query.get("state")
    if state is not None and state not in set(State):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"state: allowed: {', '.join(State)}")
    limit = number_of(request, "limit", 100, LIMIT_MAX)
    found = store.invoices_of(
        connection, tenant_of(request), query.get("period"), customer=query.get("customer"),
        state=State(state) if state else None, after=query.get("after"), limit=limit,
    )  # fmt: skip
    documents = [_head(each) for each in invoice_documents(found, pl.DataFrame(schema=LINES))]
    more = {"next_after": documents[-1]["id"]} if documents and len(documents) == limit else {}
    return json_answer({"items": documents, **more})


def _get(request: Request, connection: sa.Connection) -> Response:
    form = request.query_params.get("format") or _accepted(request)
    if form is not None and form not in FORMATS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"format: allowed: {', '.join(FORMATS)}")
    found = store.invoice(connection, tenant_of(request), _id(request))
    etag = etag_of(found["version"].item())
    if form is None:
        answer = json_answer(_document(connection, found))
    else:
        document = document_of_invoice(connection, tenant_of(request), found)
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


def _schedule(request: Request, connection: sa.Connection) -> Response:
    """The months that its lines in advance are earned in, and what of them is earned."""
    found = store.invoice(connection, tenant_of(request), _id(request)).row(0, named=True)
    rows = schedule_of(connection, found["tenant"], invoice_id=found["id"]).drop("currency").to_dicts()
    left = sum(row["amount_minor"] for row in rows if not row["recognised"])
    head = {"invoice": found["number"], "currency": found["currency"], "minor_units": found["minor_units"]}
    months = [{**row, "month": f"{row['month']:%Y-%m}"} for row in rows]
    return json_answer({"id": found["id"], **head, "unearned_minor": left, "items": months})


def _credit(request: Request, connection: sa.Connection) -> Response:
    return json_answer(_credit_document(connection, tenant_of(request), request.path_params["customer"]))


def _credit_document(connection: sa.Connection, tenant: str, customer: str) -> dict[str, Any]:
    found = settlement.credit(connection, tenant, [customer])
    rows = [
        {"currency": currency, "minor_units": MINOR_UNITS[currency], "credit_minor": minor}
        for currency, minor in found.select("currency", "credit_minor").rows()
    ]
    return {"customer": customer, "credit": rows}


def _changed(connection: sa.Connection, after: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The invoice as it is now. The checks of the commit run here, where they can still be told of."""
    check_now(connection)
    found = store.invoice(connection, after["tenant"], after["id"])
    logger.info("invoice %s of %s is %s, version %s", after["id"], after["tenant"], after["state"], after["version"])
    answer = json_answer(_document(connection, found), status)
    answer.headers["ETag"] = etag_of(found["version"].item())
    return answer


def _issued(connection: sa.Connection, act: Act, drafts: Drafts) -> dict[str, Response]:
    """Issue drafts; the answers, by the invoices' ids. As in `_changed`, the checks of the commit run here."""
    invoices = app.issue_held(connection, act, drafts)
    check_now(connection)
    answers = {}
    for document in _documents(connection, invoices, drafts.lines):
        answers[document["id"]] = answer = json_answer(document)
        answer.headers["ETag"] = etag_of(document["version"])
    logger.info("%s invoices of %s are issued: %s", len(answers), act.tenant, ", ".join(invoices["number"]))
    return answers


def _document(connection: sa.Connection, invoice: pl.DataFrame) -> dict[str, Any]:
    [document] = _documents(connection, invoice, store.lines_of(connection, invoice["id"].item()))
    return document


def _documents(connection: sa.Connection, invoices: pl.DataFrame, lines: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Invoices with their lines, what settled them, and who changed them."""
    ids = invoices["id"].to_list()
    applied, changes = settlement.applications(connection, ids), settlement.changes(connection, ids)
    for document in invoice_documents(invoices, lines):
        key = document["id"]
        yield {
            **document, "due_minor": due_of(document),
            "applications": [{**row, "applied_at": instant_text(row["applied_at"])} for row in applied[key]],
            "changes": [{**row, "changed_at": instant_text(row["changed_at"])} for row in changes[key]],
        }  # fmt: skip


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


def _id(request: Request) -> str:
    key: str = request.path_params["id"]
    return key
