"""A stored invoice or credit note with its lines becomes a document. Core.

Decides what a document says that the stored rows do not spell out: what has no tax is outside of it, and a rate of zero
is zero-rated.
"""

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from schemas.document import (
    Adjusted,
    Document,
    DocumentKind,
    Line,
    LineBasis,
    Origin,
    Rate,
    Reference,
    ServicePeriod,
    Slice,
    State,
    TaxCategory,
    TaxGroup,
    Totals,
)
from schemas.party import Party, PartyDetails, Seller

NO_TAX = "Not subject to tax"
DRAFT = "DRAFT"
"""What stands for the number of an invoice that has none yet."""
_BASIS = ("book", "book_version", "cut")


def document_of(
    invoice: pl.DataFrame,
    lines: pl.DataFrame,
    seller: Seller | None,
    buyer: PartyDetails | None,
    *,
    shown_at: datetime,
) -> Document:
    """The document of one invoice (a frame of one row, columns `schemas.invoice.INVOICES`) and its lines (`LINES`).

    `buyer` is what the contract says of the customer beside the name, which is the one on the invoice. A draft, which
    is not issued yet, is dated `shown_at`.
    """
    head = invoice.row(0, named=True)
    rows = lines.to_dicts()
    return Document(
        kind=DocumentKind.INVOICE,
        id=head["id"],
        number=head["number"] or DRAFT,
        series=head["series"],
        issued_at=head["issued_at"] or shown_at,
        due_on=head["due_on"] or _due_on(head["issued_at"], seller),
        period=_month(head["period"]),
        customer=head["customer"],
        buyer=Party(name=head["customer_name"] or head["customer"], **(buyer.model_dump() if buyer else {})),
        seller=seller.party if seller else None,
        currency=head["currency"],
        minor_units=head["minor_units"],
        lines=tuple(_line(row) for row in rows),
        taxes=_groups(head, rows),
        totals=Totals(
            lines_minor=head["subtotal_minor"], net_minor=head["subtotal_minor"], tax_minor=head["tax_minor"],
            gross_minor=head["total_minor"], prepaid_minor=head["settled_minor"],
            due_minor=head["total_minor"] - head["settled_minor"],
        ),
        payment_terms=(seller and seller.payment_terms) or "",
        notes=seller.notes if seller else (),
        origin=_origin(head),
    )  # fmt: skip


def _due_on(issued_at: datetime | None, seller: Seller | None) -> date | None:
    """When what was issued before there was a seller is due."""
    if issued_at is None or seller is None or seller.due_days is None:
        return None
    return issued_at.date() + timedelta(days=seller.due_days)


def credit_note_of(
    note: pl.DataFrame,
    credited: pl.DataFrame,
    invoice: pl.DataFrame,
    lines: pl.DataFrame,
    seller: Seller | None,
    buyer: PartyDetails | None,
) -> Document:
    """The document of a credit note (a frame of one row) and what it took of its invoice's lines.

    The columns are CREDIT_NOTES and CREDITED of `schemas.credit_note`. The document names the invoice.
    A line that was taken whole has its quantity and slices; of any other one a part of its amount is given back.
    """
    head, about = note.row(0, named=True), invoice.row(0, named=True)
    billed = {row["id"]: row for row in lines.iter_rows(named=True)}
    rows = credited.to_dicts()
    return Document(
        kind=DocumentKind.CREDIT_NOTE,
        id=head["id"],
        number=head["number"],
        series=head["series"],
        issued_at=head["issued_at"],
        period=_month(about["period"]),
        customer=head["customer"],
        buyer=Party(name=about["customer_name"] or head["customer"], **(buyer.model_dump() if buyer else {})),
        seller=seller.party if seller else None,
        currency=head["currency"],
        minor_units=head["minor_units"],
        lines=tuple(_credited_line(row, billed[row["invoice_line_id"]]) for row in rows),
        taxes=_groups(head, rows),
        totals=Totals(
            lines_minor=head["subtotal_minor"], net_minor=head["subtotal_minor"], tax_minor=head["tax_minor"],
            gross_minor=head["total_minor"], due_minor=head["total_minor"],
        ),
        credits=(Reference(number=about["number"], issued_on=about["issued_at"].date()),),
        notes=(f"Reason: {head['reason'].replace('_', ' ')}", *([head["comment"]] if head["comment"] else [])),
        origin=_origin(about),
    )  # fmt: skip


def _credited_line(row: dict[str, Any], billed: dict[str, Any]) -> Line:
    line = _line(billed | {name: row[name] for name in ("position", "net_minor", "taxes")})
    if row["net_minor"] == billed["net_minor"]:
        return line
    return line.model_copy(update={"quantity": Decimal(1), "slices": (), "adjusted": None})


def _origin(head: dict[str, Any]) -> Origin | None:
    names = ("book", "book_version", "book_digest", "contracts_digest", "cut")
    return None if head["cut"] is None else Origin(**{name: head[name] for name in names})


def _groups(head: dict[str, Any], lines: list[dict[str, Any]]) -> tuple[TaxGroup, ...]:
    """The taxes of an invoice, and last what of it is not subject to tax."""
    found = []
    for each in json.loads(head["taxes"]):
        rate = _rate(each)
        found.append(
            TaxGroup(category=_category(rate), rate=rate, base_minor=each["base_minor"], tax_minor=each["tax_minor"])
        )
    untaxed = [line["net_minor"] for line in lines if not json.loads(line["taxes"] or "[]")]
    if untaxed:
        base = sum(untaxed)
        found.append(TaxGroup(category=TaxCategory.OUTSIDE, rate=None, base_minor=base, tax_minor=0, reason=NO_TAX))
    return tuple(found)


def _rate(tax: dict[str, Any]) -> Rate:
    return Rate(name=tax["name"], percent=Decimal(tax["rate_percent"]))


def _category(rate: Rate) -> TaxCategory:
    return TaxCategory.STANDARD if rate.percent else TaxCategory.ZERO_RATED


def _month(period: str) -> ServicePeriod:
    """The days of a month.

    >>> _month("2012-02").last
    datetime.date(2012, 2, 29)
    """
    first = date.fromisoformat(f"{period}-01")
    following = (first + timedelta(days=31)).replace(day=1)
    return ServicePeriod(first=first, last=following - timedelta(days=1))


def _line(row: dict[str, Any]) -> Line:
    explanation = json.loads(row["explanation"])
    rates = tuple(_rate(each) for each in json.loads(row["taxes"] or "[]"))
    adjusted = None
    if "before" in explanation:
        before, after = (_state(explanation[moment]) for moment in ("before", "after"))
        adjusted = Adjusted(before=before, after=after)
    return Line(
        position=row["position"],
        charge=row["charge"],
        description=row["description"],
        model=row["model"],
        meter=row["meter"],
        period=ServicePeriod(first=row["service_start"], last=row["service_end"] - timedelta(days=1)),
        quantity=row["quantity"],
        slices=tuple(Slice(**rated) for rated in explanation.get("slices", ())),
        adjusted=adjusted,
        net_minor=row["net_minor"],
        category=_category(rates[0]) if rates else TaxCategory.OUTSIDE,
        rates=rates,
        basis=LineBasis(**{name: explanation[name] for name in _BASIS}) if "cut" in explanation else None,
    )


def _state(state: dict[str, Any]) -> State:
    return State(quantity=Decimal(state["quantity"]), net_minor=state["amount_minor"])
