"""Webhooks on a real database and real HTTP servers: what arrives where, signed by whom, and who holds up whom."""

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from aiohttp import web
from prometheus_client import REGISTRY

from invoicing.deliveries import store as deliveries
from invoicing.webhooks import store
from invoicing.webhooks.signatures import secret_text
from schemas.domain_event import EventType
from tests.integration.webhook_stage import NOW, SECRET, Stage, answering, staged
from tests.servers.receiver import Received


def test_events_arrive_signed_at_the_endpoints_that_want_them(database: sa.Engine) -> None:
    """Each once, by type and tenant, from the endpoint's creation on; signed so that the library takes them."""

    async def play(stage: Stage) -> None:
        stage.emit()
        everything, reopened, other = (
            stage.endpoint("/all"),
            stage.endpoint("/some", "ledger.period_reopened"),
            stage.endpoint("/other", tenant="other"),
        )
        closed = stage.emit(3)
        (opened,) = stage.emit(kind=EventType.PERIOD_REOPENED)
        before = REGISTRY.get_sample_value("meterline_webhook_attempts_total", {"outcome": "arrived"}) or 0
        assert await stage.sender.send_due() == 5
        assert REGISTRY.get_sample_value("meterline_webhook_attempts_total", {"outcome": "arrived"}) == before + 5
        assert REGISTRY.get_sample_value("meterline_webhooks_in_hand") == 0
        assert await stage.sender.send_due() == 0
        assert [each.id for each in stage.receiver.of("/all")] == [*closed, opened]
        assert [each.id for each in stage.receiver.of("/some")] == [opened]
        assert stage.states(other) == []
        assert stage.states(everything) == [("delivered", 1)] * 4
        assert stage.states(reopened) == [("delivered", 1)]
        assert all(each.is_signed_with(SECRET) for each in stage.receiver.received)
        first = stage.receiver.of("/all")[0]
        assert first.headers["content-type"] == "application/json"
        assert first.event() == {
            "id": closed[0], "type": "ledger.period_closed", "timestamp": "2026-01-01T00:00:00Z", "tenant": "acme", "sequence": 2,
            "objectId": "ledger", "version": 2, "data": {"through": "2026-01-01", "closedBy": "x"},
        }  # fmt: skip

    staged(database, play)


def test_a_slow_endpoint_holds_up_nobody(database: sa.Engine) -> None:
    """It has its own bounded number of requests; the others' events arrive meanwhile, all of them."""

    async def play(stage: Stage) -> None:
        slow, quick = stage.endpoint("/slow"), stage.endpoint("/quick")
        answer, all_quick = asyncio.Event(), asyncio.Event()

        async def hang(_: Received) -> web.Response:
            await answer.wait()
            return web.Response()

        def count(_: Received) -> web.Response:
            if len(stage.receiver.of("/quick")) == 200:
                all_quick.set()
            return web.Response()

        stage.receiver.answers |= {"/slow": hang, "/quick": count}
        stage.emit(200)
        sending = asyncio.create_task(stage.sender.send_due())
        await asyncio.wait_for(all_quick.wait(), 20)
        assert stage.receiver.at_once["/slow"] == stage.receiver.at_once_max["/slow"] == 16
        answer.set()
        assert await sending == 400
        assert stage.states(slow) == stage.states(quick) == [("delivered", 1)] * 200
        assert stage.receiver.at_once_max["/slow"] == 16

    staged(database, play)


def test_no_redirect_is_followed_and_no_answer_is_read_to_its_end(database: sa.Engine) -> None:
    """Else an endpoint could lead us anywhere, or keep us for ever; of what it says, a printable beginning is kept."""

    async def play(stage: Stage) -> None:
        stage.endpoint("/from")
        stage.receiver.answers["/from"] = lambda _: web.Response(
            status=307, headers={"Location": stage.receiver.url + "/to"}
        )
        talking = stage.endpoint("/talking")

        async def talk(_: Received) -> web.Response:
            return web.Response(status=500, body=b"\x00\x1b[31m\xff<" + b"x" * 10_000_000)

        stage.receiver.answers["/talking"] = talk
        (event,) = stage.emit()
        assert await stage.sender.send_due() == 2
        assert stage.receiver.of("/to") == []
        with database.connect() as connection:
            (attempt,) = store.attempts(connection, talking.id, event)
        assert attempt.answer.startswith("  [31m\ufffd<xxx") or attempt.answer.startswith("  [31m <xxx")
        assert len(attempt.answer) == 500

    staged(database, play)


def test_an_event_that_is_too_long_is_sent_as_a_link(database: sa.Engine) -> None:
    """A body has less than 20 kB."""

    async def play(stage: Stage) -> None:
        stage.endpoint("/thin")
        (short,) = stage.emit(words="x" * 19_500)
        (event,) = stage.emit(words="x" * 20_000)
        await stage.sender.send_due()
        whole, thin = stage.receiver.of("/thin")
        assert (whole.id, len(whole.event()["data"]["closedBy"])) == (short, 19_500)
        assert (thin.event()["data"], thin.event()["link"]) == (None, f"/api/v1/billing/events/{event}")
        assert len(whole.body) < 20_000

    staged(database, play)


def test_while_a_secret_is_replaced_both_sign(database: sa.Engine) -> None:
    """Until the old one's time is over; a second replacement keeps the first, too."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/signed")
        new = [secret_text(bytes([number]) * 32) for number in (1, 2)]
        for hours, secret in enumerate(new, 1):
            with database.begin() as connection:
                store.rotate_secret(
                    connection,
                    stage.known(endpoint),
                    secret,
                    old_valid_until=NOW + timedelta(hours=hours),
                    now=stage.clock(),
                )
        signed = []
        for hours in (0, 1, 2):
            stage.clock.at = NOW + timedelta(hours=hours)
            stage.emit()
            await stage.sender.send_due()
            last = stage.receiver.of("/signed")[-1]
            signed.append([last.is_signed_with(secret) for secret in (SECRET, *new)])
        assert signed == [[True, True, True], [False, True, True], [False, False, True]]

    staged(database, play)


def test_an_error_shows_no_secret(database: sa.Engine) -> None:
    """Of a statement that fails, what a log would have; nor does what is in a sender's hands."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/")
        stage.emit()
        with database.begin() as connection:
            deliveries.fan_out(connection, "acme", now=NOW)
            (claimed,) = deliveries.claim(connection, {}, 1, now=NOW)
        assert claimed.secrets == (SECRET,)
        with pytest.raises(sa.exc.IntegrityError) as failed, database.begin() as connection:
            connection.execute(
                sa.text("INSERT INTO webhook_secrets VALUES (:id, 1, 'acme', :secret, now())"),
                {"id": endpoint.id, "secret": SECRET},
            )
        for shown in (str(failed.value), repr(claimed), repr(endpoint)):
            assert SECRET[10:20] not in shown

    staged(database, play)


def test_private_addresses_are_refused_where_they_are_connected_to(
    database: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that led to the internet when it was checked and leads to us when it is asked reaches nobody."""

    async def play(stage: Stage) -> None:
        port = stage.receiver.url.rpartition(":")[2]
        loop = asyncio.get_running_loop()

        async def rebound(host: str, *_: object, **__: object) -> list[object]:
            return [(2, 1, 6, "", ("127.0.0.1", int(port)))] if host == "rebinding.example" else []

        monkeypatch.setattr(loop, "getaddrinfo", rebound)
        urls = [
            f"https://rebinding.example:{port}/",
            f"https://127.0.0.1:{port}/",
            f"https://[::ffff:127.0.0.1]:{port}/",
            f"http://127.0.0.1:{port}/",
        ]
        guarded = [stage.endpoint("", url=url) for url in urls]
        (event,) = stage.emit()
        assert await stage.sender.send_due() == 4
        assert stage.receiver.received == []
        with database.connect() as connection:
            said = [store.attempts(connection, endpoint.id, event)[0] for endpoint in guarded]
        assert [each.status for each in said] == [None] * 4
        assert "127.0.0.1 is no address of the internet" in said[0].answer
        assert all("internet" in each.answer or "https://" in each.answer for each in said)

    staged(database, play, private_allowed=False)


def test_a_deleted_endpoint_gets_nothing_more(database: sa.Engine) -> None:
    """What was on its way is cancelled, its secrets are gone, its log stays."""

    async def play(stage: Stage) -> None:
        endpoint = stage.endpoint("/")
        stage.receiver.answers["/"] = answering(500)
        stage.emit()
        assert await stage.sender.send_due() == 1
        with database.begin() as connection:
            store.delete_endpoint(connection, stage.known(endpoint), now=NOW)
        stage.clock.at += timedelta(days=1)
        stage.emit()
        assert await stage.sender.send_due() == 0
        assert stage.states(endpoint) == [("cancelled", 1)]
        with database.connect() as connection:
            assert store.endpoint(connection, "acme", endpoint.id) is None
            assert store.endpoints(connection, "acme") == []
            assert connection.execute(sa.text("SELECT count(*) FROM webhook_secrets")).scalar_one() == 0

    staged(database, play)
