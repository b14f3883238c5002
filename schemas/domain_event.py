"""What happens in billing, as others are told of it: the closed list of domain events, and what each one says.

Owns that an event is named by what it is about (tenant, type, object, version of the object), so that the same effect
is never told twice; and that money in it is whole minor units and never a float. A consumer sees an event at least
once: its `id` says whether it was seen before, its `sequence` whether one is missing.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schemas.identity import digest
from schemas.invoice import Columns

OBJECT_ID_LENGTH_MAX = 255
MinorUnits = Annotated[int, Field(ge=-(2**63), lt=2**63)]
"""An amount of money in the minor unit of its currency."""


class EventType(StrEnum):
    """Everything that is told. A consumer must skip the types that it does not know: the list grows."""

    INVOICE_CREATED = "invoice.created"
    INVOICE_FINALIZED = "invoice.finalized"
    INVOICE_PAID = "invoice.paid"
    INVOICE_PAYMENT_FAILED = "invoice.payment_failed"
    INVOICE_VOIDED = "invoice.voided"
    INVOICE_UNCOLLECTIBLE = "invoice.uncollectible"
    CREDIT_NOTE_CREATED = "credit_note.created"
    PERIOD_CLOSED = "ledger.period_closed"
    PERIOD_REOPENED = "ledger.period_reopened"
    USAGE_LATE = "usage.late"
    WALLET_CREDITED = "wallet.credited"
    WALLET_DEBITED = "wallet.debited"
    WALLET_DEPLETED = "wallet.depleted"
    WALLET_EXPIRED = "wallet.expired"
    WEBHOOK_TEST = "webhook.test"
    WEBHOOK_DISABLED = "webhook.disabled"


class EventData(BaseModel):
    """What an event says, beside what it is about. In JSON its names are in camel case."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
    )

    def text(self) -> str:
        """The JSON that is stored and sent: every field in its order, also those that are null."""
        return self.model_dump_json(by_alias=True)


class InvoiceData(EventData):
    """An invoice as it is now."""

    id: str
    number: str | None
    """None while it is a draft."""
    customer: str
    customer_name: str
    period: str
    currency: str
    minor_units: int
    subtotal_minor: MinorUnits
    tax_minor: MinorUnits
    total_minor: MinorUnits
    due_on: date | None = None


class InvoiceVoidedData(InvoiceData):
    """An invoice that is owed no more, and why."""

    reason: str


class PaymentFailedData(InvoiceData):
    """An invoice that could not be collected this time."""

    amount_minor: MinorUnits
    decline_code: str | None = None


class CreditNoteData(EventData):
    """What is taken back of an invoice."""

    id: str
    number: str
    invoice_id: str
    customer: str
    currency: str
    minor_units: int
    subtotal_minor: MinorUnits
    tax_minor: MinorUnits
    total_minor: MinorUnits
    reason: str


class PeriodClosedData(EventData):
    """No entry is dated on or before this day any more."""

    through: date
    closed_by: str | None = None


class PeriodReopenedData(EventData):
    """Entries may be dated in closed days again, until an instant."""

    through: date
    reopened_by: str
    reason: str


class LateUsageData(EventData):
    """Usage of a billed period arrived after its cut, and changes what a customer owes for it."""

    period: str
    cut: int
    """The barrier of the run that found it."""
    customer: str
    policy: str
    """What becomes of the difference: adjust_next, rebill or write_off."""
    meters: tuple[str, ...]
    """Those of the customer's charges that have more usage now."""
    events: int
    """An event that two of these meters count is counted twice."""


class WalletData(EventData):
    """A wallet after a move."""

    id: str
    customer: str
    currency: str
    minor_units: int
    amount_minor: MinorUnits
    """What moved: above zero into the wallet, below zero out of it."""
    balance_minor: MinorUnits


class WebhookTestData(EventData):
    """Nothing happened: somebody tries an endpoint."""

    endpoint_id: str
    message: str = "This is a test. Nothing happened."


class WebhookDisabledData(EventData):
    """An endpoint gets no more events until somebody enables it."""

    endpoint_id: str
    url: str
    reason: str


DATA: dict[EventType, type[EventData]] = {
    EventType.INVOICE_CREATED: InvoiceData,
    EventType.INVOICE_FINALIZED: InvoiceData,
    EventType.INVOICE_PAID: InvoiceData,
    EventType.INVOICE_PAYMENT_FAILED: PaymentFailedData,
    EventType.INVOICE_VOIDED: InvoiceVoidedData,
    EventType.INVOICE_UNCOLLECTIBLE: InvoiceData,
    EventType.CREDIT_NOTE_CREATED: CreditNoteData,
    EventType.PERIOD_CLOSED: PeriodClosedData,
    EventType.PERIOD_REOPENED: PeriodReopenedData,
    EventType.USAGE_LATE: LateUsageData,
    EventType.WALLET_CREDITED: WalletData,
    EventType.WALLET_DEBITED: WalletData,
    EventType.WALLET_DEPLETED: WalletData,
    EventType.WALLET_EXPIRED: WalletData,
    EventType.WEBHOOK_TEST: WebhookTestData,
    EventType.WEBHOOK_DISABLED: WebhookDisabledData,
}
"""What an event of each type says."""


@dataclass(frozen=True)
class DomainEvent:
    """Something that happened to an object, which has this version from then on."""

    type: EventType
    object_id: str
    version: int
    occurred_at: datetime
    data: EventData

    def __post_init__(self) -> None:
        assert isinstance(self.data, DATA[self.type]), f"{self.type} says {DATA[self.type].__name__}"
        assert 0 < len(self.object_id) <= OBJECT_ID_LENGTH_MAX
        assert self.version > 0
        assert self.occurred_at.tzinfo is not None

    def id_of(self, tenant: str) -> str:
        """The event's id: the same whenever the same effect is told."""
        return event_id(tenant, self.type, self.object_id, self.version)


def event_id(tenant: str, event_type: str, object_id: str, version: int) -> str:
    """The id of an event: a digest of what it is about.

    >>> event_id("default", "invoice.paid", "42", 3)
    '552a3a523602e91d26f94e811eb20710'
    """
    return digest("event", tenant, event_type, object_id, version)


@dataclass(frozen=True)
class StoredEvent:
    """An event as it stands in the outbox."""

    id: str
    tenant: str
    sequence: int
    """The tenant's events are numbered from 1, without gaps, in the order of their commits."""
    type: str
    object_id: str
    version: int
    occurred_at: datetime
    data: str
    """JSON."""

    def body(self) -> bytes:
        """The event as JSON, as every consumer gets it.

        >>> at = datetime(2026, 1, 31, tzinfo=UTC)
        >>> StoredEvent("e1", "default", 7, "invoice.paid", "42", 3, at, '{"id":"42"}').body()[:70]
        b'{"id":"e1","type":"invoice.paid","timestamp":"2026-01-31T00:00:00Z","t'
        """
        return orjson.dumps({**self._head(), "data": orjson.Fragment(self.data)})

    def thin_body(self, link: str) -> bytes:
        """The event without what it says: where that is to be read instead."""
        return orjson.dumps({**self._head(), "data": None, "link": link})

    def _head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "timestamp": instant_text(self.occurred_at),
            "tenant": self.tenant,
            "sequence": self.sequence,
            "objectId": self.object_id,
            "version": self.version,
        }


EVENTS: Columns = {
    "id": pl.String,
    "tenant": pl.String,
    "type": pl.String,
    "object_id": pl.String,
    "version": pl.Int64,
    "occurred_at": pl.Datetime("us", "UTC"),
    "data": pl.String,  # JSON
}
"""Columns of a frame of events, in the order in which they happened."""


def instant_text(at: datetime) -> str:
    """An instant as JSON has it.

    >>> instant_text(datetime(2026, 1, 31, 12, 0, 0, 5000, tzinfo=UTC))
    '2026-01-31T12:00:00.005000Z'
    """
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
