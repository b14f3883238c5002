"""The stored API keys: create, list, revoke, look up. Of a secret only its hash ever comes here."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from schemas.api_key import ApiKey, Scope, TenantLimit

_COLUMNS = "id, tenant, name, scopes, secret_hash, created_at, revoked_at, events_per_second"
_KEYS = f"SELECT {_COLUMNS} FROM api_keys JOIN tenants USING (tenant)"  # noqa: S608  no value of anybody's
_TENANT = "INSERT INTO tenants (tenant) VALUES (:tenant) ON CONFLICT DO NOTHING"


def create_key(database: sa.Engine, key: ApiKey) -> None:
    """Store a new key, and its tenant where that is new."""
    with database.begin() as connection:
        connection.execute(sa.text(_TENANT), {"tenant": key.tenant})
        connection.execute(
            sa.text(
                "INSERT INTO api_keys (id, tenant, name, scopes, secret_hash, created_at)"
                " VALUES (:id, :tenant, :name, :scopes, :secret_hash, :created_at)"
            ),
            {
                "id": key.id, "tenant": key.tenant, "name": key.name, "scopes": sorted(map(str, key.scopes)),
                "secret_hash": key.secret_hash, "created_at": key.created_at,
            },
        )  # fmt: skip


def keys_of(database: sa.Engine, tenant: str | None) -> list[ApiKey]:
    """The keys of a tenant, or of all, revoked ones too; the newest first."""
    statement = f"{_KEYS} WHERE CAST(:tenant AS text) IS NULL OR tenant = :tenant ORDER BY created_at DESC, id"
    with database.connect() as connection:
        return [_key(row) for row in connection.execute(sa.text(statement), {"tenant": tenant}).mappings()]


def look_up(database: sa.Engine, ids: Sequence[str]) -> dict[str, ApiKey]:
    """The keys of these ids, revoked ones too; without those that do not exist."""
    with database.connect() as connection:
        rows = connection.execute(sa.text(f"{_KEYS} WHERE id = ANY(:ids)"), {"ids": list(ids)}).mappings()
        return {row["id"]: _key(row) for row in rows}


def revoke_key(database: sa.Engine, key_id: str, *, tenant: str | None, revoked_at: datetime) -> bool:
    """Revoke a key of a tenant, or of any; whether there is such a key. One that is revoked already stays as it is."""
    named = {"id": key_id, "tenant": tenant}
    where = "id = :id AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)"
    with database.begin() as connection:
        connection.execute(
            sa.text(f"UPDATE api_keys SET revoked_at = :revoked_at WHERE {where} AND revoked_at IS NULL"),  # noqa: S608
            {**named, "revoked_at": revoked_at},
        )
        return bool(connection.execute(sa.text(f"SELECT count(*) FROM api_keys WHERE {where}"), named).scalar_one())  # noqa: S608


def any_key_in_force(database: sa.Engine) -> bool:
    """Whether there is a key that was not revoked."""
    with database.connect() as connection:
        return bool(
            connection.execute(sa.text("SELECT EXISTS (SELECT FROM api_keys WHERE revoked_at IS NULL)")).scalar_one()
        )


def limit_tenant(database: sa.Engine, limit: TenantLimit) -> None:
    """Set how many events a tenant may send a second."""
    with database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO tenants (tenant, events_per_second) VALUES (:tenant, :events_per_second)"
                " ON CONFLICT (tenant) DO UPDATE SET events_per_second = excluded.events_per_second"
            ),
            limit.model_dump(),
        )


def _key(row: Any) -> ApiKey:
    scopes = frozenset(Scope(name) for name in row["scopes"])
    return ApiKey(**{**row, "scopes": scopes, "secret_hash": bytes(row["secret_hash"])})
