"""A stored credit note as a document: the lines as they were or a part of them, and its invoice, in every format."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from invoicing.credit_notes.notes import credit_of
from invoicing.invoices.drafts import drafted, finalised
from invoicing.rendering.as_text import render_text
from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.cii import render_cii
from invoicing.rendering.en16931 import NotExpressibleError
from invoicing.rendering.stored import credit_note_of
from meterline.taxing import with_taxes
from schemas.credit_note import CREDIT_NOTES, CREDITED, CreditedLine, Reason, Wanted
from schemas.document import Document, DocumentKind
from schemas.invoice import DRAFTED, HEADS
from schemas.party import PartyDetails, parse_seller

VAT = '{"mode":"exclusive","name":"VAT","rate_percent":"20"}'
BUYER = PartyDetails(country="DK", city="Aarhus")
SELLER = parse_seller("name: Tin Can\ncountry: DE\nvat_id: DE123456789\n", "seller.yaml")
EXPLAINED = '{"slices":[{"label":"","up_to":null,"quantity":"100","unit_price":"1","flat":"0","amount":"100"}]}'


def noted(wanted: Wanted) -> Document:
    """A note on an invoice of 100.00 for a hundred calls and 0.99 for words, with tax."""
    rows: list[dict[str, Any]] = [
        {
            "document": 0, "kind": "usage", "customer": "ua", "currency": "EUR", "usage_period": "2026-01", "charge": name,
            "description": name, "model": "standard", "meter": name, "quantity": Decimal(quantity),
            "amount": Decimal(minor) / 100, "amount_minor": minor, "tax_rule": VAT, "revenue": "subtotal",
            "service_start": date(2026, 1, 1), "service_end": date(2026, 2, 1), "explanation": explained,
        }
        for name, quantity, minor, explained in (("Calls", 100, 10000, EXPLAINED), ("Words", 3, 99, "{}"))
    ]  # fmt: skip
    taxed = with_taxes(pl.DataFrame(rows, schema=DRAFTED))
    head = {"document": 0, "id": "i", "tenant": "t", "kind": "manual", "customer": "ua", "customer_name": "UA Ltd",
            "period": "2026-01", "series": "INV", "currency": "EUR"}  # fmt: skip
    drafts = drafted(taxed.lines, taxed.groups, pl.DataFrame([head], schema=HEADS))
    invoice = finalised(drafts.invoices, last_number=41, issued_at=datetime(2026, 2, 1, tzinfo=UTC))
    at = datetime(2026, 2, 2, tzinfo=UTC)
    made = credit_of(invoice.row(0, named=True), drafts.lines.to_dicts(), (), 0, wanted, at=at)
    note = pl.DataFrame([made.note | {"series": "CN", "number": "CN-000007", "entry_id": None}], schema=CREDIT_NOTES)
    return credit_note_of(note, pl.DataFrame(made.lines, schema=CREDITED), invoice, drafts.lines, SELLER, BUYER)


def test_a_whole_line_has_its_quantity_and_a_part_is_one_piece() -> None:
    """Slices belong to the amount that they add up to."""
    whole, part = (
        Wanted(reason=Reason.OTHER),
        Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=1, net_minor=5000),)),
    )
    calls, words = noted(whole).lines
    assert (calls.quantity, len(calls.slices), words.quantity) == (100, 1, 3)
    (calls,) = noted(part).lines
    assert (calls.quantity, calls.slices, calls.net_minor) == (1, (), 5000)


def test_it_names_its_invoice_and_why_in_every_format() -> None:
    """UBL is a CreditNote, CII has the type 381; both refer to the invoice and its day."""
    document = noted(Wanted(reason=Reason.PRODUCT_UNSATISFACTORY, comment="late"))
    assert (document.kind, document.totals.due_minor, document.due_on) == (DocumentKind.CREDIT_NOTE, 12119, None)
    text = render_text(document)
    assert [
        part for part in ("CREDIT NOTE CN-000007", "INV-000042", "product unsatisfactory", "late") if part not in text
    ] == []
    ubl = render_ubl(document)
    for part in (
        "<CreditNote ",
        "<cbc:ID>INV-000042</cbc:ID>",
        "<cbc:IssueDate>2026-02-01</cbc:IssueDate>",
        ">121.19<",
    ):
        assert part in ubl
    cii = render_cii(document)
    for part in ("<ram:TypeCode>381</ram:TypeCode>", "INV-000042", "20260201"):
        assert part in cii


def test_a_part_whose_tax_is_not_its_rate_is_no_e_invoice() -> None:
    """A gross amount of 0.03 is 0.03 without tax, though 20 percent of 0.03 are 0.01; other formats have it."""
    fine = noted(Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=2, net_minor=3),)))
    assert fine.totals.tax_minor == 1
    assert "<CreditNote " in render_ubl(fine)
    off = noted(Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=1, gross_minor=4),)))
    assert (off.totals.net_minor, off.totals.tax_minor) == (3, 1)
    skewed = noted(Wanted(reason=Reason.OTHER, lines=(CreditedLine(position=1, gross_minor=3),)))
    assert (skewed.totals.net_minor, skewed.totals.tax_minor) == (3, 0)
    with pytest.raises(NotExpressibleError, match="tax"):
        render_ubl(skewed)
