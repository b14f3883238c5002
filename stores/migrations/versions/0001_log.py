"""The log of the embedded mode: partitions, records, barriers, and the versions of its configuration."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE log (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    log_id text NOT NULL CHECK (log_id ~ '^[0-9a-f]{32}$')
);
CREATE TABLE log_partitions (
    partition integer PRIMARY KEY CHECK (partition >= 0),
    next_offset bigint NOT NULL DEFAULT 0
);
-- Values are compressed by the writer, and stored out of line as they are.
CREATE TABLE log_records (
    partition integer NOT NULL REFERENCES log_partitions,
    "offset" bigint NOT NULL,
    appended_at timestamptz NOT NULL DEFAULT now(),
    key bytea,
    value bytea STORAGE EXTERNAL,
    PRIMARY KEY (partition, "offset"),
    CHECK (key IS NOT NULL OR value IS NOT NULL)
);
CREATE TABLE barriers (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reason text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE config_versions (
    version integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL,
    body text NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now()
);
-- Which rejected lines were put into the log again, and so need no more attention.
CREATE TABLE rejection_replays (
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    line integer NOT NULL,
    replayed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, "offset", line)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: its rows never change', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON log_records
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON barriers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON config_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def upgrade() -> None:
    """Create the log's tables."""
    op.execute(UPGRADE)
