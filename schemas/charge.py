"""A charge: one rated amount with its explanation. The columns of the frames that rating hands to invoicing."""

from enum import StrEnum

import polars as pl

from schemas.invoice import Columns
from schemas.money import AMOUNT, PRICE, QUANTITY

INSTANT = pl.Datetime("us", "UTC")


class ChargeKind(StrEnum):
    """What a charge row is for."""

    USAGE = "usage"
    FLAT = "flat"
    MINIMUM_SPEND = "minimum_spend"
    COMMITMENT = "commitment"
    OVERAGE = "overage"
    SLA_CREDIT = "sla_credit"
    MANUAL = "manual"


CHARGES: Columns = {
    "id": pl.String,  # digest of customer, period_start, charge
    "customer": pl.String,
    "period_start": INSTANT,  # the service period: half-open
    "period_end": INSTANT,
    "charge": pl.String,  # unique in the period: the charge's id, with its group; of an added row, what it is for
    "kind": pl.String,  # ChargeKind
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for what is not metered
    "quantity": QUANTITY,
    "gross": AMOUNT,  # the sum of its slices
    "discount": AMOUNT,  # of the charge's own chain: 0 or below
    "amount": AMOUNT,  # gross and discount, exactly
    "amount_minor": pl.Int64,  # the amount rounded to the currency's minor unit
    "shared_minor": pl.Int64,  # its share of what plan and contract take off: 0 or below
    "net_minor": pl.Int64,  # amount_minor, shared_minor and credit_minor
    "credit_minor": pl.Int64,  # its share of prepaid credits: 0 or below
    "tax_base_minor": pl.Int64,
    "tax_code": pl.String,  # null: the book's own tax rule
    "currency": pl.String,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "cut": pl.Int64,  # the barrier: usage of the epochs below it was rated
}
"""Columns of a charges frame, sorted by customer, period and the order of the invoice."""

DISCOUNTS: Columns = {
    "charge_id": pl.String,
    "level": pl.String,  # charge, plan or contract
    "step": pl.String,  # discount or maximum_spend
    "discount": pl.String,  # its id
    "amount": AMOUNT,  # below 0
}
"""Columns of a frame of what was taken off charges, in the order of the charges and of the chain."""

SLICES: Columns = {
    "charge_id": pl.String,
    "from_at": INSTANT,  # the segment: the stretch of the period in which the price held
    "to_at": INSTANT,
    "book_version": pl.Int64,
    "label": pl.String,
    "up_to": QUANTITY,  # the tier's inclusive upper bound; null for a tier without end and for models without tiers
    "quantity": QUANTITY,  # what of the quantity was sold at this price (packages, for the package model)
    "unit_price": PRICE,
    "flat": PRICE,  # the tier's flat amount, 0 where it is not owed
    "amount": AMOUNT,
}
"""Columns of a slices frame: how a charge's gross amount came about, in the order of the charges and of time."""
