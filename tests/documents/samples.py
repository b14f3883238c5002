"""Documents of every kind that tests render: made from lines, with the sums that follow."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from schemas.document import (
    Adjusted,
    Allowance,
    AllowanceKind,
    Document,
    DocumentKind,
    Line,
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
from schemas.money import MINOR_UNITS, major
from schemas.party import ElectronicAddress, Party

MARCH = ServicePeriod(first=date(2026, 3, 1), last=date(2026, 3, 31))
FEBRUARY = ServicePeriod(first=date(2026, 2, 1), last=date(2026, 2, 28))
VAT_19 = (Rate(name="USt.", percent=Decimal(19)),)
VAT_7 = (Rate(name="USt.", percent=Decimal(7)),)
ZERO = (Rate(name="VAT", percent=Decimal(0)),)
SELLER = Party(
    name="Tin Can Metering GmbH", street="Kaistraße 7", postal_code="20457", city="Hamburg", country="DE",
    vat_id="DE123456789", registration="HRB 4711", email="billing@tincan.example",
    electronic_address=ElectronicAddress(scheme="EM", id="billing@tincan.example"),
)  # fmt: skip
BUYER = Party(
    name="Ærø & Søn ApS", street="Havnen 1", postal_code="5970", city="Ærøskøbing", country="DK", vat_id="DK12345674",
    electronic_address=ElectronicAddress(scheme="0096", id="12345674"),
)  # fmt: skip


def exact(value: str | int) -> Decimal:
    """A decimal."""
    return Decimal(value)


def sliced(*rows: tuple[str | None, str, str, str]) -> tuple[Slice, ...]:
    """Slices of `up_to`, quantity, unit price and flat amount."""
    return tuple(
        Slice(up_to=None if up_to is None else Decimal(up_to), quantity=Decimal(quantity), unit_price=Decimal(price),
              flat=Decimal(flat), amount=Decimal(quantity) * Decimal(price) + Decimal(flat))
        for up_to, quantity, price, flat in rows
    )  # fmt: skip


def line(position: int, description: str, net_minor: int, **more: Any) -> Line:
    """A line, by default one piece at 19 %."""
    given = {"charge": f"charge-{position}", "period": MARCH, "quantity": Decimal(1),
             "category": TaxCategory.STANDARD, "rates": VAT_19}  # fmt: skip
    return Line(position=position, description=description, net_minor=net_minor, **(given | more))


def allowance(kind: AllowanceKind, reason: str, amount_minor: int, rates: tuple[Rate, ...] = VAT_19) -> Allowance:
    """An allowance at a rate."""
    return Allowance(kind=kind, reason=reason, amount_minor=amount_minor, category=TaxCategory.STANDARD, rates=rates)


def document(
    lines: Sequence[Line], allowances: Sequence[Allowance] = (), prepaid_minor: int = 0, **more: Any
) -> Document:
    """A document of these lines, its taxes rounded at the group of a rate."""
    currency = more.setdefault("currency", "EUR")
    reason = more.pop("reason", "")
    bases: dict[tuple[TaxCategory, Rate | None], int] = {}
    for part, minor in [
        *((each, each.net_minor) for each in lines),
        *((each, -each.amount_minor) for each in allowances),
    ]:
        for rate in part.rates or (None,):
            bases[part.category, rate] = bases.get((part.category, rate), 0) + minor
    taxes = tuple(
        TaxGroup(category=category, rate=rate, base_minor=base, tax_minor=_tax(base, rate), reason=reason)
        for (category, rate), base in bases.items()
    )
    lines_minor, allowances_minor = sum(each.net_minor for each in lines), sum(each.amount_minor for each in allowances)
    net, tax = lines_minor - allowances_minor, sum(group.tax_minor for group in taxes)
    given = {
        "kind": DocumentKind.INVOICE, "id": "0" * 32, "number": "INV-000042", "series": "INV",
        "issued_at": datetime(2026, 4, 1, 6, 30, tzinfo=UTC), "due_on": date(2026, 5, 1), "period": MARCH,
        "customer": "aeroe", "buyer": BUYER, "seller": SELLER, "minor_units": MINOR_UNITS[currency],
        "payment_terms": "Payable within 30 days of the date of issue",
    }  # fmt: skip
    return Document(
        lines=tuple(lines), allowances=tuple(allowances), taxes=taxes,
        totals=Totals(
            lines_minor=lines_minor, allowances_minor=allowances_minor, net_minor=net, tax_minor=tax,
            gross_minor=net + tax, prepaid_minor=prepaid_minor, due_minor=net + tax - prepaid_minor,
        ),
        **(given | more),
    )  # fmt: skip


def _tax(base_minor: int, rate: Rate | None) -> int:
    percent = rate.percent if rate else Decimal(0)
    return int((major(base_minor, 0) * percent / 100).quantize(Decimal(1), ROUND_HALF_UP))


def several_rates() -> Document:
    """Several rates, a graduated line, an adjustment below zero, a discount, a maximum and prepaid credits."""
    lines = [
        line(1, "Platform fee", 250000, group="Platform", slices=sliced((None, "1", "2500", "0")), model="flat"),
        line(
            2, "Seat miles <flown> & booked", 156111, group="Usage", quantity=exact("1234567.5"), unit="mi",
            unit_code="SMI", decimals_min=1, model="graduated", meter="seat_miles",
            slices=sliced(("1000000", "1000000", "0.00125", "100"), (None, "234567.5", "0.0009", "0")),
        ),
        line(
            3, "Requests", 617, group="Usage", quantity=exact("12345"), unit="requests", model="standard",
            meter="requests", slices=sliced((None, "12345", "0.0005", "0")),
        ),
        line(4, "Printed report, 3 copies", 2997, quantity=exact(3), slices=sliced((None, "3", "9.99", "0")), rates=VAT_7),
        line(
            5, "Adjustment for 2026-02: Requests", -7500, period=FEBRUARY, quantity=exact(-3), model="package",
            meter="requests", slices=sliced((None, "4", "75", "0")),
            adjusted=Adjusted(before=State(quantity=exact(41), net_minor=37500), after=State(quantity=exact(38), net_minor=30000)),
        ),
    ]  # fmt: skip
    allowances = [
        allowance(AllowanceKind.DISCOUNT, "10 % on the platform fee", 25000),
        allowance(AllowanceKind.MAXIMUM, "Maximum for usage over 1,500.00", 6728),
        allowance(AllowanceKind.DISCOUNT, "Loyalty", 297, VAT_7),
    ]
    origin = Origin(book="airports", book_version=2, book_digest="b" * 64, contracts_digest="c" * 64, cut=7)
    return document(lines, allowances, 50000, origin=origin, notes=("Thank you.",))


def credit_note() -> Document:
    """A credit note for two lines of an invoice."""
    lines = [
        line(1, "Platform fee, 10 of 31 days", 80645),
        line(2, "Printed report", 999, slices=sliced((None, "1", "9.99", "0")), rates=VAT_7),
    ]
    return document(
        lines, kind=DocumentKind.CREDIT_NOTE, number="CN-000007", series="CN", due_on=None, payment_terms="",
        credits=(Reference(number="INV-000042", issued_on=date(2026, 4, 1)),),
    )  # fmt: skip


def below_zero() -> Document:
    """An invoice on which adjustments outweigh the rest."""
    return document(
        [line(1, "Usage", 1000), line(2, "Adjustment for 2026-02: Usage", -2345, period=FEBRUARY)], due_on=None
    )


def yen() -> Document:
    """Yen have no decimals, and consumption tax has two rates."""
    rates = {percent: (Rate(name="消費税", percent=Decimal(percent)),) for percent in (8, 10)}
    lines = [
        line(1, "基本料金", 12345, rates=rates[10]),
        line(2, "新聞の購読", 3333, rates=rates[8]),
        line(3, "利用料 😀", 1, quantity=exact("0.5"), slices=sliced((None, "0.5", "1", "0")), rates=rates[10]),
    ]
    return document(lines, currency="JPY", buyer=Party(name="株式会社エアロ", country="JP", city="東京"))


def zero_rated() -> Document:
    """A rate of zero, and a line of zero."""
    taxed = {"category": TaxCategory.ZERO_RATED, "rates": ZERO}
    return document([line(1, "Usage", 990, **taxed), line(2, "Nothing used", 0, quantity=exact(0), **taxed)])


def exempt() -> Document:
    """Exempt beside taxed."""
    taxed = {"category": TaxCategory.EXEMPT, "rates": ZERO}
    return document([line(1, "Insurance", 5000, **taxed), line(2, "Usage", 990)], reason="Exempt under Article 135").model_copy(
        update={"taxes": tuple(
            TaxGroup(category=category, rate=rates[0], base_minor=base, tax_minor=tax, reason=reason)
            for category, rates, base, tax, reason in (
                (TaxCategory.EXEMPT, ZERO, 5000, 0, "Exempt under Article 135"), (TaxCategory.STANDARD, VAT_19, 990, 188, ""),
            )
        )}
    )  # fmt: skip


def reverse_charge() -> Document:
    """The buyer owes the tax."""
    taxed = {"category": TaxCategory.REVERSE_CHARGE, "rates": ZERO}
    return document([line(1, "Usage", 123456, **taxed)], reason="Reverse charge")


def outside() -> Document:
    """No tax at all."""
    return document([line(1, "Usage", 2500, category=TaxCategory.OUTSIDE, rates=())], reason="Not subject to tax")


def hostile() -> Document:
    """Names and descriptions that try to be markup, PDF, escape sequences, or to turn the writing around."""
    lines = [
        line(1, "<script>alert('x')</script>", 100),
        line(2, "]]> & <!ENTITY a SYSTEM 'file:///etc/passwd'> &a; \"quoted\"", 100),
        line(3, ") Tj ET /F1 9 Tf (free\\) \\051 %PDF-1.4 endobj", 100),
        line(4, "\x1b[2J\x00bell\x07 \u202e00.000.1\u202c \u2066\u2069 \ufeff\uffff end", 100),
        line(5, "مرحبا שלום नमस्ते 𝔘𝔫𝔦 👩\u200d🚀 𠮷", 100),  # noqa: RUF001
        line(6, "{0} {title} %s ${jndi:ldap://x} {{7*7}}", 100),
        line(7, "word" * 300, 100),
    ]
    buyer = BUYER.model_copy(update={"name": "<b>Bob'); DROP TABLE--</b>", "street": '1 "Quay" & <i>', "city": "a\nb"})
    return document(lines, buyer=Party.model_validate(buyer.model_dump()), notes=("<img src=x onerror=alert(1)>",))


SAMPLES = {
    make.__name__: make
    for make in (several_rates, credit_note, below_zero, yen, zero_rated, exempt, reverse_charge, outside, hostile)
}
