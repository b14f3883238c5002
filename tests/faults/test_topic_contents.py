"""What else may stand in a topic, or in what the broker keeps of a consumer group; none of it may change a count."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest

from ingest.pack import identify, pack
from schemas.identity import event_key, partition_of
from stores.clickhouse import query
from tests.faults.conftest import PARTITIONS, Deployment, event
from tests.servers import plain_http


async def transaction(
    producer: AIOKafkaProducer, topic: str, lines: Sequence[bytes], end: Callable[[], Awaitable[Any]] | None
) -> None:
    """Send the lines to their partitions in a transaction; end it with a commit or an abort, or leave it open."""
    await producer.begin_transaction()
    for partition, value in pack(lines, identify(lines), PARTITIONS):
        for line in value.split(b"\n"):
            await producer.send(topic, line, partition=partition)
    await producer.flush()
    if end:
        await end()


def transactional(deployment: Deployment, name: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=deployment.servers.kafka, transactional_id=f"{name}.{deployment.servers.topic}"
    )


def events_stored(deployment: Deployment) -> int:
    return int(query(deployment.system.clickhouse, "SELECT count() FROM events").item())


def test_transactions_count_where_they_are_committed(deployment: Deployment) -> None:
    """Aborted events are none; sent again, they are no duplicates. The marks of transactions leave gaps in offsets."""
    numbers = iter(range(0, 100_000, 100))

    def some() -> list[bytes]:
        start = next(numbers)
        return [event(n) for n in range(start, start + 100)]

    async def transact() -> None:
        async with transactional(deployment, "a") as producer:
            topic = deployment.servers.topic
            for end in (producer.commit_transaction, producer.abort_transaction) * 3:
                lines = some()
                await transaction(producer, topic, lines, end)
                await transaction(producer, topic, lines, producer.commit_transaction)
                await asyncio.to_thread(deployment.append, some())
            await transaction(producer, topic, some(), producer.abort_transaction)

    asyncio.run(transact())
    worker = deployment.worker(kill_at="rollups:8")
    asyncio.run(transact())
    worker.wait_for_end()
    deployment.settle()
    assert deployment.check() == {"events": 2400, "duplicates": 600, "rejections": 0}


def test_an_open_transaction_holds_up_what_follows_it(deployment: Deployment) -> None:
    """Nothing of it counts before its end, and everything after it."""
    deployment.worker()
    deployment.append([event(n) for n in range(50)])
    deployment.settle()

    async def transact() -> None:
        async with transactional(deployment, "a") as producer:
            await transaction(producer, deployment.servers.topic, [event(n) for n in range(50, 150)], None)
            await asyncio.to_thread(deployment.append, [event(n) for n in range(100, 200)])
            await asyncio.sleep(3)  # there is no event that says that nothing happens
            assert events_stored(deployment) == 50
            await producer.commit_transaction()

    asyncio.run(transact())
    deployment.settle()
    assert deployment.check() == {"events": 200, "duplicates": 50, "rejections": 0}


def test_transactions_that_overlap_without_end_do_not_hold_up_what_came_before(deployment: Deployment) -> None:
    """There is always one that is open, so that the topic is never read to its very end; fresh events show all the same."""
    #   a  [------)  [------)  [------)
    #   b      [------)  [------)  [----
    deployment.worker()
    deployment.settle()

    async def transact(producer: AIOKafkaProducer, numbers: range) -> None:
        for start in numbers:
            await transaction(producer, deployment.servers.topic, [event(n) for n in range(start, start + 8)], None)
            await asyncio.sleep(1)
            await producer.commit_transaction()

    async def overlapping() -> int:
        async with transactional(deployment, "a") as a, transactional(deployment, "b") as b:
            first = asyncio.create_task(transact(a, range(0, 160, 16)))
            await asyncio.sleep(0.5)
            second = asyncio.create_task(transact(b, range(8, 168, 16)))
            await first
            stored = await asyncio.to_thread(events_stored, deployment)
            await second
            return stored

    stored = asyncio.run(overlapping())
    deployment.settle()
    assert deployment.check()["events"] == 160
    assert stored > 60


def group(deployment: Deployment) -> str:
    return f"meterline.{deployment.servers.topic}"


async def commit(deployment: Deployment, offsets: dict[int, int]) -> None:
    """Let the group's committed offsets be these, once the broker has noticed that its last member is gone."""
    topic = deployment.servers.topic
    consumer = AIOKafkaConsumer(
        bootstrap_servers=deployment.servers.kafka, group_id=group(deployment), enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in offsets])
        await until_allowed(
            lambda: consumer.commit({TopicPartition(topic, number): offset for number, offset in offsets.items()})
        )
    finally:
        await consumer.stop()


async def forget(deployment: Deployment) -> None:
    """Delete the group, and all that it has committed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers.kafka)
    await admin.start()

    async def delete() -> None:
        node = await admin.find_coordinator(group(deployment))
        answer = await admin._send_request_to_node(node, DeleteGroupsRequest([group(deployment)]))
        for _, code in answer.results:
            if code:
                raise KafkaError(code)

    try:
        await until_allowed(delete)
    finally:
        await admin.close()


async def until_allowed(attempt: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await attempt()
            except KafkaError:
                await asyncio.sleep(0.5)


async def committed(deployment: Deployment) -> dict[int, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers.kafka)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(group(deployment))
        return {tp.partition: each.offset for tp, each in offsets.items()}
    finally:
        await admin.close()


@pytest.mark.parametrize("where", ["a batch behind", "within a batch", "ahead", "beyond the end", "nowhere"])
def test_the_committed_offset_decides_nothing(deployment: Deployment, where: str) -> None:
    """Wherever the group's offset stands, a worker goes on behind the last stored batch."""
    worker = deployment.worker()
    deployment.append([event(n) for n in range(2000)])
    deployment.settle()
    stored = dict(deployment.system.follower.offsets())
    worker.stop()
    deployment.append([event(n) for n in range(1500, 3500)], single=True)
    before = query(
        deployment.system.clickhouse, "SELECT partition, max(first_offset) FROM progress GROUP BY partition"
    ).rows()
    if where == "nowhere":
        asyncio.run(forget(deployment))
    else:
        offsets = {
            "a batch behind": dict(before),
            "within a batch": {number: offset + 7 for number, offset in stored.items()},
            "ahead": {number: offset + 300 for number, offset in stored.items()},
            "beyond the end": {number: offset + 100_000 for number, offset in stored.items()},
        }[where]  # fmt: skip
        asyncio.run(commit(deployment, offsets))
    deployment.worker()
    deployment.settle()
    assert deployment.check() == {"events": 3500, "duplicates": 500, "rejections": 0}
    deadline_s = time.monotonic() + 20
    while asyncio.run(committed(deployment)) != deployment.system.follower.offsets():
        assert time.monotonic() < deadline_s, (asyncio.run(committed(deployment)), deployment.system.follower.offsets())
        time.sleep(0.5)  # a commit comes some seconds later, and nobody waits for it


def test_records_that_were_deleted_before_they_were_stored_are_missed(deployment: Deployment) -> None:
    """Retention that is shorter than a backlog: the worker ends and says what is lost, where a gap would pass unseen."""
    worker = deployment.worker()
    deployment.append([event(n) for n in range(1000)])
    deployment.settle()
    worker.stop()
    deployment.append([event(n) for n in range(1000, 1400)], single=True)
    stored = deployment.system.follower.offsets()[2]

    async def delete() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers.kafka)
        await admin.start()
        await admin.delete_records({TopicPartition(deployment.servers.topic, 2): RecordsToDelete(stored + 30)})
        await admin.close()

    asyncio.run(delete())
    worker = deployment.worker()
    assert worker.wait_for_end() == 1
    lost = f"partition 2: the records {stored} to {stored + 29} were deleted before they were stored"
    assert lost in worker.log.read_text()
    assert deployment.system.follower.offsets()[2] == stored


def test_a_first_start_over_a_backlog(deployment: Deployment) -> None:
    """Tens of thousands of events in two hundred batches wait when the group comes for the first time."""
    for start in range(0, 30_000, 5000):
        deployment.append([event(n) for n in range(start, start + 6000)])
    deployment.worker()
    deployment.settle(180)
    assert deployment.check() == {"events": 31_000, "duplicates": 5000, "rejections": 0}


def test_an_event_in_another_partition_counts_and_shows(deployment: Deployment) -> None:
    """Its copy in its own partition counts again, unnoticed; so the metric says that there are such events."""
    worker = deployment.worker()
    deployment.append([event(n) for n in range(20)])
    deployment.settle()
    stray = partition_of(event_key("default", "/s", "5"), PARTITIONS) + 1
    deployment.system.log.append([(stray % PARTITIONS, b"\n".join([event(5), event(5)]))])
    deployment.settle()
    assert deployment.check() == {"events": 21, "duplicates": 1, "rejections": 0}
    metrics = plain_http.get(f"http://127.0.0.1:{worker.port}/metrics", timeout=5).text
    assert re.findall(r"^meterline_misplaced_total (.*)$", metrics, re.MULTILINE) == ["2.0"]
