"""Meters over HTTP, as OpenMeter's clients define, change and withdraw them.

Owns that two writers never lose each other's change: each one is made of the newest configuration, under its lock. The
routes take JSON only, which no form of a web page can send.
"""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aggregation.present import meter_body
from ingest.api import problem_response
from ingest.request import RefusedError
from schemas.configuration import ConfigurationError, Fault
from schemas.log import LogConfig
from schemas.meter import DESCRIBING, Meter, changed_meters, meter_set, parse_meter
from stores.log import Log

BODY_BYTES_MAX = 256 << 10
_SOURCE = "the request"

logger = logging.getLogger(__name__)

Answer = tuple[HTTPStatus, dict[str, Any] | None]


def meter_routes(log: Log) -> list[Route]:
    """POST /api/v1/meters, and PUT and DELETE /api/v1/meters/{slug}."""

    async def create(request: Request) -> Response:
        return await _answered(request, lambda body: create_meter(log, body))

    async def update(request: Request) -> Response:
        return await _answered(request, lambda body: update_meter(log, request.path_params["slug"], body))

    async def withdraw(request: Request) -> Response:
        return await _answered(request, lambda _: withdraw_meter(log, request.path_params["slug"]), with_body=False)

    return [
        Route("/api/v1/meters", create, methods=["POST"]),
        Route("/api/v1/meters/{slug}", update, methods=["PUT"]),
        Route("/api/v1/meters/{slug}", withdraw, methods=["DELETE"]),
    ]


def create_meter(log: Log, definition: dict[str, Any]) -> Answer:
    """Put one more meter in force; a slug that was withdrawn may only come back as what it was."""
    meter = parse_meter(_given(definition), _SOURCE)

    def change(newest: LogConfig, known: tuple[Meter, ...]) -> LogConfig:
        if meter.slug in {each.slug for each in newest.meters}:
            raise RefusedError(HTTPStatus.CONFLICT, "meter with the same slug already exists")
        if faults := changed_meters(known, (meter,), _SOURCE):
            raise RefusedError(HTTPStatus.CONFLICT, str(ConfigurationError(faults)))
        return newest.model_copy(update={"meters": meter_set([*newest.meters, meter], _SOURCE)})

    log.reconfigure(change)
    return HTTPStatus.CREATED, meter_body(meter, log.meter_times()[meter.slug])


def update_meter(log: Log, slug: str, definition: dict[str, Any]) -> Answer:
    """Describe a meter anew. What is left out of its name, description and metadata is emptied; the rest stays."""
    given, updated = _given(definition), []

    def change(newest: LogConfig, _: tuple[Meter, ...]) -> LogConfig:
        before = _found(newest, slug)
        fixed = {name: value for name, value in before.written().items() if name not in DESCRIBING}
        meter = parse_meter({**fixed, **given}, _SOURCE)
        if meter.slug != slug:
            raise ConfigurationError([Fault(_SOURCE, "slug", repr(meter.slug), f"allowed: {slug!r}, for ever")])
        if faults := changed_meters((before,), (meter,), _SOURCE):
            raise ConfigurationError(faults)
        updated.append(meter)
        return newest.model_copy(
            update={"meters": tuple(meter if each.slug == slug else each for each in newest.meters)}
        )

    log.reconfigure(change)
    return HTTPStatus.OK, meter_body(updated[-1], log.meter_times()[slug])


def withdraw_meter(log: Log, slug: str) -> Answer:
    """Take a meter out of force. What it has counted stays, and stays billable."""

    def change(newest: LogConfig, _: tuple[Meter, ...]) -> LogConfig:
        withdrawn = _found(newest, slug)
        return newest.model_copy(update={"meters": tuple(each for each in newest.meters if each is not withdrawn)})

    log.reconfigure(change)
    return HTTPStatus.NO_CONTENT, None


async def _answered(
    request: Request, operate: Callable[[dict[str, Any]], Answer], *, with_body: bool = True
) -> Response:
    try:
        body = await _body(request) if with_body else {}
        status, content = await asyncio.to_thread(operate, body)
    except RefusedError as refused:
        return problem_response(refused)
    except ConfigurationError as error:
        errors = [{"field": fault.key, "value": fault.value, "message": fault.allowed} for fault in error.faults]
        return problem_response(RefusedError(HTTPStatus.BAD_REQUEST, str(error), validationErrors=errors))
    except (sa.exc.SQLAlchemyError, OSError) as error:
        logger.warning("meters cannot be changed: %r", error)
        return problem_response(RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "the configuration is away; try again"))
    if content is None:
        return Response(status_code=status)
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


async def _body(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RefusedError(HTTPStatus.BAD_REQUEST, "allowed content type: application/json")
    received = bytearray()
    async for part in request.stream():
        received += part
        if len(received) > BODY_BYTES_MAX:
            allowed = f"a meter's definition has at most {BODY_BYTES_MAX} bytes"
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, allowed)
    try:
        parsed = orjson.loads(received)
    except orjson.JSONDecodeError as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "allowed: an object, the definition of a meter")
    return parsed


def _given(definition: dict[str, Any]) -> dict[str, Any]:
    """What is given: clients write null for what they leave out."""
    return {name: value for name, value in definition.items() if value is not None}


def _found(config: LogConfig, slug: str) -> Meter:
    for meter in config.meters:
        if meter.slug == slug:
            return meter
    raise RefusedError(HTTPStatus.NOT_FOUND, f"meter not found: {slug}")
