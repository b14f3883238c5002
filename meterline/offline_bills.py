"""Charges as bills: one a customer and billing period, with its taxes and what is left to pay. Core."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rating.books import Books
from rating.tax import taxed
from schemas.plan import TaxRule

SUMS = ("amount_minor", "shared_minor", "credit_minor", "net_minor", "tax_minor", "due_minor")
_BILL = ("customer", "period_start", "period_end", "currency", "book", "book_version")


@dataclass(frozen=True)
class Billed:
    """Charges with their taxes."""

    charges: pl.DataFrame
    """Columns of schemas.charge.CHARGES, tax_minor, and due_minor: what is left to pay, taxes in prices included."""
    taxes: pl.DataFrame
    """Columns customer, period_start, name, rate_percent, mode, base_minor and tax_minor: a row a bill and rate."""

    def bills(self) -> pl.DataFrame:
        """A row a bill, in the order of the charges: what it is of, and SUMS."""
        return self.charges.group_by(_BILL, maintain_order=True).agg(pl.sum(*SUMS))

    def totals(self) -> pl.DataFrame:
        """A row a currency: the number of customers, and SUMS."""
        grouped = self.charges.group_by("currency").agg(pl.col("customer").n_unique().alias("customers"), pl.sum(*SUMS))
        return grouped.sort("currency")


def billed(charges: pl.DataFrame, books: Books) -> Billed:
    """The charges (columns schemas.charge.CHARGES), taxed as the version says that each is of."""
    kept, told = [charges.clear().with_columns(tax_minor=_ZERO, due_minor=_ZERO)], [pl.DataFrame(schema=_TAXES)]
    numbered = charges.with_row_index("row")
    for (name, number), own in numbered.group_by("book", "book_version", maintain_order=True):
        book = books.version(str(name), int(str(number)))
        rules: dict[str | None, TaxRule] = {**book.taxes} | ({None: book.tax} if book.tax else {})
        codes = {code: place for place, code in enumerate(rules)}
        bills = own.select("customer", "period_start").unique(maintain_order=True).with_row_index("invoice")
        lines = own.join(bills, on=["customer", "period_start"], maintain_order="left").select(
            "invoice", "tax_base_minor", tax_rule=_placed(own["tax_code"], codes)
        )
        found = taxed(lines, list(rules.values()), book.policies.tax_position, book.policies.rounding)
        on_top = found.lines["gross_minor"] - own["tax_base_minor"]
        due = pl.sum_horizontal("amount_minor", "shared_minor", "credit_minor") + on_top
        kept.append(own.with_columns(tax_minor=found.lines["tax_minor"], due_minor=due))
        told.append(found.totals.join(bills, on="invoice", maintain_order="left").select(*_TAXES))
    merged = pl.concat(kept, how="diagonal").sort("row").drop("row") if len(kept) > 1 else kept[0]
    return Billed(merged, pl.concat(told).sort("customer", "period_start", maintain_order=True))


def _placed(codes: pl.Series, places: Mapping[str | None, int]) -> pl.Series:
    return pl.Series("tax_rule", [places.get(code) for code in codes], dtype=pl.UInt32)


_ZERO = pl.lit(0, pl.Int64)
_TAXES: dict[str, Any] = {
    "customer": pl.String, "period_start": pl.Datetime("us", "UTC"), "name": pl.String,
    "rate_percent": pl.Decimal(13, 10), "mode": pl.String, "base_minor": pl.Int64, "tax_minor": pl.Int64,
}  # fmt: skip
