"""The text of an invoice, whole, as a person reviews it. The digest in it freezes the canonical form."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl

from invoicing.assemble import assemble
from invoicing.rendering.as_text import render_text
from invoicing.rendering.stored import document_of
from schemas.invoice import BOOKED, CHARGED, Basis, Tax

GOLDEN = Path(__file__).with_name("invoice.txt")
BASIS = Basis(cut=7, book="airports", book_version=2, book_digest="b" * 64, contracts_digest="c" * 64)


def _slice(
    up_to: str | None, quantity: str, unit_price: str, flat: str, amount: str
) -> dict[str, Decimal | str | None]:
    return {
        "label": "",
        "up_to": None if up_to is None else Decimal(up_to),
        "quantity": Decimal(quantity),
        "unit_price": Decimal(unit_price),
        "flat": Decimal(flat),
        "amount": Decimal(amount),
    }


def _charges() -> pl.DataFrame:
    basis = {**vars(BASIS), "customer": "UA", "currency": "USD"}
    rows = [
        {
            **basis, "period": "2013-02", "charge": "platform", "description": "Platform fee", "model": "flat",
            "meter": None, "quantity": Decimal(1), "slices": [_slice(None, "1", "2500", "0", "2500")],
            "amount": Decimal(2500), "amount_minor": 250000,
        },
        {
            **basis, "period": "2013-02", "charge": "seat_miles", "description": "Seat miles flown",
            "model": "graduated", "meter": "seat_miles", "quantity": Decimal("1234567.5"),
            "slices": [
                _slice("1000000", "1000000", "0.00125", "100", "1350"),
                _slice(None, "234567.5", "0.0009", "0", "211.11075"),
            ],
            "amount": Decimal("1561.11075"), "amount_minor": 156111,
        },
        {
            **basis, "period": "2013-02", "charge": "delays", "description": "Delayed departures, first hour free",
            "model": "standard", "meter": "delays", "quantity": Decimal(0), "slices": [],
            "amount": Decimal(0), "amount_minor": 0,
        },
        {
            **basis, "period": "2013-01", "charge": "gates", "description": "Gate packages of 10 turns",
            "model": "package", "meter": "turns", "quantity": Decimal(38),
            "slices": [_slice(None, "4", "75", "0", "300")], "amount": Decimal(300), "amount_minor": 30000,
        },
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=CHARGED)


def _booked() -> pl.DataFrame:
    common = {"customer": "UA", "usage_period": "2013-01", "currency": "USD"}
    rows = [
        {
            **common, "charge": "gates", "description": "Gate packages of 10 turns", "model": "package",
            "meter": "turns", "quantity": Decimal(41), "amount": Decimal(375), "amount_minor": 37500,
        },
        {
            **common, "charge": "lounges", "description": "Lounge visits", "model": "standard", "meter": "visits",
            "quantity": Decimal(3), "amount": Decimal("22.5"), "amount_minor": 2250,
        },
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=BOOKED)


def test_an_invoice_reads_like_an_invoice() -> None:
    """Header, lines with slices, two adjustments (one of a charge that is gone), tax and total stand as reviewed."""
    assembled = assemble(
        _charges(),
        _booked(),
        tenant="default",
        run_period="2013-02",
        bases={"2013-01": BASIS, "2013-02": BASIS},
        customer_names={"UA": "United Air Lines Inc."},
        tax=Tax("Sales tax", Decimal("8.875")),
        next_number=42,
        issued_at=datetime(2013, 3, 1, 6, 30, tzinfo=UTC),
    )
    text = render_text(document_of(assembled.invoices, assembled.lines, None, None))
    content = assembled.invoices["content_digest"].item()
    assert f"{text}\ncontent digest {content}\n" == GOLDEN.read_text()
