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
import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aggregation.answer import Read, answer, usage_span
from aggregation.batch import ConfigVersions
from aggregation.explain import PAGE_MAX, page
from aggregation.listing import (
    EventsPageQuery,
    EventsQuery,
    RejectionsQuery,
    counts_statement,
    list_query,
    list_statement,
    listed,
    open_metrics,
    page_statement,
    paged,
    rejected,
    rejections_statement,
    subjects_of,
)
from aggregation.parameters import from_body, from_url, range_of, whole
from aggregation.plan import GROUPS_MAX, Scope, Statement
from aggregation.present import csv_body, json_body, meter_body, meter_id
from aggregation.recount import Backfill
from schemas.api_key import Access
from schemas.api_key import Scope as KeyScope
from schemas.event import number_text
from schemas.meter import Meter
from schemas.problem import PROBLEM_TYPE, ProblemError, problem
from schemas.tenant import DEFAULT_TENANT
from schemas.usage_query import InvalidQueryError, UnknownCustomerError, usage_query
from stores.clickhouse import Clients, EngineAwayError, query
from stores.log import Log

Customers = Mapping[str, tuple[str, ...]]
"""The subjects of each customer."""
Replays = Mapping[str, datetime]
"""When rejections were put into the log again, by position."""

QUERIES_MAX = 4
BODY_BYTES_MAX = 1 << 20
LISTED_DAYS_MAX = 32
VALUES_DAYS = 1
RETRY_AFTER_S = 1

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

    @property
    def of_who_runs_it(self) -> bool:
        """Whether whoever asks may see what is no tenant's."""
        access: Access | None = getattr(self.request.state, "access", None)
        return access is not None and access.tenant == DEFAULT_TENANT and KeyScope.ADMIN in access.scopes

    def parameters(self) -> dict[str, Any]:
        """The parameters, from the URL or from a JSON body."""
        return from_body(self.body) if self.request.method == "POST" else from_url(self.request.query_params)


class UsageApi:
    """The routes over a pool of clients and the log with its meters.

    What stands elsewhere is asked for: what was filled later, a tenant's customers, and which rejections were replayed.
    """

    def __init__(
        self,
        clients: Clients,
        log: Log,
        backfills: Callable[[], Sequence[Backfill]],
        customers: Callable[[str], Customers],
        replays: Callable[[Sequence[str]], Replays],
    ) -> None:
        self._clients = clients
        self._log = log
        self._versions: ConfigVersions = log.config
        self._backfills = backfills
        self._customers = customers
        self._replays = replays
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
            self._route("/api/v2/events", self._page_events, ["GET"]),
            self._route("/api/v1/events/rejected", self._page_rejections, ["GET"]),
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
        except (EngineAwayError, sa.exc.OperationalError) as error:
            logger.warning("a query found no engine, or no PostgreSQL: %s: %s", request.url.path, type(error).__name__)
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
        customers = self._customers(asked.tenant) if usage.by_customer else {}
        usage.check(meter, customers)
        return Scope(asked.tenant, meter, usage, self._filled(meter), customers)

    def _meter_of(self, name: str) -> Meter:
        by_slug = {meter.slug: meter for meter in self._log.meters()}
        if name in by_slug:
            return by_slug[name]
        for slug, times in self._log.meter_times().items():
            if name == meter_id(slug, times.created_at) and slug in by_slug:
                return by_slug[slug]
        raise ProblemError(HTTPStatus.NOT_FOUND, f"meter not found: {name}")

    def _list_meters(self, _: Asked) -> Response:
        meters = self._log.meters()
        times = self._log.meter_times()  # after them, so that each has its times
        return _json([meter_body(meter, times[meter.slug]) for meter in meters])

    def _meter(self, asked: Asked) -> Response:
        meter = self._meter_of(asked.request.path_params["meter"])
        return _json(meter_body(meter, self._log.meter_times()[meter.slug]))

    def _subjects(self, asked: Asked) -> Response:
        return self._groups(asked, {**range_of(asked.request.query_params), "groupBy": ["subject"]}, "subject")

    def _values(self, asked: Asked) -> Response:
        key = asked.request.path_params["key"]
        since = {"from": _now() - timedelta(days=VALUES_DAYS)}
        return self._groups(
            asked, {**since, **range_of(asked.request.query_params), "groupBy": [key]}, f"dimension {key}"
        )

    def _groups(self, asked: Asked, parameters: dict[str, Any], column: str) -> Response:
        rows = answer(self._scope(asked, parameters), asked.read, self._versions, rows_max=GROUPS_MAX).rows
        return _json(rows[column].unique().sort().to_list() if column in rows.columns else [])

    def _list_events(self, asked: Asked) -> Response:
        events = list_query(EventsQuery, from_url(asked.request.query_params, ("customerId",)))
        customers = self._customers(asked.tenant)
        subjects = subjects_of(customers, events.customer_id or None)
        oldest = _now() - timedelta(days=LISTED_DAYS_MAX)
        if events.start and events.start < oldest:
            raise InvalidQueryError(f"from: allowed: no more than {LISTED_DAYS_MAX} days ago")
        bounded = events.model_copy(update={"start": events.start or oldest})
        return _json(listed(asked.read(list_statement(asked.tenant, bounded, subjects)), customers))

    def _page_events(self, asked: Asked) -> Response:
        wanted = list_query(EventsPageQuery, from_url(asked.request.query_params, ()))
        customers, exact = self._customers(asked.tenant), wanted.filter.customer_id
        subjects = subjects_of(customers, exact.in_ if exact else None)
        rows = asked.read(page_statement(asked.tenant, wanted, subjects))
        return _json(paged(rows, wanted.limit, lambda page: listed(page, customers)))

    def _page_rejections(self, asked: Asked) -> Response:
        wanted = list_query(RejectionsQuery, from_url(asked.request.query_params, ()))
        if wanted.of_nobody and not asked.of_who_runs_it:
            allowed = f"ofNobody is for keys of the tenant {DEFAULT_TENANT} with the scope {KeyScope.ADMIN}"
            raise ProblemError(HTTPStatus.FORBIDDEN, allowed)
        rows = asked.read(rejections_statement(asked.tenant, wanted))
        replays = self._replays(rows["position"].to_list())
        return _json(paged(rows, wanted.limit, lambda page: rejected(page, replays)))

    def _debug_metrics(self, asked: Asked) -> Response:
        midnight = _now().replace(hour=0, minute=0, second=0, microsecond=0)
        return Response(open_metrics(asked.read(counts_statement(asked.tenant, midnight))), media_type="text/plain")

    def _explain(self, asked: Asked) -> Response:
        """The number of a meter over a range, and the events behind it, a page at a time."""
        given = asked.request.query_params
        meter = self._meter_of(given.get("meter", ""))
        usage = usage_query({key: value for key, value in from_url(given).items() if key in _EXPLAINED})
        if usage.start is None or usage.end is None:
            raise InvalidQueryError("allowed: an explanation needs meter, from and to")
        limit, late_since = whole(given, "limit", PAGE_MAX, PAGE_MAX), whole(given, "lateSince", None, 1 << 32)
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
    again = {"Retry-After": str(RETRY_AFTER_S)} if refused.status is HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Response(
        orjson.dumps(body), status_code=refused.status, media_type=PROBLEM_TYPE, headers={**again, **(headers or {})}
    )


@contextmanager
def _reading(clients: Clients) -> Iterator[Read]:
    """A way to read, with a client that is lent when it is first needed."""
    with clients.lent() as client:

        def read(statement: Statement) -> pl.DataFrame:
            return query(client(), statement.sql, **statement.bound)

        yield read


def _now() -> datetime:
    return datetime.now(UTC)


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content, default=_number), media_type="application/json")


def _number(value: Any) -> orjson.Fragment:
    assert isinstance(value, Decimal), "nothing else has no JSON"
    return orjson.Fragment(number_text(value))
