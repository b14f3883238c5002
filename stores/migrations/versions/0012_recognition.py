"""Schedules of what was billed in advance, what of them is recognised, and usage that is accrued.

Owns: a schedule adds up to its line; a month that was recognised or closed is never rewritten; a month of a line is
recognised once, by the amount that is in force; whoever writes. A version of a schedule has all months of its line in
one row, so that a line is one row and not one for each month, and its sum is checked without looking elsewhere.
"""

from alembic import op

from stores.migrations.template_changes import replace_legs
from stores.migrations.tenancy import never_change, of_tenants

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ACCRUAL_LEGS = (
    "+1150 subtotal~ feature, +1150 fees~ feature, +1150 commitment~ feature, "
    "-4010 subtotal~ feature, -4000 fees~ feature, -4020 commitment~ feature"
)

_TABLES = """
-- The newest version of a line is in force. Its months before rewrites_from are those of the version before.
CREATE TABLE recognition_schedules (
    tenant text COLLATE "C" NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    invoice_id text COLLATE "C" NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    feature text COLLATE "C" NOT NULL, -- the dimension of the posting on unearned revenue
    amount_minor bigint NOT NULL,
    method text NOT NULL CHECK (method IN ('exact', 'day', 'even_months', 'prorated_ends')),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL CHECK (ends_at >= starts_at),
    time_zone text NOT NULL,
    months date[] NOT NULL, -- their first days, in order
    amounts_minor bigint[] NOT NULL CHECK (cardinality(amounts_minor) = cardinality(months)), -- none is zero
    rewrites_from date NOT NULL CHECK (extract(day FROM rewrites_from) = 1), -- of the first version: before all months
    reason text NOT NULL,
    scheduled_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, line_id, version)
);
CREATE TABLE recognitions (
    tenant text COLLATE "C" NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    month date NOT NULL,
    version integer NOT NULL, -- of the schedule
    amount_minor bigint NOT NULL,
    entry_id uuid NOT NULL,
    PRIMARY KEY (tenant, line_id, month)
);
-- What a credit note took of a line: first of what is deferred, then of what is recognised.
CREATE TABLE recognition_credits (
    tenant text COLLATE "C" NOT NULL,
    document_id text COLLATE "C" NOT NULL,
    line_id text COLLATE "C" NOT NULL,
    deferred_minor bigint NOT NULL,
    recognised_minor bigint NOT NULL,
    credited_on date NOT NULL,
    PRIMARY KEY (tenant, document_id, line_id),
    CHECK (sign(deferred_minor) * sign(recognised_minor) >= 0 AND deferred_minor + recognised_minor <> 0)
);
CREATE INDEX recognition_credits_by_line ON recognition_credits (tenant, line_id);
-- What of a period's usage was posted as revenue before its invoice, and what its invoice took back.
CREATE TABLE accruals (
    tenant text COLLATE "C" NOT NULL,
    period period NOT NULL,
    customer text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    version integer NOT NULL CHECK (version > 0),
    amount text NOT NULL CHECK (amount IN ('subtotal', 'fees', 'commitment')),
    feature text COLLATE "C" NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor <> 0),
    entry_id uuid NOT NULL,
    PRIMARY KEY (tenant, period, customer, currency, version, amount, feature)
);

CREATE VIEW schedules_in_force WITH (security_invoker = true) AS
SELECT * FROM recognition_schedules s WHERE NOT EXISTS (
    SELECT FROM recognition_schedules later
    WHERE later.tenant = s.tenant AND later.line_id = s.line_id AND later.version > s.version);
CREATE VIEW months_in_force WITH (security_invoker = true) AS
SELECT s.tenant, s.line_id, s.version, s.customer, s.currency, s.feature, m.month, m.amount_minor
FROM schedules_in_force s CROSS JOIN LATERAL unnest(s.months, s.amounts_minor) AS m (month, amount_minor);
GRANT SELECT ON schedules_in_force, months_in_force TO meterline_app;
"""

_RULES = """
CREATE FUNCTION schedules_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
    given recognition_schedules;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('ledger ' || tenant, 0))
    FROM (SELECT DISTINCT tenant FROM added ORDER BY tenant) AS tenants;
    SELECT format('the months of line %s add up to %s, its schedule is %s', a.line_id, m.total, a.amount_minor)
    INTO wrong
    FROM added a CROSS JOIN LATERAL (
        SELECT coalesce(sum(minor), 0) AS total, coalesce(bool_and(minor <> 0 AND extract(day FROM month) = 1
            AND month < coalesce(following, 'infinity')), true) AS whole
        FROM unnest(a.months, a.amounts_minor, a.months[2:]) AS u (month, minor, following)) AS m
    WHERE m.total <> a.amount_minor OR NOT m.whole LIMIT 1;
    FOR given IN SELECT * FROM added WHERE version > 1 LOOP
        wrong := coalesce(wrong, wrong_version(given));
    END LOOP;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

-- Not SECURITY DEFINER: called by itself, it sees what its caller may see.
CREATE FUNCTION wrong_version(given recognition_schedules) RETURNS text LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
DECLARE
    before recognition_schedules;
    last_day date := given.rewrites_from + interval '1 month' - interval '1 day';
    closed date := (SELECT max(through) FROM closed_periods WHERE tenant = given.tenant);
BEGIN
    SELECT * INTO before FROM recognition_schedules
    WHERE tenant = given.tenant AND line_id = given.line_id AND version = given.version - 1;
    IF (before.invoice_id, before.customer, before.currency, before.feature)
        IS DISTINCT FROM (given.invoice_id, given.customer, given.currency, given.feature) THEN
        RETURN format('version %s of the schedule of line %s does not follow on one before it', given.version,
            given.line_id);
    ELSIF EXISTS (SELECT FROM recognitions r WHERE r.tenant = given.tenant AND r.line_id = given.line_id
            AND r.month >= given.rewrites_from) THEN
        RETURN format('month %s of line %s was recognised; a change rewrites the months behind it', given.rewrites_from,
            given.line_id);
    ELSIF last_day <= closed THEN
        RETURN format('the books are closed through %s; a change of line %s rewrites the months behind it', closed,
            given.line_id);
    ELSIF EXISTS (
            SELECT FROM (SELECT * FROM unnest(before.months, before.amounts_minor) AS u (month, minor)
                WHERE month < given.rewrites_from) AS b
            FULL JOIN (SELECT * FROM unnest(given.months, given.amounts_minor) AS u (month, minor)
                WHERE month < given.rewrites_from) AS n USING (month)
            WHERE b.minor IS DISTINCT FROM n.minor) THEN
        RETURN format('version %s of the schedule of line %s rewrites months before %s', given.version, given.line_id,
            given.rewrites_from);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER schedules_added AFTER INSERT ON recognition_schedules REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION schedules_added();

CREATE FUNCTION recognitions_added() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
    wrong text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('ledger ' || tenant, 0))
    FROM (SELECT DISTINCT tenant FROM added ORDER BY tenant) AS tenants;
    SELECT format('month %s of line %s is recognised by %s; its schedule in force says otherwise', a.month, a.line_id,
        a.amount_minor) INTO wrong
    FROM added a LEFT JOIN schedules_in_force s ON s.tenant = a.tenant AND s.line_id = a.line_id
    WHERE s.version IS DISTINCT FROM a.version
        OR s.amounts_minor[array_position(s.months, a.month)] IS DISTINCT FROM a.amount_minor LIMIT 1;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER recognitions_added AFTER INSERT ON recognitions REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION recognitions_added();
"""

_TABLE_RULES = {
    "recognition_schedules": "a schedule never changes; add a version",
    "recognitions": "what is recognised stays so; post a correcting entry",
    "recognition_credits": "a credit never changes; add another one",
    "accruals": "an accrual never changes; post the difference",
}


def upgrade() -> None:
    """Add the tables of schedules and accruals and what holds their rules; P01 has a leg for each kind of revenue."""
    for statements in (_TABLES, _RULES, of_tenants(*_TABLE_RULES), never_change(_TABLE_RULES)):
        op.execute(statements)
    replace_legs(op.get_bind(), "P01", _ACCRUAL_LEGS)
