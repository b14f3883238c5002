"""The log as a Kafka topic. What a confirmed append means is in kafka_producer.py.

Owns that a topic and the log's rows in PostgreSQL belong together.
"""

import asyncio
import threading
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from schemas.configuration import ConfigurationError, Fault
from schemas.log import Punctuation, punctuation_key
from stores.kafka_producer import RECORD_BYTES_MAX, Producer
from stores.log import Log
from stores.servers import Servers

_Result = TypeVar("_Result")


class KafkaLog(Log):
    """Append to a topic, from any thread: the producer has a thread of its own."""

    def __init__(self, engine: sa.Engine, log_id: str, partitions: int, servers: Servers) -> None:
        super().__init__(engine, log_id, partitions)
        self._producer = Producer(servers, partitions)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="producer", daemon=True)
        self._thread.start()

    def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records. On return they are durable.

        Raises TimeoutError, OSError or KafkaError within APPEND_TIMEOUT_S; then some of them may be in the log.
        """
        self._run(self._producer.append(records))

    def punctuate(self, punctuation: Punctuation, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """Write punctuation to partitions, or to all; returns, for each, the offset behind it."""
        key = punctuation_key(punctuation)
        return self._run(self._producer.send([(each, key, None) for each in partitions or range(self.partitions)]))

    def close(self) -> None:
        """Give up the connections."""
        self._run(self._producer.close())
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


def open_log(engine: sa.Engine, servers: Servers) -> KafkaLog:
    """The log of this database, whose records are in the servers' topic.

    Raises ConfigurationError when the log is not made yet, or is another one.
    """
    with engine.connect() as connection:
        known = connection.execute(sa.text("SELECT log_id, topic FROM log")).one_or_none()
        partitions: int = connection.execute(sa.text("SELECT count(*) FROM log_partitions")).scalar_one()
    if known is None or known.topic != servers.topic:
        value = "no log" if known is None else f"the log of the topic {known.topic}" if known.topic else "embedded log"
        allowed = "allowed: a log that `meterline topics create` made"
        raise ConfigurationError([Fault("PostgreSQL", servers.topic, value, allowed)])
    log = KafkaLog(engine, known.log_id, partitions, servers)
    log.publish()
    return log


def create_topic(
    engine: sa.Engine, servers: Servers, *, partitions: int, replication: int, replace_lost_log: bool
) -> KafkaLog:
    """Make the topic and the log in it. A topic and a log that are there already are left as they are.

    The records' time is the broker's (LogAppendTime): by event time, retention would delete late events. Records are
    kept for ever; who wants less sets `retention.ms` of the topic, to no less than rollups may need to be rebuilt from.
    With `replace_lost_log`, a topic that was deleted is followed by a new log: it shares no place, no insert token
    and no duplicate with the old one, whose usage stays.

    Raises ConfigurationError when topic and log do not belong together.
    """
    with engine.begin() as connection:
        connection.execute(sa.text("LOCK TABLE log IN EXCLUSIVE MODE"))
        known = connection.execute(sa.text("SELECT log_id, topic FROM log")).one_or_none()
        found = asyncio.run(_found(servers))
        faults = []
        if known is None and found and not found.usable:
            allowed = (
                "allowed: no topic, or one without records, with message.timestamp.type=LogAppendTime and"
                f" max.message.bytes of at least {RECORD_BYTES_MAX}"
            )
            faults = [Fault("Kafka", servers.topic, "a topic that no log is known of", allowed)]
        if known is not None and known.topic != servers.topic:
            allowed = "allowed: one log a database"
            faults = [Fault("PostgreSQL", servers.topic, f"has the log {known.topic or 'of an embedded run'}", allowed)]
        if known is not None and not found and not replace_lost_log:
            allowed = "restore the topic, or begin a new log with --replace-lost-log; usage stored so far stays"
            faults = [Fault("Kafka", servers.topic, "the topic is lost", allowed)]
        if faults:
            raise ConfigurationError(faults)
        if known is None or not found:
            connection.execute(sa.text("DELETE FROM log"))
            connection.execute(sa.text("DELETE FROM log_partitions"))
            connection.execute(
                sa.text("INSERT INTO log (log_id, topic) VALUES (:log_id, :topic)"),
                {"log_id": uuid.uuid4().hex, "topic": servers.topic},
            )
            connection.execute(
                sa.text("INSERT INTO log_partitions (partition) SELECT generate_series(0, :count - 1)"),
                {"count": found.partitions if found else partitions},
            )
            if not found:
                asyncio.run(_create(servers, partitions, replication))
    return open_log(engine, servers)


@dataclass(frozen=True)
class _Found:
    """A topic that is there. It is usable for a new log if it is empty, has the broker's time and takes all events."""

    partitions: int
    usable: bool


async def _found(servers: Servers) -> _Found | None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    consumer = AIOKafkaConsumer(bootstrap_servers=servers.kafka)
    try:
        await admin.start()
        await consumer.start()
        if servers.topic not in await admin.list_topics():
            return None
        (topic,) = await admin.describe_topics([servers.topic])
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, servers.topic)])
        settings = {name: value for _, _, _, _, entries in answer.resources for name, value, *_ in entries}
        partitions = [TopicPartition(servers.topic, each["partition"]) for each in topic["partitions"]]
        empty = not any((await consumer.end_offsets(partitions)).values())
        timed = settings["message.timestamp.type"] == "LogAppendTime"
        return _Found(len(partitions), empty and timed and int(settings["max.message.bytes"]) >= RECORD_BYTES_MAX)
    finally:
        await consumer.stop()
        await admin.close()


async def _create(servers: Servers, partitions: int, replication: int) -> None:
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(RECORD_BYTES_MAX),
        "min.insync.replicas": str(max(1, replication - 1)),
        "unclean.leader.election.enable": "false",
    }
    topic = NewTopic(servers.topic, partitions, replication, topic_configs=settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers.kafka)
    try:
        await admin.start()
        answer = await admin.create_topics([topic])
        for _, code, *message in answer.topic_errors:
            if code:
                allowed = "allowed: what the brokers accept"
                raise ConfigurationError(
                    [Fault("Kafka", servers.topic, for_code(code).__name__, f"{message}; {allowed}")]
                )
    finally:
        await admin.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
