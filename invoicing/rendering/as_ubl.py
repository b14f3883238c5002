"""A document as UBL 2.1, an Invoice or a CreditNote of EN 16931. Core.

Decides the places of the standard's terms in UBL; what they are is `en16931`'s to say.
"""

from decimal import Decimal

from invoicing.rendering.en16931 import (
    SPECIFICATION,
    TYPE_CODES,
    exemption,
    has_vat_ids,
    line_note,
    money,
    percent,
    priced,
    refuse_unfit,
    terms,
)
from invoicing.rendering.xml_text import Element, leaf, node, written
from schemas.document import Document, DocumentKind, Line, Rate, Reference, ServicePeriod, TaxCategory
from schemas.party import Party

_NAMESPACE = "urn:oasis:names:specification:ubl:schema:xsd:"


def render_ubl(document: Document) -> str:
    """The e-invoice as XML text. Raises NotExpressibleError."""
    seller, buyer = refuse_unfit(document)
    credit = document.kind == DocumentKind.CREDIT_NOTE
    name = "CreditNote" if credit else "Invoice"
    vat_ids = has_vat_ids(document)
    children = [
        leaf("cbc:CustomizationID", SPECIFICATION),
        leaf("cbc:ID", document.number),
        leaf("cbc:IssueDate", document.issued_on.isoformat()),
        leaf("cbc:DueDate", document.due_on.isoformat() if document.due_on and not credit else ""),
        leaf(f"cbc:{name}TypeCode", TYPE_CODES[document.kind]),
        *(leaf("cbc:Note", note) for note in document.notes),
        leaf("cbc:DocumentCurrencyCode", document.currency),
        _period(document.period),
        *(_billing_reference(reference) for reference in document.credits),
        node("cac:AccountingSupplierParty", _party(seller, vat_ids, tax_number=seller.tax_number)),
        node("cac:AccountingCustomerParty", _party(buyer, vat_ids)),
        node("cac:PaymentTerms", leaf("cbc:Note", terms(document))),
        *_allowances(document),
        _taxes(document),
        _totals(document),
        *(_line(line, document, name) for line in document.lines),
    ]
    root = Element(name, children=tuple(children), attributes={
        "xmlns": f"{_NAMESPACE}{name}-2",
        "xmlns:cac": f"{_NAMESPACE}CommonAggregateComponents-2",
        "xmlns:cbc": f"{_NAMESPACE}CommonBasicComponents-2",
    })  # fmt: skip
    return written(root)


def _period(period: ServicePeriod) -> Element:
    return node(
        "cac:InvoicePeriod",
        leaf("cbc:StartDate", period.first.isoformat()),
        leaf("cbc:EndDate", period.last.isoformat()),
    )


def _billing_reference(reference: Reference) -> Element:
    return node(
        "cac:BillingReference",
        node(
            "cac:InvoiceDocumentReference",
            leaf("cbc:ID", reference.number),
            leaf("cbc:IssueDate", reference.issued_on.isoformat() if reference.issued_on else ""),
        ),
    )


def _party(party: Party, vat_ids: bool, tax_number: str | None = None) -> Element:
    address = party.electronic_address
    numbers = ((party.vat_id if vat_ids else None, "VAT"), (tax_number, "TAX"))
    return node(
        "cac:Party",
        leaf("cbc:EndpointID", address.id, schemeID=address.scheme) if address else leaf("cbc:EndpointID", ""),
        node(
            "cac:PostalAddress",
            leaf("cbc:StreetName", party.street),
            leaf("cbc:AdditionalStreetName", party.street_more),
            leaf("cbc:CityName", party.city),
            leaf("cbc:PostalZone", party.postal_code),
            leaf("cbc:CountrySubentity", party.region),
            node("cac:Country", leaf("cbc:IdentificationCode", party.country)),
        ),
        *(_tax_scheme(number, scheme) for number, scheme in numbers if number),
        node(
            "cac:PartyLegalEntity",
            leaf("cbc:RegistrationName", party.name),
            leaf("cbc:CompanyID", party.registration),
        ),
        node("cac:Contact", leaf("cbc:ElectronicMail", party.email)),
    )  # fmt: skip


def _tax_scheme(number: str, scheme: str) -> Element:
    return node("cac:PartyTaxScheme", leaf("cbc:CompanyID", number), node("cac:TaxScheme", leaf("cbc:ID", scheme)))


def _category(name: str, category: TaxCategory, rates: tuple[Rate, ...], *reasons: Element) -> Element:
    return node(
        name,
        leaf("cbc:ID", category.value),
        leaf("cbc:Percent", percent(rates, category)),
        *reasons,
        node("cac:TaxScheme", leaf("cbc:ID", "VAT")),
    )


def _allowances(document: Document) -> list[Element]:
    return [
        node(
            "cac:AllowanceCharge",
            leaf("cbc:ChargeIndicator", "false"),
            leaf("cbc:AllowanceChargeReason", each.reason),
            _amount("Amount", each.amount_minor, document),
            _category("cac:TaxCategory", each.category, each.rates),
        )
        for each in document.allowances
    ]


def _taxes(document: Document) -> Element:
    groups = []
    for group in document.taxes:
        code, reason = exemption(group)
        rates = (group.rate,) if group.rate else ()
        reasons = (leaf("cbc:TaxExemptionReasonCode", code), leaf("cbc:TaxExemptionReason", reason))
        groups.append(
            node(
                "cac:TaxSubtotal",
                _amount("TaxableAmount", group.base_minor, document),
                _amount("TaxAmount", group.tax_minor, document),
                _category("cac:TaxCategory", group.category, rates, *reasons),
            )
        )
    return node("cac:TaxTotal", _amount("TaxAmount", document.totals.tax_minor, document), *groups)


def _totals(document: Document) -> Element:
    totals = document.totals
    rows = [
        ("LineExtensionAmount", totals.lines_minor),
        ("TaxExclusiveAmount", totals.net_minor),
        ("TaxInclusiveAmount", totals.gross_minor),
        *([("AllowanceTotalAmount", totals.allowances_minor)] if document.allowances else []),
        *([("PrepaidAmount", totals.prepaid_minor)] if totals.prepaid_minor else []),
        ("PayableAmount", totals.due_minor),
    ]
    return node("cac:LegalMonetaryTotal", *(_amount(name, minor, document) for name, minor in rows))


def _line(line: Line, document: Document, kind: str) -> Element:
    of = priced(line, document.minor_units)
    quantity = "Credited" if kind == "CreditNote" else "Invoiced"
    return node(
        f"cac:{kind}Line",
        leaf("cbc:ID", str(line.position)),
        leaf("cbc:Note", line.group),
        leaf(f"cbc:{quantity}Quantity", _number(of.quantity), unitCode=of.unit_code),
        _amount("LineExtensionAmount", line.net_minor, document),
        _period(line.period),
        node(
            "cac:Item",
            leaf("cbc:Description", line_note(line, document.minor_units)),
            leaf("cbc:Name", line.description.strip() or line.charge),
            _category("cac:ClassifiedTaxCategory", line.category, line.rates),
        ),
        node("cac:Price", leaf("cbc:PriceAmount", _number(of.price), currencyID=document.currency)),
    )


def _amount(name: str, minor: int, document: Document) -> Element:
    return leaf(f"cbc:{name}", money(minor, document), currencyID=document.currency)


def _number(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
