"""An invoice as text for a terminal, in full: every line with the slices it was rated from. Core.

Decides how amounts look: thousands separators, at least the decimals of the currency, and never fewer than are there.
"""

import json
from decimal import Decimal
from typing import Any

import polars as pl

from schemas.invoice import LineKind
from schemas.money import major

_WIDTH = 100
_AMOUNT = 18


def render_invoice(invoice: pl.DataFrame, lines: pl.DataFrame) -> str:
    """The text of one invoice (a frame of one row, columns `schemas.invoice.INVOICES`) and its lines (`LINES`)."""
    head = invoice.row(0, named=True)
    rule = "-" * _WIDTH
    text = [
        f"INVOICE {head['number']}",
        "",
        *_fields(head),
        "",
        _columns("Line", "Quantity", f"Amount {head['currency']}"),
        rule,
    ]
    for line in lines.iter_rows(named=True):
        text += _line(line, head)
    text += [rule, *_totals(head)]
    return "\n".join(row.rstrip() for row in text) + "\n"


def amount_text(amount: Decimal, decimals_min: int = 0) -> str:
    """A decimal with thousands separators, without trailing zeros beyond the first `decimals_min` decimals.

    >>> amount_text(Decimal("-1234567.500"), 2)
    '-1,234,567.50'
    >>> amount_text(Decimal("0.00125000"), 2)
    '0.00125'
    >>> amount_text(Decimal("1000.000"))
    '1,000'
    """
    whole, _, fraction = f"{amount:,f}".partition(".")
    fraction = fraction.rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{fraction}" if fraction else whole


def _fields(head: dict[str, Any]) -> list[str]:
    book = f"{head['book']} version {head['book_version']}"
    fields = {
        "Billed to": f"{head['customer_name']} ({head['customer']})",
        "Period": head["period"],
        "Issued": f"{head['issued_at']:%Y-%m-%d %H:%M} UTC",
        "Price book": f"{book}, digest {head['book_digest']}",
        "Contracts": f"digest {head['contracts_digest']}",
        "Usage": f"cut of the log at barrier {head['cut']}",
        "Invoice id": head["id"],
    }
    return [f"{name:<12}{value}" for name, value in fields.items()]


def _line(line: dict[str, Any], head: dict[str, Any]) -> list[str]:
    units = head["minor_units"]
    quantity = amount_text(line["quantity"])
    charged = amount_text(major(line["amount_minor"], units), units)
    explanation = json.loads(line["explanation"])
    source = f"{line['model']} on meter {line['meter']}" if line["meter"] else line["model"]
    basis = f"{explanation['book']} version {explanation['book_version']}, cut {explanation['cut']}"
    text = [
        *_titled(f"{line['position']:>3}  {line['description']}", quantity, charged),
        f"     {source}; {basis}",
        *(f"       {slice_text(rated, units)}" for rated in explanation["slices"]),
    ]
    if line["kind"] == LineKind.ADJUSTMENT:
        text += [
            f"       {word}: {amount_text(Decimal(state['quantity']))} for "
            f"{amount_text(major(state['amount_minor'], units), units)}"
            for word, state in (("rated now", explanation["after"]), ("billed before", explanation["before"]))
        ]
    return text


def slice_text(rated: dict[str, str | None], minor_units: int) -> str:
    """A slice of an explanation as a sum that can be checked by hand.

    >>> terms = {"up_to": "100", "quantity": "100", "unit_price": "0.5", "flat": "10", "amount": "60"}
    >>> slice_text({"label": "", **terms}, 2)
    'up to 100: 100 x 0.50 + 10.00 flat = 60.00'
    """
    values = {name: Decimal(value) for name, value in rated.items() if name != "label" and value is not None}
    label = f"{rated['label']}: " if rated.get("label") else ""
    tier = f"up to {amount_text(values['up_to'])}: " if "up_to" in values else ""
    flat = f" + {amount_text(values['flat'], minor_units)} flat" if values.get("flat") else ""
    price = f"{amount_text(values['quantity'])} x {amount_text(values['unit_price'], minor_units)}"
    return f"{label}{tier}{price}{flat} = {amount_text(values['amount'], minor_units)}"


def _totals(head: dict[str, Any]) -> list[str]:
    units = head["minor_units"]
    tax = json.loads(head["tax"]) if head["tax"] else None
    sums = [("Subtotal", head["subtotal_minor"])]
    if tax:
        sums.append((f"{tax['name']} {amount_text(Decimal(tax['rate_percent']))} %", head["tax_minor"]))
    sums.append((f"Total {head['currency']}", head["total_minor"]))
    return [_columns("", name, amount_text(major(minor, units), units)) for name, minor in sums]


def _titled(title: str, quantity: str, amount: str) -> list[str]:
    """A line's first row; a title that is too long for its column stands in a row of its own."""
    if len(title) + len(quantity) + 2 <= _WIDTH - _AMOUNT:
        return [_columns(title, quantity, amount)]
    return [title, _columns("", quantity, amount)]


def _columns(title: str, middle: str, amount: str) -> str:
    room = _WIDTH - _AMOUNT - len(title)
    return f"{title}{middle:>{room}}{amount:>{_AMOUNT}}"
