"""What can be asked of wallets: to put credits in, to look, and to let them expire."""

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from invoicing.ledger.documents import minor_of
from invoicing.wallets.lots import ORDER, burnable
from invoicing.wallets.store import Lot, expire, lots_of, top_up
from meterline.ledger import instant_of
from meterline.output import Output, Table, Text
from meterline.revenue import amount_text
from meterline.system import System
from schemas.payment import PRIORITY_MAX
from schemas.tenant import DEFAULT_TENANT


def top_up_wallet(
    app: System,
    *,
    customer: str,
    currency: str,
    amount: str,
    reference: str,
    promotional: bool = False,
    priority: int = 50,
    expires_at: str | None = None,
    invoiced: bool = False,
    tenant: str = DEFAULT_TENANT,
) -> Iterator[Output]:
    """Put credits into a customer's wallet, once for a reference."""
    _, minor = minor_of(amount, currency)
    if minor <= 0:
        raise ValueError(f"amount {amount}; allowed: above zero")
    if not 0 <= priority <= PRIORITY_MAX:
        raise ValueError(f"priority {priority}; allowed: 0 to {PRIORITY_MAX}")
    if promotional and invoiced:
        raise ValueError("promotional credits have no price; allowed: one of --promotional and --invoiced")
    if not customer or not reference:
        raise ValueError(
            "customer or reference is empty; allowed: a customer, and what the payment or decision is called"
        )
    until, now = instant_of(expires_at), datetime.now(UTC)
    if until is not None and until <= now:
        raise ValueError(f"expires_at {expires_at}; allowed: an instant to come")
    lot = Lot(customer, currency, minor, reference, promotional, priority, until, invoiced)
    with app.database.begin() as connection:
        lot_id = top_up(connection, tenant, lot, at=now)
    yield Text(text=f"lot {lot_id} of {customer}: {amount_text(minor, currency)} {currency}")


def list_wallets(app: System, *, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """All wallets, with what can be burned of them now."""
    with app.database.connect() as connection:
        lots = burnable(lots_of(connection, tenant), datetime.now(UTC))
    sums = lots.group_by("customer", "currency").agg(
        pl.col("balance_minor").filter(pl.col("kind") == kind).sum().alias(kind) for kind in ("paid", "promotional")
    )
    rows = [
        (customer, currency, amount_text(paid, currency), amount_text(free, currency))
        for customer, currency, paid, free in sums.sort("customer", "currency").rows()
    ]
    columns = ("customer", "currency", "paid", "promotional")
    yield Table(title="Wallets", columns=columns, rows=rows, numbers=columns[2:])


def show_wallet(app: System, *, customer: str, at: str | None = None, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """The lots of a customer in the order of burning, as they stand, or stood at an instant."""
    with app.database.connect() as connection:
        lots = lots_of(connection, tenant, customer, at=instant_of(at))
    rows = [
        (row["id"], row["currency"], row["kind"], str(row["priority"]), str(row["expires_at"] or ""),
         amount_text(row["granted_minor"], row["currency"]), amount_text(row["balance_minor"], row["currency"]))
        for row in lots.sort("currency", *ORDER, nulls_last=True).iter_rows(named=True)
    ]  # fmt: skip
    columns = ("lot", "currency", "kind", "priority", "expires", "put in", "left")
    yield Table(title=f"Wallet of {customer}", columns=columns, rows=rows, numbers=columns[5:])


def expire_credits(app: System, *, at: str | None = None, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """Take away the credits that have expired by an instant, and post them as breakage."""
    now = datetime.now(UTC)
    until = instant_of(at) or now
    if until > now:
        raise ValueError(f"at {at}; allowed: an instant that is over")
    with app.database.begin() as connection:
        lots = expire(connection, tenant, at=until)
    yield Text(text=f"{lots:,} lots have expired")


WALLET_OPERATIONS = (top_up_wallet, list_wallets, show_wallet, expire_credits)
