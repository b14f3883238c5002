"""The producer of the gateway on a real broker: what it does when a producer of the client library fails for good."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber

from stores import kafka_producer
from stores.kafka_producer import APPEND_TIMEOUT_S, CHECK_TIMEOUT_S, Producer
from tests.faults.conftest import PARTITIONS, Deployment, event
from tests.faults.gateways import numbers_in_topic


def with_producer(deployment: Deployment, use: Callable[[Producer], Awaitable[None]]) -> float:
    """Use a producer and close it; how many seconds the closing took."""

    async def run() -> float:
        producer = Producer(deployment.servers, PARTITIONS)
        try:
            await use(producer)
        finally:
            closing_at_s = time.monotonic()
            await producer.close()
        return time.monotonic() - closing_at_s

    return asyncio.run(run())


def test_a_sequence_out_of_order_costs_one_append(deployment: Deployment) -> None:
    """The broker refuses whatever else comes from such a producer; the next append has a fresh one."""

    async def use(producer: Producer) -> None:
        await producer.append([(0, event(1))])
        spoilt = producer._producer
        assert spoilt is not None
        spoilt._txn_manager.increment_sequence_number(TopicPartition(deployment.servers.topic, 0), 7)
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.append([(0, event(2)), (1, event(3))])
        await producer.append([(0, event(4)), (1, event(5))])
        assert producer._producer is not spoilt

    with_producer(deployment, use)
    assert set(numbers_in_topic(deployment.servers)) in ({1, 4, 5}, {1, 3, 4, 5})  # of 2 nothing, of 3 who knows


def test_one_failure_does_not_take_the_producer_from_the_next(deployment: Deployment) -> None:
    """Two appends fail with the same producer; the second failure leaves the fresh one alone."""

    async def use(producer: Producer) -> None:
        await producer.append([(0, event(1))])
        failed = producer._producer
        producer._replace(failed)
        await producer.append([(0, event(2))])
        fresh = producer._producer
        producer._replace(failed)
        assert producer._producer is fresh is not None

    with_producer(deployment, use)


def test_everything_ends_within_its_time_while_the_broker_is_frozen(deployment: Deployment) -> None:
    """An append, a check and the end itself, with a producer that was connected and with one that was not."""

    async def use(producer: Producer) -> None:
        await producer.append([(0, event(1))])
        deployment.broker.pause()
        for call, bound_s in (
            (producer.append([(0, event(2))]), APPEND_TIMEOUT_S),
            (producer.check(), CHECK_TIMEOUT_S),
        ):
            started_s = time.monotonic()
            with pytest.raises((KafkaError, TimeoutError, OSError)):
                await call
            assert time.monotonic() - started_s < bound_s + 1

    try:
        assert with_producer(deployment, use) < 2 * kafka_producer._STOP_TIMEOUT_S + 1
    finally:
        deployment.broker.resume()
