"""Wallets over HTTP: which there are, what is in one, and putting credits in.

Every call keeps to the tenant of its key. Credits are burned by invoices, and expire by a command; neither has a route.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import polars as pl
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.ledger.store import hold
from invoicing.wallets import store
from invoicing.wallets.lots import ORDER, burnable
from invoicing.wallets.store import Lot
from meterline.idempotency import idempotent
from meterline.reading import number_of, reading
from meterline.refusals import asked, check_now, json_answer, parsed, tenant_of, told
from schemas.domain_event import instant_text
from schemas.money import MINOR_UNITS
from schemas.payment import TopUp

PATH = "/api/v1/billing/wallets"
CUSTOMER = "/api/v1/billing/customers/{customer:path}/wallet"
LIMIT_MAX = 1_000

_MOVE = re.compile(r"([0-9a-f]{32})\.([0-9]{1,9})")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_SUMS = ("burnable_minor", "paid_minor", "promotional_minor")

Clock = Callable[[], datetime]


def wallet_routes(database: sa.Engine, *, now: Clock = lambda: datetime.now(UTC)) -> list[Route]:
    """The routes of wallets."""

    def list_all(request: Request, connection: sa.Connection) -> Response:
        return _list(request, connection, now())

    def show(request: Request, connection: sa.Connection) -> Response:
        return json_answer(_wallet(request, connection, now()))

    def top_up(request: Request, connection: sa.Connection) -> Response:
        return _top_up(request, connection, now())

    putting_in = idempotent(database, told(top_up), moves_money=True, now=now)
    return [
        Route(PATH, reading(database, told(list_all)), methods=["GET"]),
        Route(CUSTOMER, reading(database, told(show)), methods=["GET"]),
        Route(f"{CUSTOMER}/top_ups", putting_in, methods=["POST"]),
    ]


def _list(request: Request, connection: sa.Connection, at: datetime) -> Response:
    query = asked(request, "customer", "after", "limit")
    limit = number_of(request, "limit", 100, LIMIT_MAX)
    found = store.wallets_of(
        connection, tenant_of(request), query.get("customer"), after=query.get("after"), limit=limit
    )
    lots = store.lots_of(connection, tenant_of(request), query.get("customer"))
    items = _documents(found, lots, at)
    more = {"next_after": items[-1]["id"]} if items and len(items) == limit else {}
    return json_answer({"items": items, **more})


def _top_up(request: Request, connection: sa.Connection, at: datetime) -> Response:
    """Put credits in: 201, or 200 where the reference was told before."""
    tenant, customer, wanted = tenant_of(request), request.path_params["customer"], parsed(request, TopUp)
    if not _NAME.fullmatch(customer):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "customer: allowed: 1 to 200 characters, no control characters")
    if wanted.currency not in MINOR_UNITS:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "currency: allowed: a currency such as EUR")
    if wanted.expires_at is not None and wanted.expires_at <= at:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "expires_at: allowed: an instant to come")
    hold(connection, tenant)  # first: what is known now is known until the commit
    known = store.lots_of(connection, tenant, customer)["id"]
    lot = store.top_up(connection, tenant, Lot(customer=customer, **wanted.model_dump()), at=at)
    check_now(connection)
    document = {"lot": lot, **_wallet(request, connection, at)}
    return json_answer(document, HTTPStatus.OK if lot in known else HTTPStatus.CREATED)


def _wallet(request: Request, connection: sa.Connection, at: datetime) -> dict[str, Any]:
    """What a customer has, by currency, lot and move, each lot in the order of burning, moves newest first."""
    tenant, customer = tenant_of(request), request.path_params["customer"]
    query, limit = asked(request, "before", "limit"), number_of(request, "limit", 100, LIMIT_MAX)
    before = query.get("before")
    named = _MOVE.fullmatch(before) if before is not None else None
    if before is not None and named is None:
        raise RefusedError(HTTPStatus.BAD_REQUEST, "before: allowed: the next_before of an answer")
    lots = store.lots_of(connection, tenant, customer)
    moves = store.history_of(
        connection, tenant, customer, before=(named[1], int(named[2])) if named else None, limit=limit
    )
    last = moves.select("lot_id", "sequence").row(-1) if moves.height and moves.height == limit else None
    wallets = store.wallets_of(connection, tenant, customer, limit=len(MINOR_UNITS))
    return {
        "customer": customer,
        "wallets": _documents(wallets, lots, at),
        "lots": [_plain(row) for row in lots.sort("currency", *ORDER, nulls_last=True).drop("customer").to_dicts()],
        "moves": [_plain(row) for row in moves.to_dicts()],
        **({"next_before": f"{last[0]}.{last[1]}"} if last else {}),
    }


def _documents(wallets: pl.DataFrame, lots: pl.DataFrame, at: datetime) -> list[dict[str, Any]]:
    """Wallets as JSON has them: with what can be burned of them now, paid for or not."""
    kinds = [pl.col("balance_minor").filter(pl.col("kind") == kind).sum() for kind in ("paid", "promotional")]
    sums = burnable(lots, at).group_by("wallet_id").agg(
        burnable_minor=pl.col("balance_minor").sum(), paid_minor=kinds[0], promotional_minor=kinds[1]
    )  # fmt: skip
    whole = wallets.join(sums, left_on="id", right_on="wallet_id", how="left", maintain_order="left")
    return [
        {**row, "minor_units": MINOR_UNITS[row["currency"]]}
        for row in whole.with_columns(pl.col(*_SUMS).fill_null(0)).to_dicts()
    ]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: instant_text(value) if isinstance(value, datetime) else value for name, value in row.items()}
