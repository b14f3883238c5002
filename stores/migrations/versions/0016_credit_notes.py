"""Credit notes: what is taken back of invoices, line by line and tax by tax.

The database holds that a note is never changed, that its lines add up to it, that notes never take more of a line than
was billed nor more than an invoice came to, and that what a note took off an invoice is applied to it. Whoever adds a
note to an invoice waits for those who do: the sums at the commit see all of them.
"""

from alembic import op

from stores.migrations.tenancy import never_change, of_tenants

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

_TABLES = """
CREATE TABLE credit_notes (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    invoice_id text COLLATE "C" NOT NULL REFERENCES invoices,
    customer text COLLATE "C" NOT NULL,
    series text NOT NULL CHECK (series ~ '^[A-Z][A-Z0-9]{0,9}$'),
    number text NOT NULL,
    reason text NOT NULL CHECK (reason IN ('duplicate', 'product_unsatisfactory', 'order_change', 'fraudulent',
        'billing_error', 'goodwill', 'rebill', 'other')),
    comment text NOT NULL,
    currency text NOT NULL,
    minor_units smallint NOT NULL,
    subtotal_minor bigint NOT NULL,
    tax_minor bigint NOT NULL,
    total_minor bigint NOT NULL CHECK (total_minor >= 0),
    applied_minor bigint NOT NULL CHECK (applied_minor >= 0), -- took that much off what was due
    excess_minor bigint NOT NULL CHECK (excess_minor >= 0), -- became the customer's credit
    taxes json NOT NULL,
    entry_id uuid, -- null where its postings cancel
    issued_at timestamptz NOT NULL,
    transaction_id xid8 NOT NULL DEFAULT pg_current_xact_id(),
    UNIQUE (tenant, number),
    CONSTRAINT net_and_tax_are_the_total CHECK (subtotal_minor + tax_minor = total_minor),
    CONSTRAINT the_total_is_applied_or_credited CHECK (applied_minor + excess_minor = total_minor),
    CONSTRAINT an_amount_is_posted CHECK (total_minor = 0 OR entry_id IS NOT NULL)
);
CREATE INDEX credit_notes_by_invoice ON credit_notes (invoice_id);
CREATE INDEX credit_notes_by_customer ON credit_notes (tenant, customer);
CREATE TABLE credit_note_lines (
    tenant text COLLATE "C" NOT NULL,
    credit_note_id text COLLATE "C" NOT NULL REFERENCES credit_notes,
    position integer NOT NULL CHECK (position > 0),
    invoice_line_id text COLLATE "C" NOT NULL,
    net_minor bigint NOT NULL,
    tax_minor bigint NOT NULL,
    taxes json,
    earned_minor bigint NOT NULL, -- of a line in advance: what of net_minor was earned by then
    PRIMARY KEY (credit_note_id, position),
    UNIQUE (credit_note_id, invoice_line_id),
    CONSTRAINT earned_is_a_part CHECK (earned_minor BETWEEN least(net_minor, 0) AND greatest(net_minor, 0))
);
CREATE INDEX credit_note_lines_by_invoice_line ON credit_note_lines (invoice_line_id);
"""

_RULES = """
CREATE FUNCTION credit_note_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    credited record;
BEGIN
    SELECT * INTO credited FROM invoices WHERE id = NEW.invoice_id FOR UPDATE; -- others who credit it wait
    IF ROW(credited.tenant, credited.customer, credited.currency, credited.minor_units::int)
        IS DISTINCT FROM ROW(NEW.tenant, NEW.customer, NEW.currency, NEW.minor_units::int) THEN
        RAISE EXCEPTION 'credit note % is not of the tenant, customer and currency of its invoice', NEW.id
            USING ERRCODE = 'check_violation';
    END IF;
    IF credited.state IN ('draft', 'void') THEN
        RAISE EXCEPTION 'credit note % is about an invoice that is %', NEW.id, credited.state
            USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.transaction_id <> pg_current_xact_id() THEN
        RAISE EXCEPTION 'credit note % names another transaction than its own', NEW.id
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER credit_note_added BEFORE INSERT ON credit_notes FOR EACH ROW EXECUTE FUNCTION credit_note_added();

CREATE FUNCTION credited_lines_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT n.id INTO wrong FROM (SELECT DISTINCT credit_note_id FROM added) a
    JOIN credit_notes n ON n.id = a.credit_note_id WHERE n.transaction_id <> pg_current_xact_id() LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'credit note % takes no more lines: posted rows never change; write another credit note', wrong
            USING ERRCODE = 'restrict_violation';
    END IF;
    SELECT a.credit_note_id INTO wrong FROM added a JOIN credit_notes n ON n.id = a.credit_note_id
    LEFT JOIN invoice_lines l ON l.invoice_id = n.invoice_id AND l.id = a.invoice_line_id
    WHERE l.id IS NULL OR a.tenant <> n.tenant LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'credit note % has a line of another invoice or tenant', wrong
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER credited_lines_added AFTER INSERT ON credit_note_lines REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION credited_lines_added();

CREATE FUNCTION wrong_credit_note(checked text) RETURNS text LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
    of_invoice text;
BEGIN
    SELECT invoice_id INTO of_invoice FROM credit_notes WHERE id = checked;
    SELECT format('lines of credit note %s sum to %s and %s tax, it says %s and %s', n.id, sum(l.net_minor),
        sum(l.tax_minor), n.subtotal_minor, n.tax_minor) INTO wrong
    FROM credit_notes n LEFT JOIN credit_note_lines l ON l.credit_note_id = n.id WHERE n.id = checked
    GROUP BY n.id HAVING sum(l.net_minor) IS DISTINCT FROM n.subtotal_minor
        OR sum(l.tax_minor) IS DISTINCT FROM n.tax_minor;
    IF wrong IS NULL THEN
        SELECT format('credit notes take %s and %s tax of line %s of invoice %s, which has %s and %s', sum(c.net_minor),
            sum(c.tax_minor), l.position, l.invoice_id, l.net_minor, l.tax_minor) INTO wrong
        FROM invoice_lines l JOIN credit_note_lines c ON c.invoice_line_id = l.id WHERE l.invoice_id = of_invoice
        GROUP BY l.invoice_id, l.position
        HAVING sum(c.net_minor) NOT BETWEEN least(l.net_minor, 0) AND greatest(l.net_minor, 0)
            OR sum(c.tax_minor) NOT BETWEEN least(l.tax_minor, 0) AND greatest(l.tax_minor, 0) LIMIT 1;
    END IF;
    IF wrong IS NULL THEN
        SELECT format('credit notes take %s of invoice %s, whose total is %s', sum(n.total_minor), i.id, i.total_minor)
        INTO wrong FROM invoices i JOIN credit_notes n ON n.invoice_id = i.id WHERE i.id = of_invoice
        GROUP BY i.id HAVING sum(n.total_minor) > greatest(i.total_minor, 0);
    END IF;
    IF wrong IS NULL THEN
        SELECT format('credit note %s takes %s off what is due, %s is applied', n.id, n.applied_minor,
            coalesce(sum(a.amount_minor), 0)) INTO wrong
        FROM credit_notes n LEFT JOIN applications a
            ON a.invoice_id = n.invoice_id AND a.kind = 'credit_note' AND a.reference = n.id
        WHERE n.id = checked GROUP BY n.id HAVING coalesce(sum(a.amount_minor), 0) <> n.applied_minor;
    END IF;
    RETURN wrong;
END $$;

CREATE FUNCTION credit_note_checked() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong CONSTANT text := wrong_credit_note(NEW.id);
BEGIN
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER credit_note_checked AFTER INSERT ON credit_notes DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION credit_note_checked();
"""

_NEVER = "posted rows never change; write another credit note, or bill it again"


def upgrade() -> None:
    """Make the tables of credit notes, with their rules."""
    tables = ("credit_notes", "credit_note_lines")
    for statements in (_TABLES, _RULES, never_change(dict.fromkeys(tables, _NEVER)), of_tenants(*tables)):
        op.execute(statements)
