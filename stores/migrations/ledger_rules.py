"""The rules of the ledger as triggers, and who may do what: SQL for the migration 0008.

Owns what holds whoever writes: an entry balances and touches only what its template allows; it follows the entry before
it, by sequence and by hash; posted rows never change; a closed period takes no entries; a reversal mirrors its entry.

A deferrable trigger runs once a row, and a check a row would be the price of the books. So a statement leaves one row
in ledger_checks with the range of sequences that it touched, and the deferred trigger on that row checks the range in
a few queries. The checks run as the owner: a session that changes its tenant before it commits hides nothing from them.
"""

HASH = """
-- What an entry's hash is of: docs/ledger.md says it in words, invoicing/ledger/chain.py in Python.
CREATE FUNCTION entry_hash(previous bytea, content bytea, sequence bigint, booked_at timestamptz) RETURNS bytea
LANGUAGE sql STABLE PARALLEL SAFE RETURN sha256(convert_to(encode(previous, 'hex') || encode(content, 'hex')
    || sequence || '|' || (extract(epoch FROM booked_at) * 1000000)::bigint, 'UTF8'));
"""

RULES = """
-- One row a statement: the entries that are checked at commit. The check takes its row away again.
CREATE TABLE ledger_checks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('entries', 'postings')),
    tenant text COLLATE "C" NOT NULL,
    first bigint NOT NULL,
    last bigint NOT NULL
);

CREATE FUNCTION wrong_entries(tenant_checked text, first bigint, last bigint) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_nestloop = off AS $$
DECLARE
    wrong text;
BEGIN
    SELECT CASE
        WHEN sequence <> coalesce(before, 0) + 1 THEN
            format('journal entry %s has the sequence %s; the next one of %s is %s', id, sequence, tenant_checked,
                (SELECT coalesce(max(e.sequence), 0) + 1 FROM journal_entries e
                WHERE e.tenant = tenant_checked AND e.sequence < entries.sequence))
        WHEN previous_hash <> coalesce(hash_before, decode(repeat('00', 32), 'hex')) THEN
            format('journal entry %s does not name the hash of the entry before it', id)
        WHEN booked_at < booked_before THEN
            format('journal entry %s is booked at %s, before the entry before it', id, booked_at)
        ELSE format('the hash of journal entry %s is not that of what it says', id) END INTO wrong
    FROM (
        SELECT id, sequence, previous_hash, hash, content_digest, booked_at, lag(sequence) OVER chain AS before,
            lag(hash) OVER chain AS hash_before, lag(booked_at) OVER chain AS booked_before
        FROM journal_entries WHERE tenant = tenant_checked AND sequence BETWEEN first - 1 AND last
        WINDOW chain AS (ORDER BY sequence)) AS entries
    WHERE sequence >= first AND (sequence <> coalesce(before, 0) + 1
        OR previous_hash <> coalesce(hash_before, decode(repeat('00', 32), 'hex')) OR booked_at < booked_before
        OR hash <> entry_hash(previous_hash, content_digest, sequence, booked_at))
    ORDER BY sequence LIMIT 1;
    IF wrong IS NULL THEN
        SELECT format('journal entry %s has no postings', e.id) INTO wrong FROM journal_entries e
        WHERE e.tenant = tenant_checked AND e.sequence BETWEEN first AND last AND NOT EXISTS (
            SELECT FROM postings p WHERE p.tenant = tenant_checked AND p.sequence BETWEEN first AND last
            AND p.sequence = e.sequence)
        ORDER BY e.sequence LIMIT 1;
    END IF;
    IF wrong IS NULL AND EXISTS (SELECT FROM journal_entries
        WHERE tenant = tenant_checked AND sequence BETWEEN first AND last AND relates_to IS NOT NULL) THEN
        wrong := wrong_relations(tenant_checked, first, last);
    END IF;
    RETURN wrong;
END $$;

CREATE FUNCTION wrong_relations(tenant_checked text, first bigint, last bigint) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    SELECT format('journal entry %s relates to %s, which is no earlier entry', e.id, e.relates_to) INTO wrong
    FROM journal_entries e LEFT JOIN journal_entries o ON o.id = e.relates_to AND o.tenant = e.tenant
    WHERE e.tenant = tenant_checked AND e.sequence BETWEEN first AND last AND e.relates_to IS NOT NULL
        AND (o.id IS NULL OR o.sequence >= e.sequence) LIMIT 1;
    IF wrong IS NULL THEN
        SELECT format('journal entry %s does not mirror the entry %s that it reverses', id, relates_to) INTO wrong
        FROM (
            SELECT e.id, e.relates_to, p.account, p.customer, p.currency, p.dimension, p.amount_minor
            FROM journal_entries e JOIN journal_entries o ON o.id = e.relates_to
                JOIN postings p ON p.tenant = e.tenant AND p.sequence IN (e.sequence, o.sequence)
            WHERE e.tenant = tenant_checked AND e.sequence BETWEEN first AND last AND e.document_kind = 'reversal'
        ) AS both_entries
        GROUP BY id, relates_to, account, customer, currency, dimension HAVING sum(amount_minor) <> 0 LIMIT 1;
    END IF;
    IF wrong IS NULL THEN
        SELECT format('journal entry %s reverses %s by another template than %s', e.id, o.id, o.template) INTO wrong
        FROM journal_entries e JOIN journal_entries o ON o.id = e.relates_to
        WHERE e.tenant = tenant_checked AND e.sequence BETWEEN first AND last AND e.document_kind = 'reversal'
            AND (o.template <> e.template OR o.document_kind = 'reversal') LIMIT 1;
    END IF;
    RETURN wrong;
END $$;

CREATE FUNCTION wrong_postings(tenant_checked text, first bigint, last bigint) RETURNS text
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_nestloop = off AS $$
DECLARE
    wrong text;
BEGIN
    SELECT CASE WHEN minor <> 0 THEN
            format('postings of journal entry %s sum to %s %s, not to zero', e.id, minor, currency)
        ELSE format('postings of journal entry %s touch accounts or sides that %s does not allow: %s', e.id,
            template, (SELECT string_agg(account || CASE WHEN amount_minor > 0 THEN ' debit' ELSE ' credit' END, ', '
                ORDER BY position) FROM postings p WHERE p.tenant = tenant_checked AND p.sequence = e.sequence))
        END INTO wrong
    FROM (
        SELECT p.sequence, p.currency, sum(p.amount_minor) AS minor,
            bool_and(coalesce(s.when_positive, false)) OR bool_and(coalesce(s.when_negative, false)) AS allowed
        FROM postings p JOIN journal_entries e ON e.tenant = p.tenant AND e.sequence = p.sequence
            LEFT JOIN template_sides s ON s.template = e.template AND s.account = p.account AND s.side
                = sign(p.amount_minor)::smallint * CASE e.document_kind WHEN 'reversal' THEN -1 ELSE 1 END
        WHERE p.tenant = tenant_checked AND p.sequence BETWEEN first AND last
            AND e.tenant = tenant_checked AND e.sequence BETWEEN first AND last
        GROUP BY p.sequence, p.currency
    ) AS sums JOIN journal_entries e ON e.tenant = tenant_checked AND e.sequence = sums.sequence
        AND e.sequence BETWEEN first AND last
    WHERE minor <> 0 OR NOT allowed ORDER BY e.sequence LIMIT 1;
    RETURN wrong;
END $$;

CREATE FUNCTION check_ledger_at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    wrong := CASE NEW.kind WHEN 'entries' THEN wrong_entries(NEW.tenant, NEW.first, NEW.last)
        ELSE wrong_postings(NEW.tenant, NEW.first, NEW.last) END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    DELETE FROM ledger_checks WHERE id = NEW.id;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER check_ledger_at_commit AFTER INSERT ON ledger_checks DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION check_ledger_at_commit();

-- The period of a day is the earliest closing that has it. It is open again while an override of that closing lasts.
CREATE OR REPLACE FUNCTION entries_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('period close ' || tenant, 0))
    FROM (SELECT DISTINCT tenant FROM added ORDER BY tenant) AS tenants;
    SELECT format('journal entry %s is dated %s; the books of %s are closed through %s; date it in an open period',
        a.id, a.effective_at, a.tenant, c.through) INTO wrong
    FROM (SELECT tenant, effective_at, min(id::text) AS id FROM added GROUP BY 1, 2) AS a
    CROSS JOIN LATERAL (SELECT min(through) AS period, max(through) AS through FROM closed_periods c
        WHERE c.tenant = a.tenant AND c.through >= a.effective_at) AS c
    WHERE c.period IS NOT NULL AND NOT EXISTS (SELECT FROM period_overrides o WHERE o.tenant = a.tenant
        AND o.through = c.period AND clock_timestamp() < o.until) LIMIT 1;
    IF wrong IS NULL THEN
        SELECT format('journal entry %s names another transaction than its own', id) INTO wrong
        FROM added WHERE transaction_id <> pg_current_xact_id() LIMIT 1;
    END IF;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO ledger_checks (kind, tenant, first, last)
    SELECT 'entries', tenant, min(sequence), max(sequence) FROM added GROUP BY tenant;
    RETURN NULL;
END $$;
CREATE TRIGGER entries_added AFTER INSERT ON journal_entries REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION entries_added();

-- Postings are accepted only in the transaction that made their entry: a pair that cancels could be added to an old
-- one.
CREATE OR REPLACE FUNCTION postings_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET enable_nestloop = off AS $$
DECLARE
    touched record;
    wrong record;
BEGIN
    FOR touched IN SELECT tenant, min(sequence) AS first, max(sequence) AS last FROM added GROUP BY tenant LOOP
        SELECT a.sequence, e.id INTO wrong
        FROM (SELECT DISTINCT sequence FROM added WHERE tenant = touched.tenant) a
        LEFT JOIN (SELECT sequence, id, transaction_id FROM journal_entries WHERE tenant = touched.tenant
            AND sequence BETWEEN touched.first AND touched.last) e ON e.sequence = a.sequence
        WHERE e.transaction_id IS DISTINCT FROM pg_current_xact_id() LIMIT 1;
        IF wrong.sequence IS NOT NULL AND wrong.id IS NULL THEN
            RAISE EXCEPTION 'postings of the entry % of %, which is not there', wrong.sequence, touched.tenant
                USING ERRCODE = 'foreign_key_violation';
        ELSIF wrong.sequence IS NOT NULL THEN
            RAISE EXCEPTION
                'journal entry % takes no more postings: posted rows never change; post a correcting entry', wrong.id
                USING ERRCODE = 'restrict_violation';
        END IF;
        INSERT INTO ledger_checks (kind, tenant, first, last)
        VALUES ('postings', touched.tenant, touched.first, touched.last);
    END LOOP;
    RETURN NULL;
END $$;
CREATE TRIGGER postings_added AFTER INSERT ON postings REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION postings_added();

-- Closing waits for those who are posting, and they wait for it. It notes the last entry that was posted before it.
CREATE OR REPLACE FUNCTION wait_for_postings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('period close ' || NEW.tenant, 0));
    NEW.after_sequence := (SELECT coalesce(max(sequence), 0) FROM journal_entries WHERE tenant = NEW.tenant);
    RETURN NEW;
END $$;
CREATE TRIGGER wait_for_postings BEFORE INSERT ON period_overrides
    FOR EACH ROW EXECUTE FUNCTION wait_for_postings();

CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON journal_entries FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_posted_change('posted rows never change; post a correcting entry');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON postings FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_posted_change('posted rows never change; post a correcting entry');
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE OR TRUNCATE ON period_overrides FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_posted_change('who reopened a period, and why, is never forgotten');
"""

ROLE = """
-- Who reads and writes the books of one tenant. A DBA may have made the role already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'meterline_app') THEN
        BEGIN
            CREATE ROLE meterline_app NOLOGIN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL; -- another database of this server was faster
            WHEN insufficient_privilege THEN RAISE EXCEPTION 'the role meterline_app is missing, and % may not make '
                'it: as a superuser, CREATE ROLE meterline_app NOLOGIN; GRANT meterline_app TO %', current_user,
                current_user USING ERRCODE = 'insufficient_privilege';
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'meterline_app', 'SET') THEN
        BEGIN
            EXECUTE format('GRANT meterline_app TO %I WITH INHERIT FALSE, SET TRUE', current_user);
        EXCEPTION WHEN insufficient_privilege THEN RAISE EXCEPTION
            '% may not act as meterline_app: as a superuser, GRANT meterline_app TO %', current_user, current_user
            USING ERRCODE = 'insufficient_privilege';
        END;
    END IF;
END $$;
GRANT USAGE ON SCHEMA public TO meterline_app;
GRANT SELECT, INSERT ON journal_entries, postings, closed_periods, period_overrides TO meterline_app;
GRANT SELECT ON templates, template_legs, template_sides TO meterline_app;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['journal_entries', 'postings', 'closed_periods', 'period_overrides'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_the_tenant ON %I
            USING (tenant = (SELECT current_setting(''meterline.tenant'', true)))
            WITH CHECK (tenant = (SELECT current_setting(''meterline.tenant'', true)))', name);
    END LOOP;
END $$;
"""
