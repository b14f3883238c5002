"""Webhooks on a real database and real HTTP servers: what arrives, when it is tried again, and who holds up whom."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from aiohttp import web
from prometheus_client import REGISTRY

from invoicing.deliveries import store as deliveries
from invoicing.deliveries.app import Sender
from invoicing.outbox.store import emit
from invoicing.webhooks import store
from invoicing.webhooks.retries import SCHEDULE, Attempt
from invoicing.webhooks.signatures import secret_text
from schemas.domain_event import DomainEvent, EventType, PeriodClosedData, PeriodReopenedData
from schemas.webhook import Endpoint, EndpointChange, NewEndpoint
from tests.servers.receiver import Received, Receiver, receiving

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = secret_text(b"a" * 32)


@dataclass
class Clock:
    """The time, as a test wants it."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        """What time it is."""
        return self.at


@dataclass
class Stage:
    """A database, a receiver and a sender whose clock stands still until it is set."""

    database: sa.Engine
    receiver: Receiver
    sender: Sender
    clock: Clock
    made: int = 0
    emitted: int = 0
    secrets: list[str] = field(default_factory=list)

    def endpoint(self, path: str, *types: str, tenant: str = "acme", url: str | None = None) -> Endpoint:
        """An endpoint at a path of the receiver."""
        self.made += 1
        wanted = NewEndpoint(url=url or self.receiver.url + path, types=types)
        with self.database.begin() as connection:
            return store.create_endpoint(
                connection, tenant, wanted, endpoint_id=f"we_{self.made:024x}", secret=SECRET, now=self.clock()
            )

    def emit(
        self, count: int = 1, *, tenant: str = "acme", kind: EventType = EventType.PERIOD_CLOSED, words: str = "x"
    ) -> list[str]:
        """Emit so many events; their ids."""
        first = self.emitted + 1
        self.emitted += count
        closed, reopened = (
            PeriodClosedData(through=NOW.date(), closed_by=words),
            PeriodReopenedData(through=NOW.date(), reopened_by="x", reason="y"),
        )
        said = closed if kind is EventType.PERIOD_CLOSED else reopened
        events = [DomainEvent(kind, "ledger", number, NOW, said) for number in range(first, self.emitted + 1)]
        with self.database.begin() as connection:
            emit(connection, tenant, events)
        return [event.id_of(tenant) for event in events]

    def known(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint as it is now."""
        with self.database.connect() as connection:
            found = store.endpoint(connection, endpoint.tenant, endpoint.id)
        assert found
        return found

    def states(self, endpoint: Endpoint) -> list[tuple[str, int]]:
        """State and attempts of its deliveries, the oldest event first."""
        with self.database.connect() as connection:
            found = store.deliveries(connection, endpoint.id, limit=1000)
        return [(each.state.value, each.attempts) for each in reversed(found)]

    def next_due(self) -> datetime | None:
        """When the next webhook is due."""
        with self.database.connect() as connection:
            return deliveries.next_due(connection)


def staged(database: sa.Engine, play: Callable[[Stage], Awaitable[None]], *, private_allowed: bool = True) -> None:
    """Play on a stage."""

    async def run() -> None:
        clock = Clock()
        sender = Sender(database, private_allowed=private_allowed, now=clock)
        async with receiving() as receiver, sender.running():
            await play(Stage(database, receiver, sender, clock))

    asyncio.run(run())


def answering(*statuses: int, **headers: str) -> Callable[[Received], web.Response]:
    """Answers with these statuses, one after the other; the last one for ever."""
    left = list(statuses)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(status=left.pop(0) if len(left) > 1 else left[0], headers=named, text="as told")


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
