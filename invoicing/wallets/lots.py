"""Which credits pay for what. Core.

A wallet holds lots, each put in at once: paid for in full, or promotional, which cost nothing. Credits that come on top
of paid ones are a lot of their own. Owns the order of burning (priority, expiry, id), and that a burn takes no more
than there is.
"""

from datetime import datetime
from enum import StrEnum

import polars as pl

from schemas.invoice import Columns


class MoveKind(StrEnum):
    """Why the balance of a lot moved."""

    GRANT = "grant"
    BURN = "burn"
    RETURN = "return"
    EXPIRY = "expiry"


LOTS: Columns = {
    "id": pl.String,
    "wallet_id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "kind": pl.String,  # paid or promotional
    "priority": pl.Int64,  # the lower, the earlier
    "granted_minor": pl.Int64,
    "granted_at": pl.Datetime("us", "UTC"),
    "expires_at": pl.Datetime("us", "UTC"),  # null: never; from then on it is not burned
    "sequence": pl.Int64,  # of its last move
    "balance_minor": pl.Int64,
}
"""Columns of lots as they stand."""

INVOICES: Columns = {
    "invoice_id": pl.String,
    "customer": pl.String,
    "currency": pl.String,
    "due_minor": pl.Int64,
}
"""Columns of the invoices that credits are to pay for, and what is due of each; one row each."""

MOVES: Columns = {
    "lot_id": pl.String,
    "sequence": pl.Int64,
    "kind": pl.String,  # MoveKind
    "document_id": pl.String,
    "invoice_id": pl.String,
    "amount_minor": pl.Int64,
    "balance_minor": pl.Int64,
    "granted_minor": pl.Int64,
    "previous_sequence": pl.Int64,
    "previous_balance_minor": pl.Int64,
}
"""Columns of moves; a move names what the one before it left."""

WANTED: Columns = {
    "lot_id": pl.String,
    "kind": pl.String,
    "document_id": pl.String,
    "invoice_id": pl.String,
    "amount_minor": pl.Int64,
}
"""Columns of moves that lots shall make, in their order."""

ORDER = ("priority", "expires_at", "id")
"""The order in which lots are burned; what never expires comes after what does."""


def burnable(lots: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The lots that can be burned at an instant: put in by then, not expired, not empty."""
    alive = pl.col("expires_at").is_null() | (pl.col("expires_at") > at)
    return lots.filter((pl.col("granted_at") <= at) & alive & (pl.col("balance_minor") > 0))


def burned(invoices: pl.DataFrame, lots: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """What each lot (columns LOTS) pays of each invoice (columns INVOICES): moves to make (columns WANTED).

    The invoices of a customer in a currency, in the order of their ids, are laid end to end, and so are its lots in the
    order of burning. What overlaps is paid; what no lot reaches stays due.

        invoices  |---- 70 ----|-- 40 --|
        lots      |-- 50 --|---- 45 ---|
        moves        50       20    25     and 15 of the second invoice stay due
    """
    key = ["customer", "currency"]
    payers = (
        burnable(lots, at)
        .sort(*ORDER, nulls_last=True)
        .with_columns(pl.col("balance_minor").cum_sum().over(key).alias("lot_end"))
    )
    owed = invoices.filter(pl.col("due_minor") > 0).join(payers, on=key, how="semi").sort("invoice_id")
    owed = owed.with_columns(pl.col("due_minor").cum_sum().over(key).alias("due_end"))
    start = pl.max_horizontal(pl.col("due_end") - pl.col("due_minor"), pl.col("lot_end") - pl.col("balance_minor"))
    pieces = owed.join(payers, on=key, how="inner").with_columns(
        start=start, amount_minor=start - pl.min_horizontal("due_end", "lot_end")
    )
    return (
        pieces.filter(pl.col("amount_minor") < 0)
        .sort("customer", "currency", "start")
        .select(
            pl.col("id").alias("lot_id"),
            pl.lit(MoveKind.BURN.value).alias("kind"),
            pl.col("invoice_id").alias("document_id"),
            "invoice_id",
            "amount_minor",
        )
    )


def returned(burns: pl.DataFrame, invoice_id: str, amount_minor: int, reference: str) -> pl.DataFrame:
    """The moves (columns WANTED) that give an amount of what an invoice burned back to its lots.

    `burns` (lot_id, amount_minor above zero: burned less returned) stand in the order of burning; the last is given
    back first. Raises ValueError for more than was burned.
    """
    whole = int(burns["amount_minor"].sum())
    if not 0 < amount_minor <= whole:
        raise ValueError(f"return of {amount_minor} to invoice {invoice_id}'s lots; allowed: 1 to {whole}")
    rows, left = [], amount_minor
    for lot_id, burned_minor in burns.select("lot_id", "amount_minor").reverse().iter_rows():
        part = min(left, burned_minor)
        if part:
            rows.append((lot_id, MoveKind.RETURN.value, reference, invoice_id, part))
        left -= part
    return pl.DataFrame(rows, schema=WANTED, orient="row")


def expired(lots: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """The moves (columns WANTED) that take away what lots hold that have expired by an instant."""
    gone = lots.filter((pl.col("expires_at") <= at) & (pl.col("balance_minor") > 0)).sort("id")
    return gone.select(
        pl.col("id").alias("lot_id"),
        pl.lit(MoveKind.EXPIRY.value).alias("kind"),
        pl.col("id").alias("document_id"),
        pl.lit(None, pl.String).alias("invoice_id"),
        (-pl.col("balance_minor")).alias("amount_minor"),
    )


def moves(wanted: pl.DataFrame, lots: pl.DataFrame) -> pl.DataFrame:
    """The moves (columns MOVES) that lots (columns LOTS) make as wanted, each behind the one before it."""
    standing = lots.select(
        pl.col("id").alias("lot_id"), pl.col("sequence").alias("last"), pl.col("balance_minor").alias("held"),
        "granted_minor",
    )  # fmt: skip
    made = wanted.join(standing, on="lot_id", how="inner", maintain_order="left").with_columns(
        sequence=pl.col("last") + pl.int_range(1, pl.len() + 1).over("lot_id"),
        balance_minor=pl.col("held") + pl.col("amount_minor").cum_sum().over("lot_id"),
    )
    assert made.height == wanted.height, "a move of an unknown lot"
    return made.with_columns(
        previous_sequence=pl.col("sequence") - 1,
        previous_balance_minor=pl.col("balance_minor") - pl.col("amount_minor"),
    ).select(pl.col(name).cast(kind) for name, kind in MOVES.items())
