"""The levels of recurring charges at the end of each month, which the month after it starts with."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UPGRADE = """
-- Each time that the levels at the end of a month were found: by its own run, by the runs that adjust it, and of months
-- that nobody billed, by a run after them. That of the highest cut is in force. The digest covers the levels.
CREATE TABLE level_ratings (
    tenant text COLLATE "C" NOT NULL,
    period period NOT NULL,
    run_period period NOT NULL,
    cut bigint NOT NULL,
    contracts_digest text NOT NULL,
    digest text NOT NULL, -- empty: no charge has a level
    PRIMARY KEY (tenant, period, run_period),
    FOREIGN KEY (tenant, run_period) REFERENCES bill_runs,
    CHECK (period <= run_period)
);
-- There is no foreign key to level_ratings and no key of a row, which cost as much as the rows: the digest of a rating
-- says which rows there must be.
CREATE TABLE levels (
    tenant text COLLATE "C" NOT NULL,
    period period NOT NULL,
    run_period period NOT NULL,
    customer text COLLATE "C" NOT NULL,
    charge text COLLATE "C" NOT NULL,
    group_key text COLLATE "C" NOT NULL,
    cell integer NOT NULL,
    quantity numeric NOT NULL CHECK (quantity <> 0)
);
CREATE INDEX levels_by_rating ON levels (tenant, period, run_period);
-- What was billed so far has no recurring charges.
INSERT INTO level_ratings SELECT tenant, period, run_period, cut, contracts_digest, '' FROM period_ratings;

CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON level_ratings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('a rating that was billed never changes');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON levels
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('a rating that was billed never changes');

GRANT SELECT, INSERT ON level_ratings, levels TO meterline_app;
ALTER TABLE level_ratings ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_tenant ON level_ratings
    USING (tenant = (SELECT current_setting('meterline.tenant', true)))
    WITH CHECK (tenant = (SELECT current_setting('meterline.tenant', true)));
ALTER TABLE levels ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_the_tenant ON levels
    USING (tenant = (SELECT current_setting('meterline.tenant', true)))
    WITH CHECK (tenant = (SELECT current_setting('meterline.tenant', true)));
"""


def upgrade() -> None:
    """Create the tables of levels."""
    op.execute(UPGRADE)
