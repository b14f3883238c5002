"""A meter that was added later may be filled from the stored events."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
-- A meter counts the events of a range, [from_at, to_at) of event time, though it was not in force where they stand.
-- ends has, for each log and each partition of it, the offset behind the events that may count. Until a backfill has
-- finished, the rollups of its range are not whole.
CREATE TABLE meter_backfills (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    slug text NOT NULL,
    from_at timestamptz NOT NULL,
    to_at timestamptz NOT NULL,
    cut bigint NOT NULL REFERENCES barriers,
    ends jsonb NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK (from_at < to_at)
);
"""


def upgrade() -> None:
    """Add what is known of backfills."""
    op.execute(UPGRADE)
