"""A stored invoice with its lines becomes a document. Core.

Decides what a document says that the stored rows do not spell out: an invoice without a tax is outside of it, a rate
of zero is zero-rated, and an invoice is due as many days after its issue as the seller's file says.
"""

import json
from datetime import date, timedelta
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
    ServicePeriod,
    Slice,
    State,
    TaxCategory,
    TaxGroup,
    Totals,
)
from schemas.invoice import LineKind
from schemas.party import Party, PartyDetails, Seller

NO_TAX = "Not subject to tax"


def document_of(
    invoice: pl.DataFrame, lines: pl.DataFrame, seller: Seller | None, buyer: PartyDetails | None
) -> Document:
    """The document of one invoice (a frame of one row, columns `schemas.invoice.INVOICES`) and its lines (`LINES`).

    `buyer` is what the contract says of the customer beside the name, which is the one on the invoice.
    """
    head = invoice.row(0, named=True)
    rate = _rate(head["tax"])
    category = _category(rate)
    taxed = TaxGroup(
        category=category, rate=rate, base_minor=head["subtotal_minor"], tax_minor=head["tax_minor"],
        reason=NO_TAX if rate is None else "",
    )  # fmt: skip
    due_on = None
    if seller and seller.due_days is not None:
        due_on = head["issued_at"].date() + timedelta(days=seller.due_days)
    return Document(
        kind=DocumentKind.INVOICE,
        id=head["id"],
        number=head["number"],
        series=head["number"].partition("-")[0],
        issued_at=head["issued_at"],
        due_on=due_on,
        period=_month(head["period"]),
        customer=head["customer"],
        buyer=Party(name=head["customer_name"] or head["customer"], **(buyer.model_dump() if buyer else {})),
        seller=seller.party if seller else None,
        currency=head["currency"],
        minor_units=head["minor_units"],
        lines=tuple(_line(row, category, rate) for row in lines.iter_rows(named=True)),
        taxes=(taxed,),
        totals=Totals(
            lines_minor=head["subtotal_minor"], net_minor=head["subtotal_minor"], tax_minor=head["tax_minor"],
            gross_minor=head["total_minor"], due_minor=head["total_minor"],
        ),
        payment_terms=(seller and seller.payment_terms) or "",
        notes=seller.notes if seller else (),
        origin=Origin(
            book=head["book"], book_version=head["book_version"], book_digest=head["book_digest"],
            contracts_digest=head["contracts_digest"], cut=head["cut"],
        ),
    )  # fmt: skip


def _rate(tax: str | None) -> Rate | None:
    if tax is None:
        return None
    parsed = json.loads(tax)
    return Rate(name=parsed["name"], percent=Decimal(parsed["rate_percent"]))


def _category(rate: Rate | None) -> TaxCategory:
    if rate is None:
        return TaxCategory.OUTSIDE
    return TaxCategory.STANDARD if rate.percent else TaxCategory.ZERO_RATED


def _month(period: str) -> ServicePeriod:
    """The days of a month.

    >>> _month("2012-02").last
    datetime.date(2012, 2, 29)
    """
    first = date.fromisoformat(f"{period}-01")
    following = (first + timedelta(days=31)).replace(day=1)
    return ServicePeriod(first=first, last=following - timedelta(days=1))


def _line(row: dict[str, Any], category: TaxCategory, rate: Rate | None) -> Line:
    explanation = json.loads(row["explanation"])
    adjusted = None
    if row["kind"] == LineKind.ADJUSTMENT:
        before, after = (_state(explanation[moment]) for moment in ("before", "after"))
        adjusted = Adjusted(before=before, after=after)
    return Line(
        position=row["position"],
        charge=row["charge"],
        description=row["description"],
        model=row["model"],
        meter=row["meter"],
        period=_month(row["usage_period"]),
        quantity=row["quantity"],
        slices=tuple(Slice(**rated) for rated in explanation["slices"]),
        adjusted=adjusted,
        net_minor=row["amount_minor"],
        category=category,
        rates=(rate,) if rate else (),
        basis=LineBasis(book=explanation["book"], book_version=explanation["book_version"], cut=explanation["cut"]),
    )


def _state(state: dict[str, Any]) -> State:
    return State(quantity=Decimal(state["quantity"]), net_minor=state["amount_minor"])
