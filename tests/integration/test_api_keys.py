"""The stored keys, and what the database itself refuses."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from meterline.keys import make_key
from schemas.api_key import ApiKey, NewKey, TenantLimit
from stores.api_keys import any_key_in_force, create_key, keys_of, limit_tenant, look_up, revoke_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)


def stored(database: sa.Engine, tenant: str, at: datetime = NOW) -> ApiKey:
    name = 'O\'Brien "ci"; DROP TABLE api_keys; -- %s :id $1 ünï'
    _, key = make_key(NewKey(tenant=tenant, name=name, scopes=("ingest", "query")), at)
    create_key(database, key)
    return key


def test_keys_come_back_as_they_were_stored(database: sa.Engine) -> None:
    """By tenant or all, the newest first; and by id, without those that are not there."""
    assert not any_key_in_force(database)
    first, second, other = stored(database, "acme"), stored(database, "acme", LATER), stored(database, "globex")
    assert keys_of(database, "acme") == [second, first]
    assert {key.id for key in keys_of(database, None)} == {first.id, second.id, other.id}
    assert keys_of(database, "acm") == []
    assert look_up(database, [first.id, "0" * 16, "' OR true --"]) == {first.id: first}
    assert look_up(database, []) == {}
    assert any_key_in_force(database)


def test_a_key_is_revoked_once_and_by_its_tenant(database: sa.Engine) -> None:
    """Another tenant has no such key; a second time changes nothing."""
    key = stored(database, "acme")
    assert not revoke_key(database, key.id, tenant="globex", revoked_at=NOW)
    assert any_key_in_force(database)
    assert revoke_key(database, key.id, tenant="acme", revoked_at=NOW)
    assert revoke_key(database, key.id, tenant=None, revoked_at=LATER)
    assert keys_of(database, "acme")[0].revoked_at == NOW
    assert not any_key_in_force(database)


def test_a_rate_is_of_the_tenant(database: sa.Engine) -> None:
    """All keys of it have it, those that come later too; and it goes away again."""
    limit_tenant(database, TenantLimit(tenant="acme", events_per_second=7))
    stored(database, "acme")
    stored(database, "globex")
    assert {(key.tenant, key.events_per_second) for key in keys_of(database, None)} == {("acme", 7), ("globex", None)}
    limit_tenant(database, TenantLimit(tenant="acme", events_per_second=None))
    assert keys_of(database, "acme")[0].events_per_second is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE api_keys SET scopes = '{admin}'", "UPDATE api_keys SET tenant = 'globex', revoked_at = now()", "DELETE FROM api_keys",
        "UPDATE api_keys SET secret_hash = sha256('x')", "UPDATE api_keys SET revoked_at = NULL", "TRUNCATE api_keys",
        "INSERT INTO api_keys SELECT '0123456789abcdef', tenant, '', '{root}', sha256('y'), now() FROM tenants LIMIT 1",
        "INSERT INTO api_keys SELECT '0123456789abcdef', tenant, '', '{}', sha256('y'), now() FROM tenants LIMIT 1",
        "INSERT INTO api_keys SELECT '0123456789abcdef', tenant, '', '{admin}', 'secret', now() FROM tenants LIMIT 1",
        "INSERT INTO tenants VALUES (E'a\\nb')", "INSERT INTO tenants VALUES ('a b')", "UPDATE tenants SET events_per_second = 0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("revoked", [False, True])
def test_the_database_refuses_to_change_a_key(database: sa.Engine, statement: str, revoked: bool) -> None:
    """Whoever writes: no key gains a scope, changes hands, comes back or disappears."""
    key = stored(database, "acme")
    stored(database, "globex")
    if revoked:
        revoke_key(database, key.id, tenant=None, revoked_at=NOW)
    before = keys_of(database, None)
    with pytest.raises(sa.exc.IntegrityError), database.begin() as connection:
        connection.execute(sa.text(statement))
    assert keys_of(database, None) == before
