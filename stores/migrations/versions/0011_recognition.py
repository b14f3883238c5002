"""Schedules of what was billed in advance.

Owns: a schedule adds up to its line, and a month that was recognised is never rewritten, whoever writes it.
"""

from alembic import op

revision = "0011"
down_revision = "0005"
branch_labels = None
depends_on = None

# Until the ledger has its own templates, the books take the accounts that these parts post to.
_ACCOUNTS = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM information_schema.columns WHERE table_name = 'postings' AND column_name = 'dimension')
    THEN
        ALTER TABLE postings DROP CONSTRAINT postings_account_check, ADD CONSTRAINT postings_account_check CHECK
            (account IN (1000, 1010, 1100, 1150, 2000, 2100, 2150, 2200, 4000, 4010, 4090, 4900, 6200));
    END IF;
END $$;
"""

_SCHEDULES = """
-- A line's newest version is in force from rewrites_from on; the months before it are those of the versions before.
CREATE TABLE recognition_schedules (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    customer text NOT NULL,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor bigint NOT NULL, -- what all months of the line add up to from this version on
    method text NOT NULL CHECK (method IN ('exact', 'day', 'even_months', 'prorated_ends')),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at >= starts_at),
    time_zone text NOT NULL,
    rewrites_from date NOT NULL, -- the first day of a month; of the first version, a day before all months
    reason text NOT NULL,
    scheduled_at timestamptz NOT NULL,
    content_digest text NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (tenant, line_id, version)
);
CREATE TABLE recognition_rows (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    schedule_id text COLLATE "C" NOT NULL, -- no foreign key, whose check runs once a row: see schedule_rows_added
    position integer NOT NULL CHECK (position > 0),
    month date NOT NULL CHECK (extract(day FROM month) = 1),
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    UNIQUE (schedule_id, month)
);
CREATE INDEX recognition_rows_by_month ON recognition_rows (tenant, month);
-- What a credit note took of a line: first of what is deferred, then of what is recognised.
CREATE TABLE recognition_credits (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    deferred_minor bigint NOT NULL CHECK (deferred_minor >= 0),
    recognised_minor bigint NOT NULL CHECK (recognised_minor >= 0),
    credited_at timestamptz NOT NULL,
    UNIQUE (tenant, line_id, document_id),
    CHECK (deferred_minor + recognised_minor > 0)
);

CREATE VIEW recognition_in_force AS
SELECT r.id, s.tenant, s.line_id, s.version, s.customer, s.currency, r.month, r.amount_minor
FROM recognition_schedules s JOIN recognition_rows r ON r.schedule_id = s.id
WHERE NOT EXISTS (
    SELECT FROM recognition_schedules later
    WHERE later.tenant = s.tenant AND later.line_id = s.line_id AND later.version > s.version
        AND later.rewrites_from <= r.month);

-- One row a statement: the schedules that are added up at commit. The check takes its row away again.
CREATE TABLE recognition_checks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    schedule_ids text[] COLLATE "C" NOT NULL
);
CREATE FUNCTION check_schedules() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    -- A first version has all its months, and no others' months are in force: nearly all schedules are one.
    SELECT format('the months of line %s add up to %s, its schedule is %s', s.line_id, coalesce(sum(r.amount_minor), 0),
        s.amount_minor) INTO wrong
    FROM recognition_schedules s LEFT JOIN recognition_rows r ON r.schedule_id = s.id
    WHERE s.id = ANY (NEW.schedule_ids) AND s.version = 1
    GROUP BY s.id HAVING coalesce(sum(r.amount_minor), 0) <> s.amount_minor LIMIT 1;
    IF wrong IS NULL THEN
        SELECT format('the months of line %s add up to %s, its schedule is %s', s.line_id,
            coalesce(sum(f.amount_minor), 0), s.amount_minor) INTO wrong
        FROM recognition_schedules s
        LEFT JOIN recognition_in_force f ON f.tenant = s.tenant AND f.line_id = s.line_id
        WHERE s.id = ANY (NEW.schedule_ids) AND s.version > 1 AND NOT EXISTS (
            SELECT FROM recognition_schedules later
            WHERE later.tenant = s.tenant AND later.line_id = s.line_id AND later.version > s.version)
        GROUP BY s.id HAVING coalesce(sum(f.amount_minor), 0) <> s.amount_minor LIMIT 1;
    END IF;
    IF wrong IS NULL THEN
        SELECT format('month %s of line %s was recognised; a change rewrites the months behind it', r.month, s.line_id)
        INTO wrong
        FROM recognition_schedules s
        JOIN recognition_schedules before ON before.tenant = s.tenant AND before.line_id = s.line_id
            AND before.version < s.version
        JOIN recognition_rows r ON r.schedule_id = before.id AND r.month >= s.rewrites_from
        JOIN journal_entries e ON e.document_id = r.id AND e.template = 'P16'
        WHERE s.id = ANY (NEW.schedule_ids) LIMIT 1;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM recognition_checks WHERE id = NEW.id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_schedules AFTER INSERT ON recognition_checks DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_schedules();

CREATE FUNCTION schedules_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM added WHERE transaction_id <> pg_current_xact_id()) THEN
        RAISE EXCEPTION 'a schedule names another transaction than its own' USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO recognition_checks (schedule_ids) SELECT array_agg(id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER schedules_added AFTER INSERT ON recognition_schedules REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION schedules_added();

CREATE FUNCTION schedule_rows_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM added a LEFT JOIN recognition_schedules s ON s.id = a.schedule_id
               WHERE s.transaction_id IS DISTINCT FROM pg_current_xact_id()) THEN
        RAISE EXCEPTION 'a schedule that is there takes no more months, and none that is not: add a version'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER schedule_rows_added AFTER INSERT ON recognition_rows REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION schedule_rows_added();
"""

_NEVER_CHANGES = """
DO $$
DECLARE
    rules CONSTANT text[][] := ARRAY[
        ['recognition_schedules', 'a schedule never changes; add a version'],
        ['recognition_rows', 'a schedule never changes; add a version'],
        ['recognition_credits', 'a credit never changes; add another one']];
    rule text[];
BEGIN
    FOREACH rule SLICE 1 IN ARRAY rules LOOP
        EXECUTE format('CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change(%L)', rule[1], rule[2]);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    """Add the tables of schedules, and what holds their rules."""
    for statements in (_ACCOUNTS, _SCHEDULES, _NEVER_CHANGES):
        op.execute(statements)
