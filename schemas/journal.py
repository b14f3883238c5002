"""The journal: accounts, entries and postings.

Owns the chart of accounts, and the columns of the two tables that the books are. What may be posted to which account
is said by the templates of `schemas.templates`.
"""

from enum import IntEnum

import polars as pl

from schemas.invoice import Columns


class Account(IntEnum):
    """The chart of accounts. A debit raises an asset or an expense, a credit a liability or revenue."""

    CASH = 1000
    GATEWAY_CLEARING = 1010
    RECEIVABLE = 1100
    DISPUTED_RECEIVABLE = 1120
    UNBILLED_RECEIVABLE = 1150
    BAD_DEBT_ALLOWANCE = 1190
    TAX_PAYABLE = 2000
    CUSTOMER_CREDIT = 2100
    PREPAID_CREDITS = 2150
    UNEARNED_REVENUE = 2200
    REFUND_LIABILITY = 2300
    SUBSCRIPTION_REVENUE = 4000
    USAGE_REVENUE = 4010
    COMMITMENT_REVENUE = 4020
    DISCOUNTS = 4090
    SLA_CREDITS = 4095
    BREAKAGE = 4900
    LATE_FEES = 4910
    BAD_DEBT = 6100
    PAYMENT_FEES = 6200
    CHARGEBACK_LOSS = 6300
    FX_REALISED = 7000
    FX_UNREALISED = 7010
    ROUNDING = 7090
    FX_POSITION = 9000

    @property
    def title(self) -> str:
        """The account's name in words.

        >>> Account.TAX_PAYABLE.title, Account.FX_POSITION.title
        ('tax payable', 'FX position')
        """
        return self.name.lower().replace("_", " ").replace("fx", "FX").replace("sla", "SLA")

    @property
    def kind(self) -> str:
        """What the account is in a balance sheet or income statement, by its first digit.

        >>> Account.RECEIVABLE.kind, Account.DISCOUNTS.kind, Account.FX_REALISED.kind
        ('asset', 'revenue', 'expense')
        """
        kinds = {1: "asset", 2: "liability", 4: "revenue", 6: "expense", 7: "expense", 9: "equity"}
        return kinds[self.value // 1000]


REVERSAL = "reversal"
"""The document kind of an entry that mirrors another one; its document is that entry."""

ENTRIES: Columns = {
    "id": pl.String,  # digest of tenant, template, document id, document version and part
    "tenant": pl.String,
    "template": pl.String,
    "document_kind": pl.String,  # invoice, payment, reversal ...
    "document_id": pl.String,
    "document_version": pl.Int64,
    "part": pl.Int64,  # from 1: a document may be posted by a template in parts
    "relates_to": pl.String,  # the id of an earlier entry, or null
    "relates_to_period": pl.String,  # the closed period that an adjusting entry is for, or null
    "effective_at": pl.Date,  # the accounting day
    "booked_at": pl.Datetime("us", "UTC"),  # the instant of posting; never goes back along a tenant's entries
    "description": pl.String,
    "content_digest": pl.String,  # of the entry and its postings, not of the instant of posting
}
"""Columns of a journal entries frame."""

CHAINED: Columns = {
    **ENTRIES,
    "sequence": pl.Int64,  # from 1, without gaps, in the order of the tenant's commits
    "previous_hash": pl.String,  # the hash of the entry before, or GENESIS
    "hash": pl.String,
}
"""Columns of journal entries that have their place in the tenant's chain."""

GENESIS = "0" * 64
"""What stands for the hash before the first entry."""

POSTINGS: Columns = {
    "entry_id": pl.String,
    "position": pl.Int64,  # from 1
    "account": pl.Int64,  # Account
    "customer": pl.String,  # empty where the posting is nobody's
    "currency": pl.String,
    "dimension": pl.String,  # a tax's jurisdiction and rate, a payout, a wallet, a feature; empty where there is none
    "amount_minor": pl.Int64,  # a debit is above zero, a credit below; never zero
}
"""Columns of a postings frame. The postings of an entry sum to zero per currency."""
