"""Settlements over HTTP: a gateway's file is matched with the books, and what did not match is looked at.

Every call keeps to the tenant of its key. To match a file moves money: its Idempotency-Key is kept for ever.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from invoicing.reconciliation.store import flags, resolve
from meterline.idempotency import idempotent
from meterline.reading import reading
from meterline.refusals import asked, check_now, json_answer, parsed, tenant_of, told, who_asks
from meterline.settlements import reconciled, sums_of
from schemas.domain_event import instant_text
from schemas.payment import Review, Settlement

PATH = "/api/v1/billing/settlements"
BODY_BYTES_MAX = 4 << 20

Clock = Callable[[], datetime]


def settlement_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of settlements."""

    def reconcile(request: Request, connection: sa.Connection) -> Response:
        return _reconcile(request, connection, now())

    def review(request: Request, connection: sa.Connection) -> Response:
        return _resolve(request, connection, now())

    matching = idempotent(database, told(reconcile), moves_money=True, bytes_max=BODY_BYTES_MAX, now=now)
    return [
        Route(PATH, matching, methods=["POST"]),
        Route(f"{PATH}/flags", reading(database, told(_flags)), methods=["GET"]),
        Route(f"{PATH}/flags/{{id}}/resolve", idempotent(database, told(review), now=now), methods=["POST"]),
    ]


def _reconcile(request: Request, connection: sa.Connection, at: datetime) -> Response:
    """Match a payout, and post what matches. The same file again posts nothing."""
    given = parsed(request, Settlement)
    done, others = reconciled(
        connection, tenant_of(request), text=given.text, file="text", payout=given.payout, mapping=given.mapping,
        mapping_file="mapping", at=at,
    )  # fmt: skip
    check_now(connection)
    return json_answer({
        "payout": given.payout, "digest": done.result.digest, "posted": done.posted, "other_payouts": others,
        "outcomes": sums_of(done.result.matches).to_dicts(),
    })  # fmt: skip


def _flags(request: Request, connection: sa.Connection) -> Response:
    """What did not match and nobody has looked at."""
    found = flags(connection, tenant_of(request), asked(request, "payout").get("payout"))
    return json_answer({"items": found.to_dicts()})


def _resolve(request: Request, connection: sa.Connection, at: datetime) -> Response:
    """Note what came of a flag; it is not listed any more."""
    match, who, note = request.path_params["id"], who_asks(request), parsed(request, Review).note
    resolve(connection, tenant_of(request), match, who=who, note=note, at=at)
    return json_answer({"id": match, "resolved_by": who, "note": note, "resolved_at": instant_text(at)})
