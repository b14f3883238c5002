"""Invoices get a life: drafts, states, tax groups, numbers by series, and what settles them.

What was posted before is an open, periodic invoice; its one tax becomes a tax group, and is shared out to its lines by
the largest remainder, as a new invoice's is. Lines know the month of their usage alone, which is their service period.

A draft may be replaced and deleted. What is no draft keeps what it says for good: only its state, what was settled of
it and its version go on, along the edges of the state machine that invoice_edges holds.
"""

import sqlalchemy as sa
from alembic import op

from stores.migrations.invoice_rules import NEVER, RULES, TENANTS
from stores.migrations.ledger_templates import LEGS_OF_INVOICES, TAKE_NEGATIVE
from stores.migrations.template_changes import replace_legs
from stores.migrations.tenancy import never_change

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_INVOICES = """
DROP TRIGGER never_changes ON invoices;
DROP TRIGGER never_changes ON invoice_lines;
DROP TRIGGER invoices_added ON invoices;
DROP TRIGGER lines_added ON invoice_lines;

ALTER TABLE invoices
    DROP CONSTRAINT invoices_tenant_customer_period_currency_key,
    DROP CONSTRAINT invoices_tenant_period_fkey,
    DROP CONSTRAINT tax_has_a_rate,
    ALTER COLUMN number DROP NOT NULL,
    ALTER COLUMN issued_at DROP NOT NULL,
    ALTER COLUMN cut DROP NOT NULL,
    ALTER COLUMN book DROP NOT NULL,
    ALTER COLUMN book_version DROP NOT NULL,
    ALTER COLUMN book_digest DROP NOT NULL,
    ALTER COLUMN contracts_digest DROP NOT NULL,
    ADD kind text NOT NULL DEFAULT 'periodic' CHECK (kind IN ('periodic', 'progressive', 'manual', 'rebill')),
    ADD series text NOT NULL DEFAULT 'INV' CHECK (series ~ '^[A-Z][A-Z0-9]{0,9}$'),
    ADD state text NOT NULL DEFAULT 'open' CHECK (state IN ('draft', 'open', 'paid', 'void', 'uncollectible')),
    ADD payment_status text NOT NULL DEFAULT 'pending'
        CHECK (payment_status IN ('pending', 'partial', 'succeeded', 'failed')),
    ADD settled_minor bigint NOT NULL DEFAULT 0,
    ADD taxes json NOT NULL DEFAULT '[]',
    ADD due_on date,
    ADD version integer NOT NULL DEFAULT 1 CHECK (version > 0);
UPDATE invoices SET taxes = json_build_array(json_build_object('name', tax ->> 'name', 'rate_percent',
    tax ->> 'rate_percent', 'mode', 'exclusive', 'base_minor', subtotal_minor, 'tax_minor', tax_minor))
    WHERE tax IS NOT NULL;
UPDATE invoices SET state = 'paid', payment_status = 'succeeded' WHERE total_minor <= 0;
ALTER TABLE invoices
    DROP COLUMN tax,
    ALTER COLUMN kind DROP DEFAULT,
    ALTER COLUMN series DROP DEFAULT,
    ALTER COLUMN state DROP DEFAULT,
    ALTER COLUMN payment_status DROP DEFAULT,
    ALTER COLUMN settled_minor DROP DEFAULT,
    ALTER COLUMN taxes DROP DEFAULT,
    ALTER COLUMN version DROP DEFAULT,
    ADD CONSTRAINT draft_has_no_number CHECK ((state = 'draft') = (number IS NULL)
        AND (state = 'draft') = (issued_at IS NULL)),
    ADD CONSTRAINT settled_up_to_the_total CHECK (settled_minor BETWEEN 0 AND greatest(total_minor, 0)),
    ADD CONSTRAINT open_is_due CHECK (CASE state
        WHEN 'open' THEN settled_minor < greatest(total_minor, 0)
        WHEN 'paid' THEN settled_minor = greatest(total_minor, 0)
        WHEN 'uncollectible' THEN settled_minor = total_minor
        ELSE settled_minor = 0 END),
    ADD CONSTRAINT paid_is_succeeded CHECK ((state = 'paid') = (payment_status = 'succeeded')),
    ADD CONSTRAINT rated_of_a_book CHECK ((kind = 'manual') = (cut IS NULL) AND (cut IS NULL) = (book IS NULL)
        AND (cut IS NULL) = (contracts_digest IS NULL));
CREATE UNIQUE INDEX invoices_periodic ON invoices (tenant, period, customer, currency)
    WHERE kind = 'periodic' AND state <> 'void';
DROP INDEX invoices_by_period;
CREATE INDEX invoices_by_customer ON invoices (tenant, customer, currency);
"""

_LINES = """
-- A line is named by its invoice and position: an index of random ids, and a check of a key a row, cost more than the
-- line itself. lines_added looks for the invoices of a whole statement.
ALTER TABLE invoice_lines
    DROP CONSTRAINT invoice_lines_kind_check,
    DROP CONSTRAINT invoice_lines_pkey,
    DROP CONSTRAINT invoice_lines_invoice_id_position_key,
    DROP CONSTRAINT invoice_lines_invoice_id_fkey,
    ADD PRIMARY KEY (invoice_id, position),
    ADD tenant text,
    ADD net_minor bigint,
    ADD tax_minor bigint NOT NULL DEFAULT 0,
    ADD tax_rule json,
    ADD taxes json,
    ADD revenue text NOT NULL DEFAULT 'subtotal'
        CHECK (revenue IN ('subtotal', 'fees', 'advance', 'commitment', 'sla')),
    ADD service_start date,
    ADD service_end date;
UPDATE invoice_lines l SET tenant = i.tenant, net_minor = l.amount_minor,
    service_start = (l.usage_period || '-01')::date,
    service_end = ((l.usage_period || '-01')::date + interval '1 month')::date,
    tax_rule = CASE WHEN i.taxes ->> 0 IS NOT NULL THEN json_build_object('mode', 'exclusive', 'rates',
        json_build_array(json_build_object('name', i.taxes -> 0 ->> 'name', 'rate_percent',
        i.taxes -> 0 ->> 'rate_percent', 'compound', false))) END
    FROM invoices i WHERE i.id = l.invoice_id;
UPDATE invoice_lines l SET tax_minor = s.share FROM (
    SELECT id, sign * (low + (rank <= left_over)::int) AS share FROM (
        SELECT id, sign, low, sum_of - sum(low) OVER (PARTITION BY invoice_id) AS left_over,
            row_number() OVER (PARTITION BY invoice_id ORDER BY exact - low DESC, position) AS rank
        FROM (
            SELECT p.id, p.invoice_id, p.position, sign(i.tax_minor)::bigint AS sign, abs(i.tax_minor) AS sum_of,
                sign(i.tax_minor) * p.net_minor * i.tax_minor::numeric * sign(i.tax_minor) * sign(i.tax_minor)
                    / i.subtotal_minor AS exact,
                floor(sign(i.tax_minor) * p.net_minor * i.tax_minor::numeric / i.subtotal_minor)::bigint AS low
            FROM invoice_lines p JOIN invoices i ON i.id = p.invoice_id
            WHERE i.tax_minor <> 0 AND i.subtotal_minor <> 0
        ) AS exact_shares) AS ranked) AS s WHERE s.id = l.id;
UPDATE invoice_lines SET taxes = json_build_array(json_build_object('name', tax_rule -> 'rates' -> 0 ->> 'name',
    'rate_percent', tax_rule -> 'rates' -> 0 ->> 'rate_percent', 'mode', 'exclusive', 'tax_minor', tax_minor))
    WHERE tax_rule IS NOT NULL;
ALTER TABLE invoice_lines
    ALTER COLUMN tenant SET NOT NULL,
    ALTER COLUMN net_minor SET NOT NULL,
    ALTER COLUMN tax_minor DROP DEFAULT,
    ALTER COLUMN revenue DROP DEFAULT,
    ALTER COLUMN service_start SET NOT NULL,
    ALTER COLUMN service_end SET NOT NULL,
    ADD CONSTRAINT invoice_lines_kind_check CHECK (kind IN ('usage', 'remainder', 'adjustment', 'fee', 'advance',
        'commitment', 'sla_credit', 'manual')),
    ADD CONSTRAINT serves_some_days CHECK (service_start < service_end),
    ADD CONSTRAINT net_is_amount_without_tax CHECK (net_minor IN (amount_minor, amount_minor - tax_minor));
DROP INDEX invoice_lines_by_usage_period;
CREATE INDEX invoice_lines_by_usage_period ON invoice_lines (tenant, usage_period, customer COLLATE "C");
"""

_BESIDE = """
-- The last number that was given in a series. Who finalises holds the row until its commit: numbers have no gaps.
CREATE TABLE number_series (
    tenant text COLLATE "C" NOT NULL,
    series text NOT NULL CHECK (series ~ '^[A-Z][A-Z0-9]{0,9}$'),
    last bigint NOT NULL CHECK (last >= 0),
    PRIMARY KEY (tenant, series)
);
INSERT INTO number_series SELECT tenant, series, max(split_part(number, '-', 2)::bigint) FROM invoices GROUP BY 1, 2;

-- What settles an invoice, and what takes that back. The sum is the invoice's settled_minor.
CREATE TABLE applications (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL REFERENCES invoices,
    kind text NOT NULL CHECK (kind IN ('payment', 'customer_credit', 'wallet', 'credit_note', 'write_off')),
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    reference text NOT NULL, -- the payment, wallet or credit note
    entry_id uuid NOT NULL, -- the journal entry that posts it
    applied_at timestamptz NOT NULL
);
CREATE INDEX applications_by_invoice ON applications (invoice_id);
CREATE TABLE invoice_changes (
    tenant text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    from_state text NOT NULL,
    to_state text NOT NULL,
    changed_by text NOT NULL,
    reason text NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (invoice_id, version)
);
-- Periods whose invoices changed in a way that their next rating must look at: one was voided, or finalised early.
CREATE TABLE periods_to_rate (
    tenant text COLLATE "C" NOT NULL,
    period period NOT NULL,
    reason text NOT NULL,
    noted_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, period, reason)
);
-- Which state may follow which.
CREATE TABLE invoice_edges (from_state text NOT NULL, to_state text NOT NULL, PRIMARY KEY (from_state, to_state));
INSERT INTO invoice_edges VALUES ('draft', 'open'), ('draft', 'paid'), ('open', 'paid'), ('open', 'void'),
    ('open', 'uncollectible'), ('uncollectible', 'open'), ('uncollectible', 'paid');
"""


def upgrade() -> None:
    """Give invoices states, tax groups and numbers by series, and the templates of invoices all kinds of revenue."""
    for statements in (_INVOICES, _LINES, _BESIDE, RULES, never_change(NEVER), TENANTS):
        op.execute(statements)
    connection = op.get_bind()
    for code, legs in LEGS_OF_INVOICES.items():
        replace_legs(connection, code, legs)
    query = "UPDATE templates SET takes_negative = true WHERE code = ANY (:codes)"
    connection.execute(sa.text(query), {"codes": list(TAKE_NEGATIVE)})
