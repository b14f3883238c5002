"""Webhook endpoints and domain events over HTTP. Every call keeps to the tenant of its key.

Changes take an Idempotency-Key, and If-Match with the ETag of what was read. A secret is in the answer that made it.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ingest.request import RefusedError
from invoicing.outbox import store as outbox
from invoicing.webhooks import store
from invoicing.webhooks.retries import Attempt
from meterline import webhooks
from meterline.idempotency import Handler, body_of, idempotent
from meterline.reading import number_of, reading
from meterline.versions import etag_of, refuse_other_version
from schemas.api_key import Access
from schemas.configuration import ConfigurationError
from schemas.delivery import OLD_SECRET_VALID, DeliveryState
from schemas.domain_event import instant_text
from schemas.webhook import Delivery, Endpoint

PATH = "/api/v1/billing/webhooks"
EVENTS_PATH = "/api/v1/billing/events"
LIMIT_MAX = 1_000

logger = logging.getLogger(__name__)

Clock = Callable[[], datetime]


def webhook_routes(
    database: sa.Engine, *, private: bool = False, now: Clock = lambda: datetime.now(UTC)
) -> list[Route]:
    """The routes of webhooks and of events. With `private`, endpoints may have private addresses."""
    changes = _Changes(private, now)
    writes: list[tuple[str, str, Handler]] = [
        ("POST", "", changes.create),
        ("PATCH", "/{id}", changes.update),
        ("DELETE", "/{id}", changes.delete),
        ("POST", "/{id}/secret", changes.rotate),
        ("POST", "/{id}/test", changes.test),
        ("POST", "/{id}/redeliver", changes.redeliver_since),
        ("POST", "/{id}/deliveries/{event}/redeliver", changes.redeliver),
    ]
    reads: list[tuple[str, Handler]] = [
        (PATH, _list), (f"{PATH}/{{id}}", _get), (f"{PATH}/{{id}}/deliveries", _deliveries),
        (f"{PATH}/{{id}}/deliveries/{{event}}", _delivery), (EVENTS_PATH, _events), (f"{EVENTS_PATH}/{{id}}", _event),
    ]  # fmt: skip
    return [
        *(Route(PATH + path, idempotent(database, _told(write)), methods=[method]) for method, path, write in writes),
        *(Route(path, reading(database, _told(read)), methods=["GET"]) for path, read in reads),
    ]


@dataclass(frozen=True)
class _Changes:
    """What changes something. Each runs in a transaction that commits its effect with its answer."""

    private: bool
    now: Clock

    def create(self, request: Request, connection: sa.Connection) -> Response:
        """Make an endpoint; its secret is in this answer alone."""
        made, secret = webhooks.create(
            connection, _tenant(request), body_of(request), private=self.private, now=self.now()
        )
        logger.info("webhook endpoint %s of %s made", made.id, made.tenant)
        return _shown(made, HTTPStatus.CREATED, secret=secret)

    def update(self, request: Request, connection: sa.Connection) -> Response:
        """Change an endpoint."""
        before = _found(request, connection, lock=True)
        refuse_other_version(request, before.version)
        return _shown(webhooks.change(connection, before, body_of(request), private=self.private, now=self.now()))

    def delete(self, request: Request, connection: sa.Connection) -> Response:
        """Delete an endpoint."""
        before = _found(request, connection, lock=True)
        refuse_other_version(request, before.version)
        store.delete_endpoint(connection, before, now=self.now())
        logger.info("webhook endpoint %s of %s deleted", before.id, before.tenant)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def rotate(self, request: Request, connection: sa.Connection) -> Response:
        """Give an endpoint another secret."""
        given = body_of(request).get("oldValidSeconds", int(OLD_SECRET_VALID.total_seconds()))
        if type(given) is not int:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "oldValidSeconds: allowed: a whole number of seconds")
        before = _found(request, connection, lock=True)
        secret, until = webhooks.rotate(connection, before, given, now=self.now())
        return _json({"id": before.id, "secret": secret, "oldSecretValidUntil": instant_text(until)})

    def test(self, request: Request, connection: sa.Connection) -> Response:
        """Send an endpoint an event that says nothing happened."""
        event_id = webhooks.send_test(connection, _found(request, connection, lock=True), now=self.now())
        return _json({"eventId": event_id}, HTTPStatus.ACCEPTED)

    def redeliver(self, request: Request, connection: sa.Connection) -> Response:
        """Send one event again."""
        to = _found(request, connection, lock=True)
        if not store.redeliver(connection, to, request.path_params["event"], now=self.now()):
            raise RefusedError(HTTPStatus.NOT_FOUND, "no such event")
        return _json({"events": 1}, HTTPStatus.ACCEPTED)

    def redeliver_since(self, request: Request, connection: sa.Connection) -> Response:
        """Send again all that did not arrive since an instant."""
        body = body_of(request)
        also_delivered = body.get("alsoDelivered", False)
        if not isinstance(body.get("since"), str) or type(also_delivered) is not bool:
            allowed = 'allowed: {"since": "2026-01-31T12:00:00Z", "alsoDelivered": false}'
            raise RefusedError(HTTPStatus.BAD_REQUEST, allowed)
        since, to = webhooks.instant(body["since"], "since"), _found(request, connection, lock=True)
        count = store.redeliver_since(connection, to, since, also_delivered=also_delivered, now=self.now())
        return _json({"events": count}, HTTPStatus.ACCEPTED)


def _list(request: Request, connection: sa.Connection) -> Response:
    return _json({"items": [_document(each) for each in store.endpoints(connection, _tenant(request))]})


def _get(request: Request, connection: sa.Connection) -> Response:
    return _shown(_found(request, connection))


def _deliveries(request: Request, connection: sa.Connection) -> Response:
    state = request.query_params.get("state")
    if state is not None and state not in set(DeliveryState):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"state: allowed: {', '.join(DeliveryState)}")
    limit = number_of(request, "limit", 100, LIMIT_MAX)
    found = store.deliveries(
        connection, _found(request, connection).id, state=DeliveryState(state) if state else None,
        before=number_of(request, "before", 2**62, 2**62), limit=limit,
    )  # fmt: skip
    more = {"nextBefore": found[-1].sequence} if len(found) == limit else {}
    return _json({"items": [_delivery_document(each) for each in found], **more})


def _delivery(request: Request, connection: sa.Connection) -> Response:
    endpoint, event_id = _found(request, connection), request.path_params["event"]
    found = store.deliveries(connection, endpoint.id, event_id=event_id)
    if not found:
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such delivery")
    log = [_attempt_document(each) for each in store.attempts(connection, endpoint.id, event_id)]
    return _json({**_delivery_document(found[0]), "log": log})


def _events(request: Request, connection: sa.Connection) -> Response:
    after, limit = number_of(request, "after", 0, 2**62), number_of(request, "limit", 100, LIMIT_MAX)
    found = outbox.events_after(connection, _tenant(request), after, limit)
    return _json({"items": [orjson.Fragment(each.body()) for each in found]})


def _event(request: Request, connection: sa.Connection) -> Response:
    found = outbox.event(connection, _tenant(request), request.path_params["id"])
    if found is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, "no such event")
    return Response(found.body(), media_type="application/json")


def _told(handler: Handler) -> Handler:
    """The handler, whose refusals say what is allowed."""

    def told(request: Request, connection: sa.Connection) -> Response:
        try:
            return handler(request, connection)
        except LookupError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, str(error)) from None
        except ConfigurationError as error:
            faults = [{"field": fault.key, "value": fault.value, "message": fault.allowed} for fault in error.faults]
            detail = "; ".join(f"{fault.key}: {fault.allowed}" for fault in error.faults)
            raise RefusedError(HTTPStatus.BAD_REQUEST, detail, validationErrors=faults) from None

    return told


def _found(request: Request, connection: sa.Connection, *, lock: bool = False) -> Endpoint:
    return webhooks.find(connection, _tenant(request), request.path_params["id"], lock=lock)


def _tenant(request: Request) -> str:
    access: Access = request.state.access
    return access.tenant


def _shown(endpoint: Endpoint, status: HTTPStatus = HTTPStatus.OK, **more: str) -> Response:
    answer = _json({**_document(endpoint), **more}, status)
    answer.headers["ETag"] = etag_of(endpoint.version)
    return answer


def _document(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id, "url": endpoint.url, "description": endpoint.description, "types": list(endpoint.types),
        "state": endpoint.state.value, "disabledReason": endpoint.disabled_reason, "version": endpoint.version,
        "pausedUntil": _at(endpoint.paused_until), "lastSuccessAt": _at(endpoint.last_success_at),
        "createdAt": _at(endpoint.created_at), "updatedAt": _at(endpoint.updated_at),
    }  # fmt: skip


def _delivery_document(delivery: Delivery) -> dict[str, Any]:
    return {
        "eventId": delivery.event_id, "sequence": delivery.sequence, "type": delivery.type,
        "state": delivery.state.value, "attempts": delivery.attempts, "lastStatus": delivery.last_status,
        "nextAttemptAt": _at(delivery.next_attempt_at), "finishedAt": _at(delivery.finished_at),
    }  # fmt: skip


def _attempt_document(attempt: Attempt) -> dict[str, Any]:
    return {
        "attemptedAt": _at(attempt.attempted_at), "durationMs": attempt.duration_ms, "status": attempt.status,
        "answer": attempt.answer,
    }  # fmt: skip


def _at(instant: datetime | None) -> str | None:
    return instant_text(instant) if instant else None


def _json(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)
