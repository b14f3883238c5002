"""What is stored, and what the auditor says is stored, in one form: so that they can be compared, and told apart."""

from collections import Counter
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from tests.simulation.billing.auditor import Auditor

Seen = dict[str, Any]

_QUERIES = {
    "invoices": """SELECT id, kind, customer, currency, period, state, payment_status, number, subtotal_minor, tax_minor,
        total_minor, settled_minor, version FROM invoices""",
    "lines": "SELECT id, invoice_id, kind, usage_period, charge, revenue, amount_minor, net_minor, tax_minor FROM invoice_lines",
    "applications": "SELECT invoice_id, kind, sum(amount_minor)::bigint FROM applications GROUP BY 1, 2 HAVING sum(amount_minor) <> 0",
    "numbers": "SELECT series, last FROM number_series WHERE last > 0",
    "events": "SELECT type, count(*) FROM outbox GROUP BY 1",
    "sequence": "SELECT sequence FROM outbox_tenants WHERE sequence > 0",
    "credit notes": "SELECT number, invoice_id, subtotal_minor, tax_minor, applied_minor, excess_minor FROM credit_notes",
    "wallets": "SELECT id, customer, currency, balance_minor, version FROM wallets",
    "lots": """SELECT l.id, l.wallet_id, (SELECT sum(amount_minor)::bigint FROM wallet_moves m WHERE m.lot_id = l.id) FROM wallet_lots l""",
    "months": """SELECT f.line_id, f.month, f.amount_minor, EXISTS (SELECT FROM recognitions r WHERE r.tenant = f.tenant
        AND r.line_id = f.line_id AND r.month = f.month) FROM months_in_force f""",
    "accruals": """SELECT period, customer, currency, amount, sum(amount_minor)::bigint FROM accruals GROUP BY 1, 2, 3, 4
        HAVING sum(amount_minor) <> 0""",
    "payments": "SELECT id, outcome, invoice_id, amount_minor FROM payments",
    "refunds": "SELECT id, customer, currency, amount_minor FROM refunds",
    "to rate": "SELECT period FROM periods_to_rate",
    "billed": "SELECT period FROM bill_runs WHERE state = 'posted'",
    "written off": "SELECT customer, currency, usage_period, charge, amount_minor FROM usage_write_offs",
    "billed again": "SELECT invoice_id FROM invoice_rebills",
    "closed": "SELECT through FROM closed_periods",
    "opened": "SELECT through, opened_at FROM period_overrides",
    "settled": "SELECT count(*) FROM settled_entries",
}  # fmt: skip
_BALANCES = """SELECT p.account, p.customer, p.dimension, p.currency, sum(p.amount_minor)::bigint FROM postings p
    JOIN journal_entries e USING (tenant, sequence)
    WHERE e.effective_at <= coalesce(:effective, CAST('infinity' AS date))
        AND e.booked_at <= coalesce(:booked, CAST('infinity' AS timestamptz))
    GROUP BY 1, 2, 3, 4 HAVING sum(p.amount_minor) <> 0"""
_JOURNAL = (
    "SELECT template, document_kind, document_id, document_version, effective_at FROM journal_entries ORDER BY sequence"
)


def stored(database: sa.Engine, effective: date, booked: datetime) -> Seen:
    """What is stored, of all that the auditor knows; the balances now, and on both clocks."""
    with database.connect() as connection:
        found: Seen = {name: _keyed(connection.exec_driver_sql(sql)) for name, sql in _QUERIES.items()}
        for name, days in (("balances", (None, None)), ("balances then", (effective, booked))):
            keys = dict(zip(("effective", "booked"), days, strict=True))
            found[name] = {tuple(row[:4]): row[4] for row in connection.execute(sa.text(_BALANCES), keys)}
        found["journal"] = [_entry(*row) for row in connection.exec_driver_sql(_JOURNAL)]
    return found


def foretold(auditor: Auditor, effective: date, booked: datetime) -> Seen:
    """What must be stored."""
    books, invoices = auditor.books, auditor.invoices.values()
    left: Counter[str] = Counter()
    for lot in auditor.lots.values():
        left[lot.wallet] += lot.left
    applied: Counter[tuple[str, str]] = Counter()
    for each in invoices:
        for part in each.applied:
            applied[each.id, part.kind] += part.minor * part.stands
    rows: dict[str, Any] = {
        "invoices": [
            (i.id, i.kind, i.customer, i.currency, i.period, i.state, i.status, i.number, i.subtotal, i.tax, i.total,
             i.settled, i.version) for i in invoices
        ],
        "lines": [
            (line.id, i.id, line.kind, line.usage_period, line.charge, line.revenue, line.minor, line.net, sum(line.taxes))
            for i in invoices for line in i.lines
        ],
        "applications": [(*key, minor) for key, minor in applied.items() if minor],
        "numbers": [*auditor.numbers.items()],
        "events": [(name, count) for name, count in auditor.events.items() if count],
        "sequence": [(total,)] if (total := auditor.events.total()) else [],
        "credit notes": [(number, *note) for number, note in auditor.notes.items()],
        "wallets": [(key, who, currency, left[key], version) for key, (who, currency, version) in auditor.wallets.items()],
        "lots": [(lot.id, lot.wallet, lot.left) for lot in auditor.lots.values()],
        "months": [
            (key, month, minor, month in schedule.recognised)
            for key, schedule in auditor.schedules.items() for month, minor in schedule.months.items()
        ],
        "accruals": [(*key, name, minor) for key, (_, sums) in auditor.accrued.items() for name, minor in sums.items()],
        "payments": [(key, outcome, said[0], said[1]) for (outcome, key), said in auditor.payments.items()],
        "refunds": [(key, *said[:3]) for key, said in auditor.refunds.items()],
        "to rate": [(period,) for period in auditor.to_rate],
        "billed": [(period,) for period in auditor.posted],
        "written off": [(row[0], row[1], row[2], row[3], row[6]) for row in auditor.write_offs],
        "billed again": [(i.id,) for i in invoices if i.rebilled],
        "closed": [(day,) for day in books.closings],
        "opened": [*books.openings],
        "settled": [(len(auditor.settled),)],
    }  # fmt: skip
    found: Seen = {name: _keyed(value) for name, value in rows.items()}
    found["balances"] = books.balances()
    found["balances then"] = books.balances(effective, booked)
    found["journal"] = [_entry(e.template, e.kind, e.document, e.version, e.day) for e in books.entries]
    return found


def differences(foretold_now: Seen, stored_now: Seen) -> list[str]:
    """Every part that is not as it was foretold, in words."""
    found = []
    for name, expected in foretold_now.items():
        actual = stored_now[name]
        if expected == actual:
            continue
        if isinstance(expected, dict):
            keys = [key for key in {**expected, **actual} if expected.get(key) != actual.get(key)]
            found += [f"{name}: {key}: foretold {expected.get(key)}, stored {actual.get(key)}" for key in keys[:6]]
        else:
            place = next((at for at, pair in enumerate(zip(expected, actual, strict=False)) if pair[0] != pair[1]),
                         min(len(expected), len(actual)))  # fmt: skip
            found.append(
                f"{name} from {place}: foretold {expected[place : place + 5]}, stored {actual[place : place + 5]}"
            )
    return found


def _keyed(rows: Any) -> Any:
    return dict(sorted(((tuple(row), len(tuple(row))) for row in rows), key=repr))


def _entry(template: str, kind: str, document: str, version: int, day: date) -> tuple[Any, ...]:
    """What is compared of an entry: reversals and rows of payouts are named by what the auditor does not know."""
    named = "" if kind in {"reversal", "payout row"} else document
    return template, kind, named, version, day
