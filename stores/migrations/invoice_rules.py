"""The rules of invoices as triggers, and who may do what: SQL for the migration 0011.

Owns what holds whoever writes: an issued invoice says the same for good and goes from state to state along the edges,
its lines and tax add up, and what is settled of it is what was applied to it. Sums are judged at commit, a statement at
a time.
"""

from stores.migrations.tenancy import of_tenants

RULES = """
CREATE FUNCTION invoice_changed() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.state <> 'draft' THEN
            RAISE EXCEPTION 'DELETE of invoices refused: posted rows never change; post a correcting entry'
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF OLD.state = NEW.state AND OLD.state IN ('void', 'draft') OR OLD.state <> NEW.state AND NOT EXISTS (
        SELECT FROM invoice_edges WHERE from_state = OLD.state AND to_state = NEW.state) THEN
        RAISE EXCEPTION 'invoice % does not go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF ROW(OLD.id, OLD.tenant, OLD.customer, OLD.customer_name, OLD.period, OLD.kind, OLD.series, OLD.currency,
            OLD.minor_units, OLD.subtotal_minor, OLD.tax_minor, OLD.total_minor, OLD.taxes::text, OLD.cut, OLD.book,
            OLD.book_version, OLD.book_digest, OLD.contracts_digest, OLD.content_digest)
        IS DISTINCT FROM ROW(NEW.id, NEW.tenant, NEW.customer, NEW.customer_name, NEW.period, NEW.kind, NEW.series,
            NEW.currency, NEW.minor_units, NEW.subtotal_minor, NEW.tax_minor, NEW.total_minor, NEW.taxes::text, NEW.cut,
            NEW.book, NEW.book_version, NEW.book_digest, NEW.contracts_digest, NEW.content_digest)
        OR OLD.state <> 'draft' AND ROW(OLD.number, OLD.issued_at, OLD.due_on)
            IS DISTINCT FROM ROW(NEW.number, NEW.issued_at, NEW.due_on) THEN
        RAISE EXCEPTION 'UPDATE of invoices refused: posted rows never change; post a correcting entry'
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'invoice % goes from version % to %, not %', OLD.id, OLD.version, OLD.version + 1, NEW.version
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER invoice_changed BEFORE UPDATE OR DELETE ON invoices FOR EACH ROW EXECUTE FUNCTION invoice_changed();

CREATE FUNCTION lines_removed() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM removed r JOIN invoices i ON i.id = r.invoice_id WHERE i.state <> 'draft') THEN
        RAISE EXCEPTION 'DELETE of invoice_lines refused: posted rows never change; post a correcting entry'
            USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids)
    SELECT 'lines there', array_agg(DISTINCT invoice_id) FROM removed HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER lines_removed AFTER DELETE ON invoice_lines REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION lines_removed();

ALTER TABLE commit_checks DROP CONSTRAINT commit_checks_kind_check, ADD CONSTRAINT commit_checks_kind_check
    CHECK (kind IN ('lines there', 'lines sum', 'settled sum'));
-- By the indexes, row by row: rows of this transaction are in no statistics, and tables that are read whole for each
-- statement make a run quadratic.
CREATE OR REPLACE FUNCTION check_at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    wrong text;
BEGIN
    CASE NEW.kind
        WHEN 'lines there' THEN
            SELECT format('invoice %s has no lines', i.id) INTO wrong FROM invoices i
            WHERE i.id = ANY (NEW.ids) AND NOT EXISTS (SELECT FROM invoice_lines WHERE invoice_id = i.id) LIMIT 1;
        WHEN 'lines sum' THEN
            SELECT format('lines of invoice %s sum to %s and %s tax, it says %s and %s', i.id, sum(l.net_minor),
                sum(l.tax_minor), i.subtotal_minor, i.tax_minor) INTO wrong
            FROM invoices i JOIN invoice_lines l ON l.invoice_id = i.id WHERE i.id = ANY (NEW.ids)
            GROUP BY i.id HAVING sum(l.net_minor) <> i.subtotal_minor OR sum(l.tax_minor) <> i.tax_minor LIMIT 1;
        WHEN 'settled sum' THEN
            SELECT format('what was applied to invoice %s sums to %s, it says %s', i.id,
                coalesce(sum(a.amount_minor), 0), i.settled_minor) INTO wrong
            FROM invoices i LEFT JOIN applications a ON a.invoice_id = i.id WHERE i.id = ANY (NEW.ids)
            GROUP BY i.id HAVING coalesce(sum(a.amount_minor), 0) <> i.settled_minor LIMIT 1;
    END CASE;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM commit_checks WHERE id = NEW.id;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION invoices_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT id INTO wrong FROM added WHERE transaction_id <> pg_current_xact_id() LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'invoice % names another transaction than its own', wrong USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids) SELECT 'lines there', array_agg(id) FROM added HAVING count(*) > 0;
    INSERT INTO commit_checks (kind, ids)
    SELECT 'settled sum', array_agg(id) FROM added WHERE settled_minor <> 0 HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER invoices_added AFTER INSERT ON invoices REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION invoices_added();
CREATE OR REPLACE FUNCTION lines_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    wrong record;
BEGIN
    SELECT a.invoice_id, i.id INTO wrong
    FROM (SELECT DISTINCT invoice_id, tenant FROM added) a
    LEFT JOIN invoices i ON i.id = a.invoice_id AND i.tenant = a.tenant
    WHERE i.transaction_id IS DISTINCT FROM pg_current_xact_id() LIMIT 1;
    IF wrong.invoice_id IS NOT NULL AND wrong.id IS NULL THEN
        RAISE EXCEPTION 'lines of the invoice %, which is not there', wrong.invoice_id
            USING ERRCODE = 'foreign_key_violation';
    ELSIF wrong.invoice_id IS NOT NULL THEN
        RAISE EXCEPTION 'invoice % takes no more lines: posted rows never change; post a correcting entry', wrong.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    INSERT INTO commit_checks (kind, ids)
    SELECT 'lines sum', array_agg(DISTINCT invoice_id) FROM added HAVING count(*) > 0;
    RETURN NULL;
END $$;
CREATE TRIGGER lines_added AFTER INSERT ON invoice_lines REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION lines_added();

CREATE FUNCTION settled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME = 'invoices' THEN
        INSERT INTO commit_checks (kind, ids) SELECT 'settled sum', array_agg(id) FROM added HAVING count(*) > 0;
    ELSE
        INSERT INTO commit_checks (kind, ids)
        SELECT 'settled sum', array_agg(DISTINCT invoice_id) FROM added HAVING count(*) > 0;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER settled AFTER UPDATE ON invoices REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION settled();
CREATE TRIGGER settled AFTER INSERT ON applications REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION settled();

CREATE TRIGGER never_changes BEFORE TRUNCATE ON invoices
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('posted rows never change; post a correcting entry');
CREATE TRIGGER never_changes BEFORE UPDATE OR TRUNCATE ON invoice_lines
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_posted_change('posted rows never change; post a correcting entry');
"""

NEVER = {
    "applications": "what settled an invoice is taken back, never changed",
    "invoice_changes": "who changed an invoice, and why, is never forgotten",
}
"""The tables whose rows never change, and why."""

TENANTS = (
    of_tenants("invoices", "invoice_lines", "number_series", "applications", "invoice_changes", "periods_to_rate")
    + """
GRANT SELECT ON invoice_edges TO meterline_app;
GRANT UPDATE, DELETE ON invoices, invoice_lines TO meterline_app;
GRANT UPDATE ON number_series TO meterline_app;
"""
)
