"""Wallets in PostgreSQL: credits are put in, burned, given back and expire, and the books and events follow at once.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever moves credits holds the tenant's ledger, because it is going to post, then locks the rows of the
wallets, and reads the balances after that. Below that stands the chain of moves in the database: no two moves follow
the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.ledger import store as ledger
from invoicing.ledger.days import open_day
from invoicing.ledger.journal import entries_of, reversal
from invoicing.outbox.store import emit
from invoicing.periods import store as periods
from invoicing.wallets.events import MOVED, wallet_events
from invoicing.wallets.lots import (
    INVOICES,
    LOTS,
    MOVES,
    ORDER,
    WANTED,
    MoveKind,
    burnable,
    burned,
    expired,
    moves,
    returned,
)
from invoicing.wallets.postings import BURNS, Documents, breakage_documents, burn_documents, burns_of, top_up_document
from schemas.identity import digest
from schemas.invoice import Columns
from stores.postgres import as_tenant, insert

_LOTS = """
    SELECT l.id, l.wallet_id, w.customer, w.currency, l.kind, l.priority, l.granted_minor, l.granted_at, l.expires_at,
        m.sequence, m.balance_minor
    FROM wallets w JOIN wallet_lots l ON l.wallet_id = w.id
    CROSS JOIN LATERAL (SELECT sequence, balance_minor FROM wallet_moves m WHERE m.lot_id = l.id"""

WALLETS: Columns = {
    "id": pl.String, "customer": pl.String, "currency": pl.String, "balance_minor": pl.Int64, "version": pl.Int64,
}  # fmt: skip
"""Columns of wallets as they stand; the balance is with what has expired and was not taken away yet."""
HISTORY: Columns = {
    "lot_id": pl.String, "sequence": pl.Int64, "kind": pl.String, "document_id": pl.String, "invoice_id": pl.String,
    "currency": pl.String, "amount_minor": pl.Int64, "balance_minor": pl.Int64,
    "moved_at": pl.Datetime("us", "UTC"),
}  # fmt: skip
"""Columns of moves that were made."""


@dataclass(frozen=True)
class Lot:
    """What is put into a wallet at once."""

    customer: str
    currency: str
    amount_minor: int
    reference: str
    """Of the payment, or of the decision to give credits: it is put in once."""
    promotional: bool = False
    priority: int = 50
    """0 to 100; the lower, the earlier it is burned."""
    expires_at: datetime | None = None
    invoiced: bool = False
    """Whether an invoice asks for its price (1100), not the gateway (1010)."""


def top_up(connection: sa.Connection, tenant: str, lot: Lot, *, at: datetime) -> str:
    """Put a lot into the customer's wallet, made if it is new, and post its price (P22). Returns the lot's id.

    The same reference again changes nothing. Raises OtherContentError when it came with another content before.
    """
    ledger.hold(connection, tenant)
    wallet_id = digest("wallet", tenant, lot.customer, lot.currency)
    lot_id = digest("wallet lot", tenant, wallet_id, lot.reference, int(lot.promotional))
    wallet = {"id": wallet_id, "tenant": tenant, "customer": lot.customer, "currency": lot.currency, "at": at}
    row = {
        "id": lot_id, "tenant": tenant, "wallet_id": wallet_id, "kind": "promotional" if lot.promotional else "paid",
        "priority": lot.priority, "granted": lot.amount_minor, "at": at, "expires_at": lot.expires_at,
        "invoiced": lot.invoiced, "reference": lot.reference,
    }  # fmt: skip
    same = "priority = :priority AND granted_minor = :granted AND invoiced = :invoiced AND expires_at"
    with as_tenant(connection, tenant):
        connection.execute(
            sa.text("INSERT INTO wallets VALUES (:id, :tenant, :customer, :currency, :at) ON CONFLICT DO NOTHING"),
            wallet,
        )
        made = connection.execute(
            sa.text("""INSERT INTO wallet_lots VALUES (:id, :tenant, :wallet_id, :kind, :priority, :granted, :at,
                       :expires_at, :invoiced, :reference) ON CONFLICT (id) DO NOTHING"""), row,
        )  # fmt: skip
        if not made.rowcount:
            query = f"SELECT {same} IS NOT DISTINCT FROM :expires_at FROM wallet_lots WHERE id = :id"  # noqa: S608
            if not connection.execute(sa.text(query), row).scalar_one():
                raise ledger.OtherContentError(
                    f"top-up {lot.reference} of {lot.customer} was made with another content"
                )
            return lot_id
    if not lot.promotional:
        _post(connection, top_up_document(
            tenant=tenant, reference=lot.reference, wallet_id=wallet_id, customer=lot.customer, currency=lot.currency,
            paid_minor=lot.amount_minor, invoiced=lot.invoiced, day=at.date(),
            closed_through=periods.closed_through(connection, tenant),
        ), at)  # fmt: skip
    minor = lot.amount_minor
    grant = (lot_id, 0, MoveKind.GRANT.value, lot.reference, None, minor, minor, minor, None, 0)
    _move(connection, tenant, pl.DataFrame([grant], schema=MOVES, orient="row"), at)
    return lot_id


def burn(
    connection: sa.Connection,
    tenant: str,
    *,
    customer: str,
    currency: str,
    due_minor: int,
    invoice_id: str,
    at: datetime,
    effective_at: date | None = None,
) -> pl.DataFrame:
    """Let a customer's credits pay for an invoice, as far as they reach; what it has burned, as `burn_many` says it."""
    row = pl.DataFrame([(invoice_id, customer, currency, due_minor)], schema=INVOICES, orient="row")
    return burn_many(connection, tenant, row, at=at, effective_at=effective_at)


def burn_many(
    connection: sa.Connection, tenant: str, invoices: pl.DataFrame, *, at: datetime, effective_at: date | None = None
) -> pl.DataFrame:
    """Let credits pay for invoices (columns `lots.INVOICES`), as far as they reach, and post it (P23, P24).

    Returns what the invoices have burned (columns BURNS), those that did so before with what it was then: an invoice
    burns once. The entries are dated `effective_at`, the day of `at` if not given, or the first open day.
    """
    customers = invoices["customer"].unique().to_list()
    if not _wallets_of(connection, tenant, customers):  # which few have: the others wait for nobody
        return pl.DataFrame(schema=BURNS)
    ledger.hold(connection, tenant)
    lots = _locked_lots(connection, tenant, customers)
    of_owners = invoices.join(lots, on=["customer", "currency"], how="semi")
    if of_owners.is_empty():
        return pl.DataFrame(schema=BURNS)
    made = _moves_of(connection, tenant, of_owners["invoice_id"].to_list())
    wanted = burned(of_owners.join(made, on="invoice_id", how="anti"), lots, at)
    now = _post_burns(connection, tenant, wanted, lots, effective_at or at.date(), at)
    _move(connection, tenant, moves(wanted, lots), at)
    return pl.concat([burns_of(made, lots, tenant).select(*BURNS), now]).sort("invoice_id", "kind")


def give_back(
    connection: sa.Connection,
    tenant: str,
    *,
    invoice_id: str,
    amount_minor: int,
    reference: str,
    at: datetime,
    effective_at: date | None = None,
) -> pl.DataFrame:
    """Give an amount of what an invoice burned back to the lots that it came from, the last one first.

    The entries of the burn are reversed, and posted again with what is left of it. Returns what the invoice has burned
    then (columns BURNS). The same reference again changes nothing. Raises ValueError for more than the invoice has
    burned, LookupError for an invoice that burned nothing.
    """
    ledger.hold(connection, tenant)
    query = """SELECT DISTINCT w.customer FROM wallet_moves m JOIN wallet_lots l ON l.id = m.lot_id
               JOIN wallets w ON w.id = l.wallet_id WHERE m.tenant = :tenant AND m.invoice_id = :invoice_id"""
    with as_tenant(connection, tenant):
        keys = {"tenant": tenant, "invoice_id": invoice_id}
        customers = list(connection.execute(sa.text(query), keys).scalars())
    if not customers:
        raise LookupError(f"invoice {invoice_id} burned no credits")
    lots = _locked_lots(connection, tenant, customers)
    made = _moves_of(connection, tenant, [invoice_id])
    before = burns_of(made, lots, tenant)
    if made.filter((pl.col("kind") == MoveKind.RETURN.value) & (pl.col("document_id") == reference)).height:
        return before.select(*BURNS)
    order = lots.sort(*ORDER, nulls_last=True).select(pl.col("id").alias("lot_id"))
    left = made.group_by("lot_id").agg((-pl.col("amount_minor").sum()).alias("amount_minor"))
    wanted = returned(order.join(left, on="lot_id", maintain_order="left"), invoice_id, amount_minor, reference)
    day = effective_at or at.date()
    first_open = open_day(day, periods.closed_through(connection, tenant))
    for entry_id in before["entry_id"]:
        entry, postings = ledger.entries(connection, tenant, entry_id=entry_id)
        journal = reversal(entry, postings, effective_at=first_open, reason="credits given back", booked_at=at)
        ledger.post(connection, journal.entries, journal.postings)
    now = _post_burns(connection, tenant, pl.concat([made, wanted]), lots, day, at)
    _move(connection, tenant, moves(wanted, lots), at)
    return now


def expire(connection: sa.Connection, tenant: str, *, at: datetime) -> int:
    """Take away what has expired by an instant, and post it as breakage (P25). Returns from how many lots."""
    ledger.hold(connection, tenant)
    query = """SELECT DISTINCT w.customer FROM wallet_lots l JOIN wallets w ON w.id = l.wallet_id
               WHERE l.tenant = :tenant AND l.expires_at <= :at AND w.balance_minor > 0"""
    with as_tenant(connection, tenant):
        customers = list(connection.execute(sa.text(query), {"tenant": tenant, "at": at}).scalars())
    lots = _locked_lots(connection, tenant, customers)
    wanted = expired(lots, at)
    owners = lots.drop("sequence", "kind").join(lots.select("id", pl.col("kind").alias("of")), on="id")
    gone = moves(wanted, lots).join(owners, left_on="lot_id", right_on="id", maintain_order="left")
    paid = gone.filter(pl.col("of") == "paid").with_columns(
        -pl.col("amount_minor"), pl.col("expires_at").dt.date().alias("expires_on")
    )
    _post(
        connection,
        breakage_documents(paid, tenant=tenant, closed_through=periods.closed_through(connection, tenant)),
        at,
    )
    _move(connection, tenant, moves(wanted, lots), at)
    return wanted.height


def lots_of(
    connection: sa.Connection, tenant: str, customer: str | None = None, *, at: datetime | None = None
) -> pl.DataFrame:
    """The lots (columns `lots.LOTS`) of one customer or of all, as they stood at an instant or stand now."""
    query = f"""{_LOTS} AND m.moved_at <= coalesce(CAST(:at AS timestamptz), 'infinity')
            ORDER BY sequence DESC LIMIT 1) m
        WHERE w.tenant = :tenant AND (CAST(:customer AS text) IS NULL OR w.customer = :customer) ORDER BY l.id"""
    return _read(connection, tenant, query, LOTS, customer=customer, at=at)


def wallets_of(
    connection: sa.Connection, tenant: str, customer: str | None = None, *, after: str | None = None, limit: int = 100
) -> pl.DataFrame:
    """The wallets (columns WALLETS) of one customer or of all, by customer and currency; those behind one, by id."""
    query = """SELECT id, customer, currency, balance_minor, version FROM wallets
               WHERE tenant = :tenant AND (CAST(:customer AS text) IS NULL OR customer = :customer)
                   AND (CAST(:after AS text) IS NULL OR (customer, currency) >
                       (SELECT customer, currency FROM wallets WHERE id = :after AND tenant = :tenant))
               ORDER BY customer, currency LIMIT :limit"""
    return _read(connection, tenant, query, WALLETS, customer=customer, after=after, limit=limit)


def history_of(
    connection: sa.Connection, tenant: str, customer: str, *, before: tuple[str, int] | None = None, limit: int = 100
) -> pl.DataFrame:
    """The moves (columns HISTORY) of a customer's lots, the newest first; those older than one, by lot and sequence."""
    lot_id, sequence = before or (None, None)
    query = """SELECT m.lot_id, m.sequence, m.kind, m.document_id, m.invoice_id, w.currency, m.amount_minor,
                   m.balance_minor, m.moved_at
               FROM wallets w JOIN wallet_lots l ON l.wallet_id = w.id JOIN wallet_moves m ON m.lot_id = l.id
               WHERE w.tenant = :tenant AND w.customer = :customer
                   AND (CAST(:lot_id AS text) IS NULL OR (m.moved_at, m.lot_id, m.sequence) <
                       (SELECT moved_at, lot_id, sequence FROM wallet_moves
                        WHERE lot_id = :lot_id AND sequence = :sequence AND tenant = :tenant))
               ORDER BY m.moved_at DESC, m.lot_id DESC, m.sequence DESC LIMIT :limit"""
    keys = {"customer": customer, "lot_id": lot_id, "sequence": sequence, "limit": limit}
    return _read(connection, tenant, query, HISTORY, **keys)


def _wallets_of(connection: sa.Connection, tenant: str, customers: Sequence[str]) -> list[str]:
    query = "SELECT id FROM wallets WHERE tenant = :tenant AND customer = ANY (:customers)"
    return _read(connection, tenant, query, {"id": pl.String}, customers=list(customers))["id"].to_list()


def _locked_lots(connection: sa.Connection, tenant: str, customers: Sequence[str]) -> pl.DataFrame:
    """The lots of these customers, after whoever moves them has ended. Locks first, reads then: see the module."""
    ids = _wallets_of(connection, tenant, customers)
    if not ids:
        return pl.DataFrame(schema=LOTS)
    lock = "SELECT count(*) FROM (SELECT FROM wallets WHERE id = ANY (:ids) ORDER BY id FOR UPDATE) locked"
    with as_tenant(connection, tenant):
        connection.execute(sa.text(lock), {"ids": ids})
    query = f"{_LOTS} ORDER BY sequence DESC LIMIT 1) m WHERE w.id = ANY (:ids) ORDER BY l.id"
    return _read(connection, tenant, query, LOTS, ids=ids)


def _moves_of(connection: sa.Connection, tenant: str, invoice_ids: list[str]) -> pl.DataFrame:
    """The moves (columns `lots.WANTED`) that these invoices have made."""
    query = """SELECT lot_id, kind, document_id, invoice_id, amount_minor FROM wallet_moves
               WHERE tenant = :tenant AND invoice_id = ANY (:ids) ORDER BY lot_id, sequence"""
    return _read(connection, tenant, query, WANTED, ids=invoice_ids)


def _post_burns(
    connection: sa.Connection, tenant: str, made: pl.DataFrame, lots: pl.DataFrame, day: date, at: datetime
) -> pl.DataFrame:
    """Post what invoices have burned by all their moves; returns it (columns BURNS)."""
    burns = burns_of(made, lots, tenant)
    if burns.height:
        closed = periods.closed_through(connection, tenant)
        _post(connection, burn_documents(burns, tenant=tenant, day=day, closed_through=closed), at)
    return burns.select(*BURNS)


def _move(connection: sa.Connection, tenant: str, made: pl.DataFrame, at: datetime) -> None:
    """Make moves of one kind (columns `lots.MOVES`), and tell of the wallets that they moved."""
    if made.is_empty():
        return
    with as_tenant(connection, tenant):
        insert(connection, "wallet_moves", made.with_columns(tenant=pl.lit(tenant), moved_at=pl.lit(at)))
    query = f"""{_LOTS} ORDER BY sequence DESC LIMIT 1) m WHERE w.id IN (
            SELECT wallet_id FROM wallet_lots WHERE id = ANY (:ids)) ORDER BY l.id"""  # noqa: S608  names of ours
    lots = _read(connection, tenant, query, LOTS, ids=made["lot_id"].to_list())
    query = "SELECT id, balance_minor, version FROM wallets WHERE id = ANY (:ids)"
    schema: Columns = {"wallet_id": pl.String, "balance_minor": pl.Int64, "version": pl.Int64}
    wallets = _read(connection, tenant, query, schema, ids=lots["wallet_id"].unique().to_list())
    amounts = made.select(pl.col("lot_id").alias("id"), "amount_minor", pl.col("kind").alias("move"))
    left = burnable(lots, at).group_by("wallet_id").agg(pl.col("balance_minor").sum().alias("burnable_minor"))
    moved = (
        lots.join(amounts, on="id").group_by("wallet_id", "customer", "currency")
        .agg(pl.col("amount_minor").sum(), pl.col("move").first().alias("kind"))
        .join(wallets, on="wallet_id").join(left, on="wallet_id", how="left")
        .with_columns(pl.col("burnable_minor").fill_null(0)).sort("wallet_id")
    )  # fmt: skip
    emit(connection, tenant, list(wallet_events(moved.select(*MOVED), at=at)))


def _post(connection: sa.Connection, documents: Documents, at: datetime) -> None:
    journal = entries_of(*documents, booked_at=at)
    ledger.post(connection, journal.entries, journal.postings)


def _read(connection: sa.Connection, tenant: str, query: str, schema: Columns, **keys: Any) -> pl.DataFrame:
    with as_tenant(connection, tenant):
        rows = connection.execute(sa.text(query), {"tenant": tenant, **keys})
        return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
