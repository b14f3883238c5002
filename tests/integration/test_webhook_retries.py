"""Webhooks that do not arrive: when they come again, when an endpoint is left alone, and who takes over."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from aiohttp import web

from invoicing.deliveries import store as deliveries
from invoicing.deliveries.app import Sender
from invoicing.webhooks import store
from invoicing.webhooks.retries import SCHEDULE, Attempt
from schemas.domain_event import EventType
from schemas.webhook import EndpointChange
from tests.integration.webhook_stage import NOW, Stage, answering, staged
from tests.servers.receiver import Received


def test_a_webhook_that_fails_comes_again_by_the_schedule(database: sa.Engine) -> None:
    """Ten attempts over 75 hours, id and body the same and the timestamp fresh; then the endpoint is disabled, and that is an event."""

    async def play(stage: Stage) -> None:
        failing, watching = stage.endpoint("/failing"), stage.endpoint("/watching", "webhook.disabled")
        stage.receiver.answers["/failing"] = answering(500)
        (event,) = stage.emit()
        at, due = [], stage.clock.at
        while due:
            stage.clock.at = due
            await stage.sender.send_due()
            assert await stage.sender.send_due() == 0
            at.append(due)
            due = stage.next_due()
        gaps = [later - before for before, later in itertools.pairwise(at)]
        assert all(wanted <= gap <= wanted * 1.1 for wanted, gap in zip(SCHEDULE[1:], gaps, strict=True))
        arrived = stage.receiver.of("/failing")
        assert [each.id for each in arrived] == [event] * 10
        assert len({each.body for each in arrived}) == 1
        assert [int(each.headers["webhook-timestamp"]) for each in arrived] == [int(each.timestamp()) for each in at]
        assert stage.states(failing) == [("failed", 10)]
        disabled = stage.known(failing)
        assert disabled.state == "disabled"
        assert "in 10 attempts" in (disabled.disabled_reason or "")
        (told,) = stage.receiver.of("/watching")
        assert told.event()["data"] == {
            "endpointId": failing.id,
            "url": failing.url,
            "reason": disabled.disabled_reason,
        }
        assert stage.known(watching).state == "enabled"

    staged(database, play)


def test_an_endpoint_that_says_gone_is_disabled_at_once(database: sa.Engine) -> None:
    """410 ends it; what is emitted meanwhile does not wait, and is sent when somebody asks for all since then."""

    async def play(stage: Stage) -> None:
        gone = stage.endpoint("/gone", "ledger.period_closed")
        stage.receiver.answers["/gone"] = answering(410, 200)
        (first,) = stage.emit()
        assert await stage.sender.send_due() == 1
        assert stage.known(gone).disabled_reason == "it answered 410 Gone"
        missed = stage.emit(2)
        assert await stage.sender.send_due() == 0
        many = stage.endpoint("/many")
        stage.receiver.answers["/many"] = answering(410)
        stage.emit(100, kind=EventType.PERIOD_REOPENED)
        await stage.sender.send_due()
        assert 1 <= len(stage.receiver.of("/many")) <= 16
        assert stage.known(many).state == "disabled"
        with database.begin() as connection:
            again = store.change_endpoint(
                connection, stage.known(gone), EndpointChange(state="enabled"), now=stage.clock()
            )
            assert (again.state, again.disabled_reason, again.failures) == ("enabled", None, 0)
            assert not store.redeliver(connection, again, "0" * 32, now=stage.clock())
            future, past = datetime(2100, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)
            assert store.redeliver_since(connection, again, future, also_delivered=True, now=stage.clock()) == 0
            assert store.redeliver_since(connection, again, past, also_delivered=False, now=stage.clock()) == 3
            assert store.redeliver_since(connection, again, past, also_delivered=False, now=stage.clock()) == 0
        assert await stage.sender.send_due() == 3
        assert [each.id for each in stage.receiver.of("/gone")] == [first, first, *missed]
        assert stage.states(gone) == [("delivered", 2), ("delivered", 1), ("delivered", 1)]
        with database.begin() as connection:
            assert store.redeliver(connection, again, missed[0], now=stage.clock())
            log = store.attempts(connection, gone.id, first)
        assert [(each.status, each.answer) for each in log] == [(410, "as told"), (200, "as told")]
        assert await stage.sender.send_due() == 1

    staged(database, play)


def test_an_overloaded_endpoint_is_left_alone(database: sa.Engine) -> None:
    """Nothing is sent to it until the instant it asked for, not even what is due; then one at a time, until one arrives."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/busy")
        stage.receiver.answers["/busy"] = answering(429, 500, 204, retry_after="600")
        stage.emit()
        assert await stage.sender.send_due() == 1
        stage.emit(20)
        assert await stage.sender.send_due() == 0
        stage.clock.at += timedelta(seconds=599)
        assert await stage.sender.send_due() == 0
        assert stage.next_due() == NOW + timedelta(seconds=600)
        stage.clock.at += timedelta(seconds=1)
        assert await stage.sender.send_due() == 21
        assert stage.receiver.at_once_max["/busy"] <= 16
        assert stage.known(endpoint).failures == 0
        assert [state for state, _ in stage.states(endpoint)].count("pending") == 1

    staged(database, play)


def test_what_is_in_hand_for_an_overloaded_endpoint_waits_too(database: sa.Engine) -> None:
    """Only what it is just answering reaches it; one that merely fails gets one at a time from then on."""

    async def play(stage: Stage) -> None:
        stage.endpoint("/busy")
        stage.receiver.answers["/busy"] = answering(429, retry_after="60")
        stage.emit(100)
        await stage.sender.send_due()
        assert 1 <= len(stage.receiver.of("/busy")) <= 16
        assert stage.next_due() == NOW + timedelta(seconds=60)
        failing = stage.endpoint("/failing")
        stage.receiver.answers["/failing"] = answering(500)
        stage.emit()
        assert await stage.sender.send_due() == 1
        stage.emit(20)
        with database.begin() as connection:
            deliveries.fan_out(connection, "acme", now=NOW)
            (one,) = deliveries.claim(connection, {}, 100, now=NOW)
            assert deliveries.claim(connection, {failing.id: 1}, 100, now=NOW) == []
            deliveries.record(connection, [(one, Attempt(NOW, 200))], now=NOW)
            assert len(deliveries.claim(connection, {}, 100, now=NOW)) == 19

    staged(database, play)


def test_what_a_dead_sender_had_in_hand_is_sent_by_another(database: sa.Engine) -> None:
    """After the lease; and of two answers to one attempt, one is noted."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/")
        stage.emit(3)
        with database.begin() as connection:
            deliveries.fan_out(connection, "acme", now=NOW)
            dead = deliveries.claim(connection, {}, 100, now=NOW)
        assert len(dead) == 3
        assert await stage.sender.send_due() == 0
        stage.clock.at = NOW + deliveries.LEASE
        assert await stage.sender.send_due() == 3
        with database.begin() as connection:
            deliveries.record(connection, [(dead[0], Attempt(NOW, 500))], now=NOW)
            deliveries.release(connection, dead, now=NOW)
        assert stage.states(endpoint) == [("delivered", 1)] * 3
        assert await stage.sender.send_due() == 0

    staged(database, play)


def test_what_is_in_hand_at_the_end_is_given_back(database: sa.Engine) -> None:
    """A sender that is stopped leaves nothing to wait for a lease."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/hang")
        arrived, never = asyncio.Event(), asyncio.Event()

        async def hang(_: Received) -> web.Response:
            arrived.set()
            await never.wait()
            return web.Response()

        stage.receiver.answers["/hang"] = hang
        stage.emit(2)
        stopped = Sender(database, private_allowed=True, now=stage.clock)
        async with stopped.running():
            running = asyncio.create_task(stopped.run())
            await asyncio.wait_for(arrived.wait(), 20)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert stage.states(endpoint) == [("pending", 0)] * 2
        assert stage.next_due() == stage.clock.at
        stage.receiver.answers["/hang"] = answering(200)
        assert await stage.sender.send_due() == 2

    staged(database, play)


def test_one_event_that_never_arrives_disables_nothing(database: sa.Engine) -> None:
    """Where others arrive meanwhile: only that delivery has failed."""

    async def play(stage: Stage) -> None:
        picky = stage.endpoint("/picky")
        (poison,) = stage.emit()
        stage.receiver.answers["/picky"] = lambda one: web.Response(status=500 if one.id == poison else 200)
        due: datetime | None = NOW
        while due:
            stage.clock.at = due
            stage.emit()
            await stage.sender.send_due()
            due = stage.next_due()
        assert stage.states(picky) == [("failed", 10)] + [("delivered", 1)] * 10
        assert stage.known(picky).state == "enabled"

    staged(database, play)
