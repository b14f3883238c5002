"""API keys and tenants. Of a key, the hash of its secret is here, and never the secret."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
-- Tenants that have keys or a limit of their own. Usage may name others.
CREATE TABLE tenants (
    tenant text COLLATE "C" PRIMARY KEY CHECK (tenant ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    events_per_second bigint CHECK (events_per_second > 0)
);
CREATE TABLE api_keys (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-f]{16}$'),
    tenant text COLLATE "C" NOT NULL REFERENCES tenants,
    name text NOT NULL CHECK (length(name) <= 200),
    scopes text[] NOT NULL CHECK (cardinality(scopes) > 0 AND scopes <@ ARRAY['ingest', 'query', 'admin']),
    secret_hash bytea NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant);

-- A key is revoked, and that is all: what it may do never grows, and who had one is known for ever.
CREATE FUNCTION refuse_key_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of a key refused: revoke it, and make another', TG_OP USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER never_goes BEFORE DELETE OR TRUNCATE ON api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_key_change();
CREATE TRIGGER only_revoked BEFORE UPDATE ON api_keys FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL OR NEW.revoked_at IS NULL
        OR (OLD.id, OLD.tenant, OLD.name, OLD.scopes, OLD.secret_hash, OLD.created_at)
            IS DISTINCT FROM (NEW.id, NEW.tenant, NEW.name, NEW.scopes, NEW.secret_hash, NEW.created_at))
    EXECUTE FUNCTION refuse_key_change();
"""


def upgrade() -> None:
    """Add the tables of keys."""
    op.execute(UPGRADE)
