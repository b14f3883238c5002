"""Who applied which version of a price book, and when."""

from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE price_book_changes (
    ordinal bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    book text NOT NULL,
    from_version bigint,
    to_version bigint NOT NULL,
    digest text NOT NULL,
    applied_by text NOT NULL CHECK (applied_by <> ''),
    applied_at timestamptz NOT NULL,
    UNIQUE (tenant, book, to_version),
    FOREIGN KEY (tenant, book, to_version) REFERENCES price_books,
    CHECK (from_version < to_version)
);
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON price_book_changes
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('what was done stays written down');
"""


def upgrade() -> None:
    """Add the changes of price books. Versions that are there already have none."""
    op.execute(UPGRADE)
