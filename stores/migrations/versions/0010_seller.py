"""Who sells: what stands on every document of a tenant."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

UPGRADE = """
-- The highest ordinal is in force. A document has the seller that was in force at its issue, so none ever goes.
CREATE TABLE sellers (
    ordinal bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    digest text NOT NULL,
    body json NOT NULL,
    applied_at timestamptz NOT NULL
);
CREATE INDEX sellers_by_tenant ON sellers (tenant, ordinal);
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON sellers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('an applied seller never changes; apply another');
"""


def upgrade() -> None:
    """Create the table of sellers."""
    op.execute(UPGRADE)
