"""The ledger over HTTP, for keys with the scope admin: each reads and posts the books of its own tenant.

Posting takes an Idempotency-Key, which is kept for ever. Without one it is safe to repeat, too: a
document is posted once.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.ledger import store
from invoicing.ledger.documents import documents_of
from meterline.idempotency import exact_body_of, idempotent
from meterline.ledger import balance_documents, day_of, entry_documents, instant_of, posted_in
from meterline.reading import reading
from meterline.refusals import asked, check_now, json_answer, tenant_of, told

PATH = "/api/v1/billing/ledger"
BODY_BYTES_MAX = 4 << 20
PAGE_MAX = 1_000

Clock = Callable[[], datetime]


def ledger_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of the ledger: post entries, list them or fetch one, and balances."""

    def post(request: Request, connection: sa.Connection) -> Response:
        return _post(request, connection, now())

    posting = idempotent(database, told(post), moves_money=True, bytes_max=BODY_BYTES_MAX, now=now)
    return [
        Route(f"{PATH}/entries", posting, methods=["POST"]),
        Route(f"{PATH}/entries", reading(database, told(_list)), methods=["GET"]),
        Route(f"{PATH}/entries/{{id}}", reading(database, told(_fetch)), methods=["GET"]),
        Route(f"{PATH}/balances", reading(database, told(_balances)), methods=["GET"]),
    ]


def _post(request: Request, connection: sa.Connection, at: datetime) -> Response:
    """Post `{"documents": [...]}`, all or none: 201 when some were new, 200 when all were there."""
    given = exact_body_of(request)
    if set(given) != {"documents"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'allowed: an object {"documents": [...]}')
    documents = documents_of(given["documents"], "the request")
    journal, new = posted_in(connection, tenant_of(request), documents, now=at)
    check_now(connection)
    status = HTTPStatus.CREATED if new else HTTPStatus.OK
    return json_answer({"entries": journal.entries["id"].to_list(), "posted": new}, status)


def _list(request: Request, connection: sa.Connection) -> Response:
    """Entries by the chain's order; `after` is the sequence of the last one of the page before."""
    query = asked(request, "document", "account", "from", "to", "after", "limit")
    found = store.entries(
        connection, tenant_of(request), document=query.get("document"), since=day_of(query.get("from")),
        account=int(query["account"]) if "account" in query else None, through=day_of(query.get("to")),
        after=int(query.get("after", "0")), limit=min(int(query.get("limit", "100")), PAGE_MAX),
    )  # fmt: skip
    return json_answer({"entries": entry_documents(*found)})


def _fetch(request: Request, connection: sa.Connection) -> Response:
    entry = request.path_params["id"].replace("-", "")
    known = len(entry) == 32 and not set(entry) - set("0123456789abcdef")
    found = store.entries(connection, tenant_of(request), entry_id=entry) if known else None
    if found is None or found[0].is_empty():
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such entry")
    return json_answer(entry_documents(*found)[0])


def _balances(request: Request, connection: sa.Connection) -> Response:
    query = asked(request, "as_of", "booked_through", "by")
    by = tuple(each for each in query.get("by", "").split(",") if each)
    if set(by) - {"customer", "dimension"}:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "by: allowed: customer, dimension, or customer,dimension")
    found = store.balances(
        connection, tenant_of(request), by=by, effective_through=day_of(query.get("as_of")),
        booked_through=instant_of(query.get("booked_through")),
    )  # fmt: skip
    return json_answer({"balances": balance_documents(found)})
