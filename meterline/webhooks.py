"""Webhook endpoints as commands, and what the commands and the HTTP API share.

Owns that a secret is made here and shown once, to whoever asked for it, and that an endpoint's URL is checked before it
is stored.
"""

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from invoicing.outbox import store as outbox
from invoicing.webhooks import store
from invoicing.webhooks.addresses import url_fault
from invoicing.webhooks.signatures import SECRET_BYTES, secret_text
from meterline.output import Output, Table, Text
from meterline.system import System
from schemas.configuration import ConfigurationError, Fault, faults_of
from schemas.delivery import DeliveryState
from schemas.domain_event import DomainEvent, EventType, WebhookTestData, instant_text
from schemas.webhook import OLD_SECRET_VALID_MAX, Endpoint, EndpointChange, EndpointState, NewEndpoint

PRIVATE_TARGETS = "METERLINE_WEBHOOK_PRIVATE_TARGETS"
"""The variable of the environment that, set to `allow`, lets webhooks go to private addresses, also without TLS."""

_ID = re.compile(r"we_[0-9a-f]{24}", re.ASCII)
Model = TypeVar("Model", bound=BaseModel)


def private_allowed(environment: Mapping[str, str]) -> bool:
    """Whether webhooks may go to private addresses. Raises ConfigurationError for a setting that is neither.

    >>> private_allowed({}), private_allowed({"METERLINE_WEBHOOK_PRIVATE_TARGETS": "allow"})
    (False, True)
    """
    value = environment.get(PRIVATE_TARGETS, "")
    if value not in {"", "refuse", "allow"}:
        raise ConfigurationError([Fault("environment", PRIVATE_TARGETS, repr(value), "allowed: refuse, allow")])
    return value == "allow"


def create(
    connection: sa.Connection, tenant: str, fields: dict[str, Any], *, private: bool, now: datetime
) -> tuple[Endpoint, str]:
    """Make an endpoint, and its secret. Raises ConfigurationError."""
    wanted = _checked(NewEndpoint, fields)
    _refuse_url(wanted.url, private)
    secret = new_secret()
    endpoint_id = f"we_{secrets.token_hex(12)}"
    try:
        made = store.create_endpoint(connection, tenant, wanted, endpoint_id=endpoint_id, secret=secret, now=now)
    except store.TooManyEndpointsError as error:
        raise ConfigurationError([Fault("webhook", "", tenant, str(error))]) from error
    return made, secret


def change(
    connection: sa.Connection, before: Endpoint, fields: dict[str, Any], *, private: bool, now: datetime
) -> Endpoint:
    """Change an endpoint that is locked. Raises ConfigurationError."""
    wanted = _checked(EndpointChange, fields)
    if wanted.url is not None:
        _refuse_url(wanted.url, private)
    return store.change_endpoint(connection, before, wanted, now=now)


def rotate(connection: sa.Connection, before: Endpoint, old_valid_s: int, *, now: datetime) -> tuple[str, datetime]:
    """Another secret for an endpoint that is locked, and until when the old one is valid. Raises ConfigurationError."""
    longest = int(OLD_SECRET_VALID_MAX.total_seconds())
    if not 0 <= old_valid_s <= longest:
        allowed = f"allowed: 0 to {longest} seconds"
        raise ConfigurationError([Fault("webhook", "oldValidSeconds", str(old_valid_s), allowed)])
    secret, until = new_secret(), now + timedelta(seconds=old_valid_s)
    store.rotate_secret(connection, before, secret, old_valid_until=until, now=now)
    return secret, until


def send_test(connection: sa.Connection, endpoint: Endpoint, *, now: datetime) -> str:
    """Emit an event for a locked endpoint alone; returns the event's id. Raises ConfigurationError."""
    if endpoint.state is not EndpointState.ENABLED:
        raise ConfigurationError([Fault("webhook", "state", endpoint.state, "allowed: enabled; enable it first")])
    number = store.count_test(connection, endpoint)
    event = DomainEvent(EventType.WEBHOOK_TEST, endpoint.id, number, now, WebhookTestData(endpoint_id=endpoint.id))
    outbox.emit(connection, endpoint.tenant, [event])
    return event.id_of(endpoint.tenant)


def find(connection: sa.Connection, tenant: str, endpoint_id: str, *, lock: bool = False) -> Endpoint:
    """The endpoint of this id. Raises LookupError when the tenant has none."""
    found = store.endpoint(connection, tenant, endpoint_id, lock=lock) if _ID.fullmatch(endpoint_id) else None
    if found is None:
        raise LookupError(f"no webhook endpoint {endpoint_id[:40]!r}")
    return found


def new_secret() -> str:
    """A secret that nobody knows."""
    return secret_text(secrets.token_bytes(SECRET_BYTES))


def instant(text: str, name: str) -> datetime:
    """An instant as RFC 3339 has it. Raises ConfigurationError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ConfigurationError([Fault("webhook", name, repr(text[:80]), "allowed: such as 2026-01-31T12:00:00Z")])
    return at


def create_webhook(app: System, *, tenant: str, url: str, types: str, description: str) -> Iterator[Output]:
    """Make an endpoint, and show its secret, once."""
    fields = {"url": url, "types": _names(types), "description": description}
    with app.database.begin() as connection:
        made, secret = create(connection, tenant, fields, private=_private(), now=_now())
    yield Text(text=f"{made.id} {secret}")


def list_webhooks(app: System, *, tenant: str) -> Iterator[Output]:
    """The endpoints of a tenant."""
    with app.database.connect() as connection:
        found = store.endpoints(connection, tenant)
    yield Table(
        title=f"{len(found)} webhook endpoints of {tenant}",
        columns=("id", "url", "types", "state", "last arrival"),
        rows=[
            (each.id, each.url, ", ".join(each.types) or "all", _state(each), _shown(each.last_success_at))
            for each in found
        ],
    )


def update_webhook(
    app: System,
    *,
    tenant: str,
    webhook_id: str,
    url: str | None,
    types: str | None,
    description: str | None,
    state: str | None,
) -> Iterator[Output]:
    """Change an endpoint; what is not given stays."""
    fields = {"url": url, "types": None if types is None else _names(types), "description": description, "state": state}
    with app.database.begin() as connection:
        before = find(connection, tenant, webhook_id, lock=True)
        after = change(connection, before, fields, private=_private(), now=_now())
    yield Text(text=f"{after.id}: {_state(after)}, version {after.version}")


def delete_webhook(app: System, *, tenant: str, webhook_id: str) -> Iterator[Output]:
    """Delete an endpoint."""
    with app.database.begin() as connection:
        store.delete_endpoint(connection, find(connection, tenant, webhook_id, lock=True), now=_now())
    yield Text(text=f"{webhook_id}: deleted")


def rotate_webhook_secret(app: System, *, tenant: str, webhook_id: str, old_valid_s: int) -> Iterator[Output]:
    """Give an endpoint another secret, and show it, once."""
    with app.database.begin() as connection:
        before = find(connection, tenant, webhook_id, lock=True)
        secret, until = rotate(connection, before, old_valid_s, now=_now())
    yield Text(text=f"{secret} (the old secret is valid until {_shown(until)})")


def test_webhook(app: System, *, tenant: str, webhook_id: str) -> Iterator[Output]:
    """Send an endpoint an event that says nothing happened."""
    with app.database.begin() as connection:
        event_id = send_test(connection, find(connection, tenant, webhook_id, lock=True), now=_now())
    yield Text(text=f"{event_id}: on its way; meterline webhooks deliveries {webhook_id} shows what becomes of it")


def list_webhook_deliveries(
    app: System, *, tenant: str, webhook_id: str, state: str | None, limit: int
) -> Iterator[Output]:
    """What was sent to an endpoint, the newest event first."""
    wanted = DeliveryState(state) if state else None
    with app.database.connect() as connection:
        found = store.deliveries(connection, find(connection, tenant, webhook_id).id, state=wanted, limit=limit)
    yield Table(
        title=f"{len(found)} deliveries to {webhook_id}",
        columns=("event", "type", "state", "attempts", "last status", "next attempt"),
        rows=[
            (each.event_id, each.type, each.state.value, str(each.attempts), str(each.last_status or ""),
             _shown(each.next_attempt_at))
            for each in found
        ],
        numbers=("attempts",),
    )  # fmt: skip


def redeliver_webhook(
    app: System, *, tenant: str, webhook_id: str, event_id: str | None, since: str | None, also_delivered: bool
) -> Iterator[Output]:
    """Send an endpoint one event again, or all that did not arrive since an instant."""
    if (event_id is None) == (since is None):
        raise ValueError("allowed: an event, or an instant with --since")
    with app.database.begin() as connection:
        to = find(connection, tenant, webhook_id, lock=True)
        if event_id is not None:
            if not store.redeliver(connection, to, event_id, now=_now()):
                raise LookupError(f"{tenant} has no event {event_id}")
            count = 1
        else:
            start = instant(since or "", "since")
            count = store.redeliver_since(connection, to, start, also_delivered=also_delivered, now=_now())
    yield Text(text=f"{count:,} events are on their way to {webhook_id}")


def outbox_status(app: System) -> Iterator[Output]:
    """How far the events of each tenant are published."""
    with app.database.connect() as connection:
        rows = outbox.positions(connection)
    yield Table(
        title="Outbox",
        columns=("tenant", "events", "in Kafka", "given to webhooks"),
        rows=[(tenant, f"{last:,}", f"{kafka or 0:,}", f"{webhooks or 0:,}") for tenant, last, kafka, webhooks in rows],
        numbers=("events", "in Kafka", "given to webhooks"),
    )


WEBHOOK_OPERATIONS = (
    create_webhook, list_webhooks, update_webhook, delete_webhook, rotate_webhook_secret, test_webhook,
    list_webhook_deliveries, redeliver_webhook, outbox_status,
)  # fmt: skip


def _checked(model: type[Model], fields: dict[str, Any]) -> Model:
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, "webhook")) from error


def _refuse_url(url: str, private: bool) -> None:
    if fault := url_fault(url, private_allowed=private):
        raise ConfigurationError([Fault("webhook", "url", repr(url[:80]), fault)])


def _names(types: str) -> list[str]:
    return [each.strip() for each in types.split(",") if each.strip()]


def _state(endpoint: Endpoint) -> str:
    return f"disabled: {endpoint.disabled_reason}" if endpoint.disabled_reason else endpoint.state.value


def _shown(at: datetime | None) -> str:
    return instant_text(at) if at else ""


def _private() -> bool:
    return private_allowed(os.environ)


def _now() -> datetime:
    return datetime.now(UTC)
