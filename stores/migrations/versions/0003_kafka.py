"""A log may be a Kafka topic, and may be replaced by a new one when it is lost."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
-- The topic that holds the records; null where log_records does.
ALTER TABLE log ADD COLUMN topic text;
-- Versions whose records are in the log, in every partition. What is missing here is written again.
CREATE TABLE published_versions (
    log_id text NOT NULL,
    version integer NOT NULL REFERENCES config_versions,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, version)
);
INSERT INTO published_versions (log_id, version) SELECT log_id, version FROM log, config_versions;
-- A place in a log is known by the log, too.
ALTER TABLE rejection_replays ADD COLUMN log_id text;
UPDATE rejection_replays SET log_id = (SELECT log_id FROM log);
ALTER TABLE rejection_replays DROP CONSTRAINT rejection_replays_pkey,
    ADD PRIMARY KEY (log_id, partition, "offset", line);
-- A rebuild replaces the rollups of a month; until it has finished, the month is not whole.
CREATE TABLE rollup_rebuilds (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    month text NOT NULL CHECK (month ~ '^[0-9]{4}-(0[1-9]|1[0-2])$'),
    cut bigint NOT NULL REFERENCES barriers,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);
"""


def upgrade() -> None:
    """Add what a log outside of PostgreSQL needs."""
    op.execute(UPGRADE)
