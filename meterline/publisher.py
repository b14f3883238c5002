"""Who tells others of what happens: in `meterline serve` beside the server, in a deployment a process of its own.

Run as many as you like: an event is in one's hands at a time, and what one had when it died the others send again.
"""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa
from aiokafka.errors import KafkaError

from invoicing.deliveries.app import Sender
from invoicing.outbox.app import AWAY_INTERVAL, TOPIC, Publisher
from meterline.idempotency import forget_keys
from meterline.webhooks import private_allowed
from stores.kafka_producer import Producer
from stores.kafka_topics import topic_partitions
from stores.postgres import engine_for, migrate
from stores.servers import Servers

FORGET_INTERVAL_S = 3600

logger = logging.getLogger(__name__)


@asynccontextmanager
async def sending_webhooks(database: sa.Engine) -> AsyncIterator[None]:
    """Send webhooks in the background, and forget old idempotency keys, until the end."""
    sender = Sender(database, private_allowed=private_allowed(os.environ))
    async with sender.running():
        tasks = [asyncio.create_task(sender.run()), asyncio.create_task(_forget_again(database))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def run_publisher(servers: Servers, *, once: bool, partitions: int, replication: int) -> int:
    """Publish to Kafka and to webhooks until a signal, or what is due now; returns the process's exit status."""
    database = engine_for(servers.postgres)
    try:
        migrate(database)
        told = replace(servers, topic=TOPIC)
        asyncio.run(
            _publish_once(database, told, partitions, replication) if once
            else _publish(database, told, partitions, replication)
        )  # fmt: skip
    finally:
        database.dispose()
    return 0


async def _publish(database: sa.Engine, servers: Servers, partitions: int, replication: int) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with sending_webhooks(database):
        logger.info("publishing to %s and to webhooks", servers.topic)
        to_kafka = asyncio.create_task(_publish_to_kafka(database, servers, partitions, replication))
        waiting = asyncio.create_task(stopped.wait())
        done, _ = await asyncio.wait([to_kafka, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in (to_kafka, waiting):
            task.cancel()
        await asyncio.gather(to_kafka, waiting, return_exceptions=True)
        if to_kafka in done:
            to_kafka.result()  # it ends by a failure alone


async def _publish_to_kafka(database: sa.Engine, servers: Servers, partitions: int, replication: int) -> None:
    while True:
        try:
            there = await topic_partitions(servers, partitions=partitions, replication=replication)
            break
        except (KafkaError, OSError) as error:
            logger.warning("events wait for Kafka: %s", type(error).__name__)
            await asyncio.sleep(AWAY_INTERVAL.total_seconds())
    producer = Producer(servers, there)
    try:
        await Publisher(database, producer, there).run()
    finally:
        await producer.close()


async def _publish_once(database: sa.Engine, servers: Servers, partitions: int, replication: int) -> None:
    there = await topic_partitions(servers, partitions=partitions, replication=replication)
    producer = Producer(servers, there)
    sender = Sender(database, private_allowed=private_allowed(os.environ))
    try:
        async with sender.running():
            published = await Publisher(database, producer, there).publish_all()
            sent = await sender.send_due()
    finally:
        await producer.close()
    logger.info("published %d events, sent %d webhooks", published, sent)


async def _forget_again(database: sa.Engine) -> None:
    def forget() -> int:
        with database.begin() as connection:
            return forget_keys(connection, datetime.now(UTC))

    while True:
        try:
            await asyncio.to_thread(forget)
        except sa.exc.DBAPIError as error:
            logger.warning("old idempotency keys stay for now: %s", type(error).__name__)
        await asyncio.sleep(FORGET_INTERVAL_S)
