"""Credit notes become journal entries. Core.

Decides which account gives back: the one that earned a line's net amount, tax payable by rate, and of a line in advance
unearned revenue, but for what was earned of it by then. Owns that an entry is dated the day of its issue, or the first
open day after a closed period, and names the invoice's period where that is closed.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

import polars as pl

from invoicing.ledger.days import closed_period, open_day
from invoicing.ledger.journal import AMOUNTS, DOCUMENTS, Journal, entries_of
from schemas.invoice import Revenue

KIND = "credit note"
"""The document kind of credit notes' entries."""

Row = dict[str, Any]


def journal(
    notes: Iterable[Row],
    lines: Iterable[Row],
    invoices: Mapping[str, Row],
    revenues: Mapping[str, str],
    *,
    related: Mapping[str, str],
    closed_through: date | None = None,
    booked_at: datetime,
) -> Journal:
    """The entries of credit notes with their lines; `invoices` are those that they are about, by id.

    `revenues` names the revenue of each invoice line, `related` the entry of each invoice. P12 where something was due,
    P13 where nothing was:

        1100 receivable        -8000, what was due
        2100 customer credit   -4000, the rest
        4010 usage revenue     10000
        2000 tax payable        2000, of the tax "VAT 20%"
    """
    notes, documents, amounts = list(notes), [], []
    places = {note["id"]: place for place, note in enumerate(notes)}
    for note in notes:
        invoice = invoices[note["invoice_id"]]
        day = note["issued_at"].date()
        documents.append({
            "tenant": note["tenant"], "template": "P12" if note["applied_minor"] else "P13", "document_kind": KIND,
            "document_id": note["id"], "document_version": 1, "part": 1, "relates_to": related.get(invoice["id"]),
            "relates_to_period": closed_period(invoice["period"], closed_through),
            "effective_at": open_day(day, closed_through), "customer": note["customer"],
            "description": f"Credit note {note['number']} for {invoice['number']} to {invoice['customer_name']}",
        })  # fmt: skip
        own = {"document": places[note["id"]], "currency": note["currency"]}
        to_credit = "excess" if note["applied_minor"] else "total"
        parts = [("total", "", note["applied_minor"]), (to_credit, "", note["excess_minor"])]
        parts += [
            ("tax", f"{tax['name']} {tax['rate_percent']}%", tax["tax_minor"]) for tax in json.loads(note["taxes"])
        ]
        amounts += [own | dict(zip(_AMOUNT, part, strict=True)) for part in parts]
    currencies = {note["id"]: note["currency"] for note in notes}
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        for amount, minor in _revenue(line, revenues[line["invoice_line_id"]]):
            key = (line["credit_note_id"], amount)
            sums[key] = sums.get(key, 0) + minor
    for (note_id, amount), minor in sums.items():
        own = {"document": places[note_id], "currency": currencies[note_id]}
        amounts.append(own | {"amount": amount, "dimension": "", "amount_minor": minor})
    frame = pl.DataFrame(amounts, schema=AMOUNTS).sort("document", "amount", "dimension", maintain_order=True)
    return entries_of(pl.DataFrame(documents, schema=DOCUMENTS), frame, booked_at=booked_at)


_AMOUNT = ("amount", "dimension", "amount_minor")


def _revenue(line: Row, revenue: str) -> list[tuple[str, int]]:
    """What a line gives back, by the amounts of the template."""
    earned = line["earned_minor"] if revenue == Revenue.ADVANCE else 0
    return [(revenue, line["net_minor"] - earned), (Revenue.FEES.value, earned)]
