"""An invoice and what is taken back of it become a credit note, and the invoice as it is after it. Core.

Decides where the note's total goes: it takes off what is due of the invoice, and what is more than that becomes the
customer's credit. Owns that the taxes of a note's lines add up to its groups, and these to its tax.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from invoicing.credit_notes.amounts import Amounts, Line, NotCreditableError, credited
from schemas.credit_note import Wanted
from schemas.identity import digest
from schemas.invoice import PaymentStatus, Revenue, State

Row = dict[str, Any]
_RATE = ("name", "rate_percent", "mode")


@dataclass(frozen=True)
class Credit:
    """A credit note before it is posted, as rows with the columns of the tables."""

    note: Row
    """Without number and entry."""
    lines: tuple[Row, ...]
    invoice: Row
    """The invoice with what is applied to it, at the version that it was read at."""
    paid: bool
    """Whether nothing is due of the invoice from now on, for the first time."""

    def advance(self, revenues: Mapping[str, str]) -> dict[str, int]:
        """What the note takes of lines in advance, by the invoice line's id; `revenues` names each line's revenue."""
        return {
            line["invoice_line_id"]: line["net_minor"]
            for line in self.lines
            if revenues[line["invoice_line_id"]] == Revenue.ADVANCE
        }


def credit_of(
    invoice: Row, lines: Iterable[Row], earlier: Iterable[Row], notes_before: int, wanted: Wanted, *, at: datetime
) -> Credit:
    """The credit note of an invoice (a row of INVOICES) with its lines (rows of LINES), in their order.

    `earlier` is what earlier notes took, rows of CREDITED. Its id is a digest of the invoice and how many notes there
    were before. Raises NotCreditableError for a state that takes none, and where more is wanted than is left.
    """
    _refuse_state(invoice)
    rows = {row["position"]: row for row in lines}
    taken = credited(lines_left(rows.values(), earlier), wanted)
    note_id = digest("credit note", invoice["tenant"], invoice["id"], notes_before + 1)
    own = tuple(
        {
            "tenant": invoice["tenant"], "credit_note_id": note_id, "position": place,
            "invoice_line_id": rows[position]["id"], "net_minor": amounts.net, "tax_minor": amounts.tax,
            "taxes": _taxes_text(rows[position], amounts), "earned_minor": 0,
        }
        for place, (position, amounts) in enumerate(sorted(taken.items()), start=1)
    )  # fmt: skip
    net, tax = (sum(line[name] for line in own) for name in ("net_minor", "tax_minor"))
    due = max(invoice["total_minor"], 0) - invoice["settled_minor"]
    applied = min(net + tax, due)
    note = {
        "id": note_id, "invoice_id": invoice["id"], "reason": wanted.reason.value, "comment": wanted.comment,
        "subtotal_minor": net, "tax_minor": tax, "total_minor": net + tax, "applied_minor": applied,
        "excess_minor": net + tax - applied, "taxes": json.dumps(_groups(own), separators=(",", ":")), "issued_at": at,
        **{name: invoice[name] for name in ("tenant", "customer", "currency", "minor_units")},
    }  # fmt: skip
    after = _settled(invoice, applied)
    return Credit(note, own, after, paid=after["state"] == State.PAID != invoice["state"])


def lines_left(lines: Iterable[Row], earlier: Iterable[Row]) -> list[Line]:
    """Of each invoice line what was billed, and what earlier notes took."""
    taken: dict[str, list[Amounts]] = {}
    for row in earlier:
        taken.setdefault(row["invoice_line_id"], []).append(_amounts(row))
    return [Line(row["position"], _amounts(row), _sum(_amounts(row), taken.get(row["id"], []))) for row in lines]


def _refuse_state(invoice: Row) -> None:
    """A void invoice is owed no more; what was written off was never paid, and would become credit of a debtor."""
    if invoice["state"] in {State.OPEN, State.PAID}:
        return
    instead = {
        State.DRAFT: "change or delete the draft", State.VOID: "it was taken back as a whole",
        State.UNCOLLECTIBLE: "it was written off; take that back first",
    }  # fmt: skip
    name = invoice["number"] or invoice["id"]
    reason = instead[State(invoice["state"])]
    raise NotCreditableError(f"invoice {name} is {invoice['state']}: {reason}; allowed: invoices that are open or paid")


def _amounts(row: Row) -> Amounts:
    taxes = tuple(each["tax_minor"] for each in json.loads(row["taxes"] or "[]"))
    return Amounts(row["net_minor"], taxes)


def _sum(like: Amounts, found: list[Amounts]) -> Amounts:
    taxes = (sum(each.taxes[place] for each in found) for place in range(len(like.taxes)))
    return Amounts(sum(each.net for each in found), tuple(taxes))


def _taxes_text(row: Row, amounts: Amounts) -> str | None:
    """The taxes of the invoice line with what is taken of each, all of them, so that places stay theirs."""
    if row["taxes"] is None:
        return None
    own = [{**tax, "tax_minor": taken} for tax, taken in zip(json.loads(row["taxes"]), amounts.taxes, strict=True)]
    return json.dumps(own, ensure_ascii=False, separators=(",", ":"))


def _groups(lines: Iterable[Row]) -> list[Row]:
    groups: dict[tuple[str, ...], Row] = {}
    for line in lines:
        for tax in json.loads(line["taxes"] or "[]"):
            key = tuple(tax[name] for name in _RATE)
            group = groups.setdefault(key, {**dict(zip(_RATE, key, strict=True)), "base_minor": 0, "tax_minor": 0})
            group["base_minor"] += line["net_minor"]
            group["tax_minor"] += tax["tax_minor"]
    return list(groups.values())


def _settled(invoice: Row, applied: int) -> Row:
    """The invoice with so much more settled: paid once nothing is due."""
    settled = invoice["settled_minor"] + applied
    status, state = invoice["payment_status"], invoice["state"]
    if applied and settled == invoice["total_minor"]:
        status, state = PaymentStatus.SUCCEEDED.value, State.PAID.value
    elif applied and status == PaymentStatus.PENDING:
        status = PaymentStatus.PARTIAL.value
    return {**invoice, "settled_minor": settled, "payment_status": status, "state": state}
