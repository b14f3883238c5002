"""Payments and refunds, as whoever collects them tells of them. Owns that no card number comes in with one."""

from datetime import UTC, date, datetime
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.card_number import holds_card_number

MINOR_MAX = 2**53
"""Nine hundred trillion cents; sums of many stay within 64 bits."""


def _without_card(text: str) -> str:
    if holds_card_number(text):
        raise ValueError("allowed: a token of the payment gateway; this holds what looks like a card number")
    return text


def _day(value: object) -> object:
    return date.fromisoformat(value) if isinstance(value, str) else value


def _instant(value: object) -> object:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


Name = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"), AfterValidator(_without_card)
]
"""A reference or a reason: a text without control characters, and without a card's number."""
Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$"), AfterValidator(_without_card)]
Amount = Annotated[int, Field(gt=0, le=MINOR_MAX)]
"""Minor units."""
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Day = Annotated[date, BeforeValidator(_day)]
Instant = Annotated[datetime, BeforeValidator(_instant), AfterValidator(_in_utc)]
PRIORITY_MAX = 100


class Told(BaseModel):
    """What somebody tells us."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Payment(Told):
    """Money that came in for an invoice."""

    payment: Name
    """The gateway's name of it. The same payment told twice is one."""
    amount_minor: Amount
    currency: Currency
    paid_on: Day
    payout: Text = ""
    """What the gateway pays it out with: what its clearing account is split by."""


class FailedPayment(Told):
    """Money that did not come."""

    payment: Name
    amount_minor: Amount
    currency: Currency
    failed_on: Day
    decline_code: Text = ""


class Refund(Told):
    """Customer credit that is paid back."""

    refund: Name
    amount_minor: Amount
    currency: Currency
    paid_on: Day
    payout: Text = ""


class TopUp(Told):
    """Credits that are put into a customer's wallet."""

    reference: Name
    """Of the payment, or of the decision to give credits. The same reference told twice is one."""
    amount_minor: Amount
    currency: Currency
    promotional: bool = False
    """Given for nothing."""
    priority: Annotated[int, Field(ge=0, le=PRIORITY_MAX)] = 50
    """The lower, the earlier it is burned."""
    expires_at: Instant | None = None
    invoiced: bool = False
    """Whether an invoice asks for its price, not the gateway."""

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if self.promotional and self.invoiced:
            raise ValueError("promotional credits have no price; allowed: one of promotional and invoiced")
        return self


class Review(Told):
    """What came of a flag that somebody looked at."""

    note: Name


class Settlement(Told):
    """A settlement file of a gateway, and the payout that is matched."""

    payout: Name
    text: Annotated[str, Field(min_length=1)]
    """The file, as CSV."""
    mapping: str | None = None
    """Which of its columns says what, as YAML; none for Stripe's itemized reconciliation report."""


class Reason(Told):
    """Why something is done to an invoice."""

    reason: Name


class WriteOff(Reason):
    """Why an invoice is given up, and whether its tax is paid back by the state."""

    tax_relief: bool = False


class CreditApplication(Told):
    """How much of a customer's credit is applied: all that fits, or at most so much."""

    amount_minor: Amount | None = None
