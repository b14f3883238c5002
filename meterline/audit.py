"""`meterline audit`: the promises, checked on what is stored. One fault that is found fails the audit."""

from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa
from prometheus_client import REGISTRY, Gauge, write_to_textfile

from meterline.output import Failure, Output, Table, Text
from meterline.period import Period
from meterline.rollups import BEFORE_CUT, EVER, cut_here, differences, recounted
from meterline.system import System
from meterline.verification import verified
from stores.clickhouse import query

FAULTS = Gauge("meterline_audit_faults", "Faults that the last whole audit found", ["check"])
AUDITED_AT = Gauge("meterline_audit_timestamp_seconds", "When the last whole audit ended, in seconds since 1970")

_BATCHES, _LINES = BEFORE_CUT % "first_offset", BEFORE_CUT % "offset"
_USAGE_CHECKS = {
    "batches follow each other without gap or overlap": """
        SELECT count() FROM (
            SELECT first_offset, lagInFrame(next_offset, 1, 0) OVER (
                PARTITION BY log_id, partition ORDER BY first_offset
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before FROM progress
        ) WHERE first_offset != before""",
    "every line is an event, a duplicate or a rejection": f"""
        WITH (SELECT (sum(accepted), sum(duplicates), sum(rejected)) FROM progress WHERE {_BATCHES}) AS said
        SELECT toUInt64(said.1 != (SELECT count() FROM events WHERE {_LINES}))
            + toUInt64(said.2 != (SELECT count() FROM duplicates WHERE {_LINES}))
            + toUInt64(said.3 != (SELECT count() FROM rejections WHERE {_LINES}))
            + (SELECT countIf(lines != accepted + duplicates + rejected) FROM progress)""",  # noqa: S608
    "no place in the log holds two events": """
        SELECT count() - uniqExact(log_id, partition, offset, line) FROM events""",
    "no event is stored twice": """
        SELECT count() - uniqExact(log_id, partition, hash_high, hash_low, toDate(appended_at)) FROM events""",
    "every duplicate is the copy of an event": """
        SELECT count() FROM duplicates WHERE (log_id, partition, hash_high, hash_low) NOT IN
            (SELECT log_id, partition, hash_high, hash_low FROM events)""",
}
_BOOK_CHECKS = {
    "the books balance in every currency": """
        SELECT count(*) FROM (
            SELECT FROM postings GROUP BY tenant, currency HAVING sum(amount_minor) <> 0) unbalanced""",
    "every journal entry balances": """
        SELECT count(*) FROM (
            SELECT FROM postings GROUP BY tenant, sequence, currency HAVING sum(amount_minor) <> 0) unbalanced""",
    "lines add up to their invoice": """
        SELECT count(*) FROM invoices i WHERE ROW(subtotal_minor, tax_minor) IS DISTINCT FROM
            (SELECT ROW(sum(net_minor)::bigint, sum(tax_minor)::bigint) FROM invoice_lines l WHERE l.invoice_id = i.id)
            OR tax_minor <> (SELECT coalesce(sum((each ->> 'tax_minor')::bigint), 0)
                FROM json_array_elements(taxes) AS each)""",
    "what settles an invoice adds up to what is settled of it": """
        SELECT count(*) FROM invoices i WHERE settled_minor <>
            (SELECT coalesce(sum(amount_minor), 0) FROM applications a WHERE a.invoice_id = i.id)""",
    "what settles an invoice is posted to its customer's receivable": """
        SELECT count(*) FROM applications a JOIN invoices i ON i.id = a.invoice_id WHERE a.amount_minor IS DISTINCT FROM
            (SELECT -sum(p.amount_minor) FROM journal_entries e JOIN postings p ON p.tenant = e.tenant
                AND p.sequence = e.sequence WHERE e.id = a.entry_id AND e.tenant = i.tenant AND p.account = 1100
                AND p.customer = i.customer AND p.currency = i.currency)""",
    "a customer's receivable is what is due of its invoices": """
        WITH own AS (
            SELECT id FROM journal_entries WHERE document_kind = 'invoice' OR template = 'P30'
            UNION SELECT entry_id FROM applications),
        posted AS (
            SELECT e.tenant, p.customer, p.currency, sum(p.amount_minor) AS minor
            FROM journal_entries e JOIN postings p ON p.tenant = e.tenant AND p.sequence = e.sequence
            WHERE p.account = 1100 AND (e.id IN (SELECT id FROM own)
                OR e.document_kind = 'reversal' AND e.relates_to IN (SELECT id FROM own))
            GROUP BY 1, 2, 3),
        due AS (
            SELECT tenant, customer, currency, sum(greatest(total_minor, 0) - settled_minor) AS minor
            FROM invoices WHERE state NOT IN ('draft', 'void') GROUP BY 1, 2, 3)
        SELECT count(*) FROM posted FULL JOIN due USING (tenant, customer, currency)
        WHERE coalesce(posted.minor, 0) <> coalesce(due.minor, 0)""",
    "what is applied of customers' credit is what is posted of it, and none has less than nothing": """
        SELECT (SELECT count(*) FROM (
            SELECT FROM postings WHERE account = 2100 GROUP BY tenant, customer, currency
            HAVING sum(amount_minor) > 0) AS below)
        + (SELECT count(*) FROM (
            SELECT tenant, sum(amount_minor) AS minor FROM applications WHERE kind = 'customer_credit' GROUP BY 1) a
            FULL JOIN (SELECT e.tenant, sum(p.amount_minor) AS minor FROM journal_entries e
                JOIN postings p ON p.tenant = e.tenant AND p.sequence = e.sequence
                WHERE e.template = 'P14' AND p.account = 2100 GROUP BY 1) p
            USING (tenant) WHERE coalesce(a.minor, 0) <> coalesce(p.minor, 0))""",
    "a payment is applied as far as it says": """
        SELECT count(*) FROM payments p WHERE outcome = 'succeeded' AND applied_minor <>
            (SELECT coalesce(sum(a.amount_minor), 0) FROM applications a
            WHERE a.invoice_id = p.invoice_id AND a.kind = 'payment' AND a.reference = p.id)""",
    "what invoices post to a customer's receivable and credit are their totals": """
        SELECT count(*) FROM (
            SELECT tenant, customer, currency, sum(total_minor) AS total FROM invoices WHERE state <> 'draft'
            GROUP BY 1, 2, 3) i
        FULL JOIN (
            SELECT tenant, customer, currency, sum(amount_minor) AS total
            FROM postings JOIN journal_entries USING (tenant, sequence)
            WHERE account IN (1100, 2100) AND document_kind = 'invoice' GROUP BY 1, 2, 3) p
        USING (tenant, customer, currency) WHERE coalesce(i.total, 0) <> coalesce(p.total, 0)""",
    "tax payable is the tax of invoices less that of credit notes, by tax and rate": """
        SELECT count(*) FROM (
            SELECT FROM (
                SELECT tenant, currency, format('%s %s%%', tax ->> 'name', tax ->> 'rate_percent') AS dimension,
                    (tax ->> 'tax_minor')::bigint AS amount_minor
                FROM (SELECT tenant, currency, taxes FROM invoices WHERE state NOT IN ('draft', 'void')) i
                CROSS JOIN LATERAL json_array_elements(i.taxes) AS tax
                UNION ALL SELECT tenant, currency, format('%s %s%%', tax ->> 'name', tax ->> 'rate_percent'),
                    -(tax ->> 'tax_minor')::bigint
                FROM credit_notes n CROSS JOIN LATERAL json_array_elements(n.taxes) AS tax
                UNION ALL SELECT p.tenant, p.currency, p.dimension, p.amount_minor
                FROM postings p JOIN journal_entries e USING (tenant, sequence)
                WHERE p.account = 2000 AND e.document_kind IN ('invoice', 'void', 'credit note')) both_sides
            GROUP BY tenant, currency, dimension HAVING sum(amount_minor) <> 0) differing""",
    "unearned revenue is what is scheduled and not recognised": """
        SELECT count(*) FROM (
            SELECT FROM (
                SELECT tenant, customer, currency, amount_minor FROM schedules_in_force
                UNION ALL SELECT r.tenant, s.customer, s.currency, -r.amount_minor
                FROM recognitions r JOIN schedules_in_force s USING (tenant, line_id)
                UNION ALL SELECT tenant, customer, currency, amount_minor FROM postings WHERE account = 2200) both_sides
            GROUP BY tenant, customer, currency HAVING sum(amount_minor) <> 0) differing""",
    "prepaid credits are what is left of paid lots": """
        SELECT count(*) FROM (
            SELECT FROM (
                SELECT w.tenant, w.customer, w.currency, m.amount_minor
                FROM wallet_moves m JOIN wallet_lots l ON l.id = m.lot_id JOIN wallets w ON w.id = l.wallet_id
                WHERE l.kind = 'paid'
                UNION ALL SELECT tenant, customer, currency, amount_minor FROM postings WHERE account = 2150) both_sides
            GROUP BY tenant, customer, currency HAVING sum(amount_minor) <> 0) differing""",
    "unbilled receivables are what is accrued": """
        SELECT count(*) FROM (
            SELECT FROM (
                SELECT tenant, customer, currency, -amount_minor AS amount_minor FROM accruals
                UNION ALL SELECT tenant, customer, currency, amount_minor FROM postings WHERE account = 1150) both_sides
            GROUP BY tenant, customer, currency HAVING sum(amount_minor) <> 0) differing""",
    "credit notes add up, take no more than was billed, and settle what they say": """
        SELECT count(*) FROM credit_notes WHERE wrong_credit_note(id) IS NOT NULL""",
    "a credit note's entry takes off what is due, and gives the rest as credit": """
        SELECT count(*) FROM credit_notes n WHERE ROW(-applied_minor, -excess_minor) IS DISTINCT FROM (
            SELECT ROW(coalesce(sum(amount_minor) FILTER (WHERE account = 1100), 0)::bigint,
                coalesce(sum(amount_minor) FILTER (WHERE account = 2100), 0)::bigint)
            FROM journal_entries e JOIN postings p USING (tenant, sequence) WHERE e.id = n.entry_id)""",
    "usage that was written off is posted": """
        SELECT count(*) FROM (
            SELECT entry_id, sum(net_minor) AS net FROM usage_write_offs GROUP BY tenant, run_period, customer,
                usage_period, currency, entry_id) w
        WHERE net <> (SELECT coalesce(sum(p.amount_minor), 0) FROM journal_entries e JOIN postings p
            USING (tenant, sequence) WHERE e.id = w.entry_id AND p.account = 4090)""",
    "what was billed again was taken back before": """
        SELECT count(*) FROM invoice_rebills r JOIN invoices i ON i.id = r.invoice_id
        WHERE i.total_minor <> (SELECT sum(total_minor) FROM credit_notes n WHERE n.invoice_id = i.id)""",
}


def audit(app: System, *, month: str | None = None) -> Iterator[Output]:
    """Check every promise that stored data can show to be broken; recounts a month's rollups, or all of them."""
    period = Period.parse(month) if month else EVER
    cut = yield from cut_here(app, "audit")
    found = {name: int(query(app.clickhouse, sql, **cut.parameters()).item()) for name, sql in _USAGE_CHECKS.items()}
    with recounted(app, period, cut) as recounting:
        found["every event is stored as its line says"] = yield from recounting
        rollups = differences(app, period, cut)
    found["rollups are the sum of their events"] = rollups.keys
    with app.database.connect() as connection:
        found |= {name: connection.execute(sa.text(sql)).scalar_one() for name, sql in _BOOK_CHECKS.items()}
    wrong = [(tenant, finding) for tenant, _, finding in verified(app.database) if finding]
    found["every journal entry is what was posted, and follows the one before it"] = len(wrong)
    for name, faults in found.items():
        FAULTS.labels(name).set(faults)
    AUDITED_AT.set_to_current_time()
    rows = [[name, "holds" if faults == 0 else f"{faults:,} faults"] for name, faults in found.items()]
    yield Table(title="Audit", columns=("promise", "result"), rows=rows)
    if rollups.keys:
        yield rollups.table()
    for tenant, finding in wrong:
        yield Text(text=f"ledger of {tenant}: entry {finding.sequence} {finding.entry_id}: {finding.what}")
    if broken := [name for name, faults in found.items() if faults]:
        yield Failure(message="broken: " + "; ".join(broken))


def broken_books(connection: sa.Connection) -> list[str]:
    """The promises about the books, of all tenants, that what is stored shows to be broken."""
    return [name for name, sql in _BOOK_CHECKS.items() if connection.execute(sa.text(sql)).scalar_one()]


def write_metrics(file: Path) -> None:
    """Write the result for Prometheus, as node_exporter reads it. Nothing, where no audit came to its end."""
    if REGISTRY.get_sample_value("meterline_audit_timestamp_seconds"):
        names = ["meterline_audit_faults", "meterline_audit_timestamp_seconds"]
        write_to_textfile(str(file), REGISTRY.restricted_registry(names))
