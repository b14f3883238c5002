"""The outbox, webhook endpoints with their deliveries, and idempotency keys.

Owns that an event stays as it was emitted, that an idempotency key without its answer is never committed, and that who
acts for a tenant reaches that tenant's rows alone.
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_OUTBOX = """
-- A tenant's events are numbered from 1. Whoever emits holds the tenant's row until its commit: the numbers have no
-- gaps and stand in the order of the commits, so a reader that stops at one has missed none before it.
CREATE TABLE outbox_tenants (
    tenant text COLLATE "C" PRIMARY KEY,
    sequence bigint NOT NULL DEFAULT 0 CHECK (sequence >= 0)
) WITH (fillfactor = 50);
CREATE TABLE outbox (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    type text COLLATE "C" NOT NULL,
    object_id text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    occurred_at timestamptz NOT NULL,
    emitted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    data json NOT NULL,
    UNIQUE (tenant, sequence)
);
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('what was emitted stays as it is');
-- Up to which event each consumer has what a tenant emitted.
CREATE TABLE outbox_positions (
    consumer text NOT NULL CHECK (consumer IN ('kafka', 'webhooks')),
    tenant text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    PRIMARY KEY (consumer, tenant)
) WITH (fillfactor = 50);
"""

_WEBHOOKS = """
CREATE TABLE webhook_endpoints (
    id text COLLATE "C" PRIMARY KEY CHECK (id ~ '^we_[0-9a-f]{24}$'),
    tenant text COLLATE "C" NOT NULL,
    url text NOT NULL CHECK (length(url) <= 2048),
    description text NOT NULL CHECK (length(description) <= 500),
    types text[] NOT NULL, -- none: all of them
    state text NOT NULL CHECK (state IN ('enabled', 'disabled', 'deleted')),
    disabled_reason text,
    version bigint NOT NULL CHECK (version > 0),
    tests bigint NOT NULL DEFAULT 0,
    from_sequence bigint NOT NULL, -- it gets the events behind this one
    failures integer NOT NULL DEFAULT 0, -- since the last delivery that arrived
    paused_until timestamptz,
    last_success_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((state = 'disabled') = (disabled_reason IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX webhook_endpoints_by_tenant ON webhook_endpoints (tenant, created_at);
CREATE TABLE webhook_secrets (
    endpoint_id text COLLATE "C" NOT NULL REFERENCES webhook_endpoints,
    number integer NOT NULL CHECK (number > 0),
    tenant text COLLATE "C" NOT NULL,
    secret text NOT NULL CHECK (secret ~ '^whsec_'),
    created_at timestamptz NOT NULL,
    expires_at timestamptz, -- null: of the secret in force
    PRIMARY KEY (endpoint_id, number)
);
CREATE UNIQUE INDEX webhook_secrets_in_force ON webhook_secrets (endpoint_id) WHERE expires_at IS NULL;
-- A delivery that is being attempted is due again at the end of its lease: if the attempt died, somebody else takes it.
CREATE TABLE webhook_deliveries (
    endpoint_id text COLLATE "C" NOT NULL REFERENCES webhook_endpoints,
    event_id text COLLATE "C" NOT NULL REFERENCES outbox,
    tenant text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'delivered', 'failed', 'cancelled')),
    attempts integer NOT NULL DEFAULT 0,
    attempts_before integer NOT NULL DEFAULT 0, -- of the rounds before a redelivery
    next_attempt_at timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (endpoint_id, event_id),
    CHECK ((state = 'pending') = (finished_at IS NULL)),
    CHECK (attempts >= attempts_before)
) WITH (fillfactor = 70);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint_id, next_attempt_at, sequence)
    WHERE state = 'pending';
CREATE INDEX webhook_deliveries_by_sequence ON webhook_deliveries (endpoint_id, sequence);
CREATE TABLE webhook_attempts (
    endpoint_id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    tenant text COLLATE "C" NOT NULL,
    attempted_at timestamptz NOT NULL,
    duration_ms integer NOT NULL,
    status smallint, -- null: there was no answer
    retry_after_s integer,
    answer text NOT NULL, -- how it begins, or why there is none
    PRIMARY KEY (endpoint_id, event_id, number),
    FOREIGN KEY (endpoint_id, event_id) REFERENCES webhook_deliveries
);
CREATE TRIGGER never_changes BEFORE UPDATE ON webhook_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('what was attempted stays as it is');
"""

_KEYS = """
CREATE TABLE idempotency_keys (
    tenant text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash text NOT NULL,
    moves_money boolean NOT NULL,
    created_at timestamptz NOT NULL,
    status smallint,
    headers json,
    body bytea,
    PRIMARY KEY (tenant, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at) WHERE NOT moves_money;

CREATE FUNCTION refuse_key_without_answer() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM idempotency_keys WHERE tenant = NEW.tenant AND key = NEW.key AND status IS NULL) THEN
        RAISE EXCEPTION 'the idempotency key % has no answer', NEW.key USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER has_an_answer AFTER INSERT ON idempotency_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_key_without_answer();

CREATE FUNCTION refuse_forgetting_money() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the idempotency key % moved money and is kept for ever', OLD.key
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER money_is_kept BEFORE DELETE ON idempotency_keys FOR EACH ROW WHEN (OLD.moves_money)
    EXECUTE FUNCTION refuse_forgetting_money();
CREATE TRIGGER answered_for_good BEFORE UPDATE ON idempotency_keys FOR EACH ROW WHEN (OLD.status IS NOT NULL)
    EXECUTE FUNCTION refuse_posted_change('an answer that was given stays as it is');
"""

_TENANTS = """
-- Who acts for one tenant, named by the setting meterline.tenant, sees and writes that tenant's rows alone. The owner
-- of the tables, who publishes for all of them, is not bound by it.
DO $$
DECLARE
    name text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meterline_app') THEN
        BEGIN
            CREATE ROLE meterline_app NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database of this server was faster
        END;
    END IF;
    FOREACH name IN ARRAY ARRAY['outbox', 'outbox_tenants', 'webhook_endpoints', 'webhook_secrets',
            'webhook_deliveries', 'webhook_attempts', 'idempotency_keys'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_the_tenant ON %I
            USING (tenant = (SELECT current_setting(''meterline.tenant'', true)))
            WITH CHECK (tenant = (SELECT current_setting(''meterline.tenant'', true)))', name);
    END LOOP;
END $$;
GRANT USAGE ON SCHEMA public TO meterline_app;
GRANT SELECT, INSERT ON outbox TO meterline_app;
GRANT SELECT, INSERT, UPDATE ON outbox_tenants, webhook_endpoints, webhook_deliveries TO meterline_app;
GRANT SELECT ON webhook_attempts TO meterline_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON webhook_secrets, idempotency_keys TO meterline_app;
"""


def upgrade() -> None:
    """Create the tables of the outbox, of webhooks and of idempotency keys."""
    for statements in (_OUTBOX, _WEBHOOKS, _KEYS, _TENANTS):
        op.execute(statements)
