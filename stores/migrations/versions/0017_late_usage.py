"""Usage that arrived after its period was billed: what is not billed of it, and invoices that were billed again.

Both count for what is booked: what was written off as if it was billed, what was billed again as if it was not.
"""

import sqlalchemy as sa
from alembic import op

from stores.migrations.ledger_templates import LATE_USAGE
from stores.migrations.template_changes import replace_legs
from stores.migrations.tenancy import never_change, of_tenants

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE usage_write_offs (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    run_period period NOT NULL, -- the run that found it
    cut bigint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    usage_period period NOT NULL,
    charge text COLLATE "C" NOT NULL,
    currency text NOT NULL,
    description text NOT NULL,
    model text NOT NULL,
    meter text,
    quantity numeric NOT NULL,
    amount numeric NOT NULL,
    amount_minor bigint NOT NULL, -- as it was priced, tax in it or not
    net_minor bigint NOT NULL,
    tax_rule json,
    revenue text NOT NULL,
    service_start date NOT NULL,
    service_end date NOT NULL,
    entry_id uuid, -- null where the postings of a period cancel
    written_off_at timestamptz NOT NULL,
    UNIQUE (tenant, run_period, customer, usage_period, charge, currency)
);
CREATE INDEX usage_write_offs_by_usage_period ON usage_write_offs (tenant, usage_period);
CREATE TABLE invoice_rebills (
    tenant text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" PRIMARY KEY REFERENCES invoices, -- which was credited as a whole
    credit_note_id text COLLATE "C" NOT NULL UNIQUE REFERENCES credit_notes,
    replaced_by text COLLATE "C" UNIQUE REFERENCES invoices, -- null where nothing is left to bill
    run_period period NOT NULL,
    rebilled_at timestamptz NOT NULL
);
"""

_NEVER = {
    "usage_write_offs": "what was written off stays so; bill it by hand",
    "invoice_rebills": "an invoice is billed again once; credit what took its place",
}


def upgrade() -> None:
    """Make the tables of late usage, and the template that posts what is not billed of it."""
    for statements in (_TABLES, never_change(_NEVER), of_tenants(*_NEVER)):
        op.execute(statements)
    connection = op.get_bind()
    code, name, kind, takes_negative, legs = LATE_USAGE
    head = {"code": code, "name": name, "kind": kind, "takes_negative": takes_negative}
    connection.execute(sa.text("INSERT INTO templates VALUES (:code, :name, :kind, :takes_negative)"), head)
    replace_legs(connection, code, legs)
