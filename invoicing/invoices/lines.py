"""Charges become the lines of invoices. Core.

Decides what a line is: a charge of the run's own period, or the difference between what a period is rated at now and
what was billed for it. Owns the invariants that booked and difference add up to what is rated now, and that charges
which are booked already give no lines.
"""

from collections.abc import Mapping

import polars as pl

from invoicing.invoices.explanation import explained
from schemas.invoice import BOOKED, CHARGED, DRAFTED, INVOICES, Basis, LineKind, Revenue
from schemas.money import MINOR_UNITS

_KEY = ["customer", "usage_period", "charge", "currency"]
_SUMS = ("quantity", "amount", "amount_minor")
_WORDS = ("description", "model", "meter", "tax_rule", "service_start", "service_end")
_BASIS = ("cut", "book", "book_version", "book_digest", "contracts_digest")
_PREFIX = r"^Adjustment for \d{4}-\d{2}: "


def lines_of(
    charges: pl.DataFrame, booked: pl.DataFrame, *, run_period: str, bases: Mapping[str, Basis]
) -> pl.DataFrame:
    """The lines of a run (columns `schemas.invoice.DRAFTED`): one document a customer and currency.

    `charges` (columns `schemas.invoice.CHARGED`) holds what the run's own period and the billed periods before it are
    rated at now; `booked` (columns `schemas.invoice.BOOKED`) what was billed for them so far. `bases` names every
    period that was rated, also one without charges: what was booked for a period that is not in it stays untouched.

    Steps, in this order: (1) compare rated with booked, so that a second run finds nothing to do; (2) leave out
    customers who owe nothing, before numbers are given, so that numbers have no gaps; (3) line up what is left: own
    charges first, then differences by period, each in its plan's order.

    Raises ValueError when the charges are of a period that `bases` lacks, or name a charge of a customer twice.
    """
    assert run_period in bases, "the run's own period was not rated"
    _refuse_unfit(charges, bases)
    # 1: compare
    lines = explained(_compared(charges, booked, run_period, bases))
    # 2: leave out
    lines = lines.filter(pl.col("amount_minor").ne(0).any().over("customer", "currency"))
    # 3: line up
    late = pl.col("kind").is_in([LineKind.REMAINDER.value, LineKind.ADJUSTMENT.value])
    lines = lines.sort("customer", "currency", late, "usage_period", "place", "charge")
    lines = lines.with_columns((pl.struct("customer", "currency").rle_id()).cast(pl.Int64).alias("document"))
    return lines.select(pl.col(name).cast(kind) for name, kind in DRAFTED.items())


def _refuse_unfit(charges: pl.DataFrame, bases: Mapping[str, Basis]) -> None:
    strangers = sorted(set(charges["period"].unique()) - set(bases))
    if strangers:
        raise ValueError(f"charges of {', '.join(strangers)}; allowed: the rated periods {', '.join(sorted(bases))}")
    key = ["customer", "period", "charge", "currency"]
    twice = charges.select(key).filter(pl.struct(key).is_duplicated())
    if twice.height:
        raise ValueError(f"charges with the same key {twice.row(0)}; allowed: one row a customer, period and charge")
    unknown = sorted(set(charges["currency"].unique()) - set(MINOR_UNITS))
    if unknown:
        raise ValueError(f"charges in {', '.join(unknown)}; allowed: the currencies of schemas.money.MINOR_UNITS")


def _compared(charges: pl.DataFrame, booked: pl.DataFrame, run_period: str, bases: Mapping[str, Basis]) -> pl.DataFrame:
    """One line for each charge of the run's own period that is not booked, and for each difference to what is booked.

    What is paid in advance is of the next period, and is a line of its own likewise.
    """
    rated = charges.select(*CHARGED).rename({"period": "usage_period"}).with_row_index("place")
    known = booked.select(*BOOKED).filter(pl.col("usage_period").is_in(list(bases))).with_columns(was_booked=True)
    joined = rated.join(known, on=_KEY, how="full", coalesce=True, suffix="_booked")
    own = (pl.col("usage_period") >= run_period) & pl.col("was_booked").is_null()
    usage = pl.col("revenue") == Revenue.USAGE
    joined = joined.with_columns(_basis_of(bases).alias("basis")).with_columns(
        pl.col("slices").fill_null([]),
        pl.col("place").fill_null(pl.lit(charges.height, pl.UInt32)),
        own.alias("own"),
        pl.coalesce("revenue_booked", "revenue").alias("revenue"),  # what was unearned when it was billed still is
        *[pl.col(name).fill_null(0).alias(f"after_{name}") for name in _SUMS],
        *[pl.col(f"{name}_booked").fill_null(0).alias(f"before_{name}") for name in _SUMS],
        *[pl.coalesce(name, f"{name}_booked").alias(name) for name in _WORDS],
        *[pl.coalesce(name, pl.col("basis").struct.field(name)).alias(name) for name in _BASIS],
    )
    remainder = (pl.col("usage_period") == run_period) & usage
    kind = pl.when(remainder).then(pl.lit(LineKind.REMAINDER.value)).otherwise(pl.lit(LineKind.ADJUSTMENT.value))
    plain = pl.col("description").str.replace(_PREFIX, "")
    adjusted = pl.when(remainder).then(plain).otherwise("Adjustment for " + pl.col("usage_period") + ": " + plain)
    return joined.with_columns(
        pl.when("own").then("kind").otherwise(kind).alias("kind"),
        pl.when("own").then("description").otherwise(adjusted).alias("description"),
        *[(pl.col(f"after_{name}") - pl.col(f"before_{name}")).alias(name) for name in _SUMS],
    ).filter(pl.col("own") | pl.col("amount_minor").ne(0))


def _basis_of(bases: Mapping[str, Basis]) -> pl.Expr:
    """The basis of a row's period: a charge that is no longer rated has none of its own."""
    kind = pl.Struct({name: INVOICES[name] for name in _BASIS})
    values = [{name: getattr(basis, name) for name in _BASIS} for basis in bases.values()]
    return pl.col("usage_period").replace_strict(list(bases), pl.Series(values, dtype=kind), return_dtype=kind)
