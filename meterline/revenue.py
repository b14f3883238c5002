"""Operations of revenue recognition, wallets and reconciliation: each one transaction, and what it did as tables."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import polars as pl

from invoicing.recognition.store import recognise
from invoicing.reconciliation.files import STRIPE, is_stripe, parse_mapping, settlement_rows
from invoicing.reconciliation.store import flags, reconcile_payout, resolve
from invoicing.wallets.lots import burnable
from invoicing.wallets.store import Lot, expire, lots_of, top_up
from meterline.output import Output, Table, Text
from meterline.system import System
from schemas.configuration import ConfigurationError, Fault
from schemas.identity import content_digest
from schemas.log import DEFAULT_TENANT
from schemas.money import MINOR_UNITS, major, minor_of

_FLAG_COLUMNS = ("id", "payout", "outcome", "reason", "reference", "currency", "in the file", "in the books")


def recognise_revenue(app: System, *, through: str) -> Iterator[Output]:
    """Recognise every month of what was billed in advance that has ended by a day."""
    with app.database.begin() as connection:
        done = recognise(connection, DEFAULT_TENANT, _day(through), booked_at=datetime.now(UTC))
    yield Text(
        text=f"{done.rows:,} months of lines are recognised now; still unearned:" + _amounts(done.unearned_minor)
    )


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
) -> Iterator[Output]:
    """Put credits into a customer's wallet, once for a reference."""
    minor = minor_of(amount, currency)
    if minor <= 0:
        raise ValueError(f"amount {amount}; allowed: above zero")
    if not 0 <= priority <= 100:
        raise ValueError(f"priority {priority}; allowed: 0 to 100")
    until = None if expires_at is None else _instant(expires_at)
    now = datetime.now(UTC)
    if until is not None and until <= now:
        raise ValueError(f"expires_at {expires_at}; allowed: an instant to come")
    lot = Lot(customer, currency, minor, reference, promotional, priority, until, invoiced)
    with app.database.begin() as connection:
        lot_id = top_up(connection, DEFAULT_TENANT, lot, at=now)
    yield Text(text=f"lot {lot_id} of {customer}: {amount} {currency}")


def list_wallets(app: System) -> Iterator[Output]:
    """All wallets, with what can be burned of them now."""
    with app.database.connect() as connection:
        lots = burnable(lots_of(connection, DEFAULT_TENANT), datetime.now(UTC))
    sums = lots.group_by("customer", "currency").agg(
        pl.col("balance_minor").filter(pl.col("kind") == kind).sum().alias(kind) for kind in ("paid", "promotional")
    )
    rows = [
        (customer, currency, _shown(paid, currency), _shown(free, currency))
        for customer, currency, paid, free in sums.sort("customer", "currency").rows()
    ]
    columns = ("customer", "currency", "paid", "promotional")
    yield Table(title="Wallets", columns=columns, rows=rows, numbers=columns[2:])


def show_wallet(app: System, *, customer: str, at: str | None = None) -> Iterator[Output]:
    """The lots of a customer in the order of burning, as they stand, or stood at an instant."""
    with app.database.connect() as connection:
        lots = lots_of(connection, DEFAULT_TENANT, customer, at=None if at is None else _instant(at))
    rows = [
        (row["id"], row["currency"], row["kind"], str(row["priority"]), str(row["expires_at"] or ""),
         _shown(row["granted_minor"], row["currency"]), _shown(row["balance_minor"], row["currency"]))
        for row in lots.sort("currency", "priority", "expires_at", "id", nulls_last=True).iter_rows(named=True)
    ]  # fmt: skip
    columns = ("lot", "currency", "kind", "priority", "expires", "put in", "left")
    yield Table(title=f"Wallet of {customer}", columns=columns, rows=rows, numbers=columns[5:])


def expire_credits(app: System, *, at: str | None = None) -> Iterator[Output]:
    """Take away the credits that have expired by an instant, and post them as breakage."""
    now = datetime.now(UTC)
    until = now if at is None else _instant(at)
    if until > now:
        raise ValueError(f"at {at}; allowed: an instant that is over")
    with app.database.begin() as connection:
        lots = expire(connection, DEFAULT_TENANT, at=until)
    yield Text(text=f"{lots:,} lots have expired")


def reconcile_file(
    app: System, *, text: str, file: str, payout: str, mapping: str | None = None, mapping_file: str = ""
) -> Iterator[Output]:
    """Match the rows of a payout in a settlement file with the clearing account, and post what matches."""
    if mapping is None and not is_stripe(text):
        allowed = "allowed: the columns of Stripe's payout_reconciliation.itemized report, or a --mapping of columns"
        raise ConfigurationError([Fault(file, "", "columns that are not known", allowed)])
    columns = STRIPE if mapping is None else parse_mapping(mapping, mapping_file)
    read = settlement_rows(text, file, columns, payout=payout)
    with app.database.begin() as connection:
        done = reconcile_payout(
            connection, DEFAULT_TENANT, payout, read.rows, file_digest=content_digest(text.encode()),
            at=datetime.now(UTC),
        )  # fmt: skip
    sums = done.result.matches.group_by("outcome", "currency").agg(
        pl.len(), *[pl.col(f"{name}_minor").sum() for name in ("gross", "fee", "net", "ledger")]
    )
    rows = [
        (outcome, currency, f"{count:,}", *[_shown(minor, currency) for minor in minors])
        for outcome, currency, count, *minors in sums.sort("outcome", "currency").rows()
    ]
    numbers = ("count", "gross", "fee", "net", "in the books")
    yield Table(title=f"Payout {payout}", columns=("outcome", "currency", *numbers), rows=rows, numbers=numbers)
    others = f"; {read.others:,} rows are of other payouts" if read.others else ""
    yield Text(text=f"{done.posted:,} entries posted; digest {done.result.digest}{others}")


def list_flags(app: System, *, payout: str | None = None) -> Iterator[Output]:
    """What did not match and nobody has looked at."""
    with app.database.connect() as connection:
        found = flags(connection, DEFAULT_TENANT, payout)
    rows = [
        (row["id"], row["payout"], row["outcome"], row["reason"], row["reference"], row["currency"],
         *["" if row[f"{name}_minor"] is None else _shown(row[f"{name}_minor"], row["currency"])
           for name in ("gross", "ledger")])
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    yield Table(title="Flags", columns=_FLAG_COLUMNS, rows=rows, numbers=_FLAG_COLUMNS[6:])


def resolve_flag(app: System, *, match_id: str, who: str, note: str) -> Iterator[Output]:
    """Note what came of a flag; it is not listed any more."""
    with app.database.begin() as connection:
        resolve(connection, DEFAULT_TENANT, match_id, who=who, note=note, at=datetime.now(UTC))
    yield Text(text=f"flag {match_id} is resolved: {note}")


def _amounts(by_currency: dict[str, int]) -> str:
    return "".join(f" {_shown(minor, name)} {name}" for name, minor in sorted(by_currency.items())) or " nothing"


def _shown(minor: int, currency: str) -> str:
    units = MINOR_UNITS.get(currency)
    return f"{minor:,} minor units" if units is None else f"{major(minor, units):,f}"


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"day {text!r}; allowed: a day such as 2026-08-31") from None


def _instant(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"instant {text!r}; allowed: a day or a time such as 2027-01-01T00:00:00+00:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


OPERATIONS = (
    recognise_revenue, top_up_wallet, list_wallets, show_wallet, expire_credits, reconcile_file, list_flags,
    resolve_flag,
)  # fmt: skip
