"""An invoice or a credit note as one value, from which every rendering is made: text, JSON, HTML, PDF, e-invoices.

Owns the invariant that a document adds up (lines and allowances to the net amount, tax groups to the tax, both to
the gross amount, and that less what was paid before to what is due; each tax group's base to the lines and allowances
that it taxes), and that its words cannot disturb a rendering: control characters and overrides of the direction of
writing never reach one. Amounts are whole minor units of the currency. On a credit note they are what is given back,
so they are positive where the invoice's were.
"""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.money import MINOR_UNITS
from schemas.party import Party
from schemas.shown import Shown

Positive = Annotated[int, Field(gt=0)]


class DocumentKind(StrEnum):
    """What a document is."""

    INVOICE = "invoice"
    CREDIT_NOTE = "credit_note"


class TaxCategory(StrEnum):
    """Why a tax rate is what it is: the codes of UNCL 5305 that EN 16931 has."""

    STANDARD = "S"
    ZERO_RATED = "Z"
    EXEMPT = "E"
    REVERSE_CHARGE = "AE"
    OUTSIDE = "O"
    """Not subject to the tax: there is no rate."""


class AllowanceKind(StrEnum):
    """What an allowance is for."""

    DISCOUNT = "discount"
    MAXIMUM = "maximum"
    CREDIT = "credit"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rate(_Value):
    """A tax and its rate."""

    name: Shown
    percent: Annotated[Decimal, Field(ge=0, le=100)]


class ServicePeriod(_Value):
    """The days of the service, the last one included."""

    first: date
    last: date

    @property
    def label(self) -> str:
        """A whole month as `2013-02`, other days in full.

        >>> ServicePeriod(first=date(2013, 2, 1), last=date(2013, 2, 28)).label
        '2013-02'
        >>> ServicePeriod(first=date(2013, 2, 1), last=date(2013, 2, 27)).label
        '2013-02-01 to 2013-02-27'
        """
        following = date.fromordinal(self.last.toordinal() + 1)
        whole = self.first.day == following.day == 1 and (self.first.year, self.first.month) == (
            self.last.year,
            self.last.month,
        )
        return f"{self.first:%Y-%m}" if whole else f"{self.first} to {self.last}"


class Slice(_Value):
    """A part of a quantity at one price: `quantity * unit_price + flat = amount`, exactly, but for a cap."""

    label: str = ""
    up_to: Decimal | None
    quantity: Decimal
    unit_price: Decimal
    flat: Decimal
    amount: Decimal


class State(_Value):
    """What a charge came to at some time: of an adjustment, before or after."""

    quantity: Decimal
    net_minor: int


class Adjusted(_Value):
    """What an adjustment is the difference of."""

    before: State
    after: State


class LineBasis(_Value):
    """What a line was rated from."""

    book: Shown
    book_version: int
    cut: int


class Line(_Value):
    """A line. Its net amount is final; quantity, prices and slices explain it."""

    position: Positive
    charge: Shown
    group: Shown = ""
    """The heading that it stands under."""
    description: Shown
    model: Shown = ""
    meter: Shown | None = None
    period: ServicePeriod
    quantity: Decimal
    unit: Shown = ""
    """The unit as people write it: `GB`."""
    unit_code: Annotated[str, Field(pattern=r"^[A-Z0-9]{2,3}$")] = "C62"
    """The unit as UN/ECE Recommendation 20 writes it; C62 is one piece of whatever it is."""
    decimals_min: Annotated[int, Field(ge=0, le=9)] = 0
    """How many decimals a quantity shows at least."""
    slices: tuple[Slice, ...] = ()
    adjusted: Adjusted | None = None
    net_minor: int
    category: TaxCategory
    rates: tuple[Rate, ...] = ()
    basis: LineBasis | None = None


class Allowance(_Value):
    """What is taken off the sum of the lines before tax: a discount, a maximum, a credit."""

    kind: AllowanceKind
    reason: Shown
    amount_minor: Positive
    category: TaxCategory
    rates: tuple[Rate, ...] = ()


class TaxGroup(_Value):
    """A tax on all that has its category and rate. A line with two rates is part of two groups."""

    category: TaxCategory
    rate: Rate | None
    base_minor: int
    tax_minor: int
    reason: Shown = ""
    """Why there is no tax."""

    def holds(self, part: Line | Allowance) -> bool:
        """Whether this tax is on the line or allowance."""
        of_rate = self.rate in part.rates if self.rate else not part.rates
        return part.category == self.category and of_rate


class Totals(_Value):
    """The sums of a document, each of which is shown."""

    lines_minor: int
    allowances_minor: int = 0
    net_minor: int
    tax_minor: int
    gross_minor: int
    prepaid_minor: int = 0
    due_minor: int


class Reference(_Value):
    """Another document."""

    number: Shown
    issued_on: date | None = None


class Origin(_Value):
    """What the document was made from: enough to make it again."""

    book: Shown
    book_version: int
    book_digest: str
    contracts_digest: str
    cut: int


class Document(_Value):
    """An invoice or a credit note, complete."""

    kind: DocumentKind
    id: str
    number: Shown
    series: Shown
    issued_at: datetime
    due_on: date | None = None
    period: ServicePeriod
    customer: Shown
    buyer: Party
    seller: Party | None
    """None as long as no seller is stored; such a document cannot become an e-invoice."""
    currency: str
    minor_units: int
    lines: Annotated[tuple[Line, ...], Field(min_length=1)]
    allowances: tuple[Allowance, ...] = ()
    taxes: tuple[TaxGroup, ...]
    totals: Totals
    credits: tuple[Reference, ...] = ()
    """The invoices that a credit note is about."""
    payment_terms: Shown = ""
    notes: tuple[Shown, ...] = ()
    origin: Origin | None = None

    @property
    def issued_on(self) -> date:
        """The day of issue, in UTC."""
        return self.issued_at.date()

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        sums = self.totals
        claims = [
            ("lines", sum(line.net_minor for line in self.lines), sums.lines_minor),
            ("allowances", sum(each.amount_minor for each in self.allowances), sums.allowances_minor),
            ("lines less allowances", sums.lines_minor - sums.allowances_minor, sums.net_minor),
            ("tax groups", sum(group.tax_minor for group in self.taxes), sums.tax_minor),
            ("net and tax", sums.net_minor + sums.tax_minor, sums.gross_minor),
            ("gross less prepaid", sums.gross_minor - sums.prepaid_minor, sums.due_minor),
            *((f"what is taxed {_name(group)}", self._taxed(group), group.base_minor) for group in self.taxes),
        ]
        wrong = [f"{what} come to {real}, not {claimed}" for what, real, claimed in claims if real != claimed]
        if MINOR_UNITS.get(self.currency) != self.minor_units:
            wrong.append(f"{self.currency} with {self.minor_units} decimals is no currency of schemas.money")
        parts: list[Line | Allowance] = [*self.lines, *self.allowances]
        wrong += [
            f"{part.category} {', '.join(rate.name for rate in part.rates)} has no tax group"
            for part in parts
            if sum(group.holds(part) for group in self.taxes) != max(len(part.rates), 1)
        ]
        if wrong:
            raise ValueError(f"{self.kind} {self.number} does not add up: " + "; ".join(wrong))
        return self

    def _taxed(self, group: TaxGroup) -> int:
        lines = sum(line.net_minor for line in self.lines if group.holds(line))
        return lines - sum(each.amount_minor for each in self.allowances if group.holds(each))


def _name(group: TaxGroup) -> str:
    return f"{group.category} {group.rate.name} {group.rate.percent} %" if group.rate else group.category.value
