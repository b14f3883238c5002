"""The ledger over HTTP, for keys with the scope admin: each reads and posts the books of its own tenant."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.api import problem_response
from ingest.request import RefusedError
from invoicing.ledger import store
from invoicing.ledger.documents import documents_of
from meterline.access import body_of
from meterline.ledger import balance_documents, day_of, entry_documents, instant_of, posted
from schemas.configuration import ConfigurationError

BODY_BYTES_MAX = 4 << 20
PAGE_MAX = 1_000

Answer = tuple[HTTPStatus, Any]


def ledger_routes(database: sa.Engine) -> list[Route]:
    """The routes of the ledger: post entries, list them or fetch one, and balances."""

    def route(answer: Callable[[sa.Engine, str, Request, bytes], Answer]) -> Callable[[Request], Any]:
        async def answered(request: Request) -> Response:
            try:
                body = await body_of(request, BODY_BYTES_MAX) if request.method == "POST" else b""
                status, value = await run_in_threadpool(answer, database, request.state.tenant, request, body)
            except RefusedError as refused:
                return problem_response(refused)
            except ConfigurationError as error:
                listed = [
                    {"field": _text(fault.key), "detail": _text(f"{fault.value}: {fault.allowed}")}
                    for fault in error.faults
                ]
                detail = f"{len(listed)} faults; nothing was posted"
                return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=listed))
            except store.OtherContentError as error:
                return problem_response(RefusedError(HTTPStatus.CONFLICT, str(error)))
            except (ValueError, OverflowError) as error:  # an instant outside of the calendar overflows
                return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error)))
            except (sa.exc.IntegrityError, sa.exc.DataError) as error:  # a rule of the books, such as a closed period
                reason = str(error.orig).splitlines()[0]
                return problem_response(RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, reason))
            return Response(orjson.dumps(value), status_code=status, media_type="application/json")

        return answered

    return [
        Route("/api/v1/billing/ledger/entries", route(_post), methods=["POST"]),
        Route("/api/v1/billing/ledger/entries", route(_list), methods=["GET"]),
        Route("/api/v1/billing/ledger/entries/{id}", route(_fetch), methods=["GET"]),
        Route("/api/v1/billing/ledger/balances", route(_balances), methods=["GET"]),
    ]


def _post(database: sa.Engine, tenant: str, _: Request, body: bytes) -> Answer:
    """Post `{"documents": [...]}`, all or none: 201 when some were new, 200 when all were there."""
    try:
        given = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
    if not isinstance(given, dict) or set(given) != {"documents"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'allowed: an object {"documents": [...]}')
    journal, new = posted(database, tenant, documents_of(given["documents"], "the request"), now=datetime.now(UTC))
    ids = journal.entries["id"].to_list()
    return HTTPStatus.CREATED if new else HTTPStatus.OK, {"entries": ids, "posted": new}


def _list(database: sa.Engine, tenant: str, request: Request, _: bytes) -> Answer:
    """Entries by the chain's order; `after` is the sequence of the last one of the page before."""
    asked = _asked(request, {"document", "account", "from", "to", "after", "limit"})
    limit = min(int(asked.get("limit", "100")), PAGE_MAX)
    with database.connect() as connection:
        found = store.entries(
            connection, tenant, document=asked.get("document"), since=day_of(asked.get("from")),
            account=int(asked["account"]) if "account" in asked else None, through=day_of(asked.get("to")),
            after=int(asked.get("after", "0")), limit=limit,
        )  # fmt: skip
    return HTTPStatus.OK, {"entries": entry_documents(*found)}


def _fetch(database: sa.Engine, tenant: str, request: Request, _: bytes) -> Answer:
    entry = request.path_params["id"].replace("-", "")
    known = len(entry) == 32 and not set(entry) - set("0123456789abcdef")
    with database.connect() as connection:
        found = store.entries(connection, tenant, entry_id=entry) if known else None
    if found is None or found[0].is_empty():
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such entry")
    return HTTPStatus.OK, entry_documents(*found)[0]


def _balances(database: sa.Engine, tenant: str, request: Request, _: bytes) -> Answer:
    asked = _asked(request, {"asOf", "bookedThrough", "by"})
    by = tuple(each for each in asked.get("by", "").split(",") if each)
    if set(by) - {"customer", "dimension"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "by: allowed: customer, dimension, or customer,dimension")
    with database.connect() as connection:
        found = store.balances(
            connection, tenant, by=by, effective_through=day_of(asked.get("asOf")),
            booked_through=instant_of(asked.get("bookedThrough")),
        )  # fmt: skip
    return HTTPStatus.OK, {"balances": balance_documents(found)}


def _asked(request: Request, allowed: set[str]) -> dict[str, str]:
    asked = dict(request.query_params)
    if unknown := sorted(set(asked) - allowed):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"{', '.join(unknown)}; allowed: {', '.join(sorted(allowed))}")
    return asked


def _text(said: str) -> str:
    """A text that UTF-8 can have: half of a surrogate pair becomes a question mark."""
    return said.encode("utf-8", "replace").decode()
