"""Price books, contracts, bill runs, invoices and the journal, with the rules of the books as constraints.

Owns: the books balance, posted rows never change, and a closed period takes no more entries, whoever writes.

Sums can only be judged when all rows are there, and a deferrable trigger runs once a row. So a statement leaves one
row in commit_checks with the ids it touched, and the deferred trigger on that row checks them all in one query.
Rows below a posted invoice or entry are accepted only in the transaction that made their parent; otherwise a pair of
rows that cancel could be added to an old one.

Documents and explanations are json and not jsonb: json keeps a text byte for byte, so digests can be checked.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_DOCUMENTS = """
CREATE DOMAIN period AS text CHECK (VALUE ~ '^[0-9]{4}-(0[1-9]|1[0-2])$');

CREATE TABLE price_books (
    tenant text NOT NULL,
    book text NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    digest text NOT NULL,
    body json NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, book, version),
    UNIQUE (tenant, digest)
);
-- The highest ordinal is in force. The same contracts may come again, after others.
CREATE TABLE contracts (
    ordinal bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    digest text NOT NULL,
    body json NOT NULL,
    applied_at timestamptz NOT NULL
);
CREATE INDEX contracts_by_digest ON contracts (tenant, digest, ordinal);
CREATE TABLE bill_runs (
    tenant text NOT NULL,
    period period NOT NULL,
    cut bigint NOT NULL,
    book text NOT NULL,
    book_version bigint NOT NULL,
    book_digest text NOT NULL,
    contracts_digest text NOT NULL,
    state text NOT NULL CHECK (state IN ('started', 'posted')),
    started_at timestamptz NOT NULL,
    posted_at timestamptz,
    PRIMARY KEY (tenant, period),
    FOREIGN KEY (tenant, book, book_version) REFERENCES price_books,
    CHECK ((state = 'posted') = (posted_at IS NOT NULL))
);
-- Each time a period was rated: first by its own run, later again by the runs that adjust it.
CREATE TABLE period_ratings (
    tenant text NOT NULL,
    period period NOT NULL,
    run_period period NOT NULL,
    cut bigint NOT NULL,
    book_digest text NOT NULL,
    contracts_digest text NOT NULL,
    PRIMARY KEY (tenant, period, run_period),
    FOREIGN KEY (tenant, run_period) REFERENCES bill_runs,
    CHECK (period <= run_period)
);
"""

_INVOICES = """
CREATE TABLE invoices (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    customer text NOT NULL,
    customer_name text NOT NULL,
    period period NOT NULL,
    number text NOT NULL,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    minor_units smallint NOT NULL CHECK (minor_units BETWEEN 0 AND 4),
    subtotal_minor bigint NOT NULL,
    tax_minor bigint NOT NULL,
    total_minor bigint NOT NULL,
    tax json,
    cut bigint NOT NULL,
    book text NOT NULL,
    book_version bigint NOT NULL,
    book_digest text NOT NULL,
    contracts_digest text NOT NULL,
    issued_at timestamptz NOT NULL,
    content_digest text NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (tenant, customer, period, currency),
    FOREIGN KEY (tenant, period) REFERENCES bill_runs,
    CONSTRAINT total_is_subtotal_and_tax CHECK (total_minor = subtotal_minor + tax_minor),
    CONSTRAINT tax_has_a_rate CHECK (tax IS NOT NULL OR tax_minor = 0)
);
CREATE UNIQUE INDEX invoices_by_number ON invoices (tenant, length(number), number);
CREATE INDEX invoices_by_period ON invoices (tenant, period);

CREATE TABLE invoice_lines (
    id text COLLATE "C" PRIMARY KEY,
    invoice_id text COLLATE "C" NOT NULL REFERENCES invoices,
    position integer NOT NULL CHECK (position > 0),
    kind text NOT NULL CHECK (kind IN ('usage', 'adjustment')),
    customer text NOT NULL,
    usage_period period NOT NULL,
    charge text NOT NULL,
    description text NOT NULL,
    model text NOT NULL,
    meter text,
    quantity numeric NOT NULL,
    amount numeric NOT NULL,
    amount_minor bigint NOT NULL,
    explanation json NOT NULL,
    UNIQUE (invoice_id, position)
);
CREATE INDEX invoice_lines_by_usage_period ON invoice_lines (usage_period);
"""

_JOURNAL = """
CREATE TABLE closed_periods (
    tenant text NOT NULL,
    through date NOT NULL,
    PRIMARY KEY (tenant, through)
);
CREATE TABLE journal_entries (
    id text COLLATE "C" PRIMARY KEY,
    tenant text NOT NULL,
    template text NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    effective_at date NOT NULL,
    booked_at timestamptz NOT NULL,
    description text NOT NULL,
    content_digest text NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX journal_entries_by_document ON journal_entries (document_id);
CREATE TABLE postings (
    entry_id text COLLATE "C" NOT NULL REFERENCES journal_entries,
    position smallint NOT NULL CHECK (position > 0),
    account smallint NOT NULL CHECK (account IN (1100, 2000, 2100, 4010)),
    customer text NOT NULL,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    PRIMARY KEY (entry_id, position)
);
"""

_NEVER_CHANGES = """
CREATE FUNCTION refuse_posted_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'restrict_violation';
END $$;
DO $$
DECLARE
    rules CONSTANT text[][] := ARRAY[
        ['invoices', 'posted rows never change; post a correcting entry'],
        ['invoice_lines', 'posted rows never change; post a correcting entry'],
        ['journal_entries', 'posted rows never change; post a correcting entry'],
        ['postings', 'posted rows never change; post a correcting entry'],
        ['price_books', 'applied versions never change; apply a new version'],
        ['contracts', 'applied contracts never change; apply new ones'],
        ['period_ratings', 'a rating that was billed never changes'],
        ['closed_periods', 'a closed period never opens again']];
    rule text[];
BEGIN
    FOREACH rule SLICE 1 IN ARRAY rules LOOP
        EXECUTE format('CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change(%L)', rule[1], rule[2]);
    END LOOP;
END $$;

CREATE TRIGGER never_goes BEFORE DELETE OR TRUNCATE ON bill_runs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('a bill run is never forgotten');
CREATE TRIGGER posted_for_good BEFORE UPDATE ON bill_runs
    FOR EACH ROW WHEN (OLD.state = 'posted') EXECUTE FUNCTION refuse_posted_change('this run is posted');
"""

_CHECKS = """
-- One row a statement: the ids whose rows are checked at commit. The check takes its row away again.
CREATE TABLE commit_checks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('lines there', 'lines sum', 'postings there', 'postings sum')),
    ids text[] COLLATE "C" NOT NULL
);

CREATE FUNCTION check_at_commit() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
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
        WHEN 'postings there' THEN
            SELECT format('journal entry %s has fewer than two postings', new_id) INTO wrong
            FROM unnest(NEW.ids) AS new_id
            WHERE (SELECT count(*) FROM postings WHERE entry_id = new_id) < 2 LIMIT 1;
        WHEN 'postings sum' THEN
            SELECT format('postings of journal entry %s sum to %s %s, not to zero', entry_id, sum(amount_minor),
                currency) INTO wrong
            FROM postings WHERE entry_id = ANY (NEW.ids)
            GROUP BY entry_id, currency HAVING sum(amount_minor) <> 0 LIMIT 1;
    END CASE;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM commit_checks WHERE id = NEW.id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_at_commit AFTER INSERT ON commit_checks DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_at_commit();

-- Closing waits for those who are posting, and they wait for it: nobody posts past a check of the day before.
CREATE FUNCTION wait_for_postings() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('period close ' || NEW.tenant, 0));
    RETURN NEW;
END $$;
CREATE TRIGGER wait_for_postings BEFORE INSERT ON closed_periods
    FOR EACH ROW EXECUTE FUNCTION wait_for_postings();

CREATE FUNCTION entries_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('period close ' || tenant, 0))
    FROM (SELECT DISTINCT tenant FROM added ORDER BY tenant) AS tenants;
    SELECT format('journal entry %s is dated %s; the books of %s are closed through %s; date it in an open period',
        a.id, a.effective_at, a.tenant, c.through) INTO wrong
    FROM added a JOIN closed_periods c ON c.tenant = a.tenant AND a.effective_at <= c.through LIMIT 1;
    IF wrong IS NULL THEN
        SELECT format('journal entry %s names another transaction than its own', id) INTO wrong
        FROM added WHERE transaction_id <> pg_current_xact_id() LIMIT 1;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids) SELECT 'postings there', array_agg(id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER entries_added AFTER INSERT ON journal_entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entries_added();

CREATE FUNCTION invoices_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT id INTO wrong FROM added WHERE transaction_id <> pg_current_xact_id() LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'invoice % names another transaction than its own', wrong USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids) SELECT 'lines there', array_agg(id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER invoices_added AFTER INSERT ON invoices REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION invoices_added();

CREATE FUNCTION postings_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT e.id INTO wrong FROM (SELECT DISTINCT entry_id FROM added) a JOIN journal_entries e ON e.id = a.entry_id
    WHERE e.transaction_id <> pg_current_xact_id() LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'journal entry % takes no more postings: posted rows never change; post a correcting entry',
            wrong USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids)
    SELECT 'postings sum', array_agg(DISTINCT entry_id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER postings_added AFTER INSERT ON postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION postings_added();

CREATE FUNCTION lines_added() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT i.id INTO wrong FROM (SELECT DISTINCT invoice_id FROM added) a JOIN invoices i ON i.id = a.invoice_id
    WHERE i.transaction_id <> pg_current_xact_id() LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'invoice % takes no more lines: posted rows never change; post a correcting entry', wrong
            USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids)
    SELECT 'lines sum', array_agg(DISTINCT invoice_id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER lines_added AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION lines_added();
"""


def upgrade() -> None:
    """Create the tables of invoicing, and the triggers that hold the rules of the books."""
    for statements in (_DOCUMENTS, _INVOICES, _JOURNAL, _NEVER_CHANGES, _CHECKS):
        op.execute(statements)
