"""Idempotency keys on a real PostgreSQL: one effect and one answer, whoever asks how often, and whoever dies meanwhile."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.request import RefusedError
from meterline.access import guarded
from meterline.idempotency import KEPT, body_of, forget_keys, idempotent
from meterline.versions import etag_of, refuse_other_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Till:
    """An application with one effect: a row in the table test_payments."""

    database: sa.Engine
    hold: threading.Event
    """Calls of /held wait for it, in the middle of their transaction."""
    held: threading.Event
    at: datetime = NOW

    def pay(self, request: Request, connection: sa.Connection) -> Response:
        """Pay; above 1,000 is refused after the effect, below 0 raises."""
        amount = body_of(request)["amount"]
        number = connection.execute(
            sa.text("INSERT INTO test_payments (amount) VALUES (:amount) RETURNING number"), {"amount": amount}
        ).scalar_one()
        if request.url.path == "/held":
            self.held.set()
            assert self.hold.wait(20)
        if amount > 1000:
            raise RefusedError(HTTPStatus.PAYMENT_REQUIRED, "too much")
        if amount > 900:
            return JSONResponse({"detail": "too much"}, 402)
        if amount < 0:
            raise ZeroDivisionError
        return JSONResponse(
            {"number": number, "amount": amount}, 201, headers={"ETag": etag_of(number), "X-Name": "Zürich"}
        )

    def ask(self, path: str, amount: int, key: str | None = "k", **options: Any) -> httpx.Response:
        """The answer to a call, from any thread."""
        application = guarded(
            [Route(each, idempotent(self.database, self.pay, moves_money=each == "/money", now=lambda: self.at), methods=["POST", "PUT"]) for each in ("/pay", "/held", "/money")],
            None, lifespan=lambda _: nullcontext(),  # type: ignore[arg-type]
        )  # fmt: skip

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(application, raise_app_exceptions=False)
            headers = {"Idempotency-Key": key} if key is not None else {}
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(
                    options.pop("method", "POST"), path, json={"amount": amount}, headers=headers
                )

        return asyncio.run(answered())

    def test_payments(self) -> list[int]:
        """What was paid."""
        with self.database.connect() as connection:
            return list(connection.execute(sa.text("SELECT amount FROM test_payments ORDER BY number")).scalars())

    def keys(self) -> int:
        """How many keys are stored."""
        with self.database.connect() as connection:
            return int(connection.execute(sa.text("SELECT count(*) FROM idempotency_keys")).scalar_one())


@pytest.fixture
def till(database: sa.Engine) -> Iterator[Till]:
    """A till without test_payments."""
    with database.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE test_payments (number bigint GENERATED ALWAYS AS IDENTITY, amount bigint)")
        )
    till = Till(database, threading.Event(), threading.Event())
    yield till
    till.hold.set()


def test_the_same_call_again_has_the_same_answer_and_no_effect(till: Till) -> None:
    """Status, body and headers, marked as a replay; without a key, or with another one, it is another call."""
    first, again = till.ask("/pay", 5), till.ask("/pay", 5)
    assert (first.status_code, first.headers.get("idempotent-replayed")) == (201, None)
    assert (again.status_code, again.content, again.headers["idempotent-replayed"]) == (201, first.content, "true")
    assert {**again.headers} == {**first.headers, "idempotent-replayed": "true"}
    assert till.test_payments() == [5]
    for key in (None, None, "K", "k" * 255, "~!@ #"):
        assert till.ask("/pay", 5, key).status_code == 201
    assert till.test_payments() == [5] * 6


def test_another_request_under_the_same_key_is_refused(till: Till) -> None:
    """Another body, path, query or method."""
    assert till.ask("/pay", 5).status_code == 201
    for answer in (
        till.ask("/pay", 6),
        till.ask("/money", 5),
        till.ask("/pay?a=b", 5),
        till.ask("/pay", 5, method="PUT"),
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert till.test_payments() == [5]
    for key in ("", "k" * 256, "k\tk"):
        assert till.ask("/pay", 5, key).status_code == 400


def test_what_was_refused_is_taken_back_and_not_remembered(till: Till) -> None:
    """By an answer, by an exception, or by a failure of ours; the key is free for a better request."""
    assert [till.ask("/pay", amount).status_code for amount in (1001, 901, -1)] == [402, 402, 500]
    assert (till.test_payments(), till.keys()) == ([], 0)
    assert till.ask("/pay", 5).status_code == 201
    assert till.test_payments() == [5]


def test_a_call_in_flight_is_told_so(till: Till) -> None:
    """409 with Retry-After, at once; afterwards its answer comes again. Other keys do not wait for it."""
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(till.ask, "/held", 5)
        assert till.held.wait(20)
        meanwhile = till.ask("/held", 5)
        assert (meanwhile.status_code, meanwhile.headers["retry-after"]) == (409, "1")
        assert till.ask("/pay", 6, "other").status_code == 201
        till.hold.set()
        assert first.result().status_code == 201
    assert till.ask("/held", 5).content == first.result().content
    assert till.test_payments() == [5, 6]


def test_many_at_once_have_one_effect(till: Till) -> None:
    """Twelve threads, five keys each, all of them the same: one payment a key, and one answer."""
    barrier = threading.Barrier(12)

    def storm(_: int) -> list[tuple[int, bytes]]:
        barrier.wait()
        return [
            (answer.status_code, answer.content)
            for key in range(5)
            for answer in [till.ask("/pay", key, f"storm {key}")]
        ]

    with ThreadPoolExecutor(12) as pool:
        answers = [answer for each in pool.map(storm, range(12)) for answer in each]
    assert sorted(till.test_payments()) == list(range(5))
    assert {status for status, _ in answers} <= {201, 409}
    assert len({content for status, content in answers if status == 201}) == 5
    assert Counter(status for status, _ in answers)[201] >= 5


DIES = """
import sys, time, asyncio, threading, os
from tests.integration.test_idempotency import Till
from stores.postgres import engine_for

class Says(threading.Event):
    def set(self):
        print("in the middle", flush=True)

till = Till(engine_for(sys.argv[1]), threading.Event(), Says())
till.ask("/held", 5)
"""


def test_a_process_that_is_killed_in_the_middle_leaves_nothing(till: Till) -> None:
    """Neither key nor effect; whoever tries again, as long as it is told to, has the effect once."""
    url = till.database.url.render_as_string(hide_password=False)
    with subprocess.Popen([sys.executable, "-c", DIES, url], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in the middle\n"
        assert till.ask("/held", 5).status_code == 409
        process.send_signal(signal.SIGKILL)
        process.wait()
    till.hold.set()
    deadline_s = time.monotonic() + 20
    while (answer := till.ask("/held", 5)).status_code == 409:
        assert time.monotonic() < deadline_s, "PostgreSQL did not notice"
    assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (201, None)
    assert till.test_payments() == [5]


def test_keys_are_kept_four_days_and_those_of_money_for_ever(till: Till) -> None:
    """Whoever deletes."""
    assert till.ask("/pay", 5).status_code == 201
    assert till.ask("/money", 5, "money").status_code == 201
    assert timedelta(days=4) <= KEPT
    with till.database.begin() as connection:
        assert forget_keys(connection, NOW + KEPT) == 0
        assert forget_keys(connection, NOW + KEPT + timedelta(seconds=1)) == 1
    assert till.ask("/money", 5, "money").headers["idempotent-replayed"] == "true"
    assert till.ask("/pay", 5).headers.get("idempotent-replayed") is None
    for statement in ("DELETE FROM idempotency_keys", "UPDATE idempotency_keys SET status = 500"):
        with pytest.raises(sa.exc.DBAPIError), till.database.begin() as connection:
            connection.execute(sa.text(statement))
    with pytest.raises(sa.exc.DBAPIError, match="has no answer"), till.database.begin() as connection:
        connection.execute(sa.text("INSERT INTO idempotency_keys VALUES ('a', 'b', 'c', false, now())"))


def test_if_match_names_the_version_that_is_changed() -> None:
    """412 for another one, 428 where it is needed and missing; a weak tag is no version."""

    def status(*given: str, required: bool = False) -> int | None:
        request = Request({"type": "http", "headers": [(b"if-match", each.encode()) for each in given]})
        try:
            refuse_other_version(request, 7, required=required)
        except RefusedError as refused:
            return refused.status.value
        return None

    assert [status(*given) for given in ((), ('"7"',), ("*",), ('"6", "7"',), ('"6"', '"7"'))] == [None] * 5
    assert [status(given) for given in ('"6"', 'W/"7"', "7", "", '*, "6"', '"77"')] == [412] * 6
    assert status(required=True) == 428
