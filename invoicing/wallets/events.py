"""What is told of wallets whose balance moved. Core.

Owns that each move of a wallet is told once: by the wallet's version after it.
"""

from collections.abc import Iterator
from datetime import datetime

import polars as pl

from invoicing.wallets.lots import MoveKind
from schemas.domain_event import DomainEvent, EventType, WalletData
from schemas.invoice import Columns
from schemas.money import MINOR_UNITS

MOVED: Columns = {
    "wallet_id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "kind": pl.String,  # MoveKind, of all its moves
    "amount_minor": pl.Int64,  # what moved
    "balance_minor": pl.Int64,  # after it
    "burnable_minor": pl.Int64,  # what of that can be burned
    "version": pl.Int64,
}
"""Columns of wallets that moved, one row each."""

_TOLD = {
    MoveKind.GRANT: EventType.WALLET_CREDITED,
    MoveKind.RETURN: EventType.WALLET_CREDITED,
    MoveKind.BURN: EventType.WALLET_DEBITED,
    MoveKind.EXPIRY: EventType.WALLET_EXPIRED,
}


def wallet_events(moved: pl.DataFrame, *, at: datetime) -> Iterator[DomainEvent]:
    """The events of wallets that moved (columns MOVED); one that has nothing left to burn is told as depleted too."""
    for row in moved.iter_rows(named=True):
        said = WalletData(
            id=row["wallet_id"], customer=row["customer"], currency=row["currency"],
            minor_units=MINOR_UNITS[row["currency"]], amount_minor=row["amount_minor"],
            balance_minor=row["balance_minor"],
        )  # fmt: skip
        types = [_TOLD[MoveKind(row["kind"])]]
        if row["amount_minor"] < 0 and row["burnable_minor"] == 0:
            types.append(EventType.WALLET_DEPLETED)
        yield from (DomainEvent(each, row["wallet_id"], row["version"], at, said) for each in types)
