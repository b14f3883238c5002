"""A charge: one rated amount with its explanation. The columns of the frames that rating hands to invoicing."""

import polars as pl

from schemas.money import AMOUNT, PRICE, QUANTITY

SLICE = pl.Struct(
    {
        "up_to": QUANTITY,  # the tier's inclusive upper bound; null for a tier without end and for models without tiers
        "quantity": QUANTITY,  # what of the quantity was sold at this price (packages, for the package model)
        "unit_price": PRICE,
        "flat": PRICE,  # the tier's flat amount, 0 where it is not owed
        "amount": AMOUNT,  # quantity * unit_price + flat, exactly
    }
)
"""One step of a charge's explanation. The amounts of a charge's slices add up to its exact amount."""

CHARGES: dict[str, pl.DataType | type[pl.DataType]] = {
    "customer": pl.String,
    "period": pl.String,  # "2013-01"
    "charge": pl.String,  # the charge's id in the price book
    "description": pl.String,
    "model": pl.String,
    "meter": pl.String,  # null for a flat charge
    "quantity": QUANTITY,
    "slices": pl.List(SLICE),
    "amount": AMOUNT,
    "amount_minor": pl.Int64,  # the amount rounded to the currency's minor unit
    "currency": pl.String,
    "book": pl.String,
    "book_version": pl.Int64,
    "book_digest": pl.String,
    "contracts_digest": pl.String,
    "cut": pl.Int64,  # the barrier: usage of the epochs below it was rated
}
"""Columns of a charges frame, one row a customer and charge, sorted by customer and the charge's place in its plan."""
