"""Wallets in PostgreSQL: credits are put in, burned, given back and expire, and the books follow at once.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever moves credits locks the rows of the wallets first, in the order of their ids, and reads the
balances after that. Below that stands the chain of moves in the database: no two moves follow the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.bookings.documents import DOCUMENTS, document_ids
from invoicing.bookings.store import OtherContentError, closed_through, copy_in, post, posted_ids, reverse
from invoicing.wallets.lots import INVOICES, LOTS, WANTED, burned, expired, moves, returned
from invoicing.wallets.postings import breakage_documents, burn_documents, top_up_document
from schemas.identity import digest
from schemas.invoice import Columns

_ALL_FROM = 1_000
"""From so many customers on, all wallets of the tenant are read, and the database is told no names."""

_LOTS = """
    SELECT l.id, l.wallet_id, w.customer, w.currency, l.kind, l.priority, l.granted_minor, l.granted_at, l.expires_at,
        m.sequence, m.balance_minor
    FROM wallets w JOIN wallet_lots l ON l.wallet_id = w.id
    CROSS JOIN LATERAL (SELECT sequence, balance_minor FROM wallet_moves m WHERE m.lot_id = l.id"""

BURNS: Columns = {"invoice_id": pl.String, "burned_minor": pl.Int64}
"""Columns of what invoices have burned; those that burned nothing have no row."""


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
    wallet_id = digest("wallet", tenant, lot.customer, lot.currency)
    lot_id = digest("wallet lot", tenant, wallet_id, lot.reference, int(lot.promotional))
    content = digest(lot.amount_minor, lot.priority, str(lot.expires_at), int(lot.invoiced))
    opened = {"id": wallet_id, "tenant": tenant, "customer": lot.customer, "currency": lot.currency, "at": at}
    connection.execute(
        sa.text("INSERT INTO wallets VALUES (:id, :tenant, :customer, :currency, :at) ON CONFLICT DO NOTHING"), opened
    )
    made = connection.execute(
        sa.text("""
            INSERT INTO wallet_lots VALUES (:id, :tenant, :wallet_id, :kind, :priority, :granted, :cost, :at,
                :expires_at, :reference, :content) ON CONFLICT (id) DO NOTHING"""),
        {"id": lot_id, "tenant": tenant, "wallet_id": wallet_id, "kind": "promotional" if lot.promotional else "paid",
         "priority": lot.priority, "granted": lot.amount_minor, "cost": 0 if lot.promotional else lot.amount_minor,
         "at": at, "expires_at": lot.expires_at, "reference": lot.reference, "content": content},
    )  # fmt: skip
    if not made.rowcount:
        stored = connection.execute(sa.text("SELECT content_digest FROM wallet_lots WHERE id = :id"), {"id": lot_id})
        if stored.scalar_one() != content:
            raise OtherContentError(f"top-up {lot.reference} of {lot.customer} was made with another content")
        return lot_id
    connection.execute(
        sa.text("""INSERT INTO wallet_moves (tenant, lot_id, sequence, kind, document_id, amount_minor, balance_minor,
                       granted_minor, moved_at, previous_balance_minor)
                   VALUES (:tenant, :id, 0, 'grant', :reference, :minor, :minor, :minor, :at, 0)"""),
        {"tenant": tenant, "id": lot_id, "reference": lot.reference, "minor": lot.amount_minor, "at": at},
    )
    if not lot.promotional:
        documents = top_up_document(
            tenant=tenant, lot_id=lot_id, wallet_id=wallet_id, customer=lot.customer, currency=lot.currency,
            paid_minor=lot.amount_minor, invoiced=lot.invoiced, day=at.date(),
        )  # fmt: skip
        post(connection, *documents, booked_at=at)
    return lot_id


def burn(
    connection: sa.Connection,
    tenant: str,
    *,
    invoice_id: str,
    customer: str,
    currency: str,
    due_minor: int,
    at: datetime,
) -> int:
    """Let a customer's credits pay for an invoice, as far as they reach; returns how much it has burned."""
    row = pl.DataFrame([(invoice_id, customer, currency, due_minor)], schema=INVOICES, orient="row")
    burns = burn_many(connection, tenant, row, at=at)
    return int(burns["burned_minor"].sum())


def burn_many(
    connection: sa.Connection, tenant: str, invoices: pl.DataFrame, *, at: datetime, effective_at: date | None = None
) -> pl.DataFrame:
    """Let credits pay for invoices (columns `lots.INVOICES`), as far as they reach, and post it (P23, P05).

    Returns what the invoices have burned (columns BURNS), those that did so before with what it was then: an invoice
    burns once. The entries are dated `effective_at`, the day of `at` if not given.
    """
    lots = _locked_lots(connection, tenant, invoices["customer"].unique().to_list())
    of_owners = invoices.join(lots, on=["customer", "currency"], how="semi")
    before = _burned(connection, of_owners["invoice_id"].to_list())
    fresh = of_owners.join(before, on="invoice_id", how="anti")
    wanted = burned(fresh, lots, at)
    _move(connection, tenant, wanted, lots, at)
    _post_burns(connection, tenant, wanted, lots, effective_at or at.date(), at)
    now = wanted.group_by("invoice_id").agg((-pl.col("amount_minor").sum()).alias("burned_minor"))
    return pl.concat([before, now.select(pl.col(name).cast(kind) for name, kind in BURNS.items())]).sort("invoice_id")


def give_back(
    connection: sa.Connection, tenant: str, *, invoice_id: str, amount_minor: int, reference: str, at: datetime
) -> bool:
    """Give an amount of what an invoice burned back to the lots that it came from, the last one first.

    The entries of the burn are reversed and posted again with what is left of it. The same reference again changes
    nothing: False. Raises ValueError for more than the invoice has burned.
    """
    query = """SELECT DISTINCT w.customer FROM wallet_moves m JOIN wallet_lots l ON l.id = m.lot_id
               JOIN wallets w ON w.id = l.wallet_id WHERE m.tenant = :tenant AND m.invoice_id = :invoice_id"""
    keys = {"tenant": tenant, "invoice_id": invoice_id}
    customers = list(connection.execute(sa.text(query), keys).scalars())
    if not customers:
        raise LookupError(f"invoice {invoice_id} burned no credits")
    lots = _locked_lots(connection, tenant, customers)
    made = _read(
        connection, "SELECT lot_id, kind, document_id, invoice_id, amount_minor FROM wallet_moves "
        "WHERE tenant = :tenant AND invoice_id = :invoice_id", WANTED, keys,
    )  # fmt: skip
    if made.filter(pl.col("document_id") == reference).height:
        return False
    order = burn_order(lots)
    left = made.group_by("lot_id").agg((-pl.col("amount_minor").sum()).alias("amount_minor"))
    wanted = returned(order.join(left, on="lot_id", maintain_order="left"), invoice_id, amount_minor, reference)
    version = made.filter(pl.col("kind") == "return")["document_id"].n_unique() + 1
    _move(connection, tenant, wanted, lots, at)
    _reverse_burn(connection, tenant, invoice_id, version, at)
    _post_burns(connection, tenant, pl.concat([made, wanted]), lots, at.date(), at, version=version + 1)
    return True


def expire(connection: sa.Connection, tenant: str, *, at: datetime) -> int:
    """Take away what has expired by an instant, and post it as breakage (P25). Returns from how many lots."""
    query = """SELECT DISTINCT w.customer FROM wallet_lots l JOIN wallets w ON w.id = l.wallet_id
               WHERE l.tenant = :tenant AND l.expires_at <= :at"""
    customers = list(connection.execute(sa.text(query), {"tenant": tenant, "at": at}).scalars())
    lots = _locked_lots(connection, tenant, customers)
    wanted = expired(lots, at)
    made = _move(connection, tenant, wanted, lots, at)
    gone = made.join(lots.drop("sequence"), left_on="lot_id", right_on="id", maintain_order="left")
    paid = pl.when(pl.col("kind_right") == "paid").then(-pl.col("amount_minor")).otherwise(0)
    closed = closed_through(connection, tenant)
    expiries = gone.with_columns(paid_minor=paid, expires_on=pl.col("expires_at").dt.date())
    opens = None if closed is None else date.fromordinal(closed.toordinal() + 1)
    post(connection, *breakage_documents(expiries, tenant=tenant, opens=opens), booked_at=at)
    return wanted.height


def lots_of(
    connection: sa.Connection, tenant: str, customer: str | None = None, *, at: datetime | None = None
) -> pl.DataFrame:
    """The lots (columns `lots.LOTS`) of one customer or of all, as they stood at an instant or stand now."""
    query = f"""{_LOTS} AND m.moved_at <= coalesce(CAST(:at AS timestamptz), 'infinity')
            ORDER BY sequence DESC LIMIT 1) m
        WHERE w.tenant = :tenant AND (CAST(:customer AS text) IS NULL OR w.customer = :customer) ORDER BY l.id"""
    return _read(connection, query, LOTS, {"tenant": tenant, "customer": customer, "at": at})


def prepaid(connection: sa.Connection, tenant: str) -> dict[str, int]:
    """What is left of paid lots, by currency: the balance that account 2150 must have, as a credit."""
    left = lots_of(connection, tenant).filter((pl.col("kind") == "paid") & (pl.col("balance_minor") > 0))
    return dict(left.group_by("currency").agg(pl.col("balance_minor").sum()).iter_rows())


def burn_order(lots: pl.DataFrame) -> pl.DataFrame:
    """The lots' ids in the order of burning, as `lot_id`."""
    return lots.sort("priority", "expires_at", "id", nulls_last=True).select(pl.col("id").alias("lot_id"))


def _locked_lots(connection: sa.Connection, tenant: str, customers: Sequence[str]) -> pl.DataFrame:
    """The lots of these customers, after whoever moves them has ended. Locks first, reads then: see the module."""
    wanted = "" if len(customers) >= _ALL_FROM else "AND customer = ANY (:customers)"
    keys = {"tenant": tenant, "customers": list(customers)}
    query = f"SELECT id, customer FROM wallets WHERE tenant = :tenant {wanted} ORDER BY id"  # noqa: S608
    named = {"tenant": tenant} if not wanted else keys
    known = _read(connection, query, {"id": pl.String, "customer": pl.String}, named)
    ids = known.filter(pl.col("customer").is_in(list(customers)))["id"].to_list()
    lock = "SELECT count(*) FROM (SELECT FROM wallets WHERE id = ANY (:ids) ORDER BY id FOR UPDATE) locked"
    connection.execute(sa.text(lock), {"ids": ids})
    query = f"{_LOTS} ORDER BY sequence DESC LIMIT 1) m WHERE w.id = ANY (:ids) ORDER BY l.id"
    return _read(connection, query, LOTS, {"ids": ids})


def _burned(connection: sa.Connection, invoice_ids: list[str]) -> pl.DataFrame:
    query = """SELECT invoice_id, CAST(-sum(amount_minor) AS bigint) FROM wallet_moves
               WHERE invoice_id = ANY (:ids) GROUP BY 1"""
    return _read(connection, query, BURNS, {"ids": invoice_ids})


def _move(
    connection: sa.Connection, tenant: str, wanted: pl.DataFrame, lots: pl.DataFrame, at: datetime
) -> pl.DataFrame:
    made = moves(wanted, lots)
    copy_in(connection, "wallet_moves", made.with_columns(tenant=pl.lit(tenant), moved_at=pl.lit(at)))
    return made


def _post_burns(
    connection: sa.Connection, tenant: str, burns: pl.DataFrame, lots: pl.DataFrame, day: date, at: datetime,
    *, version: int = 1,
) -> None:  # fmt: skip
    """Post what invoices have burned of each kind, from all their moves."""
    owners = lots.select(pl.col("id").alias("lot_id"), "wallet_id", "customer", "currency", pl.col("kind").alias("of"))
    by_kind = [
        (-pl.col("amount_minor")).filter(pl.col("of") == kind).sum().alias(f"{kind}_minor")
        for kind in ("paid", "promotional")
    ]
    sums = burns.join(owners, on="lot_id").group_by("invoice_id", "wallet_id", "customer", "currency").agg(by_kind)
    documents = burn_documents(sums.with_columns(version=pl.lit(version)), tenant=tenant, effective_at=day)
    post(connection, *documents, booked_at=at)


def _reverse_burn(connection: sa.Connection, tenant: str, invoice_id: str, version: int, at: datetime) -> None:
    rows = [(tenant, template, "", invoice_id, version, 1, None, None, None, "", "") for template in ("P23", "P05")]
    ids = posted_ids(connection, document_ids(pl.DataFrame(rows, schema=DOCUMENTS, orient="row")).to_list())
    reverse(connection, sorted(ids), effective_at=at.date(), reason="credits given back", booked_at=at)


def _read(connection: sa.Connection, query: str, schema: Columns, keys: dict[str, Any]) -> pl.DataFrame:
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
