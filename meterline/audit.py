"""`meterline audit`: the promises, checked on what is stored. One fault that is found fails the audit."""

from collections.abc import Iterator

import sqlalchemy as sa

from meterline.output import Failure, Output, Table
from meterline.system import System
from schemas.log import Flush
from stores.clickhouse import query

_USAGE_CHECKS = {
    "batches follow each other without gap or overlap": """
        SELECT count() FROM (
            SELECT first_offset, lagInFrame(next_offset, 1, 0) OVER (
                PARTITION BY log_id, partition ORDER BY first_offset
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before FROM progress
        ) WHERE first_offset != before""",
    "every line is an event, a duplicate or a rejection": """
        SELECT toUInt64((SELECT sum(accepted) FROM progress) != (SELECT count() FROM events))
            + toUInt64((SELECT sum(duplicates) FROM progress) != (SELECT count() FROM duplicates))
            + toUInt64((SELECT sum(rejected) FROM progress) != (SELECT count() FROM rejections))
            + (SELECT countIf(lines != accepted + duplicates + rejected) FROM progress)""",
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
            SELECT currency FROM postings GROUP BY currency HAVING sum(amount_minor) <> 0) unbalanced""",
    "every journal entry balances": """
        SELECT count(*) FROM (
            SELECT entry_id FROM postings GROUP BY entry_id, currency HAVING sum(amount_minor) <> 0) unbalanced""",
    "lines add up to their invoice": """
        SELECT count(*) FROM invoices i WHERE subtotal_minor <>
            (SELECT coalesce(sum(amount_minor), 0) FROM invoice_lines l WHERE l.invoice_id = i.id)
            OR total_minor <> subtotal_minor + tax_minor""",
    "the receivables and credits of a customer are its invoices": """
        SELECT count(*) FROM (
            SELECT customer, currency, sum(total_minor) AS total FROM invoices GROUP BY 1, 2) i
        FULL JOIN (
            SELECT customer, currency, sum(amount_minor) AS total FROM postings
            WHERE account IN (1100, 2100) GROUP BY 1, 2) p
        USING (customer, currency) WHERE coalesce(i.total, 0) <> coalesce(p.total, 0)""",
}


def audit(app: System) -> Iterator[Output]:
    """Check every promise that stored data can show to be broken."""
    ends = app.log.punctuate(Flush())
    stored = app.follower.wait_for(ends, timeout_s=10) or app.follower.offsets()
    behind = 0 if stored is True else sum(end > stored[partition] for partition, end in ends.items())
    found = {"the log is stored whole": behind}
    found |= {name: int(query(app.clickhouse, sql).item()) for name, sql in _USAGE_CHECKS.items()}
    with app.database.connect() as connection:
        found |= {name: connection.execute(sa.text(sql)).scalar_one() for name, sql in _BOOK_CHECKS.items()}
    rows = [[name, "holds" if faults == 0 else f"{faults:,} faults"] for name, faults in found.items()]
    yield Table(title="Audit", columns=("promise", "result"), rows=rows)
    if broken := [name for name, faults in found.items() if faults]:
        yield Failure(message="broken: " + "; ".join(broken))
