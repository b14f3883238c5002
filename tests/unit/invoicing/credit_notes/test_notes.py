"""What a credit note says of itself and leaves of its invoice."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from invoicing.credit_notes.amounts import NotCreditableError
from invoicing.credit_notes.notes import Credit, credit_of
from schemas.credit_note import CreditedLine, Reason, Wanted

AT = datetime(2026, 2, 1, tzinfo=UTC)
INVOICE = {
    "id": "i", "tenant": "t", "customer": "c", "currency": "EUR", "minor_units": 2, "number": "INV-000001",
    "state": "open", "payment_status": "pending", "settled_minor": 0, "total_minor": 1290, "version": 1,
}  # fmt: skip


def tax(minor: int, percent: str = "19") -> dict[str, Any]:
    return {"name": "VAT", "rate_percent": percent, "mode": "exclusive", "tax_minor": minor}


LINES: list[dict[str, Any]] = [
    {"id": "l1", "position": 1, "net_minor": 1000, "revenue": "subtotal", "taxes": json.dumps([tax(190)])},
    {"id": "l2", "position": 2, "net_minor": 100, "revenue": "advance", "taxes": json.dumps([tax(0, "0")])},
    {"id": "l3", "position": 3, "net_minor": 0, "revenue": "fees", "taxes": None},
]


def note(wanted: Wanted, earlier: tuple[dict[str, Any], ...] = (), before: int = 0, **invoice: Any) -> Credit:
    return credit_of({**INVOICE, **invoice}, LINES, earlier, before, wanted, at=AT)


def test_the_taxes_of_lines_are_those_of_the_note() -> None:
    """A group a rate, with its base; a line of nothing is left out; and its id is that of the invoice's so-manieth note."""
    found = note(Wanted(reason=Reason.OTHER))
    assert [line["invoice_line_id"] for line in found.lines] == ["l1", "l2"]
    assert json.loads(found.note["taxes"]) == [
        {**tax(190), "base_minor": 1000}, {**tax(0, "0"), "base_minor": 100},
    ]  # fmt: skip
    assert (found.note["subtotal_minor"], found.note["tax_minor"], found.note["total_minor"]) == (1100, 190, 1290)
    assert found.advance({"l1": "subtotal", "l2": "advance"}) == {"l2": 100}
    again = note(Wanted(reason=Reason.OTHER, gross_minor=1), before=1)
    assert again.note["id"] != found.note["id"] == note(Wanted(reason=Reason.GOODWILL)).note["id"]


def test_what_earlier_notes_took_is_not_taken_again() -> None:
    """By line and by tax; what is left is all that can be asked for."""
    half = note(Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=1, net_minor=333),)))
    rest = note(Wanted(reason=Reason.OTHER), half.lines, 1)
    assert [(line["net_minor"], line["tax_minor"]) for line in half.lines + rest.lines] == [
        (333, 63),
        (667, 127),
        (100, 0),
    ]
    with pytest.raises(NotCreditableError, match="what is left, 667"):
        note(Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=1, net_minor=668),)), half.lines, 1)


@pytest.mark.parametrize(
    ("invoice", "wanted", "after"),
    [
        ({}, 290, ("open", "partial", 290, 290, 0, False)),
        ({"payment_status": "failed"}, 290, ("open", "failed", 290, 290, 0, False)),
        ({}, 1290, ("paid", "succeeded", 1290, 1290, 0, True)),
        ({"settled_minor": 1000, "payment_status": "partial"}, 500, ("paid", "succeeded", 1290, 290, 210, True)),
        ({"settled_minor": 1290, "payment_status": "succeeded", "state": "paid"}, 5, ("paid", "succeeded", 1290, 0, 5, False)),
    ],
)  # fmt: skip
def test_a_note_settles_what_is_due_and_no_more(invoice: dict[str, Any], wanted: int, after: tuple[Any, ...]) -> None:
    """An invoice is paid once nothing is due; what is over is the customer's credit; a failed payment stays failed."""
    found = note(Wanted(reason=Reason.OTHER, gross_minor=wanted), **invoice)
    changed = found.invoice
    assert (
        changed["state"], changed["payment_status"], changed["settled_minor"], found.note["applied_minor"],
        found.note["excess_minor"], found.paid,
    ) == after  # fmt: skip


@pytest.mark.parametrize("state", ["draft", "void", "uncollectible"])
def test_what_is_neither_open_nor_paid_takes_no_note(state: str) -> None:
    """The refusal says what to do instead."""
    with pytest.raises(NotCreditableError, match=f"is {state}: .*; allowed: invoices that are open or paid"):
        note(Wanted(reason=Reason.OTHER), state=state)
