"""Webhook endpoints: what a tenant may say of one, and what is known of it and of its deliveries.

Owns that a secret is shown once and never printed by accident: it is no part of what an endpoint shows of itself.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from schemas.delivery import DeliveryState
from schemas.domain_event import EventType

OLD_SECRET_VALID_MAX = timedelta(days=7)
ENDPOINTS_MAX = 50
"""Of a tenant; each one that is slow holds a connection."""


class EndpointState(StrEnum):
    """Whether an endpoint gets what happens."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DELETED = "deleted"


def _types(names: tuple[str, ...]) -> tuple[str, ...]:
    known = [each.value for each in EventType if each is not EventType.WEBHOOK_TEST]
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"unknown: {', '.join(unknown)[:200]}; allowed: {', '.join(known)}, or none for all of them")
    return tuple(sorted(set(names)))


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("allowed: printable characters, without line ends")
    return text


_Types = Annotated[tuple[str, ...], Field(max_length=64), AfterValidator(_types)]
_Description = Annotated[str, Field(max_length=500), AfterValidator(_printable)]


class NewEndpoint(BaseModel):
    """What an endpoint is to be."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: str
    description: _Description = ""
    types: _Types = ()
    """Of the events that it gets; none: all."""


class EndpointChange(BaseModel):
    """What is to be different of an endpoint; what is None stays."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: str | None = None
    description: _Description | None = None
    types: _Types | None = None
    state: Literal["enabled", "disabled"] | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a tenant wants to be told of what happens."""

    id: str
    tenant: str
    url: str
    description: str
    types: tuple[str, ...]
    state: EndpointState
    disabled_reason: str | None
    version: int
    failures: int
    """Since the last webhook that arrived."""
    paused_until: datetime | None
    last_success_at: datetime | None
    created_at: datetime
    updated_at: datetime
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Those that are valid, the newest first; only who sends webhooks reads them."""


@dataclass(frozen=True)
class Delivery:
    """An event on its way to an endpoint."""

    endpoint_id: str
    event_id: str
    sequence: int
    type: str
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    """None once it is over."""
    finished_at: datetime | None
    last_status: int | None
