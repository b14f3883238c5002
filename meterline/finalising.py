"""Drafts are finalised together: who comes while others of a tenant are answered, is answered with those to come.

A chain of entries and gapless numbers let one transaction of a tenant issue at a time, and a transaction costs the same
for one invoice and for twenty. Owns that each request gets what it would get alone: in the joint transaction are only
those of which nothing is to be said but yes, with their idempotency keys and answers. Whatever else there is to say,
and whatever goes wrong, is found out by answering requests one by one.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import polars as pl
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from ingest.api import problem_response
from ingest.request import RefusedError
from invoicing.invoices.drafts import Drafts
from invoicing.settlement import app
from invoicing.settlement.app import Act
from meterline.idempotency import Call, Handler, answered, call_of, keep, unused

TOGETHER_MAX = 100
"""Requests in a transaction: others of the tenant wait as long as it takes."""

logger = logging.getLogger(__name__)


class Issued(Protocol):
    """Answers, by invoice, to whoever had these drafts issued."""

    def __call__(self, connection: sa.Connection, act: Act, drafts: Drafts) -> Mapping[str, Response]:
        """Issue them, and make the answers."""
        ...


@dataclass(frozen=True)
class _Waiting:
    request: Request
    call: Call | None
    answer: asyncio.Future[Response]


class Finalising:
    """The route of finalising drafts. `alone` answers one request, `issued` several at once."""

    def __init__(
        self,
        database: sa.Engine,
        *,
        alone: Handler,
        issued: Issued,
        act: Callable[[Request], Act],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._alone = alone
        self._issued = issued
        self._act = act
        self._now = now
        self._waiting: dict[tuple[str, str], list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def route(self, request: Request) -> Response:
        """Answer a request, with those of the same tenant and key that wait by then."""
        try:
            call = await call_of(request)
        except RefusedError as refused:
            return problem_response(refused)
        act = self._act(request)
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        who = (act.tenant, act.by)
        if who in self._waiting:
            self._waiting[who].append(_Waiting(request, call, answer))
        else:
            self._waiting[who] = [_Waiting(request, call, answer)]
            task = asyncio.create_task(self._answer(who))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await answer

    async def _answer(self, who: tuple[str, str]) -> None:
        """Answer who waits, until nobody does."""
        while waiting := self._waiting[who]:
            group, self._waiting[who] = waiting[:TOGETHER_MAX], waiting[TOGETHER_MAX:]
            there = [each for each in group if not each.answer.done()]  # nobody waits for the others any more
            answers = await asyncio.to_thread(self._answers, there)
            for each, answer in zip(there, answers, strict=True):
                if each.answer.done():
                    continue
                if isinstance(answer, Response):
                    each.answer.set_result(answer)
                else:
                    each.answer.set_exception(answer)
        del self._waiting[who]

    def _answers(self, group: Sequence[_Waiting]) -> list[Response | Exception]:
        joint: Mapping[int, Response] = {}
        if len(group) > 1:
            try:
                joint = self._together(group)
            except Exception:  # whose fault it is, the single transactions will tell
                logger.warning("%s requests could not be answered together", len(group), exc_info=True)
        return [joint[place] if place in joint else self._one(each) for place, each in enumerate(group)]

    def _one(self, waiting: _Waiting) -> Response | Exception:
        try:
            return answered(self._database, self._alone, waiting.request, waiting.call, True, self._now)
        except Exception as error:  # noqa: BLE001  the application answers it, as that of any route
            return error

    def _together(self, group: Sequence[_Waiting]) -> dict[int, Response]:
        """The answers to those that can be issued just so, by their place; committed.

        In this order: (1) hold the drafts, without which nothing is sure; (2) leave out whose version is another one,
        or whose key is known or in flight; (3) issue; (4) keep the answers under their keys.
        """
        places: dict[str, int] = {}  # of two who ask for the same the first
        for place, each in enumerate(group):
            places.setdefault(each.request.path_params["id"], place)
        act = self._act(group[0].request)
        with self._database.begin() as connection:
            # 1: hold
            drafts = app.held_drafts(connection, act.tenant, list(places))
            # 2: leave out
            fit = {key: group[places[key]] for key in _expected(drafts, places, group, self._act)}
            calls = [each.call for each in fit.values() if each.call]
            free = unused(connection, calls)
            fit = {key: each for key, each in fit.items() if each.call is None or each.call in free}
            if not fit:
                return {}
            # 3: issue
            own = Drafts(
                drafts.invoices.filter(pl.col("id").is_in(list(fit))),
                drafts.lines.filter(pl.col("invoice_id").is_in(list(fit))),
            )
            answers = self._issued(connection, act, own)
            # 4: keep
            kept = {each.call: answers[key] for key, each in fit.items() if each.call}
            keep(connection, kept, moves_money=True, now=act.now)
        return {places[key]: answers[key] for key in fit}


def _expected(
    drafts: Drafts, places: Mapping[str, int], group: Sequence[_Waiting], act: Callable[[Request], Act]
) -> list[str]:
    """The ids of the drafts whose version is the one that was read."""
    found = []
    for key, version in drafts.invoices.select("id", "version").iter_rows():
        with suppress(RefusedError):
            act(group[places[key]].request).expected(version)
            found.append(key)
    return found
