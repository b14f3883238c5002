"""The journal: accounts, entries, postings, and the templates that say which accounts an event touches.

Owns the chart of accounts in use, and the invariant that a template's legs cancel: its entries sum to zero.
"""

from dataclasses import dataclass
from enum import IntEnum

import polars as pl

from schemas.invoice import Columns


class Account(IntEnum):
    """The accounts in use, by their number in the chart."""

    RECEIVABLE = 1100
    TAX_PAYABLE = 2000
    CUSTOMER_CREDIT = 2100
    USAGE_REVENUE = 4010

    @property
    def title(self) -> str:
        """The account's name in words.

        >>> Account.TAX_PAYABLE.title
        'tax payable'
        """
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Leg:
    """One leg of a template: an amount of the document goes to an account, as debit (1) or credit (-1)."""

    account: Account
    column: str
    """The document's column with the amount, in minor units."""
    sign: int
    account_if_negative: Account | None = None
    """The account that takes the leg instead when the amount is below zero."""


@dataclass(frozen=True)
class Template:
    """How an event is posted. Its code is part of the id of its entries, so that an event is posted once."""

    code: str
    description: str
    legs: tuple[Leg, ...]


P02 = Template(
    code="P02",
    description="Invoice for {period} to {customer}",
    legs=(
        Leg(Account.RECEIVABLE, "total_minor", 1, account_if_negative=Account.CUSTOMER_CREDIT),
        Leg(Account.USAGE_REVENUE, "subtotal_minor", -1),
        Leg(Account.TAX_PAYABLE, "tax_minor", -1),
    ),
)
"""An invoice in arrears: the customer owes the total; the subtotal is revenue; the tax is owed to the state. When the
total is below zero we owe the customer, and no payment is due: that is customer credit."""

ENTRIES: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "template": pl.String,
    "document_id": pl.String,  # of the invoice
    "effective_at": pl.Date,  # the accounting day
    "booked_at": pl.Datetime("us", "UTC"),  # the instant of posting
    "description": pl.String,
    "content_digest": pl.String,  # of the entry and its postings, not of the instant of posting
}
"""Columns of a journal entries frame."""

POSTINGS: Columns = {
    "entry_id": pl.String,
    "position": pl.Int64,  # from 1
    "account": pl.Int64,  # Account
    "customer": pl.String,
    "currency": pl.String,
    "amount_minor": pl.Int64,  # a debit is above zero, a credit below; never zero
}
"""Columns of a postings frame. The postings of an entry sum to zero per currency."""
