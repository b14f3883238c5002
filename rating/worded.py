"""Charges in words: what each line of the chain is called, whose it is and what it was rated from. Core.

Owns the id of a charge: a digest of customer, period and what it is for, so that rating twice gives the same ids.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

from rating.bills import Bills
from rating.customers import Customers
from rating.rows import Priced
from schemas.charge import CHARGES, DISCOUNTS, SLICES, ChargeKind
from schemas.charges import FlatCharge
from schemas.contract import Sla
from schemas.identity import digests
from schemas.money import QUANTITY

_ADDED = {
    "minimum_spend": "Minimum spend",
    "overage": "Use above the commitment",
    "commitment": "Commitment, what was not used of it",
}


def charges_of(
    lines: pl.DataFrame, rows: pl.DataFrame, bills: Bills, customers: Customers, *, contracts_digest: str, cut: int
) -> tuple[pl.DataFrame, pl.Series]:
    """The charges (columns schemas.charge.CHARGES) of the chain's lines, and the id of each line, null where left out.

    A line of usage that sells and costs nothing is left out. `rows` has the columns rating.rows.CHARGE_ROWS.
    """
    of_row = [rows[name].gather(lines["row"]) for name in ("term", "group", "quantity")]
    of_bill = [
        customers.billed[name].gather(lines["bill"]) for name in ("place", "period", "period_start", "period_end")
    ]
    of_place = customers.names["customer"].gather(of_bill[0])
    named = lines.hstack([*of_row, *of_bill, of_place]).with_columns(
        level_kind="kind", kind=_kind(customers), base=_base(customers, bills)
    )
    main = pl.col("level_kind") == "charge"
    group = pl.col("group").fill_null("")
    suffix = pl.when(main | pl.col("beside").is_not_null()).then(pl.lit("")).otherwise("." + pl.col("level_kind"))
    named = named.with_columns(
        charge=pl.col("base") + group + suffix,
        description=_description(customers, bills),
        model=pl.when(main).then(_of_term(customers, lambda charge: charge.model)).otherwise("kind"),
        meter=pl.when(main).then(_of_term(customers, lambda charge: getattr(charge, "meter", None))),
        tax_code=pl.coalesce(_of_term(customers, lambda charge: charge.tax_code), _of_beside(bills, "tax_code")),
        quantity=pl.when(main).then("quantity").otherwise(pl.lit(1).cast(QUANTITY)),
        contracts_digest=pl.lit(contracts_digest),
        cut=pl.lit(cut, pl.Int64),
        **_of_book(customers),
    )
    started = pl.col("period_start").dt.epoch("us").cast(pl.String)
    nothing = (pl.col("kind") == ChargeKind.USAGE) & pl.all_horizontal(
        pl.col(name) == 0 for name in ("quantity", "gross", "amount")
    )
    identity = digests("charge", pl.col("customer"), started, pl.col("charge"))
    named = named.with_columns(id=pl.when(~nothing).then(identity))
    return named.filter(~nothing).select(pl.col(name).cast(kind) for name, kind in CHARGES.items()), named["id"]


def slices_of(priced: Priced, lines: pl.DataFrame, ids: pl.Series, customers: Customers) -> pl.DataFrame:
    """The slices (columns schemas.charge.SLICES) of charges that were not left out."""
    of_row = lines.select("row", "kind").with_columns(id=ids).filter(kind="charge").sort("row")["id"]
    parts = priced.slices["part"]
    segment = priced.parts["segment"].gather(parts)
    term = priced.parts["term"].gather(parts)
    versions = pl.Series([terms.book.version for terms in customers.charge_terms], dtype=pl.Int64)
    named = priced.slices.with_columns(
        of_row.gather(priced.parts["row"].gather(parts)).alias("charge_id"),
        customers.segments["from_at"].gather(segment).alias("from_at"),
        customers.segments["to_at"].gather(segment).alias("to_at"),
        versions.gather(term).alias("book_version"),
    )
    return named.filter(pl.col("charge_id").is_not_null()).select(*SLICES)


def discounts_of(applied: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """What was taken off each charge (columns schemas.charge.DISCOUNTS)."""
    named = applied.with_columns(charge_id=ids.gather(applied["line"]), discount="id")
    return named.filter(pl.col("charge_id").is_not_null()).select(*DISCOUNTS)


def _kind(customers: Customers) -> pl.Expr:
    flat = _of_term(customers, lambda charge: isinstance(charge, FlatCharge), pl.Boolean)
    of_charge = pl.when(flat).then(pl.lit(ChargeKind.FLAT.value)).otherwise(pl.lit(ChargeKind.USAGE.value))
    return pl.when(pl.col("kind") == "charge").then(of_charge).otherwise("kind")


def _base(customers: Customers, bills: Bills) -> pl.Expr:
    """What a line is of: a charge's id, plan or contract, a manual line's or a promise's id."""
    own = [f"{'sla' if isinstance(each, Sla) else 'line'}.{each.id}" for each in bills.sources]
    of_beside = pl.lit(pl.Series(own, dtype=pl.String)).gather(pl.col("beside"))
    return pl.coalesce(of_beside, _of_term(customers, lambda charge: charge.id), pl.col("level"))


def _description(customers: Customers, bills: Bills) -> pl.Expr:
    title = _of_term(customers, lambda charge: charge.title)
    grouped = pl.when(pl.col("group").fill_null("") != "").then(title + " " + pl.col("group")).otherwise(title)
    added = pl.col("level_kind").replace_strict(_ADDED, default=None, return_dtype=pl.String)
    of_what = pl.coalesce(title, pl.col("level"))
    of_beside = [getattr(each, "description", "") or each.id for each in bills.sources]
    beside = pl.lit(pl.Series(of_beside, dtype=pl.String)).gather(pl.col("beside"))
    return pl.coalesce(beside, added + ": " + of_what, grouped)


def _of_term(customers: Customers, value_of: Callable[[Any], Any], dtype: Any = pl.String) -> pl.Expr:
    values = pl.Series([value_of(term.charge) for term in customers.charges], dtype=dtype)
    return pl.lit(values).gather(pl.col("term"))


def _of_beside(bills: Bills, name: str) -> pl.Expr:
    values = pl.Series([getattr(each, name, None) for each in bills.sources], dtype=pl.String)
    return pl.lit(values).gather(pl.col("beside"))


def _of_book(customers: Customers) -> dict[str, pl.Expr]:
    terms = [period.terms for period in customers.periods]
    of_period: dict[str, list[Any]] = {
        "currency": [each.currency for each in terms],
        "book": [each.book.book for each in terms],
        "book_version": [each.book.version for each in terms],
        "book_digest": [each.digest for each in terms],
    }
    return {
        name: pl.lit(pl.Series(values, dtype=CHARGES[name])).gather(pl.col("period"))
        for name, values in of_period.items()
    }
