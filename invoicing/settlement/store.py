"""What settles invoices, in PostgreSQL: applications, payments, refunds, and customer credit as the ledger has it.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Owns that credit is spent by one transaction at a time: whoever spends a customer's credit waits for
those who do already, and then reads what is left.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.invoices.lifecycle import Application
from invoicing.ledger.store import OtherContentError
from invoicing.periods.store import closings, overrides
from invoicing.settlement.credit import APPLICATIONS, CREDIT, application_id
from schemas.invoice import ApplicationKind
from schemas.payment import FailedPayment, Payment, Refund
from stores.postgres import copy_in

CUSTOMERS_LOCKED_MAX = 100
"""Above so many at once the tenant's credit is locked as a whole: locks take room that all of PostgreSQL shares."""
_CUSTOMERS_NAMED_MAX = 1_000


def spendable_credit(connection: sa.Connection, tenant: str, customers: Collection[str]) -> pl.DataFrame:
    """The credit of these customers (columns CREDIT), which nobody else spends until this transaction ends.

    A transaction calls it once. In this order: (1) find who has credit, which few have; (2) wait for who spends it, in
    one order for all, so that two who wait never wait for each other; (3) read what is left.
    """
    # 1: find
    found = credit(connection, tenant, customers)
    if found.is_empty():
        return found
    # 2: wait
    keys = sorted(found.select("customer", "currency").rows())
    few = len(keys) <= CUSTOMERS_LOCKED_MAX
    lock = "SELECT pg_advisory_xact_lock{}(hashtextextended('credit of ' || :tenant, 0))"
    connection.execute(sa.text(lock.format("_shared" if few else "")), {"tenant": tenant})
    for customer, currency in keys if few else ():
        own = """SELECT pg_advisory_xact_lock(hashtextextended(CAST(json_build_array(
                 'credit', CAST(:tenant AS text), CAST(:customer AS text), CAST(:currency AS text)) AS text), 0))"""
        connection.execute(sa.text(own), {"tenant": tenant, "customer": customer, "currency": currency})
    # 3: read
    return credit(connection, tenant, {customer for customer, _ in keys})


def credit(connection: sa.Connection, tenant: str, customers: Collection[str] | None = None) -> pl.DataFrame:
    """What customers have in credit, above zero (columns CREDIT): of all, or of these."""
    named = customers is not None and len(customers) <= _CUSTOMERS_NAMED_MAX
    query = f"""SELECT customer, currency, CAST(-sum(amount_minor) AS bigint) FROM postings
                WHERE tenant = :tenant AND account = 2100 {"AND customer = ANY (:customers)" if named else ""}
                GROUP BY 1, 2 HAVING sum(amount_minor) < 0 ORDER BY customer COLLATE "C", currency"""  # noqa: S608  ours
    keys = {"tenant": tenant, **({"customers": [*customers]} if named and customers is not None else {})}
    rows = connection.execute(sa.text(query), keys)
    found = pl.DataFrame([tuple(row) for row in rows], schema=CREDIT, orient="row")
    return found if customers is None or named else found.filter(pl.col("customer").is_in([*customers]))


def allowance(connection: sa.Connection, tenant: str, customer: str, currency: str) -> int:
    """What is provided for a customer's bad debt and not used, in minor units."""
    query = """SELECT CAST(coalesce(-sum(amount_minor), 0) AS bigint) FROM postings WHERE tenant = :tenant
               AND account = 1190 AND customer = :customer AND currency = :currency"""
    keys = {"tenant": tenant, "customer": customer, "currency": currency}
    return int(connection.execute(sa.text(query), keys).scalar_one())


def add_applications(connection: sa.Connection, applications: pl.DataFrame) -> None:
    """Add what settles invoices, or takes that back (columns APPLICATIONS)."""
    copy_in(connection, "applications", applications.select(*APPLICATIONS))


def rows_of(applications: Collection[Application], invoice: dict[str, Any], at: datetime) -> pl.DataFrame:
    """Applications of one invoice as a frame (columns APPLICATIONS)."""
    rows = [
        ("", invoice["tenant"], invoice["id"], each.kind.value, each.amount_minor, each.reference, each.entry_id, at)
        for each in applications
    ]
    frame = pl.DataFrame(rows, schema=APPLICATIONS, orient="row")
    return frame.with_columns(application_id("invoice_id", "entry_id").alias("id"))


def applications(connection: sa.Connection, invoice_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Everything that was applied to invoices, by their id, oldest first.

    Each has kind, amount_minor, reference, entry_id and applied_at.
    """
    query = """SELECT invoice_id, kind, amount_minor, reference, replace(CAST(entry_id AS text), '-', '') AS entry_id,
                   applied_at
               FROM applications WHERE invoice_id = ANY (:ids) ORDER BY applied_at, amount_minor, id"""
    return _by_invoice(connection, query, invoice_ids)


def applied_to(connection: sa.Connection, invoice_id: str) -> list[Application]:
    """The same as values."""
    return [
        Application(ApplicationKind(row["kind"]), row["amount_minor"], row["reference"], row["entry_id"])
        for row in applications(connection, [invoice_id])[invoice_id]
    ]


def changes(connection: sa.Connection, invoice_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Who changed invoices from which state to which, when and why, by the invoices' id, oldest first."""
    query = """SELECT invoice_id, version, from_state, to_state, changed_by, reason, changed_at FROM invoice_changes
               WHERE invoice_id = ANY (:ids) ORDER BY version"""
    return _by_invoice(connection, query, invoice_ids)


def add_payment(
    connection: sa.Connection,
    tenant: str,
    invoice_id: str,
    told: Payment | FailedPayment,
    *,
    applied_minor: int = 0,
    entry_id: str | None = None,
    at: datetime,
) -> None:
    """Note a payment, or a failed one, that `is_known` did not find.

    Raises OtherContentError where somebody has noted it of another invoice since.
    """
    row = {
        "tenant": tenant, "id": told.payment, **_content(invoice_id, told), "applied_minor": applied_minor,
        "entry_id": entry_id, "recorded_at": at,
    }  # fmt: skip
    query = """INSERT INTO payments VALUES (:tenant, :id, :outcome, :invoice_id, :currency, :amount_minor,
               :applied_minor, :happened_on, :payout, :decline_code, CAST(:entry_id AS uuid), :recorded_at)
               ON CONFLICT DO NOTHING"""
    if connection.execute(sa.text(query), row).rowcount == 0:
        assert not is_known(connection, tenant, invoice_id, told), "who holds the invoice has looked for its payment"


def is_known(connection: sa.Connection, tenant: str, invoice_id: str, told: Payment | FailedPayment) -> bool:
    """Whether this was noted before. Raises OtherContentError where it was, with another content."""
    content = _content(invoice_id, told)
    query = f"""SELECT {", ".join(content)} FROM payments
                WHERE tenant = :tenant AND id = :id AND outcome = :outcome"""  # noqa: S608  names of ours
    keys = {"tenant": tenant, "id": told.payment, "outcome": content["outcome"]}
    return _is_same(connection.execute(sa.text(query), keys).mappings().first(), content, f"payment {told.payment}")


def add_refund(
    connection: sa.Connection, tenant: str, customer: str, refund: Refund, *, entry_id: str, at: datetime
) -> bool:
    """Note a refund. False when it was noted before with the same content; OtherContentError with another one."""
    row = {
        "tenant": tenant, "id": refund.refund, "customer": customer, "currency": refund.currency,
        "amount_minor": refund.amount_minor, "happened_on": refund.paid_on, "payout": refund.payout,
        "entry_id": entry_id, "recorded_at": at,
    }  # fmt: skip
    query = """INSERT INTO refunds VALUES (:tenant, :id, :customer, :currency, :amount_minor, :happened_on, :payout,
               CAST(:entry_id AS uuid), :recorded_at) ON CONFLICT DO NOTHING"""
    if connection.execute(sa.text(query), row).rowcount:
        return True
    content = {name: row[name] for name in ("customer", "currency", "amount_minor", "happened_on", "payout")}
    known = f"SELECT {', '.join(content)} FROM refunds WHERE tenant = :tenant AND id = :id"  # noqa: S608  ours
    _is_same(connection.execute(sa.text(known), row).mappings().one(), content, f"refund {refund.refund}")
    return False


def takes_entries(connection: sa.Connection, tenant: str, day: date, now: datetime) -> bool:
    """Whether an entry may be dated on a day: its period is not closed, or is open again for a time."""
    period = min((each.through for each in closings(connection, tenant) if each.through >= day), default=None)
    return period is None or any(each.through == period and now < each.until for each in overrides(connection, tenant))


def _by_invoice(connection: sa.Connection, query: str, ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {each: [] for each in ids}
    for row in connection.execute(sa.text(query), {"ids": list(ids)}).mappings():
        found[row["invoice_id"]].append({name: value for name, value in row.items() if name != "invoice_id"})
    return found


def _content(invoice_id: str, told: Payment | FailedPayment) -> dict[str, Any]:
    """What a payment says, by the names of its columns."""
    head = {"invoice_id": invoice_id, "currency": told.currency, "amount_minor": told.amount_minor}
    if isinstance(told, FailedPayment):
        more = {"outcome": "failed", "happened_on": told.failed_on, "payout": "", "decline_code": told.decline_code}
    else:
        more = {"outcome": "succeeded", "happened_on": told.paid_on, "payout": told.payout, "decline_code": ""}
    return head | more


def _is_same(known: Mapping[Any, Any] | None, content: dict[str, Any], what: str) -> bool:
    if known is None:
        return False
    if other := [name for name, value in content.items() if known[name] != value]:
        raise OtherContentError(f"{what} was told before with another {', '.join(other)}; nothing was changed")
    return True
