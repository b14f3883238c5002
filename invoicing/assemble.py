"""Charges become invoices and their lines. Core.

Decides what a line is: a charge of the run's own period, or the difference between what an earlier period is rated at
now and what was billed for it. Owns the invariants that booked and adjustment add up to what is rated now, that the
lines of an invoice add up to its subtotal, and that charges which are booked already give no lines.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

import polars as pl

from invoicing.explanation import canonical, explained
from schemas.identity import content_digest, digest
from schemas.invoice import BOOKED, CHARGED, INVOICE_NUMBER, INVOICES, LINES, Basis, LineKind, Tax
from schemas.money import MINOR_UNITS, PRICE, rounded_minor

_KEY = ["customer", "usage_period", "charge", "currency"]
_SUMS = ("quantity", "amount", "amount_minor")
_WORDS = ("description", "model", "meter")
_BASIS = ("cut", "book", "book_version", "book_digest", "contracts_digest")
_PREFIX = r"^Adjustment for \d{4}-\d{2}: "


@dataclass(frozen=True)
class Assembled:
    """The invoices of a run (columns `schemas.invoice.INVOICES`) and their lines (columns `LINES`)."""

    invoices: pl.DataFrame
    lines: pl.DataFrame


def assemble(
    charges: pl.DataFrame,
    booked: pl.DataFrame,
    *,
    tenant: str,
    run_period: str,
    bases: Mapping[str, Basis],
    customer_names: Mapping[str, str],
    tax: Tax | None,
    next_number: int,
    issued_at: datetime,
) -> Assembled:
    """The invoices that a run posts, one a customer and currency, with their lines.

    `charges` (columns `schemas.invoice.CHARGED`) holds what the run's own period and the billed periods before it are
    rated at now; `booked` (columns `schemas.invoice.BOOKED`) what was posted for them so far. `bases` names every
    period that was rated, also one without charges: what was booked for a period that is not in it stays untouched.

    Steps, in this order: (1) compare rated with booked, so that a second run finds nothing to do; (2) leave out
    customers who owe nothing, before numbers are given, so that numbers have no gaps; (3) head and number the
    invoices; (4) line them up under their invoice; (5) take digests, last, because they cover everything.

    Raises ValueError when the charges are of a period that `bases` lacks, or name a charge of a customer twice.
    """
    assert run_period in bases, "the run's own period was not rated"
    _refuse_unfit(charges, bases)
    # 1: compare
    lines = explained(_lines(charges, booked, run_period, bases))
    # 2: leave out
    owes = pl.col("amount_minor").ne(0).any().over("customer", "currency")
    lines = lines.filter(owes)
    # 3: head
    heads = lines.group_by("customer", "currency").agg(pl.col("amount_minor").sum().alias("subtotal_minor"))
    heads = heads.sort("customer", "currency")
    heads = _headed(
        heads, tenant=tenant, run_period=run_period, basis=bases[run_period], customer_names=customer_names, tax=tax
    ).with_columns(
        pl.Series("number", [INVOICE_NUMBER.format(next_number + row) for row in range(heads.height)], pl.String),
        pl.lit(issued_at).cast(INVOICES["issued_at"]).alias("issued_at"),
    )
    # 4: line up
    lines = _lined_up(lines, heads)
    # 5: digests
    invoices = _with_digests(heads, lines)
    return Assembled(invoices.select(pl.col(name).cast(kind) for name, kind in INVOICES.items()), lines)


def rated_tax(subtotal_minor: pl.Expr, rate_percent: Decimal) -> pl.Expr:
    """The tax on a subtotal, both in minor units (Int64), rounded once, half away from zero.

    >>> subtotals = pl.Series([9999, -9999, 10])
    >>> pl.select(rated_tax(pl.lit(subtotals), Decimal("8.875"))).to_series().to_list()
    [887, -887, 1]
    """
    rate = pl.lit(rate_percent.scaleb(-2)).cast(PRICE)
    return rounded_minor(subtotal_minor.cast(pl.Decimal(38, 0)) * rate, 0)


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


def _lines(charges: pl.DataFrame, booked: pl.DataFrame, run_period: str, bases: Mapping[str, Basis]) -> pl.DataFrame:
    """One line for each charge of the run's own period that is not booked, and for each difference to what is booked.

    What is paid in advance is of the next period, and is a line of its own likewise.
    """
    rated = charges.select(*CHARGED).rename({"period": "usage_period"}).with_row_index("place")
    known = booked.select(*BOOKED).filter(pl.col("usage_period").is_in(list(bases))).with_columns(was_booked=True)
    joined = rated.join(known, on=_KEY, how="full", coalesce=True, suffix="_booked")
    joined = joined.with_columns(_basis_of(bases).alias("basis")).with_columns(
        pl.col("slices").fill_null([]),
        pl.col("place").fill_null(pl.lit(charges.height, pl.UInt32)),
        pl.when((pl.col("usage_period") >= run_period) & pl.col("was_booked").is_null())
        .then(pl.lit(LineKind.USAGE.value))
        .otherwise(pl.lit(LineKind.ADJUSTMENT.value))
        .alias("kind"),
        *[pl.col(name).fill_null(0).alias(f"after_{name}") for name in _SUMS],
        *[pl.col(f"{name}_booked").fill_null(0).alias(f"before_{name}") for name in _SUMS],
        *[pl.coalesce(name, f"{name}_booked").alias(name) for name in _WORDS],
        *[pl.coalesce(name, pl.col("basis").struct.field(name)).alias(name) for name in _BASIS],
    )
    own = pl.col("kind") == LineKind.USAGE
    adjusted = "Adjustment for " + pl.col("usage_period") + ": " + pl.col("description").str.replace(_PREFIX, "")
    return joined.with_columns(
        pl.when(own).then("description").otherwise(adjusted).alias("description"),
        *[(pl.col(f"after_{name}") - pl.col(f"before_{name}")).alias(name) for name in _SUMS],
    ).filter(own | pl.col("amount_minor").ne(0))


def _basis_of(bases: Mapping[str, Basis]) -> pl.Expr:
    """The basis of a row's period: a charge that is no longer rated has none of its own."""
    kind = pl.Struct({name: INVOICES[name] for name in _BASIS})
    values = [{name: getattr(basis, name) for name in _BASIS} for basis in bases.values()]
    return pl.col("usage_period").replace_strict(list(bases), pl.Series(values, dtype=kind), return_dtype=kind)


def _headed(
    heads: pl.DataFrame,
    *,
    tenant: str,
    run_period: str,
    basis: Basis,
    customer_names: Mapping[str, str],
    tax: Tax | None,
) -> pl.DataFrame:
    keys = heads.select("customer", "currency").rows()
    ids = [digest("invoice", tenant, customer, run_period, currency) for customer, currency in keys]
    names = [customer_names.get(customer, customer) for customer, _ in keys]
    tax_text = None if tax is None else json.dumps({"name": tax.name, "rate_percent": f"{tax.rate_percent:f}"})
    owed = pl.lit(0, pl.Int64) if tax is None else rated_tax(pl.col("subtotal_minor"), tax.rate_percent)
    return heads.with_columns(
        pl.Series("id", ids, pl.String),
        pl.Series("customer_name", names, pl.String),
        pl.lit(tenant).alias("tenant"),
        pl.lit(run_period).alias("period"),
        pl.col("currency").replace_strict(MINOR_UNITS, return_dtype=pl.Int64).alias("minor_units"),
        owed.alias("tax_minor"),
        (pl.col("subtotal_minor") + owed).alias("total_minor"),
        pl.lit(tax_text, pl.String).alias("tax"),
        *[pl.lit(getattr(basis, name), INVOICES[name]).alias(name) for name in _BASIS],
    )


def _lined_up(lines: pl.DataFrame, heads: pl.DataFrame) -> pl.DataFrame:
    """The lines under their invoices: own usage first, then adjustments by period, each in its plan's order."""
    owners = heads.select("customer", "currency", pl.col("id").alias("invoice_id"))
    lines = lines.join(owners, on=["customer", "currency"], how="inner").sort(
        "customer", "currency", pl.col("kind") == LineKind.ADJUSTMENT, "usage_period", "place", "charge"
    )
    keys = lines.select("invoice_id", "kind", "usage_period", "charge").iter_rows()
    return lines.with_columns(
        pl.Series("id", [digest("invoice line", *key) for key in keys], pl.String),
        pl.int_range(1, pl.len() + 1).over("invoice_id").alias("position"),
    ).select(pl.col(name).cast(kind) for name, kind in LINES.items())


def _with_digests(heads: pl.DataFrame, lines: pl.DataFrame) -> pl.DataFrame:
    """The invoices with the digest of everything that is billed and why; number and instant of issue are not that."""
    covered = [name for name in INVOICES if name not in {"number", "issued_at", "content_digest"}]
    texts = lines.select("invoice_id", canonical(list(LINES), decimals=("quantity", "amount")).alias("text"))
    bodies = texts.group_by("invoice_id", maintain_order=True).agg(pl.col("text").str.join("\n").alias("body"))
    whole = heads.join(bodies, left_on="id", right_on="invoice_id", maintain_order="left").select(
        canonical(covered) + "\n" + pl.col("body")
    )
    digests = [content_digest(text.encode()) for text in whole.to_series()]
    return heads.with_columns(pl.Series("content_digest", digests, pl.String))
