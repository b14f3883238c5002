"""What can be asked of settlements: to match a gateway's file with the books, and what was found in it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import sqlalchemy as sa

from invoicing.reconciliation.files import STRIPE, is_stripe, parse_mapping, settlement_rows
from invoicing.reconciliation.store import Reconciled, flags, reconcile_payout, resolve
from meterline.output import Output, Table, Text
from meterline.revenue import amount_text
from meterline.system import System
from schemas.configuration import ConfigurationError, Fault
from schemas.identity import content_digest
from schemas.money import MINOR_UNITS
from schemas.tenant import DEFAULT_TENANT

_FLAG_COLUMNS = ("id", "payout", "outcome", "reason", "reference", "currency", "in the file", "in the books")


def reconcile_file(
    app: System,
    *,
    text: str,
    file: str,
    payout: str,
    mapping: str | None = None,
    mapping_file: str = "",
    tenant: str = DEFAULT_TENANT,
) -> Iterator[Output]:
    """Match the rows of a payout in a settlement file with the clearing account, and post what matches."""
    with app.database.begin() as connection:
        done, others = reconciled(
            connection, tenant, text=text, file=file, payout=payout, mapping=mapping, mapping_file=mapping_file,
            at=datetime.now(UTC),
        )  # fmt: skip
    sums = sums_of(done.result.matches)
    rows = [
        (outcome, currency, f"{count:,}", *[_shown(minor, currency) for minor in minors])
        for outcome, currency, count, *minors in sums.rows()
    ]
    numbers = ("count", "gross", "fee", "net", "in the books")
    yield Table(title=f"Payout {payout}", columns=("outcome", "currency", *numbers), rows=rows, numbers=numbers)
    ignored = f"; {others:,} rows are of other payouts" if others else ""
    yield Text(text=f"{done.posted:,} entries posted; digest {done.result.digest}{ignored}")


def reconciled(
    connection: sa.Connection,
    tenant: str,
    *,
    text: str,
    file: str,
    payout: str,
    mapping: str | None,
    mapping_file: str,
    at: datetime,
) -> tuple[Reconciled, int]:
    """Match a payout in a file with the books, and post what matches; also how many rows are of other payouts.

    Raises ConfigurationError where the file or the mapping cannot be used.
    """
    if mapping is None and not is_stripe(text):
        allowed = "allowed: the columns of Stripe's payout_reconciliation.itemized report, or a mapping of columns"
        raise ConfigurationError([Fault(file, "", "columns that are not known", allowed)])
    columns = STRIPE if mapping is None else parse_mapping(mapping, mapping_file)
    read = settlement_rows(text, file, columns, payout=payout)
    digest = content_digest(text.encode())
    return reconcile_payout(connection, tenant, payout, read.rows, file_digest=digest, at=at), read.others


def sums_of(matches: pl.DataFrame) -> pl.DataFrame:
    """How many rows and entries had which outcome, in which currency, and what they come to."""
    names = ("gross", "fee", "net", "ledger")
    summed = [pl.col(f"{name}_minor").sum() for name in names]
    return matches.group_by("outcome", "currency").agg(pl.len().alias("count"), *summed).sort("outcome", "currency")


def list_flags(app: System, *, payout: str | None = None, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """What did not match and nobody has looked at."""
    with app.database.connect() as connection:
        found = flags(connection, tenant, payout)
    rows = [
        (row["id"], row["payout"], row["outcome"], row["reason"], row["reference"], row["currency"],
         *[_shown(row[f"{name}_minor"], row["currency"]) for name in ("gross", "ledger")])
        for row in found.iter_rows(named=True)
    ]  # fmt: skip
    yield Table(title="Flags", columns=_FLAG_COLUMNS, rows=rows, numbers=_FLAG_COLUMNS[6:])


def resolve_flag(app: System, *, match_id: str, who: str, note: str, tenant: str = DEFAULT_TENANT) -> Iterator[Output]:
    """Note what came of a flag; it is not listed any more."""
    if not who.strip() or not note.strip():
        raise ValueError("allowed: somebody's name, and a note that says what came of it")
    with app.database.begin() as connection:
        resolve(connection, tenant, match_id, who=who, note=note, at=datetime.now(UTC))
    yield Text(text=f"flag {match_id} is resolved: {note}")


def _shown(minor: int | None, currency: str) -> str:
    """An amount for a person; a file may name a currency that is none."""
    if minor is None:
        return ""
    return amount_text(minor, currency) if currency in MINOR_UNITS else f"{minor:,} minor units"


SETTLEMENT_OPERATIONS = (reconcile_file, list_flags, resolve_flag)
