"""Ledger rows are copied straight into their tables, and the triggers that look at them are cheaper.

COPY and row-level security exclude each other, so the owner copies. That a transaction writes for the tenant that it
names and for no other is therefore held here too, for every role: `entries_added` and `postings_added` refuse a row of
another tenant than `meterline.tenant`, where that is set. Row-level security stays as it is for whatever else the
application's role reads and writes.

Both triggers read the new rows once. Whether postings are of entries of this transaction is seen from a count: as many
entries of it as there are sequences between the first and the last. The check at commit reads by index and in order: it
sorted on disk before.
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_OF_THE_TENANT = """
-- COPY passes by row-level security, whose rule this is.
CREATE FUNCTION refuse_other_tenant(written text) RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    named text := current_setting('meterline.tenant', true);
BEGIN
    IF named <> '' AND named <> written THEN
        RAISE EXCEPTION 'a row of the tenant %, in a transaction of the tenant %', written, named
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;
"""

_ADDED = """
CREATE OR REPLACE FUNCTION entries_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    touched record;
    wrong text;
BEGIN
    FOR touched IN SELECT tenant, min(sequence) AS first, max(sequence) AS last, min(effective_at) AS earliest,
            bool_or(transaction_id <> pg_current_xact_id()) AS foreign_transaction
        FROM added GROUP BY tenant ORDER BY tenant LOOP
        PERFORM refuse_other_tenant(touched.tenant);
        PERFORM pg_advisory_xact_lock_shared(hashtextextended('period close ' || touched.tenant, 0));
        IF EXISTS (SELECT FROM closed_periods WHERE tenant = touched.tenant AND through >= touched.earliest) THEN
            -- The period of a day is the earliest closing that has it. It is open while an override of that lasts.
            SELECT format('journal entry %s is dated %s; the books of %s are closed through %s; date it in an open '
                'period', a.id, a.effective_at, touched.tenant, c.through) INTO wrong
            FROM (SELECT effective_at, min(id::text) AS id FROM added WHERE tenant = touched.tenant GROUP BY 1) AS a
            CROSS JOIN LATERAL (SELECT min(through) AS period, max(through) AS through FROM closed_periods c
                WHERE c.tenant = touched.tenant AND c.through >= a.effective_at) AS c
            WHERE c.period IS NOT NULL AND NOT EXISTS (SELECT FROM period_overrides o WHERE o.tenant = touched.tenant
                AND o.through = c.period AND clock_timestamp() < o.until) LIMIT 1;
        END IF;
        IF wrong IS NULL AND touched.foreign_transaction THEN
            SELECT format('journal entry %s names another transaction than its own', id) INTO wrong
            FROM added WHERE transaction_id <> pg_current_xact_id() LIMIT 1;
        END IF;
        IF wrong IS NOT NULL THEN
            RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
        END IF;
        INSERT INTO ledger_checks (kind, tenant, first, last)
        VALUES ('entries', touched.tenant, touched.first, touched.last);
    END LOOP;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION postings_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp SET enable_nestloop = off AS $$
DECLARE
    touched record;
    wrong record;
BEGIN
    FOR touched IN SELECT tenant, min(sequence) AS first, max(sequence) AS last FROM added GROUP BY tenant LOOP
        PERFORM refuse_other_tenant(touched.tenant);
        -- As a rule all sequences between are new entries; otherwise each of them is looked for.
        IF (SELECT count(*) FROM journal_entries WHERE tenant = touched.tenant
                AND sequence BETWEEN touched.first AND touched.last AND transaction_id = pg_current_xact_id())
            <> touched.last - touched.first + 1 THEN
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
                    'journal entry % takes no more postings: posted rows never change; post a correcting entry',
                    wrong.id USING ERRCODE = 'restrict_violation';
            END IF;
        END IF;
        INSERT INTO ledger_checks (kind, tenant, first, last)
        VALUES ('postings', touched.tenant, touched.first, touched.last);
    END LOOP;
    RETURN NULL;
END $$;
"""

_IN_ORDER = """
ALTER FUNCTION wrong_entries(text, bigint, bigint) SET enable_bitmapscan = off SET jit = off;
ALTER FUNCTION wrong_postings(text, bigint, bigint) SET enable_bitmapscan = off SET jit = off SET work_mem = '32MB';
"""


def upgrade() -> None:
    """Replace the two triggers' functions, and set how the checks at commit read."""
    for statements in (_OF_THE_TENANT, _ADDED, _IN_ORDER):
        op.execute(statements)
