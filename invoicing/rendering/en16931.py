"""What EN 16931, the European e-invoice, asks of a document, before it is written as UBL or CII. Core.

Owns that what cannot be expressed is refused with all reasons at once, and never bent: above all that the tax of a
group is its base times its rate, rounded once (BT-117 = round(BT-116 * BT-119)). So only invoices whose tax is rounded
at the group of a rate, which is the default, become e-invoices.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext

from invoicing.rendering.as_text import slice_text
from schemas.document import Document, DocumentKind, Line, Rate, TaxCategory, TaxGroup
from schemas.money import major
from schemas.party import Party

SPECIFICATION = "urn:cen.eu:en16931:2017"
TYPE_CODES = {DocumentKind.INVOICE: "380", DocumentKind.CREDIT_NOTE: "381"}
_REASON_CODES = {TaxCategory.REVERSE_CHARGE: "VATEX-EU-AE", TaxCategory.OUTSIDE: "VATEX-EU-O"}
_REASONS = {TaxCategory.REVERSE_CHARGE: "Reverse charge", TaxCategory.OUTSIDE: "Not subject to VAT"}
_SLACK = Decimal("0.02")  # between a line's amount and its quantity times its price: rule R120 of Peppol
_NOTHING_TO_PAY = "Nothing to pay: this amount is credited"


class NotExpressibleError(ValueError):
    """A document that cannot become an e-invoice. Its text says all that stands in the way."""


@dataclass(frozen=True)
class Priced:
    """A line's quantity and price as EN 16931 has them: the price is not negative, and their product is the amount."""

    quantity: Decimal
    price: Decimal
    unit_code: str


def refuse_unfit(document: Document) -> tuple[Party, Party]:
    """The seller and the buyer of a document that can become an e-invoice. Raises NotExpressibleError otherwise."""
    faults = [*_party_faults(document), *_tax_faults(document), *_other_faults(document)]
    if faults or document.seller is None:
        raise NotExpressibleError(f"{document.number} cannot become an e-invoice: " + "; ".join(faults))
    return document.seller, document.buyer


def priced(line: Line, minor_units: int) -> Priced:
    """The quantity and unit price of a line where they make its amount; else one piece at the amount.

    A graduated line has no one price: one piece costs what the line comes to, and `line_note` tells the slices. So it
    is where rounding to whole yen moves the amount by more than the networks of e-invoices allow.
    """
    with localcontext(prec=60):
        prices = {rated.unit_price for rated in line.slices if rated.quantity and not rated.flat}
        if len(prices) == 1 and not line.adjusted and not any(rated.flat for rated in line.slices):
            (price,) = prices
            if price >= 0 and abs(line.quantity * price - major(line.net_minor, minor_units)) <= _SLACK:
                return Priced(line.quantity, price, line.unit_code)
    amount = major(line.net_minor, minor_units)
    return Priced(Decimal(-1 if amount < 0 else 1), abs(amount), "C62")


def line_note(line: Line, minor_units: int) -> str:
    """How a line was calculated, where its price does not say it."""
    rows = [slice_text(rated, minor_units) for rated in line.slices] if len(line.slices) > 1 or line.adjusted else []
    if line.adjusted:
        before, after = line.adjusted.before, line.adjusted.after
        rows += [
            f"{word}: {state.quantity:f} for {major(state.net_minor, minor_units):f}"
            for word, state in (("rated now", after), ("billed before", before))
        ]
    return "; ".join(rows)


def rounded(amount: Decimal, minor_units: int) -> Decimal:
    """An exact amount in the decimals of the currency, half away from zero, as `schemas.money.rounded_minor` does.

    >>> rounded(Decimal("-0.125"), 2), rounded(Decimal("1.5"), 0)
    (Decimal('-0.13'), Decimal('2'))
    """
    with localcontext(prec=60):
        return amount.quantize(Decimal(1).scaleb(-minor_units), ROUND_HALF_UP)


def money(minor: int, document: Document) -> str:
    """An amount as e-invoices write it."""
    return f"{major(minor, document.minor_units):f}"


def percent(rates: tuple[Rate, ...], category: TaxCategory) -> str:
    """The rate of a line or allowance; nothing outside of the tax."""
    if category == TaxCategory.OUTSIDE:
        return ""
    value = f"{rates[0].percent:f}" if rates else "0"
    return value.rstrip("0").rstrip(".") if "." in value else value


def exemption(group: TaxGroup) -> tuple[str, str]:
    """The code (or nothing) and the text of why there is no tax."""
    return _REASON_CODES.get(group.category, ""), group.reason or _REASONS.get(group.category, "")


def has_vat_ids(document: Document) -> bool:
    """Whether the parties' VAT ids stand on the e-invoice: outside of the tax they must not (BR-O-02)."""
    return all(group.category != TaxCategory.OUTSIDE for group in document.taxes)


def terms(document: Document) -> str:
    """The payment terms; a credit note must have some too (BR-CO-25)."""
    return document.payment_terms or (_NOTHING_TO_PAY if document.kind == DocumentKind.CREDIT_NOTE else "")


def _party_faults(document: Document) -> Iterator[str]:
    seller, buyer = document.seller, document.buyer
    if seller is None:
        yield "there is no seller; store one with `meterline seller apply FILE`"
        return
    for role, party in (("seller", seller), ("buyer", buyer)):
        if party.country is None:
            yield f"the {role} has no country"
        if party.vat_id and not (
            party.vat_id[:2].isascii() and party.vat_id[:2].isalpha() and party.vat_id[:2].isupper()
        ):
            yield f"the {role}'s VAT id {party.vat_id} does not begin with a country"
    outside = not has_vat_ids(document)
    if not seller.registration and (outside or not seller.vat_id):
        yield "the seller has no registration" + ("" if outside else " and no VAT id")
    if not outside and not (seller.vat_id or seller.tax_number):
        yield "the seller has neither a VAT id nor a tax number"
    if any(group.category == TaxCategory.REVERSE_CHARGE for group in document.taxes):
        if not seller.vat_id:
            yield "reverse charge asks for the seller's VAT id"
        if not (buyer.vat_id or buyer.registration):
            yield "reverse charge asks for the buyer's VAT id or registration"


def _tax_faults(document: Document) -> Iterator[str]:
    groups = document.taxes
    if len({group.category for group in groups}) > 1 and not has_vat_ids(document):
        yield "what is not subject to VAT cannot stand beside what is"
    keys = [(group.category, group.rate.percent if group.rate else None) for group in groups]
    if len(set(keys)) < len(keys):
        yield "two taxes have the same category and rate"
    rates = [*(line.rates for line in document.lines), *(each.rates for each in document.allowances)]
    if any(len(each) > 1 for each in rates):
        yield "a line has more than one rate; EN 16931 has one VAT a line"
    for group in groups:
        rate = group.rate.percent if group.rate else Decimal(0)
        if group.category == TaxCategory.STANDARD and not rate:
            yield "category S asks for a rate above zero"
        if group.category != TaxCategory.STANDARD and rate:
            yield f"category {group.category} has a rate of {rate} %"
        exact = major(group.base_minor, document.minor_units) * rate / 100
        tax = major(group.tax_minor, document.minor_units)
        if tax != rounded(exact, document.minor_units):
            yield (
                f"the tax of {rate} % on {money(group.base_minor, document)} is {tax:f}, not {exact:f} rounded once; "
                "let the price book round taxes at the group of a rate (rate_group)"
            )
        if 0 < rate < Decimal("0.5") and abs(tax) >= Decimal("0.5"):
            yield f"a rate of {rate} % is rounded to zero by the rules of EN 16931"
        if group.category == TaxCategory.EXEMPT and not group.reason:
            yield "an exemption has no reason"


def _other_faults(document: Document) -> Iterator[str]:
    if document.minor_units > 2:
        yield f"{document.currency} has {document.minor_units} decimals; EN 16931 has at most two"
    if document.totals.due_minor > 0 and not (document.due_on or terms(document)):
        yield "there is neither a due date nor terms of payment; the seller's file has `due_days` and `payment_terms`"
