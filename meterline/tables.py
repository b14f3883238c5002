"""Frames of invoicing as tables for a person, amounts in units of their currency."""

import polars as pl

from meterline.output import Table
from schemas.money import MINOR_UNITS, major


def invoice_table(period: str, invoices: pl.DataFrame) -> Table:
    """The invoices of a period."""
    amounts = ("subtotal", "tax", "total")
    rows = [
        [row["number"], row["customer"], row["customer_name"], row["currency"]]
        + [_shown(row[f"{name}_minor"], row["currency"]) for name in amounts]
        for row in invoices.iter_rows(named=True)
    ]
    totals = invoices.group_by("currency").agg(pl.sum(f"{name}_minor") for name in amounts).sort("currency")
    rows += [
        ["", "", "all", currency, *(_shown(total, currency) for total in sums)] for currency, *sums in totals.rows()
    ]
    return Table(
        title=f"Invoices of {period}",
        columns=("number", "customer", "name", "currency", *amounts),
        rows=rows,
        numbers=amounts,
    )


def balance_table(balance: pl.DataFrame) -> Table:
    """A trial balance, with the sums of its two sides."""
    sides = ("debit", "credit")
    rows = [
        [str(row["account"]), row["name"], row["currency"]]
        + [_shown(row[f"{side}_minor"], row["currency"]) if row[f"{side}_minor"] else "" for side in sides]
        for row in balance.iter_rows(named=True)
    ]
    totals = balance.group_by("currency").agg(pl.sum(f"{side}_minor") for side in sides).sort("currency")
    rows += [["", "sum", currency, *(_shown(total, currency) for total in sums)] for currency, *sums in totals.rows()]
    return Table(title="Trial balance", columns=("account", "name", "currency", *sides), rows=rows, numbers=sides)


def _shown(minor: int, currency: str) -> str:
    return f"{major(minor, MINOR_UNITS[currency]):,f}"
