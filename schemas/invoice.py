"""An invoice and its lines: their columns, the states that an invoice goes through, and what a period was rated from.

Money on an invoice is whole minor units of its currency; the exact amount of a line stands beside them. The columns are
those of the tables in PostgreSQL.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import polars as pl

from schemas.money import AMOUNT, PRICE, QUANTITY

Columns = dict[str, pl.DataType | type[pl.DataType]]
"""Names and types of a frame's columns, in order."""


class InvoiceKind(StrEnum):
    """What an invoice came about by."""

    PERIODIC = "periodic"
    """The bill run of its period."""
    PROGRESSIVE = "progressive"
    """A threshold that usage crossed while the period ran."""
    MANUAL = "manual"
    """Somebody wrote it."""
    REBILL = "rebill"
    """Late usage of a billed period: the period's invoice was credited, and this one takes its place."""


class State(StrEnum):
    """Where an invoice is. `EDGES` says where it may go."""

    DRAFT = "draft"
    OPEN = "open"
    PAID = "paid"
    VOID = "void"
    UNCOLLECTIBLE = "uncollectible"


EDGES: dict[State, tuple[State, ...]] = {
    State.DRAFT: (State.OPEN, State.PAID),
    State.OPEN: (State.PAID, State.VOID, State.UNCOLLECTIBLE),
    State.UNCOLLECTIBLE: (State.PAID, State.OPEN),  # a late payment, of all or of a part
    State.PAID: (),
    State.VOID: (),
}
"""Which states may follow which. An invoice of which nothing is due is paid from its finalisation on."""


class PaymentStatus(StrEnum):
    """How its collection goes, beside its state."""

    PENDING = "pending"
    PARTIAL = "partial"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class ApplicationKind(StrEnum):
    """What settles an invoice, all of it or a part."""

    PAYMENT = "payment"
    CUSTOMER_CREDIT = "customer_credit"
    WALLET = "wallet"
    CREDIT_NOTE = "credit_note"
    WRITE_OFF = "write_off"


class LineKind(StrEnum):
    """Why a line is on an invoice."""

    USAGE = "usage"
    """What usage of the invoice's own period was rated at."""
    REMAINDER = "remainder"
    """That, less what progressive invoices billed of it while the period ran."""
    ADJUSTMENT = "adjustment"
    """What an earlier, billed period is rated at now, less what was billed for it. May be negative."""
    FEE = "fee"
    """A flat charge in arrears."""
    ADVANCE = "advance"
    """A flat charge of a period that is still to come."""
    COMMITMENT = "commitment"
    """What is missing up to a minimum or a commitment."""
    SLA_CREDIT = "sla_credit"
    MANUAL = "manual"


class Revenue(StrEnum):
    """Which amount of the entry's template a line is part of, and so which account earns it."""

    USAGE = "subtotal"
    FEES = "fees"
    ADVANCE = "advance"
    COMMITMENT = "commitment"
    SLA = "sla"


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
    "kind": pl.String,  # LineKind, of a line of its own
    "revenue": pl.String,  # Revenue
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for what is not metered
    "quantity": QUANTITY,
    "slices": pl.List(SLICE),
    "amount": AMOUNT,  # exact, of the charge's own chain
    "amount_minor": pl.Int64,  # rounded, less the charge's share of what plan and contract take off
    "tax_rule": pl.String,  # JSON: `schemas.plan.TaxRule`; null without tax
    "service_start": pl.Date,  # half-open, in the customer's days
    "service_end": pl.Date,
    "currency": pl.String,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "cut": pl.Int64,
}
"""Columns of a frame of charges that are billed, sorted by customer and the order of the invoice."""

DRAFTED: Columns = {
    "document": pl.Int64,  # which invoice it is of: those of one number become one invoice
    "kind": pl.String,  # LineKind
    "customer": pl.String,
    "currency": pl.String,
    "usage_period": pl.String,  # the period of the usage; earlier than the invoice's for an adjustment
    "charge": pl.String,
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for what is not metered
    "quantity": QUANTITY,  # for an adjustment: the difference
    "amount": AMOUNT,  # exact; for an adjustment: the difference
    "amount_minor": pl.Int64,  # as it was priced, tax in it or not; for an adjustment: the difference
    "tax_rule": pl.String,  # JSON: `schemas.plan.TaxRule`; null without tax
    "revenue": pl.String,  # Revenue
    "service_start": pl.Date,
    "service_end": pl.Date,  # half-open
    "explanation": pl.String,  # JSON
}
"""Columns of lines before they are taxed, sorted by document and the order of the invoice."""

TAXED: Columns = {
    **DRAFTED,
    "net_minor": pl.Int64,
    "tax_minor": pl.Int64,
    "taxes": pl.String,  # JSON: a list of name, rate_percent, mode and tax_minor; null without tax
}
"""Columns of lines with their taxes."""

TAX_GROUPS: Columns = {"document": pl.Int64, "taxes": pl.String}
"""The taxes of documents: JSON, a list of name, rate_percent, mode, base_minor and tax_minor. None: no row."""

HEADS: Columns = {
    "document": pl.Int64,
    "id": pl.String,
    "tenant": pl.String,
    "kind": pl.String,  # InvoiceKind
    "customer": pl.String,
    "customer_name": pl.String,
    "period": pl.String,
    "series": pl.String,
    "currency": pl.String,
    "cut": pl.Int64,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
}
"""What an invoice is before its lines are added up, in the order of the numbers that they get."""

INVOICES: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "kind": pl.String,  # InvoiceKind
    "customer": pl.String,
    "customer_name": pl.String,
    "period": pl.String,  # "2013-01"
    "series": pl.String,  # what its number begins with
    "number": pl.String,  # "INV-000001", without gaps per tenant and series; null for a draft
    "state": pl.String,  # State
    "payment_status": pl.String,  # PaymentStatus
    "currency": pl.String,
    "minor_units": pl.Int64,  # decimals of the currency's minor unit
    "subtotal_minor": pl.Int64,  # without tax
    "tax_minor": pl.Int64,
    "total_minor": pl.Int64,
    "settled_minor": pl.Int64,  # what was applied to it; due is what is left of a total above zero
    "taxes": pl.String,  # JSON: see TAX_GROUPS; [] without tax
    "due_on": pl.Date,
    "cut": pl.Int64,  # null, as the next four, where it was rated from nothing
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "issued_at": pl.Datetime("us", "UTC"),  # null for a draft
    "version": pl.Int64,  # from 1; each change makes the next one
    "content_digest": pl.String,  # of all that is billed and why, and of nothing that goes on after it is drafted
}
"""Columns of an invoices frame, sorted by customer and currency."""

LINES: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "invoice_id": pl.String,
    "position": pl.Int64,  # from 1
    **{name: kind for name, kind in TAXED.items() if name not in {"document", "currency"}},
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
    "tax_rule": pl.String,
    "revenue": pl.String,
    "service_start": pl.Date,
    "service_end": pl.Date,
    "quantity": QUANTITY,
    "amount": AMOUNT,
    "amount_minor": pl.Int64,
}
"""What all posted lines of a customer, usage period, charge and currency add up to; one row each."""

INVOICE_SERIES = "INV"
"""The series of invoices that name no other."""
