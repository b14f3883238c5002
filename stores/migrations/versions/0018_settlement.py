"""Payments, failed payments and refunds; and what a customer's credit and allowance are read by.

A payment that was told twice is one: its name is the key. It stands beside the application, which it may have none of,
where all of it was too much.
"""

from alembic import op

from stores.migrations.ledger_templates import LEGS_OF_WRITE_OFFS
from stores.migrations.template_changes import replace_legs
from stores.migrations.tenancy import never_change, of_tenants

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE payments (
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL, -- as whoever collects it names it
    outcome text NOT NULL CHECK (outcome IN ('succeeded', 'failed')),
    invoice_id text COLLATE "C" NOT NULL REFERENCES invoices,
    currency text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    applied_minor bigint NOT NULL CHECK (applied_minor BETWEEN 0 AND amount_minor), -- the rest is customer credit
    happened_on date NOT NULL,
    payout text NOT NULL,
    decline_code text NOT NULL,
    entry_id uuid,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id, outcome),
    CONSTRAINT failed_posts_nothing CHECK ((outcome = 'succeeded') = (entry_id IS NOT NULL)
        AND (outcome = 'succeeded' OR applied_minor = 0))
);
CREATE INDEX payments_by_invoice ON payments (invoice_id);
CREATE TABLE refunds (
    tenant text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    happened_on date NOT NULL,
    payout text NOT NULL,
    entry_id uuid NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, id)
);
-- What customers have in credit, and what is provided for them: few postings of many.
CREATE INDEX postings_of_credit ON postings (tenant, customer, currency) INCLUDE (amount_minor) WHERE account = 2100;
CREATE INDEX postings_of_allowance ON postings (tenant, customer, currency) INCLUDE (amount_minor) WHERE account = 1190;
"""

_NEVER = {
    "payments": "a payment is never changed; pay the money back, or reverse its entry",
    "refunds": "a refund is never changed; reverse its entry",
}


def upgrade() -> None:
    """Make the tables and indexes, and let a write-off have taxes below zero."""
    for statements in (_TABLES, never_change(_NEVER), of_tenants(*_NEVER)):
        op.execute(statements)
    for code, legs in LEGS_OF_WRITE_OFFS.items():
        replace_legs(op.get_bind(), code, legs)
