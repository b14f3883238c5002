"""Publishes the outbox to a topic of Kafka.

Owns that the position moves only behind what all in-sync replicas have. Killed at any moment, it has lost nothing, and
sends some events again: a consumer knows them by their ids.
"""

import asyncio
import logging
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from aiokafka.errors import KafkaError

from invoicing.outbox import store
from schemas.domain_event import StoredEvent
from schemas.identity import partition_of
from stores.kafka_producer import Producer

CONSUMER = "kafka"
TOPIC = "billing.events"
EVENTS_PER_SEND = 500
POLL_INTERVAL = timedelta(milliseconds=500)
AWAY_INTERVAL = timedelta(seconds=2)

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes what was emitted, a tenant after the other. Belongs to the event loop of its producer."""

    def __init__(self, database: sa.Engine, producer: Producer, partitions: int) -> None:
        self._database = database
        self._producer = producer
        self._partitions = partitions

    async def run(self) -> None:
        """Publish what comes, until cancelled. While Kafka or PostgreSQL is away, it waits for them."""
        while True:
            try:
                moved = await self.turn()
            except (sa.exc.DBAPIError, KafkaError, OSError) as error:
                logger.warning("events wait for %s: %s", TOPIC, type(error).__name__)
                await asyncio.sleep(AWAY_INTERVAL.total_seconds())
                continue
            if not moved:
                await asyncio.sleep(POLL_INTERVAL.total_seconds())

    async def publish_all(self) -> int:
        """Publish all there is; returns how many events that were."""
        published = 0
        while moved := await self.turn():
            published += moved
        return published

    async def turn(self) -> int:
        """Publish the next events of each tenant; returns how many. Raises SQLAlchemyError, KafkaError or OSError."""
        loop = asyncio.get_running_loop()
        return sum([await asyncio.to_thread(self._publish, tenant, loop) for tenant in await self._behind()])

    async def _behind(self) -> list[str]:
        def read() -> list[str]:
            with self._database.connect() as connection:
                return store.behind(connection, CONSUMER)

        return await asyncio.to_thread(read)

    def _publish(self, tenant: str, loop: asyncio.AbstractEventLoop) -> int:
        """Send and advance in one transaction, which keeps others from the tenant's position meanwhile."""
        with self._database.begin() as connection:
            position = store.next_position(connection, CONSUMER, tenant)
            if position is None:
                return 0
            events = store.events_after(connection, tenant, position, EVENTS_PER_SEND)
            if not events:
                return 0
            sending: Any = self._producer.send([self.record_of(event) for event in events])
            asyncio.run_coroutine_threadsafe(sending, loop).result()
            store.advance(connection, CONSUMER, tenant, events[-1].sequence)
            return len(events)

    def record_of(self, event: StoredEvent) -> tuple[int, bytes, bytes]:
        """Partition, key and value: all events of an object stand in one partition, in their order."""
        key = f"{event.tenant}|{event.object_id}".encode()
        return partition_of(key, self._partitions), key, event.body()
