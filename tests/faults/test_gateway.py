"""The gateway of a deployment with a broker, and itself, hurt under load: what was acknowledged is in the topic.

The topic is read from its start by a plain consumer; requests go over real sockets to real processes.
"""

import asyncio
import json
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.faults.conftest import Deployment, event
from tests.faults.gateways import (
    ANSWER_S,
    Answer,
    Gateway,
    Load,
    assert_refusals_are_in_order,
    numbers_in_topic,
    send,
)
from tests.servers import plain_http


@pytest.fixture
def gateways(deployment: Deployment, tmp_path: Path) -> Iterator[list[Gateway]]:
    """Two gateways that are not started yet."""
    made = [Gateway(deployment.servers, tmp_path / f"gateway-{number}.log") for number in range(2)]
    yield made
    for each in made:
        each.stop()


@pytest.fixture
def gateway(gateways: list[Gateway]) -> Gateway:
    """A gateway that runs."""
    return gateways[0].start()


def hurt(deployment: Deployment, how: str) -> None:
    deployment.broker.kill() if how == "kill" else deployment.broker.pause()


def heal(deployment: Deployment, how: str) -> None:
    if how == "kill":
        deployment.broker.start()
    else:
        deployment.broker.resume()


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_the_broker_goes_away_under_load_and_comes_back(deployment: Deployment, gateway: Gateway, how: str) -> None:
    """Killed and started again, or frozen for ten seconds: 503s in time, /readyz says so, and nothing is lost."""
    with Load(gateway) as load:
        load.wait_for_answers(50)
        assert gateway.get("/readyz") == (200, '{"status":"ok"}')
        before = load.numbers(204)
        hurt(deployment, how)
        hurt_at_s = time.monotonic()
        try:
            load.wait_for_answers(8, status=503)
            gateway.wait_for(lambda: gateway.get("/readyz")[0] == 503, timeout_s=1)
            assert "the log is away" in gateway.get("/readyz")[1]
            assert gateway.metric("meterline_gateway_log_away") == 1
            while time.monotonic() - hurt_at_s < 10:
                load.wait_for_answers(1, status=503)
        finally:
            heal(deployment, how)
        gateway.wait_for(lambda: gateway.get("/readyz")[0] == 200)
        load.wait_for_answers(50)
    assert assert_refusals_are_in_order(load.answers) > 8
    acknowledged = load.numbers(204)
    assert acknowledged - before
    assert acknowledged <= set(numbers_in_topic(deployment.servers))
    refused = sum(answer.status == 503 for answer in load.answers)
    name = 'meterline_gateway_requests_refused_total{reason="log_away",status="503"}'
    assert gateway.metric(name) == refused
    assert gateway.metric("meterline_gateway_events_accepted_total") >= len(acknowledged)


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_readiness_needs_no_request(deployment: Deployment, gateway: Gateway, how: str) -> None:
    """A load balancer that took the gateway out, and sends nothing, learns of it when the log is back."""
    hurt(deployment, how)
    try:
        gateway.wait_for(lambda: gateway.get("/readyz")[0] == 503, timeout_s=8)
        assert gateway.get("/healthz")[0] == 200
        refused = plain_http.post(
            gateway.url, content=b"[" + event(1) + b"]", headers={"Content-Type": "application/json"}
        )
        assert refused.status_code == 503
        assert refused.elapsed.total_seconds() < 1  # it is known already
    finally:
        heal(deployment, how)
    gateway.wait_for(lambda: gateway.get("/readyz")[0] == 200, timeout_s=15)
    accepted = plain_http.post(
        gateway.url, content=b"[" + event(2) + b"]", headers={"Content-Type": "application/json"}
    )
    assert accepted.status_code == 204
    assert numbers_in_topic(deployment.servers) == [2]


def test_a_gateway_starts_while_the_broker_is_away(deployment: Deployment, gateways: list[Gateway]) -> None:
    """It is healthy and not ready, until the broker is there."""
    deployment.broker.kill()
    try:
        gateway = gateways[0].start()
        assert gateway.get("/readyz")[0] == 503
    finally:
        deployment.broker.start()
    gateway.wait_for(lambda: gateway.get("/readyz")[0] == 200)


def test_two_gateways_of_which_one_is_killed(deployment: Deployment, gateways: list[Gateway]) -> None:
    """Kill -9 under load: what each of them acknowledged is in the topic, and the other one goes on."""
    for each in gateways:
        each.start()
    with Load(*gateways, clients=12) as load:
        load.wait_for_answers(200)
        gateways[0].signal(signal.SIGKILL)
        gateways[0].wait()
        load.wait_for_answers(50)
        gateways[0].start()
        load.wait_for_answers(50)
    assert {answer.status for answer in load.answers} == {204, 0}
    assert load.numbers(204) <= set(numbers_in_topic(deployment.servers))


def test_sigterm_under_load(deployment: Deployment, gateway: Gateway) -> None:
    """Every request that was sent before the signal is answered, what is acknowledged is there, and it ends in order."""
    with Load(gateway, clients=16) as load:
        load.wait_for_answers(100)
        gateway.signal(signal.SIGTERM)
        signalled_at_s = time.monotonic()
        assert gateway.wait() == 0
    assert time.monotonic() - signalled_at_s < 8
    assert {answer.status for answer in load.answers} == {204, 0}
    assert min(answer.sent_at_s for answer in load.answers if not answer.status) > signalled_at_s - 0.05
    assert load.numbers(204) <= set(numbers_in_topic(deployment.servers))


def test_sigterm_while_the_log_keeps_requests_waiting(deployment: Deployment, gateway: Gateway) -> None:
    """Requests that wait for a frozen broker get their acknowledgement when it goes on, though the gateway is ending."""
    bodies = [b"[" + event(number) + b"]" for number in range(20)]
    assert (
        plain_http.post(gateway.url, content=bodies[0], headers={"Content-Type": "application/json"}).status_code == 204
    )

    async def send_and_stop() -> list[int]:
        async with httpx.AsyncClient(timeout=30, verify=False) as connection:
            deployment.broker.pause()
            try:
                sending = [asyncio.create_task(send(connection, gateway.url, body)) for body in bodies]
                received = "meterline_gateway_received_bytes_total"
                expected = sum(map(len, [bodies[0], *bodies]))
                await asyncio.to_thread(gateway.wait_for, lambda: gateway.metric(received) == expected)
                gateway.signal(signal.SIGTERM)
                await asyncio.sleep(1)  # it is to be ending, and says so to nobody
                assert gateway.process is not None
                assert gateway.process.poll() is None
            finally:
                deployment.broker.resume()
            return [answer.status for answer in await asyncio.gather(*sending)]

    assert asyncio.run(send_and_stop()) == [204] * 20
    assert gateway.wait() == 0
    assert sorted(numbers_in_topic(deployment.servers)) == [0, *range(20)]


def test_a_log_that_is_slow_is_not_waited_for(deployment: Deployment, gateway: Gateway) -> None:
    """A request that waited for another's group, and then waits in its own, has its answer within the same bound."""
    filler = "x" * 900_000
    small, large = b"[" + event(1) + b"]", b"[" + b",".join(event(n, note=filler) for n in range(10, 25)) + b"]"

    async def ask() -> list[Answer]:
        async with httpx.AsyncClient(timeout=30, verify=False) as connection:
            deployment.broker.pause()
            try:
                first = asyncio.create_task(send(connection, gateway.url, small))
                await asyncio.sleep(0.5)  # so that they are no group
                second = asyncio.create_task(send(connection, gateway.url, large))
                await asyncio.sleep(3)  # less than the gateway gives a group
                deployment.broker.resume()
                await first
                deployment.broker.pause()
                return [await first, await second]
            finally:
                deployment.broker.resume()

    first, second = asyncio.run(ask())
    assert (first.status, second.status) == (204, 503)
    assert 5.5 < second.seconds < ANSWER_S + 0.5  # a part of which it took to send the body


def test_clients_that_retry_count_once(deployment: Deployment, gateways: list[Gateway]) -> None:
    """The broker dies twice, and a gateway once, under clients that send again what was not acknowledged."""
    deployment.worker()
    for each in gateways:
        each.start()
    with Load(*gateways, retry=True) as load:
        for _ in range(2):
            load.wait_for_answers(30)
            deployment.broker.kill()
            load.wait_for_answers(8, status=503)
            deployment.broker.start()
        load.wait_for_answers(30)
        gateways[1].signal(signal.SIGKILL)
        gateways[1].wait()
        gateways[1].start()
        load.wait_for_answers(30)
    sent = {number for answer in load.answers for number in answer.numbers}
    assert load.numbers(204) <= (stored := set(numbers_in_topic(deployment.servers))) <= sent
    deployment.settle(120)
    assert deployment.check()["events"] == len(stored)


def test_what_was_stored_in_part_counts_once_when_it_is_sent_again(deployment: Deployment, gateway: Gateway) -> None:
    """One partition refuses its record and the others have theirs: a 503, and the same request again counts once."""

    async def allow(record_bytes: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers.kafka)
        await admin.start()
        settings = {"max.message.bytes": str(record_bytes), "message.timestamp.type": "LogAppendTime"}
        topic = ConfigResource(ConfigResourceType.TOPIC, deployment.servers.topic, configs=settings)
        await admin.alter_configs([topic])
        await admin.close()

    deployment.worker()
    large = random.Random(1).randbytes(300_000).hex()  # LZ4 makes it no smaller
    events = [json.loads(event(n)) for n in range(60)]
    events[7]["data"]["large"] = large
    asyncio.run(allow(100_000))
    refused = plain_http.post(gateway.url, json=events, headers={"Content-Type": "application/json"}, timeout=10)
    assert (refused.status_code, "may have them or not" in refused.text) == (503, True)
    in_part = numbers_in_topic(deployment.servers)
    assert 7 not in in_part
    assert 0 < len(in_part) < 60
    asyncio.run(allow(2 << 20))
    gateway.wait_for(lambda: gateway.get("/readyz")[0] == 200)
    again = plain_http.post(gateway.url, json=events, headers={"Content-Type": "application/json"}, timeout=10)
    assert again.status_code == 204
    deployment.settle()
    assert deployment.check() == {"events": 60, "duplicates": len(in_part), "rejections": 0}
