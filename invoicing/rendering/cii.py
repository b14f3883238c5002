"""A document as UN/CEFACT CII, the XML inside a Factur-X or ZUGFeRD file of the profile EN 16931. Core.

Decides the places of the standard's terms in CII; what they are is `en16931`'s to say.
"""

from datetime import date
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
from schemas.document import Document, Line, Rate, Reference, ServicePeriod, TaxCategory
from schemas.party import Party

_STANDARD = "urn:un:unece:uncefact:data:standard:"


def render_cii(document: Document) -> str:
    """The e-invoice as XML text. Raises NotExpressibleError."""
    seller, buyer = refuse_unfit(document)
    vat_ids = has_vat_ids(document)
    root = Element("rsm:CrossIndustryInvoice", attributes={
        "xmlns:rsm": f"{_STANDARD}CrossIndustryInvoice:100",
        "xmlns:ram": f"{_STANDARD}ReusableAggregateBusinessInformationEntity:100",
        "xmlns:udt": f"{_STANDARD}UnqualifiedDataType:100",
        "xmlns:qdt": f"{_STANDARD}QualifiedDataType:100",
    }, children=(
        node(
            "rsm:ExchangedDocumentContext",
            node("ram:GuidelineSpecifiedDocumentContextParameter", leaf("ram:ID", SPECIFICATION)),
        ),
        node(
            "rsm:ExchangedDocument",
            leaf("ram:ID", document.number),
            leaf("ram:TypeCode", TYPE_CODES[document.kind]),
            node("ram:IssueDateTime", _day(document.issued_on)),
            *(node("ram:IncludedNote", leaf("ram:Content", note)) for note in document.notes),
        ),
        node(
            "rsm:SupplyChainTradeTransaction",
            *(_line(line, document) for line in document.lines),
            node(
                "ram:ApplicableHeaderTradeAgreement",
                _party("ram:SellerTradeParty", seller, vat_ids, tax_number=seller.tax_number),
                _party("ram:BuyerTradeParty", buyer, vat_ids),
            ),
            node("ram:ApplicableHeaderTradeDelivery", keep=True),
            _settlement(document),
        ),
    ))  # fmt: skip
    return written(root)


def _day(day: date | None, kind: str = "udt:DateTimeString") -> Element:
    return leaf(kind, f"{day:%Y%m%d}" if day else "", format="102")


def _period(period: ServicePeriod) -> Element:
    return node(
        "ram:BillingSpecifiedPeriod",
        node("ram:StartDateTime", _day(period.first)),
        node("ram:EndDateTime", _day(period.last)),
    )


def _party(name: str, party: Party, vat_ids: bool, tax_number: str | None = None) -> Element:
    address = party.electronic_address
    numbers = ((party.vat_id if vat_ids else None, "VA"), (tax_number, "FC"))
    return node(
        name,
        leaf("ram:Name", party.name),
        node("ram:SpecifiedLegalOrganization", leaf("ram:ID", party.registration)),
        node("ram:DefinedTradeContact", node("ram:EmailURIUniversalCommunication", leaf("ram:URIID", party.email))),
        node(
            "ram:PostalTradeAddress",
            leaf("ram:PostcodeCode", party.postal_code),
            leaf("ram:LineOne", party.street),
            leaf("ram:LineTwo", party.street_more),
            leaf("ram:CityName", party.city),
            leaf("ram:CountryID", party.country),
            leaf("ram:CountrySubDivisionName", party.region),
        ),
        *([node("ram:URIUniversalCommunication", leaf("ram:URIID", address.id, schemeID=address.scheme))]
          if address else []),
        *(node("ram:SpecifiedTaxRegistration", leaf("ram:ID", number, schemeID=scheme))
          for number, scheme in numbers if number),
    )  # fmt: skip


def _tax(name: str, category: TaxCategory, rates: tuple[Rate, ...]) -> Element:
    return node(
        name,
        leaf("ram:TypeCode", "VAT"),
        leaf("ram:CategoryCode", category.value),
        leaf("ram:RateApplicablePercent", percent(rates, category)),
    )


def _line(line: Line, document: Document) -> Element:
    of = priced(line, document.minor_units)
    return node(
        "ram:IncludedSupplyChainTradeLineItem",
        node(
            "ram:AssociatedDocumentLineDocument",
            leaf("ram:LineID", str(line.position)),
            node("ram:IncludedNote", leaf("ram:Content", line.group)),
        ),
        node(
            "ram:SpecifiedTradeProduct",
            leaf("ram:Name", line.description.strip() or line.charge),
            leaf("ram:Description", line_note(line, document.minor_units)),
        ),
        node(
            "ram:SpecifiedLineTradeAgreement",
            node("ram:NetPriceProductTradePrice", leaf("ram:ChargeAmount", _number(of.price))),
        ),
        node(
            "ram:SpecifiedLineTradeDelivery",
            leaf("ram:BilledQuantity", _number(of.quantity), unitCode=of.unit_code),
        ),
        node(
            "ram:SpecifiedLineTradeSettlement",
            _tax("ram:ApplicableTradeTax", line.category, line.rates),
            _period(line.period),
            node(
                "ram:SpecifiedTradeSettlementLineMonetarySummation",
                leaf("ram:LineTotalAmount", money(line.net_minor, document)),
            ),
        ),
    )


def _settlement(document: Document) -> Element:
    return node(
        "ram:ApplicableHeaderTradeSettlement",
        leaf("ram:InvoiceCurrencyCode", document.currency),
        *_taxes(document),
        _period(document.period),
        *_allowances(document),
        node(
            "ram:SpecifiedTradePaymentTerms",
            leaf("ram:Description", terms(document)),
            node("ram:DueDateDateTime", _day(document.due_on)),
        ),
        _totals(document),
        *(_credited(reference) for reference in document.credits),
    )


def _taxes(document: Document) -> list[Element]:
    taxes = []
    for group in document.taxes:
        code, reason = exemption(group)
        taxes.append(
            node(
                "ram:ApplicableTradeTax",
                leaf("ram:CalculatedAmount", money(group.tax_minor, document)),
                leaf("ram:TypeCode", "VAT"),
                leaf("ram:ExemptionReason", reason),
                leaf("ram:BasisAmount", money(group.base_minor, document)),
                leaf("ram:CategoryCode", group.category.value),
                leaf("ram:ExemptionReasonCode", code),
                leaf("ram:RateApplicablePercent", percent((group.rate,) if group.rate else (), group.category)),
            )
        )
    return taxes


def _allowances(document: Document) -> list[Element]:
    return [
        node(
            "ram:SpecifiedTradeAllowanceCharge",
            node("ram:ChargeIndicator", leaf("udt:Indicator", "false")),
            leaf("ram:ActualAmount", money(each.amount_minor, document)),
            leaf("ram:Reason", each.reason),
            _tax("ram:CategoryTradeTax", each.category, each.rates),
        )
        for each in document.allowances
    ]


def _totals(document: Document) -> Element:
    totals = document.totals
    rows = [
        ("LineTotalAmount", totals.lines_minor),
        *([("AllowanceTotalAmount", totals.allowances_minor)] if document.allowances else []),
        ("TaxBasisTotalAmount", totals.net_minor),
        ("TaxTotalAmount", totals.tax_minor),
        ("GrandTotalAmount", totals.gross_minor),
        *([("TotalPrepaidAmount", totals.prepaid_minor)] if totals.prepaid_minor else []),
        ("DuePayableAmount", totals.due_minor),
    ]
    currency = {"TaxTotalAmount": {"currencyID": document.currency}}
    return node(
        "ram:SpecifiedTradeSettlementHeaderMonetarySummation",
        *(leaf(f"ram:{name}", money(minor, document), **currency.get(name, {})) for name, minor in rows),
    )


def _credited(reference: Reference) -> Element:
    return node(
        "ram:InvoiceReferencedDocument",
        leaf("ram:IssuerAssignedID", reference.number),
        node("ram:FormattedIssueDateTime", _day(reference.issued_on, "qdt:DateTimeString")),
    )


def _number(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
