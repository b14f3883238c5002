"""An invoice and its lines: their columns, what a period was rated from, and the tax on top.

Owns what a legal tax is. Money on an invoice is whole minor units of its currency; the exact amount of a line stands
beside them. The columns are those of the tables in PostgreSQL, in the same order.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import polars as pl

from schemas.money import AMOUNT, PRICE, QUANTITY

Columns = dict[str, pl.DataType | type[pl.DataType]]
"""Names and types of a frame's columns, in order."""


class LineKind(StrEnum):
    """Why a line is on an invoice."""

    USAGE = "usage"
    """What the invoice's own period was rated at."""
    ADJUSTMENT = "adjustment"
    """What an earlier, billed period is rated at now, less what was billed for it. May be negative."""


@dataclass(frozen=True)
class Tax:
    """A tax that comes on top of the subtotal (exclusive). Raises ValueError for a rate that is none."""

    name: str
    rate_percent: Decimal

    def __post_init__(self) -> None:
        rate = self.rate_percent
        if not rate.is_finite() or not 0 <= rate <= 100 or rate != round(rate, 10):
            raise ValueError(f"tax {self.name!r}: {rate} percent; allowed: 0 to 100, with at most 10 decimals")


@dataclass(frozen=True)
class Basis:
    """What a period was rated from. With the log, it is all that is needed to rate it again to the same lines."""

    cut: int
    """The barrier: usage of the epochs below it was rated."""
    book: str
    book_version: int
    book_digest: str
    contracts_digest: str


@dataclass(frozen=True)
class Run:
    """A bill run of a tenant's period: what it rates from, and how far it is."""

    tenant: str
    period: str
    basis: Basis
    state: str
    """`started` or `posted`."""
    started_at: datetime
    posted_at: datetime | None


SLICE = pl.Struct(
    {
        "label": pl.String,  # what the slice is of, where it is not the plain quantity: a cell, a fee, a trial; else ""
        "up_to": QUANTITY,  # the tier's inclusive upper bound; null for a tier without end and for models without tiers
        "quantity": QUANTITY,  # what of the quantity was sold at this price (packages, for the package model)
        "unit_price": PRICE,
        "flat": PRICE,  # the tier's flat amount, 0 where it is not owed
        "amount": AMOUNT,
    }
)
"""One step of a line's explanation."""

CHARGED: Columns = {
    "customer": pl.String,
    "period": pl.String,  # the month that the billing period ends in: "2013-01"
    "charge": pl.String,  # unique for a customer and period
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for what is not metered
    "quantity": QUANTITY,
    "slices": pl.List(SLICE),
    "amount": AMOUNT,  # exact, of the charge's own chain
    "amount_minor": pl.Int64,  # rounded, less the charge's share of what plan and contract take off
    "currency": pl.String,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "cut": pl.Int64,
}
"""Columns of a frame of charges that are billed, sorted by customer and the order of the invoice."""

INVOICES: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "customer": pl.String,
    "customer_name": pl.String,
    "period": pl.String,  # "2013-01"
    "number": pl.String,  # "INV-000001", without gaps per tenant
    "currency": pl.String,
    "minor_units": pl.Int64,  # decimals of the currency's minor unit
    "subtotal_minor": pl.Int64,
    "tax_minor": pl.Int64,
    "total_minor": pl.Int64,
    "tax": pl.String,  # JSON: {"name": "VAT", "rate_percent": "20"}; null without tax
    "cut": pl.Int64,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "issued_at": pl.Datetime("us", "UTC"),
    "content_digest": pl.String,  # of all that is billed and why, not of the number and the instant of issue
}
"""Columns of an invoices frame, sorted by customer and currency. One row a customer, period and currency."""

LINES: Columns = {
    "id": pl.String,
    "invoice_id": pl.String,
    "position": pl.Int64,  # from 1
    "kind": pl.String,  # LineKind
    "customer": pl.String,
    "usage_period": pl.String,  # the period of the usage; earlier than the invoice's for an adjustment
    "charge": pl.String,
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for a flat charge
    "quantity": QUANTITY,  # for an adjustment: the difference
    "amount": AMOUNT,  # exact; for an adjustment: the difference
    "amount_minor": pl.Int64,  # for an adjustment: the difference of the two rounded amounts
    "explanation": pl.String,  # JSON
}
"""Columns of an invoice lines frame, sorted by invoice and position."""

BOOKED: Columns = {
    "customer": pl.String,
    "usage_period": pl.String,
    "charge": pl.String,
    "currency": pl.String,
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,
    "quantity": QUANTITY,
    "amount": AMOUNT,
    "amount_minor": pl.Int64,
}
"""What all posted lines of a customer, usage period, charge and currency add up to; one row each."""

INVOICE_NUMBER = "INV-{:06d}"
"""How a tenant's n-th invoice is numbered."""
