"""API keys as commands and as routes: make one, list them, revoke one. The only place where a key is made.

Owns that a key is shown once, to whoever made it, and that over HTTP everybody keeps to the tenant of the own key.
"""

import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.api import problem_response
from ingest.request import RefusedError
from meterline.access import body_of
from meterline.output import Output, Table, Text
from meterline.system import System
from schemas.api_key import (
    ID_BYTES,
    SECRET_BYTES,
    Access,
    ApiKey,
    NewKey,
    Scope,
    TenantLimit,
    is_key_id,
    key_text,
    presented_key,
    secret_hash,
)
from schemas.configuration import ConfigurationError, Fault, faults_of
from stores import api_keys as store

BODY_BYTES_MAX = 16 << 10

Model = TypeVar("Model", bound=BaseModel)

logger = logging.getLogger(__name__)


def make_key(wanted: NewKey, now: datetime) -> tuple[str, ApiKey]:
    """A new key: its text, to be shown once, and what is stored. Raises ValueError for a scope that is none."""
    text = key_text(secrets.token_bytes(ID_BYTES), secrets.token_bytes(SECRET_BYTES))
    presented = presented_key(text)
    assert presented
    hashed = secret_hash(presented.secret)
    return text, ApiKey(presented.id, wanted.tenant, wanted.name, wanted.scope_set, hashed, now)


def local_key() -> tuple[str, ApiKey]:
    """A key for as long as a server runs: for commands beside it, which can read its data directory anyhow."""
    return make_key(NewKey(name="this machine", scopes=tuple(Scope)), datetime.now(UTC))


def refuse_without_keys(database: sa.Engine, host: str) -> None:
    """Raises ConfigurationError when there is no key in force: then nobody could use what listens at this address."""
    if not store.any_key_in_force(database):
        allowed = (
            "allowed: make one first, meterline keys create --scope admin; or, to serve whoever comes, --without-keys"
        )
        raise ConfigurationError([Fault("command line", "--host", f"{host} needs keys, and there are none", allowed)])


def create_key(app: System, *, tenant: str, scope: str, name: str) -> Iterator[Output]:
    """Make a key and show it, once."""
    scopes = tuple(each.strip() for each in scope.split(","))
    wanted = _checked(NewKey, {"tenant": tenant, "name": name, "scopes": scopes})
    text, key = make_key(wanted, datetime.now(UTC))
    store.create_key(app.database, key)
    yield Text(text=text)


def list_keys(app: System, *, tenant: str | None) -> Iterator[Output]:
    """The keys of a tenant, or of all."""
    keys = store.keys_of(app.database, tenant)
    yield Table(
        title=f"{len(keys)} keys" + (f" of {tenant}" if tenant else ""),
        columns=("id", "tenant", "name", "scopes", "created", "revoked"),
        rows=[
            (key.id, key.tenant, key.name, ",".join(sorted(key.scopes)), _instant(key.created_at) or "",
             _instant(key.revoked_at) or "")
            for key in keys
        ],
    )  # fmt: skip


def revoke_key(app: System, *, key_id: str) -> Iterator[Output]:
    """Revoke a key."""
    if not is_key_id(key_id) or not store.revoke_key(app.database, key_id, tenant=None, revoked_at=datetime.now(UTC)):
        raise LookupError(f"no key {key_id}; meterline keys list shows the ids")
    yield Text(text=f"{key_id}: revoked; it stops working within a few seconds")


def limit_tenant(app: System, *, tenant: str, events_per_second: int | None) -> Iterator[Output]:
    """Set how many events a tenant may send a second."""
    store.limit_tenant(app.database, _checked(TenantLimit, {"tenant": tenant, "events_per_second": events_per_second}))
    yield Text(text=f"{tenant}: {f'{events_per_second:,} events a second' if events_per_second else 'as gateways say'}")


def key_routes(database: sa.Engine) -> list[Route]:
    """The routes of keys."""

    async def list_own(request: Request) -> Response:
        access: Access = request.state.access
        keys = await run_in_threadpool(store.keys_of, database, access.tenant)
        return _json([_shown(key) for key in keys])

    async def create_own(request: Request) -> Response:
        access: Access = request.state.access
        try:
            wanted = await _wanted(request, access.tenant)
            text, key = make_key(wanted, datetime.now(UTC))
        except RefusedError as refused:
            return problem_response(refused)
        except ValueError as error:
            return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error)))
        await run_in_threadpool(store.create_key, database, key)
        logger.info("key %s of %s made by %s", key.id, key.tenant, access.key_id)
        return _json({**_shown(key), "key": text}, HTTPStatus.CREATED)

    async def revoke_own(request: Request) -> Response:
        access: Access = request.state.access
        key_id = request.path_params["id"]
        now = datetime.now(UTC)
        if not is_key_id(key_id) or not await run_in_threadpool(
            store.revoke_key, database, key_id, tenant=access.tenant, revoked_at=now
        ):
            return problem_response(RefusedError(HTTPStatus.NOT_FOUND, "no such key"))
        logger.info("key %s of %s revoked by %s", key_id, access.tenant, access.key_id)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return [
        Route("/api/v1/keys", list_own, methods=["GET"]),
        Route("/api/v1/keys", create_own, methods=["POST"]),
        Route("/api/v1/keys/{id}", revoke_own, methods=["DELETE"]),
    ]


async def _wanted(request: Request, tenant: str) -> NewKey:
    """What a request asks for. Raises RefusedError."""
    body = await body_of(request, BODY_BYTES_MAX)
    try:
        fields: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, 'allowed: an object such as {"name":"ci","scopes":["ingest"]}')
    if fields.setdefault("tenant", tenant) != tenant:
        raise RefusedError(HTTPStatus.FORBIDDEN, f"the key is of the tenant {tenant}, and makes keys of no other")
    scopes = fields.get("scopes")
    try:
        return _checked(NewKey, {**fields, "scopes": tuple(scopes) if isinstance(scopes, list) else scopes})
    except ConfigurationError as error:
        listed = [{"field": fault.key, "detail": fault.allowed} for fault in error.faults]
        detail = f"{len(listed)} faults; nothing was made"
        raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=listed) from None


def _checked(model: type[Model], fields: dict[str, Any]) -> Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, "key")) from error


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id, "tenant": key.tenant, "name": key.name, "scopes": sorted(key.scopes),
        "createdAt": _instant(key.created_at), "revokedAt": _instant(key.revoked_at),
    }  # fmt: skip


def _instant(at: datetime | None) -> str | None:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else None


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)
