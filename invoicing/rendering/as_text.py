"""A document as text for a terminal, in full: every line with the slices it was rated from. Core.

Decides how amounts look where there is no locale: thousands separators, at least the decimals of the currency, and
never fewer than are there.
"""

from decimal import Decimal

from schemas.document import Document, DocumentKind, Line, Slice
from schemas.money import major
from schemas.party import Party

_WIDTH = 100
_AMOUNT = 18
_TITLES = {DocumentKind.INVOICE: "INVOICE", DocumentKind.CREDIT_NOTE: "CREDIT NOTE"}


def render_text(document: Document) -> str:
    """The document's text."""
    rule = "-" * _WIDTH
    text = [
        f"{_TITLES[document.kind]} {document.number}",
        "",
        *_fields(document),
        "",
        _columns("Line", "Quantity", f"Amount {document.currency}"),
        rule,
    ]
    group = ""
    for line in document.lines:
        if line.group != group:
            group = line.group
            text += [group] if group else []
        text += _line(line, document.minor_units)
    text += [rule, *_totals(document), *_foot(document)]
    return "\n".join(row.rstrip() for row in text) + "\n"


def amount_text(amount: Decimal, decimals_min: int = 0) -> str:
    """A decimal with thousands separators, without trailing zeros beyond the first `decimals_min` decimals.

    >>> amount_text(Decimal("-1234567.500"), 2)
    '-1,234,567.50'
    >>> amount_text(Decimal("0.00125000"), 2)
    '0.00125'
    >>> amount_text(Decimal("1000.000"))
    '1,000'
    """
    whole, _, fraction = f"{amount:,f}".partition(".")
    fraction = fraction.rstrip("0").ljust(decimals_min, "0")
    return f"{whole}.{fraction}" if fraction else whole


def slice_text(rated: Slice, minor_units: int) -> str:
    """A slice as a sum that can be checked by hand.

    >>> from decimal import Decimal as D
    >>> slice_text(Slice(up_to=D(100), quantity=D(100), unit_price=D("0.5"), flat=D(10), amount=D(60)), 2)
    'up to 100: 100 x 0.50 + 10.00 flat = 60.00'
    """
    tier = "" if rated.up_to is None else f"up to {amount_text(rated.up_to)}: "
    flat = f" + {amount_text(rated.flat, minor_units)} flat" if rated.flat else ""
    price = f"{amount_text(rated.quantity)} x {amount_text(rated.unit_price, minor_units)}"
    label = f"{rated.label}: " if rated.label else ""
    return f"{label}{tier}{price}{flat} = {amount_text(rated.amount, minor_units)}"


def party_lines(party: Party) -> list[str]:
    """A party as on a letter, without the name: address, then numbers.

    >>> party_lines(Party(name="Tin Can", street="1 Quay", postal_code="D02", city="Dublin", country="IE"))
    ['1 Quay', 'D02 Dublin', 'IE']
    """
    town = " ".join(part for part in (party.postal_code, party.city) if part)
    address = [party.street, party.street_more, town, party.region, party.country]
    numbers = [("VAT", party.vat_id), ("Tax number", party.tax_number), ("Registration", party.registration)]
    rows = [part for part in address if part] + [f"{name} {number}" for name, number in numbers if number]
    return rows + ([party.email] if party.email else [])


def _fields(document: Document) -> list[str]:
    fields: dict[str, str] = {}
    if document.seller:
        fields["Seller"] = ", ".join([document.seller.name, *party_lines(document.seller)])
    buyer = f"{document.buyer.name} ({document.customer})"
    fields |= {
        "Billed to": ", ".join([buyer, *party_lines(document.buyer)]),
        "Period": document.period.label,
        "Issued": f"{document.issued_at:%Y-%m-%d %H:%M} UTC",
    }
    if document.due_on:
        fields["Due"] = f"{document.due_on}"
    if document.credits:
        fields["Credits"] = ", ".join(reference.number for reference in document.credits)
    if document.origin:
        origin = document.origin
        fields |= {
            "Price book": f"{origin.book} version {origin.book_version}, digest {origin.book_digest}",
            "Contracts": f"digest {origin.contracts_digest}",
            "Usage": f"cut of the log at barrier {origin.cut}",
        }
    fields["Credit id" if document.kind == DocumentKind.CREDIT_NOTE else "Invoice id"] = document.id
    return [f"{name:<12}{value}" for name, value in fields.items()]


def _line(line: Line, units: int) -> list[str]:
    quantity = amount_text(line.quantity, line.decimals_min) + (f" {line.unit}" if line.unit else "")
    charged = amount_text(major(line.net_minor, units), units)
    text = _titled(f"{line.position:>3}  {line.description}", quantity, charged)
    sources = [f"{line.model} on meter {line.meter}" if line.meter else line.model] if line.model else []
    if line.basis:
        sources.append(f"{line.basis.book} version {line.basis.book_version}, cut {line.basis.cut}")
    if sources:
        text.append(f"     {'; '.join(sources)}")
    text += [f"       {slice_text(rated, units)}" for rated in line.slices]
    if line.adjusted:
        text += [
            f"       {word}: {amount_text(state.quantity)} for {amount_text(major(state.net_minor, units), units)}"
            for word, state in (("rated now", line.adjusted.after), ("billed before", line.adjusted.before))
        ]
    return text


def _totals(document: Document) -> list[str]:
    totals = document.totals
    sums = [("Sum of lines", totals.lines_minor)] if document.allowances else []
    sums += [(each.reason, -each.amount_minor) for each in document.allowances]
    sums.append(("Subtotal", totals.net_minor))
    for group in document.taxes:
        if group.rate:
            several = f" on {_money(group.base_minor, document)}" if len(document.taxes) > 1 else ""
            sums.append((f"{group.rate.name} {amount_text(group.rate.percent)} %{several}", group.tax_minor))
    sums.append((f"Total {document.currency}", totals.gross_minor))
    if totals.prepaid_minor:
        sums += [("Prepaid", -totals.prepaid_minor), (f"Due {document.currency}", totals.due_minor)]
    return [_columns("", name, _money(minor, document)) for name, minor in sums]


def _foot(document: Document) -> list[str]:
    reasons = [group.reason for group in document.taxes if group.reason and document.seller]
    rows = [*reasons, *([document.payment_terms] if document.payment_terms else []), *document.notes]
    return ["", *rows] if rows else []


def _money(minor: int, document: Document) -> str:
    return amount_text(major(minor, document.minor_units), document.minor_units)


def _titled(title: str, quantity: str, amount: str) -> list[str]:
    """A line's first row; a title that is too long for its column stands in a row of its own."""
    if len(title) + len(quantity) + 2 <= _WIDTH - _AMOUNT:
        return [_columns(title, quantity, amount)]
    return [title, _columns("", quantity, amount)]


def _columns(title: str, middle: str, amount: str) -> str:
    room = _WIDTH - _AMOUNT - len(title)
    return f"{title}{middle:>{room}} {amount:>{_AMOUNT - 1}}"
