"""What is stored as tables for a person, amounts in units of their currency."""

from collections.abc import Sequence

import polars as pl

from invoicing.invoices.lifecycle import due_of
from meterline.output import Table
from schemas.meter import Meter
from schemas.money import MINOR_UNITS, major


def meter_table(in_force: Sequence[Meter], withdrawn: Sequence[Meter]) -> Table:
    """What meters count. Filters, limits and metadata are left out."""
    rows = [
        [
            meter.slug, meter.name, meter.event_type, meter.aggregation.value, meter.value_property or "",
            ", ".join(f"{name}: {path}" for name, path in sorted(meter.group_by.items())), state,
        ]
        for meters, state in ((in_force, "in force"), (withdrawn, "withdrawn"))
        for meter in meters
    ]  # fmt: skip
    columns = ("slug", "name", "event type", "aggregation", "value", "dimensions", "state")
    return Table(title="Meters", columns=columns, rows=rows)


def invoice_table(period: str, invoices: pl.DataFrame) -> Table:
    """The invoices of a period."""
    amounts = ("subtotal", "tax", "total")
    rows = [
        [row["number"] or row["id"], row["customer"], row["customer_name"], row["currency"]]
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


def due_table(title: str, invoices: pl.DataFrame) -> Table:
    """Invoices with their states, and what is due of them."""
    rows = [
        [row["number"] or row["id"], row["period"], row["customer"], row["customer_name"], row["state"],
         row["payment_status"], str(row["due_on"] or ""), row["currency"], _shown(row["total_minor"], row["currency"]),
         _shown(due_of(row), row["currency"])]
        for row in invoices.iter_rows(named=True)
    ]  # fmt: skip
    columns = ("number", "period", "customer", "name", "state", "payment", "due on", "currency", "total", "due")
    return Table(title=title, columns=columns, rows=rows, numbers=("total", "due"))


def balance_table(balances: pl.DataFrame, by: Sequence[str] = ()) -> Table:
    """A trial balance, with the sums of its two sides."""
    sides = ("debit", "credit")
    split = balances.with_columns(
        pl.max_horizontal(pl.col("balance_minor"), 0).alias("debit"),
        pl.max_horizontal(-pl.col("balance_minor"), 0).alias("credit"),
    )
    rows = [
        [str(row["account"]), row["name"], *(row[name] for name in by), row["currency"]]
        + [_shown(row[side], row["currency"]) if row[side] else "" for side in sides]
        for row in split.iter_rows(named=True)
    ]
    totals = split.group_by("currency").agg(pl.sum(*sides)).sort("currency")
    rows += [
        ["", "sum", *[""] * len(by), currency, *(_shown(total, currency) for total in sums)]
        for currency, *sums in totals.rows()
    ]
    return Table(title="Trial balance", columns=("account", "name", *by, "currency", *sides), rows=rows, numbers=sides)


def entry_table(entries: pl.DataFrame, postings: pl.DataFrame) -> Table:
    """Entries, a posting a row; the entry stands at its first one."""
    heads = {
        row["id"]: [str(row["sequence"]), row["id"], str(row["effective_at"]), row["template"], row["description"]]
        for row in entries.iter_rows(named=True)
    }
    rows = []
    for line in postings.iter_rows(named=True):
        head = heads[line["entry_id"]] if line["position"] == 1 else [""] * 5
        shown = _shown(abs(line["amount_minor"]), line["currency"])
        amounts = [shown, ""] if line["amount_minor"] > 0 else ["", shown]
        rows.append([*head, str(line["account"]), line["customer"], line["dimension"], line["currency"], *amounts])
    columns = ("number", "entry", "date", "template", "description", "account", "customer", "dimension", "currency")
    return Table(title="Journal entries", columns=(*columns, "debit", "credit"), rows=rows, numbers=("debit", "credit"))


def _shown(minor: int, currency: str) -> str:
    return f"{major(minor, MINOR_UNITS[currency]):,f}"
