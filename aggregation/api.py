"""The HTTP routes of usage queries, as OpenMeter's v1 API has them, and what explains a number.

Queries run in threads, so many at a time, and each has a client of its own: the embedded engine's are not to be shared.
Owns that every answer is about one tenant, which the request's state names.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import orjson
import polars as pl
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aggregation.answer import Read, answer, usage_span
from aggregation.batch import ConfigVersions
from aggregation.listing import PAGE_MAX, counts_statement, events_query, list_statement, listed, open_metrics, page
from aggregation.plan import Scope, Statement
from aggregation.present import csv_body, json_body, meter_body, meter_id
from aggregation.recount import Backfill
from schemas.event import number_text
from schemas.meter import Meter
from schemas.problem import PROBLEM_TYPE, ProblemError, problem
from schemas.tenant import DEFAULT_TENANT
from schemas.usage_query import InvalidQueryError, UnknownCustomerError, usage_query
from stores.clickhouse import Clients, EngineAwayError, query

QUERIES_MAX = 4
BODY_BYTES_MAX = 1 << 20
LISTED_DAYS_MAX = 32
VALUES_DAYS = 1

logger = logging.getLogger(__name__)


def tenant_of(request: Request) -> str:
    """Whose data a request is about: as a middleware has found it, or the default tenant's."""
    return str(getattr(request.state, "tenant", DEFAULT_TENANT))


@dataclass(frozen=True)
class Asked:
    """A request in a thread: its parameters, what the body said, and a way to read."""

    request: Request
    body: bytes
    read: Read

    @property
    def tenant(self) -> str:
        """Whose data it is about."""
        return tenant_of(self.request)

    def parameters(self) -> dict[str, Any]:
        """The parameters, from the URL or from a JSON body."""
        return _from_body(self.body) if self.request.method == "POST" else _from_url(self.request)


class UsageApi:
    """The routes over a pool of clients, the log's meters, its versions of the configuration, and its backfills."""

    def __init__(
        self,
        clients: Clients,
        meters: Callable[[], tuple[Meter, ...]],
        versions: ConfigVersions,
        backfills: Callable[[], Sequence[Backfill]],
    ) -> None:
        self._clients = clients
        self._meters = meters
        self._versions = versions
        self._backfills = backfills
        self._threads = ThreadPoolExecutor(max_workers=QUERIES_MAX, thread_name_prefix="query")

    def routes(self) -> list[Route]:
        """The routes."""
        meter = "/api/v1/meters/{meter}"
        return [
            self._route(f"{meter}/query", self._query, ["GET", "POST"]),
            self._route(f"{meter}/subjects", self._subjects, ["GET"]),
            self._route(f"{meter}/group-by/{{key}}/values", self._values, ["GET"]),
            self._route(meter, self._meter, ["GET"]),
            self._route("/api/v1/meters", self._list_meters, ["GET"]),
            self._route("/api/v1/events", self._list_events, ["GET"]),
            self._route("/api/v1/debug/metrics", self._debug_metrics, ["GET"]),
            self._route("/api/v1/usage/explain", self._explain, ["GET"]),
        ]

    def close(self) -> None:
        """End the threads and close the clients, once the queries that run are done."""
        self._threads.shutdown(cancel_futures=True)
        self._clients.close()

    def _route(self, path: str, respond: Callable[[Asked], Response], methods: list[str]) -> Route:
        async def endpoint(request: Request) -> Response:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES_MAX:
                    refused = ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the query is too large")
                    return problem_response(refused)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._respond, respond, request, bytes(body))

        return Route(path, endpoint, methods=methods)

    def _respond(self, respond: Callable[[Asked], Response], request: Request, body: bytes) -> Response:
        """Answer in a thread. What is wrong with the request is told; what is wrong with us is in the process's log."""
        try:
            with _reading(self._clients) as read:
                return respond(Asked(request, body, read))
        except ProblemError as refused:
            return problem_response(refused)
        except InvalidQueryError as invalid:
            return problem_response(ProblemError(HTTPStatus.BAD_REQUEST, str(invalid)))
        except UnknownCustomerError as unknown:
            return problem_response(ProblemError(HTTPStatus.NOT_FOUND, str(unknown)))
        except EngineAwayError:
            logger.warning("a query found no engine: %s", request.url.path, exc_info=True)
            away = "the stored usage is away; try again"
            return problem_response(ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, away))
        except Exception:
            logger.exception("a query failed: %s", request.url.path)
            return problem_response(ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, ""))

    def _filled(self, meter: Meter) -> tuple[Backfill, ...]:
        return tuple(each for each in self._backfills() if each.meter.slug == meter.slug)

    def _query(self, asked: Asked) -> Response:
        scope = self._scope(asked, asked.parameters())
        answered = answer(scope, asked.read, self._versions)
        accepted = asked.request.headers.get("accept", "")
        if "text/csv" in accepted:
            name = f"attachment; filename={scope.meter.slug}.csv"
            return Response(csv_body(answered), media_type="text/csv", headers={"Content-Disposition": name})
        strings = "decimals=string" in accepted.replace(" ", "") or (
            asked.request.query_params.get("decimals") == "string"
        )
        return Response(json_body(answered, strings=strings), media_type="application/json")

    def _scope(self, asked: Asked, parameters: dict[str, Any]) -> Scope:
        meter = self._meter_of(asked.request.path_params["meter"])
        usage = usage_query(parameters)
        usage.check(meter)
        return Scope(asked.tenant, meter, usage, self._filled(meter))

    def _meter_of(self, name: str) -> Meter:
        for meter in self._meters():
            if name in {meter.slug, meter_id(meter.slug)}:
                return meter
        raise ProblemError(HTTPStatus.NOT_FOUND, f"meter not found: {name}")

    def _list_meters(self, _: Asked) -> Response:
        return _json([meter_body(meter) for meter in self._meters()])

    def _meter(self, asked: Asked) -> Response:
        return _json(meter_body(self._meter_of(asked.request.path_params["meter"])))

    def _subjects(self, asked: Asked) -> Response:
        return self._groups(asked, {**_range_of(asked), "groupBy": ["subject"]}, "subject")

    def _values(self, asked: Asked) -> Response:
        key = asked.request.path_params["key"]
        since = {"from": _now() - timedelta(days=VALUES_DAYS)}
        return self._groups(asked, {**since, **_range_of(asked), "groupBy": [key]}, f"dimension {key}")

    def _groups(self, asked: Asked, parameters: dict[str, Any], column: str) -> Response:
        rows = answer(self._scope(asked, parameters), asked.read, self._versions).rows
        return _json(rows[column].unique().sort().to_list() if column in rows.columns else [])

    def _list_events(self, asked: Asked) -> Response:
        events = events_query(_from_url(asked.request))
        oldest = _now() - timedelta(days=LISTED_DAYS_MAX)
        if events.start and events.start < oldest:
            raise InvalidQueryError(f"from: allowed: no more than {LISTED_DAYS_MAX} days ago")
        bounded = events.model_copy(update={"start": events.start or oldest})
        return _json(listed(asked.read(list_statement(asked.tenant, bounded))))

    def _debug_metrics(self, asked: Asked) -> Response:
        midnight = _now().replace(hour=0, minute=0, second=0, microsecond=0)
        return Response(open_metrics(asked.read(counts_statement(asked.tenant, midnight))), media_type="text/plain")

    def _explain(self, asked: Asked) -> Response:
        """The number of a meter over a range, and the events behind it, a page at a time."""
        given = asked.request.query_params
        meter = self._meter_of(given.get("meter", ""))
        usage = usage_query({key: value for key, value in _from_url(asked.request).items() if key in _EXPLAINED})
        if usage.start is None or usage.end is None:
            raise InvalidQueryError("allowed: an explanation needs meter, from and to")
        limit, late_since = _whole(given, "limit", PAGE_MAX, PAGE_MAX), _whole(given, "lateSince", None, 1 << 32)
        scope = Scope(asked.tenant, meter, usage, self._filled(meter))
        found = page(
            scope, usage_span(usage), late_since, given.get("cursor", ""), limit or PAGE_MAX, asked.read, self._versions
        )
        rows = answer(scope, asked.read, self._versions).rows["value"].to_list()
        value = None if len(rows) > 1 else number_text(sum(rows, Decimal(0))) if rows else None
        return _json(
            {
                "meter": meter.slug,
                "from": usage.start.isoformat(),
                "to": usage.end.isoformat(),
                "value": value,
                "events": found.events,
                **({"nextCursor": found.cursor} if found.cursor else {}),
            }
        )


_EXPLAINED = ("from", "to", "subject", "asOf")


async def http_problem(_: Request, error: Exception) -> Response:
    """What the router refuses, an unknown path or a wrong verb, as application/problem+json."""
    assert isinstance(error, HTTPException), "registered for these"
    return problem_response(ProblemError(HTTPStatus(error.status_code), error.detail), error.headers)


def problem_response(refused: ProblemError, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as application/problem+json."""
    body = problem(refused.status, refused.detail, f"urn:request:{uuid.uuid4().hex}")
    return Response(orjson.dumps(body), status_code=refused.status, media_type=PROBLEM_TYPE, headers=headers)


@contextmanager
def _reading(clients: Clients) -> Iterator[Read]:
    """A way to read, with a client that is lent when it is first needed."""
    with clients.lent() as client:

        def read(statement: Statement) -> pl.DataFrame:
            return query(client(), statement.sql, **statement.bound)

        yield read


def _from_url(request: Request) -> dict[str, Any]:
    given = request.query_params
    lists = {"subject", "groupBy", "filterCustomerId"}
    listing = request.url.path.endswith("/events")
    found: dict[str, Any] = {
        key: given.getlist(key) if key in lists and not listing else value for key, value in given.items()
    }
    filters = {key[14:-1]: given.getlist(key) for key in given if key.startswith("filterGroupBy[") and key[-1] == "]"}
    if filters:
        found["filterGroupBy"] = filters
    if "advancedMeterGroupByFilters" in found:
        found["advancedMeterGroupByFilters"] = _parsed(found["advancedMeterGroupByFilters"].encode())
    return found


def _from_body(body: bytes) -> dict[str, Any]:
    parsed = _parsed(body) if body else {}
    if not isinstance(parsed, dict):
        raise InvalidQueryError("allowed: a JSON object")
    return {key: value for key, value in parsed.items() if value is not None}


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidQueryError(f"not JSON: {error}") from None


def _range_of(asked: Asked) -> dict[str, str]:
    given = asked.request.query_params
    return {key: given[key] for key in ("from", "to") if key in given}


def _whole(given: Any, name: str, default: int | None, most: int) -> int | None:
    text = given.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or int(text) > most:
        raise InvalidQueryError(f"{name}: {text}; allowed: a whole number up to {most}")
    return int(text)


def _now() -> datetime:
    return datetime.now(UTC)


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content, default=_number), media_type="application/json")


def _number(value: Any) -> orjson.Fragment:
    assert isinstance(value, Decimal), "nothing else has no JSON"
    return orjson.Fragment(number_text(value))
