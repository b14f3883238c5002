"""Who may ask for what: every request is let in here, or refused, before any route sees it.

Owns two rules. A route that is not listed needs the scope admin and the tenant default, so one that was forgotten is
closed and not open. And a request's tenant is its key's: it stands in `request.state.access`, and in
`request.state.tenant` for those who need no more of it.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from http import HTTPStatus

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aggregation.api import http_problem
from ingest.api import problem_response
from ingest.request import Refusal, RefusedError
from meterline.known_keys import KeysAwayError, KnownKeys
from meterline.listening import is_loopback
from meterline.openapi import description_route, without_names
from schemas.api_key import Access, bearer_token, opens, presented_key
from schemas.api_key import ApiKey as Key
from schemas.api_key import Scope as KeyScope
from schemas.tenant import DEFAULT_TENANT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What a route asks of a key."""

    scope: KeyScope
    every_tenant: bool = False
    """Whether the route keeps to the tenant of `request.state.access`. One that does not is the default tenant's."""


WITHOUT_KEYS = Access(DEFAULT_TENANT, frozenset(KeyScope))
"""A request where no keys are in use."""
UNLISTED = Rule(KeyScope.ADMIN)
RULES = {
    "POST /api/v1/events": Rule(KeyScope.INGEST, every_tenant=True),
    "GET /api/v1/meters": Rule(KeyScope.QUERY, every_tenant=True),  # meters are the same for all tenants
    "GET /api/v1/meters/{}": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/meters/{}/query": Rule(KeyScope.QUERY, every_tenant=True),
    "POST /api/v1/meters/{}/query": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/meters/{}/subjects": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/meters/{}/group-by/{}/values": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/events": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/events/rejected": Rule(KeyScope.QUERY, every_tenant=True),  # what is no tenant's: for admins alone
    "GET /api/v2/events": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/debug/metrics": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/usage/explain": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/keys": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/keys": Rule(KeyScope.ADMIN, every_tenant=True),
    "DELETE /api/v1/keys/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/events": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/billing/events/{}": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/billing/webhooks": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/webhooks": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/webhooks/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "PATCH /api/v1/billing/webhooks/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "DELETE /api/v1/billing/webhooks/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/webhooks/{}/secret": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/webhooks/{}/test": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/webhooks/{}/redeliver": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/webhooks/{}/deliveries": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/webhooks/{}/deliveries/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/webhooks/{}/deliveries/{}/redeliver": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices": Rule(KeyScope.ADMIN, every_tenant=True),
    "PUT /api/v1/billing/invoices/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "DELETE /api/v1/billing/invoices/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/invoices": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/billing/invoices/{}": Rule(KeyScope.QUERY, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/finalize": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/payments": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/payment_failures": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/apply_credit": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/void": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/invoices/{}/uncollectible": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/invoices/{}/schedule": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/billing/wallets": Rule(KeyScope.QUERY, every_tenant=True),
    "GET /api/v1/billing/customers/{}/wallet": Rule(KeyScope.QUERY, every_tenant=True),
    "POST /api/v1/billing/customers/{}/wallet/top_ups": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/settlements": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/settlements/flags": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/settlements/flags/{}/resolve": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/customers/{}/credit": Rule(KeyScope.QUERY, every_tenant=True),
    "POST /api/v1/billing/customers/{}/credit/refunds": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/ledger/entries": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/ledger/entries": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/ledger/entries/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/ledger/balances": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/credit_notes": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/billing/credit_notes": Rule(KeyScope.ADMIN, every_tenant=True),
    "GET /api/v1/billing/credit_notes/{}": Rule(KeyScope.ADMIN, every_tenant=True),
    "POST /api/v1/operations/{}": Rule(KeyScope.ADMIN),  # they work on the tenant default
    "GET /metrics": Rule(KeyScope.ADMIN),  # they count what all tenants do
}
"""By method and path, `{}` for each parameter of the path. HEAD is GET."""
OPEN = {"GET /healthz", "GET /readyz", "GET /api/swagger.json"}
OPEN_ON_LOOPBACK = {"GET /metrics"}
_PROXIED = ("forwarded", "x-forwarded-for", "via")  # who came through a proxy is not on this machine


@dataclass(frozen=True)
class Keys:
    """The keys in use: those of the store, and one that whoever reads the data directory has."""

    known: KnownKeys
    local: Key | None = None


class RequireAccess:
    """ASGI middleware: lets a request in with what its key may do, or answers 401 or 403. Without keys, lets all in."""

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute], keys: Keys | None) -> None:
        self._app = app
        self._routes = routes
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "no route takes anything else, and nobody would ask for its key"
        request = Request(scope, receive)
        try:
            request.state.access = access = await self._access(request)
            request.state.tenant = access.tenant
        except RefusedError as refused:
            await problem_response(refused)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _access(self, request: Request) -> Access:
        """What the request may do. Raises RefusedError."""
        if self._keys is None:
            return WITHOUT_KEYS
        name = route_name(self._routes, request.scope)
        if name in OPEN or (name in OPEN_ON_LOOPBACK and _comes_from_here(request)):
            return Access(DEFAULT_TENANT, frozenset())
        key = await self._key(request, self._keys)
        rule = RULES.get(name, UNLISTED) if name else None  # without a route, nothing but 404 or 405 comes of it
        if rule and rule.scope not in key.scopes:
            raise _forbidden(f"the key {key.id} has not the scope {rule.scope}", rule.scope)
        if rule and not rule.every_tenant and key.tenant != DEFAULT_TENANT:
            detail = (
                f"{name} is for keys of the tenant {DEFAULT_TENANT}; the key {key.id} is of the tenant {key.tenant}"
            )
            raise _forbidden(detail, rule.scope)
        return Access(key.tenant, key.scopes, key.id, key.events_per_second, has_local_key=key is self._keys.local)

    async def _key(self, request: Request, keys: Keys) -> Key:
        headers = request.headers.getlist("authorization")
        if not headers:
            raise _unauthorized("a key is needed: Authorization: Bearer ml_...", "")
        token = bearer_token(headers[0]) if len(headers) == 1 else None
        presented = presented_key(token) if token else None
        if presented is None:
            raise _unauthorized(
                "the Authorization header holds no key; allowed: Bearer ml_...", ', error="invalid_token"'
            )
        if keys.local and opens(keys.local, presented):
            return keys.local
        try:
            key = await keys.known.find(presented)
        except KeysAwayError:
            detail = "it cannot be said now whether the key is in force; nothing was stored; try again"
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, detail, Refusal.KEY) from None
        if key is None:
            raise _unauthorized("the key is not known, or was revoked", ', error="invalid_token"')
        return key


def guarded(
    routes: Sequence[BaseRoute],
    keys: Keys | None,
    *,
    lifespan: Callable[[Starlette], AbstractAsyncContextManager[None]],
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """An application of these routes and their description, behind this guard, which without keys lets all in."""
    routes = [*routes, description_route(route_names(routes))]

    @asynccontextmanager
    async def with_keys(app: Starlette) -> AsyncIterator[None]:
        async with keys.known.running() if keys else nullcontext(), lifespan(app):
            yield

    return Starlette(
        routes=routes,
        middleware=[*middleware, Middleware(RequireAccess, routes=routes, keys=keys)],
        exception_handlers={sa.exc.OperationalError: _away, HTTPException: http_problem},
        lifespan=with_keys,
    )


async def body_of(request: Request, bytes_max: int) -> bytes:
    """The body of a request of JSON. Raises RefusedError when it is of another type, or longer."""
    if request.headers.get("content-type") != "application/json":
        raise RefusedError(HTTPStatus.BAD_REQUEST, "allowed content type: application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {bytes_max} bytes")
    return bytes(body)


async def _away(_: Request, error: Exception) -> Response:
    logger.warning("PostgreSQL is away: %s", type(error).__name__)
    return problem_response(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "PostgreSQL is away; try again"))


def route_name(routes: Sequence[BaseRoute], scope: Scope) -> str | None:
    """The method and path of the route that a request goes to, as RULES names it; None when it goes to none.

    A route of another kind than Route is named by its kind, which nothing lists.
    """
    for route in routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return f"{_method(scope['method'])} {path_of(route)}"
    return None


def route_names(routes: Sequence[BaseRoute]) -> set[str]:
    """The names of all routes, as RULES has them."""
    listed = [route for route in routes if isinstance(route, Route)]
    return {f"{_method(method)} {path_of(route)}" for route in listed for method in route.methods or ()}


def path_of(route: BaseRoute) -> str:
    """A route's path, with `{}` for each parameter.

    >>> path_of(Route("/api/v1/keys/{id:str}", lambda request: None))
    '/api/v1/keys/{}'
    """
    return without_names(route.path) if isinstance(route, Route) else type(route).__name__


def may_read_files(request: Request) -> bool:
    """Whether a request comes from somebody who can read this machine's files anyhow."""
    access: Access = request.state.access
    return access.has_local_key or (access is WITHOUT_KEYS and _comes_from_here(request))


def _method(method: str) -> str:
    return "GET" if method == "HEAD" else method


def _comes_from_here(request: Request) -> bool:
    proxied = any(name in request.headers for name in _PROXIED)
    return request.client is not None and is_loopback(request.client.host) and not proxied


def _unauthorized(detail: str, error: str) -> RefusedError:
    refused = RefusedError(HTTPStatus.UNAUTHORIZED, detail, Refusal.KEY)
    refused.headers["WWW-Authenticate"] = f'Bearer realm="meterline"{error}'
    return refused


def _forbidden(detail: str, scope: KeyScope) -> RefusedError:
    refused = RefusedError(HTTPStatus.FORBIDDEN, detail, Refusal.SCOPE, scope=scope)
    refused.headers["WWW-Authenticate"] = f'Bearer realm="meterline", error="insufficient_scope", scope="{scope}"'
    return refused
