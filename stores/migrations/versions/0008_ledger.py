"""The ledger grows up: templates, a chain over the entries of each tenant, row-level security, periods that reopen.

The entries and postings that are there move into tables of another shape. Postings name their entry by its sequence:
new rows go to the end of their index, which halves what it costs to keep one. There is no foreign key, whose check runs
once a row: postings_added looks for the entries of a whole statement, and entries are never deleted.

What was posted before has no chain. It is chained here, in the order of booked_at and id, with digests of the form that
invoicing/ledger/chain.py has; ids become those that a document has now.
"""

import sqlalchemy as sa
from alembic import op

from stores.migrations.ledger_rules import HASH, ROLE, RULES
from stores.migrations.ledger_templates import TEMPLATES, leg_of

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TEMPLATES = """
CREATE TABLE templates (
    code text PRIMARY KEY CHECK (code ~ '^P[0-9]{2}(-[a-z]+)?$'),
    name text NOT NULL,
    kind text NOT NULL,
    takes_negative boolean NOT NULL
);
CREATE TABLE template_legs (
    template text NOT NULL REFERENCES templates,
    position smallint NOT NULL CHECK (position > 0),
    account smallint NOT NULL CHECK (account BETWEEN 1000 AND 9999),
    account_if_negative smallint CHECK (account_if_negative BETWEEN 1000 AND 9999),
    amount text NOT NULL,
    side smallint NOT NULL CHECK (side IN (-1, 1)),
    signed boolean NOT NULL,
    dimension text NOT NULL,
    PRIMARY KEY (template, position)
);
-- Which account may be touched on which side: by a document as the legs say, and by one below zero on the others.
CREATE VIEW template_sides AS
SELECT template, account, side, bool_or(when_positive) AS when_positive, bool_or(when_negative) AS when_negative
FROM (
    SELECT template, account, side, true AS when_positive, signed AND takes_negative AS when_negative
    FROM template_legs JOIN templates ON code = template
    UNION ALL
    SELECT template, coalesce(account_if_negative, account), (-side)::smallint, signed, takes_negative
    FROM template_legs JOIN templates ON code = template
) AS sides
WHERE when_positive OR when_negative GROUP BY template, account, side;
"""

_TABLES = """
CREATE TEMP TABLE old_entries ON COMMIT DROP AS SELECT * FROM journal_entries;
CREATE TEMP TABLE old_postings ON COMMIT DROP AS SELECT * FROM postings;
DROP TABLE postings, journal_entries;

CREATE TABLE journal_entries (
    tenant text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL CHECK (sequence > 0),
    id uuid NOT NULL,
    template text NOT NULL,
    document_kind text NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    document_version integer NOT NULL CHECK (document_version > 0),
    part integer NOT NULL CHECK (part > 0),
    relates_to uuid,
    relates_to_period period CHECK (relates_to_period < to_char(effective_at, 'YYYY-MM')),
    effective_at date NOT NULL,
    booked_at timestamptz NOT NULL,
    description text NOT NULL,
    content_digest bytea NOT NULL CHECK (octet_length(content_digest) = 32),
    previous_hash bytea NOT NULL,
    hash bytea NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (tenant, sequence),
    CONSTRAINT reversal_names_its_entry CHECK (document_kind <> 'reversal' OR relates_to IS NOT NULL)
);
CREATE UNIQUE INDEX journal_entries_by_id ON journal_entries (id);
CREATE INDEX journal_entries_by_document ON journal_entries (document_id);
CREATE UNIQUE INDEX an_entry_is_reversed_once ON journal_entries (relates_to) WHERE document_kind = 'reversal';
CREATE TABLE postings (
    tenant text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    position smallint NOT NULL CHECK (position > 0),
    account smallint NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL CHECK (length(currency) = 3 AND currency = upper(currency)),
    dimension text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    PRIMARY KEY (tenant, sequence, position)
);

ALTER TABLE closed_periods ADD COLUMN closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ADD COLUMN after_sequence bigint;
-- Who opened a closed period again, why, and for how long.
CREATE TABLE period_overrides (
    tenant text NOT NULL,
    through date NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until timestamptz NOT NULL,
    opened_by text NOT NULL CHECK (opened_by <> ''),
    reason text NOT NULL CHECK (reason <> ''),
    after_sequence bigint NOT NULL,
    PRIMARY KEY (tenant, through, opened_at),
    FOREIGN KEY (tenant, through) REFERENCES closed_periods,
    CONSTRAINT open_for_a_week_at_most CHECK (until > opened_at AND until <= opened_at + interval '7 days')
);
"""

_POSTED_BEFORE = """
CREATE FUNCTION pg_temp.prefixed(part text) RETURNS text LANGUAGE sql RETURN octet_length(part) || ':' || part;

INSERT INTO postings
SELECT e.tenant, e.sequence, p.position, p.account, p.customer, p.currency,
    CASE WHEN p.account = 2000 AND i.tax IS NOT NULL
    THEN (i.tax ->> 'name') || ' ' || (i.tax ->> 'rate_percent') || '%' ELSE '' END, p.amount_minor
FROM old_postings p
JOIN (SELECT *, row_number() OVER (PARTITION BY tenant ORDER BY booked_at, id) AS sequence FROM old_entries) e
    ON e.id = p.entry_id
LEFT JOIN invoices i ON i.id = e.document_id;

DO $$
DECLARE
    entry record;
    content bytea;
    last bytea;
    place bigint;
    books text;
BEGIN
    FOR entry IN SELECT * FROM old_entries ORDER BY tenant, booked_at, id LOOP
        IF books IS DISTINCT FROM entry.tenant THEN
            books := entry.tenant;
            last := decode(repeat('00', 32), 'hex');
            place := 0;
        END IF;
        place := place + 1;
        content := sha256(convert_to(entry.template || '|1|1|' || to_char(entry.effective_at, 'YYYY-MM-DD') || '|||'
            || pg_temp.prefixed(entry.tenant) || pg_temp.prefixed('invoice') || pg_temp.prefixed(entry.document_id)
            || pg_temp.prefixed(entry.description) || E'\\n' || (SELECT string_agg(position || '|' || account || '|'
                || amount_minor || '|' || currency || '|' || pg_temp.prefixed(customer) || pg_temp.prefixed(dimension)
                || E'\\n', '' ORDER BY position)
            FROM postings WHERE tenant = entry.tenant AND sequence = place), 'UTF8'));
        INSERT INTO journal_entries (tenant, sequence, id, template, document_kind, document_id, document_version, part,
            effective_at, booked_at, description, content_digest, previous_hash, hash)
        VALUES (entry.tenant, place, substr(encode(sha256(convert_to(pg_temp.prefixed(entry.tenant)
            || pg_temp.prefixed(entry.template) || pg_temp.prefixed(entry.document_id) || '1:11:1', 'UTF8')), 'hex'),
            1, 32)::uuid, entry.template, 'invoice', entry.document_id, 1, 1, entry.effective_at, entry.booked_at,
            entry.description, content, last, entry_hash(last, content, place, entry.booked_at))
        RETURNING hash INTO last;
    END LOOP;
END $$;

ALTER TABLE closed_periods DISABLE TRIGGER USER;
UPDATE closed_periods c
SET after_sequence = (SELECT coalesce(max(sequence), 0) FROM journal_entries e WHERE e.tenant = c.tenant);
ALTER TABLE closed_periods ENABLE TRIGGER USER;
ALTER TABLE closed_periods ALTER COLUMN after_sequence SET NOT NULL;
"""

_LINES = """
ALTER TABLE commit_checks DROP CONSTRAINT commit_checks_kind_check,
    ADD CHECK (kind IN ('lines there', 'lines sum'));
CREATE OR REPLACE FUNCTION check_at_commit() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    CASE NEW.kind
        WHEN 'lines there' THEN
            SELECT format('invoice %s has no lines', new_id) INTO wrong FROM unnest(NEW.ids) AS new_id
            WHERE NOT EXISTS (SELECT FROM invoice_lines WHERE invoice_id = new_id) LIMIT 1;
        WHEN 'lines sum' THEN
            SELECT format('lines of invoice %s sum to %s, its subtotal is %s', i.id, sum(l.amount_minor),
                i.subtotal_minor) INTO wrong
            FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id WHERE i.id = ANY (NEW.ids)
            GROUP BY i.id HAVING sum(l.amount_minor) <> i.subtotal_minor LIMIT 1;
    END CASE;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM commit_checks WHERE id = NEW.id;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Make the new tables, move and chain what was posted before, and put the rules in force."""
    op.execute(_TEMPLATES)
    connection = op.get_bind()
    for code, name, kind, takes_negative, legs in TEMPLATES:
        head = {"code": code, "name": name, "kind": kind, "takes_negative": takes_negative}
        connection.execute(sa.text("INSERT INTO templates VALUES (:code, :name, :kind, :takes_negative)"), head)
        for position, written in enumerate(legs.split(", ") if legs else (), start=1):
            connection.execute(
                sa.text("""INSERT INTO template_legs VALUES (:template, :position, :account, :account_if_negative,
                           :amount, :side, :signed, :dimension)"""),
                {"template": code, "position": position, **leg_of(written)},
            )
    for statements in (_TABLES, HASH, _POSTED_BEFORE, RULES, _LINES, ROLE):
        op.execute(statements)
