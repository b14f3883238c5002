"""The producer of a topic, for one event loop.

Owns that a return from `send` means that every in-sync replica has the records (acks=all, idempotent producer), and
that a broker which is away is an error within a bound, never a wait without end. A producer that failed is replaced:
what it still holds may be stored later or never, and only a fresh one starts from a known state.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, LeaderNotAvailableError, NodeNotReadyError

from schemas.log import Flush, punctuation_key
from stores.servers import Servers

APPEND_TIMEOUT_S = 5.0
RECORD_BYTES_MAX = 2 << 20  # an event has at most 1 MiB, as a rule, and a packed record less
EVENT_BYTES_MAX = RECORD_BYTES_MAX - 1024  # beside it, a record has only its frame
CHECK_TIMEOUT_S = 3.0
_STOP_TIMEOUT_S = 2.0

logger = logging.getLogger(__name__)


class Producer:
    """Writes to the partitions of a topic. Belongs to the event loop that first uses it."""

    def __init__(self, servers: Servers, partitions: int) -> None:
        self._servers = servers
        self._partitions = partitions
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()

    async def append(self, records: Iterable[tuple[int, bytes]]) -> None:
        """Add (partition, value) records. On return they are durable.

        Raises TimeoutError, OSError or KafkaError within APPEND_TIMEOUT_S; then some of them may be in the log.
        """
        await self.send([(partition, None, value) for partition, value in records])

    async def send(self, records: Sequence[tuple[int, bytes | None, bytes | None]]) -> dict[int, int]:
        """Add (partition, key, value) records; returns, for each partition, the offset behind its last one.

        Raises as `append` does.
        """
        sent: list[asyncio.Future[Any]] = []
        async with self._within(APPEND_TIMEOUT_S) as producer:
            try:
                for partition, key, value in records:
                    sending = producer.send(self._servers.topic, value=value, key=key, partition=partition)
                    sent.append(await sending)
                return {stored.partition: stored.offset + 1 for stored in await asyncio.gather(*sent)}
            finally:
                for each in sent:
                    each.cancel()  # after an error nobody waits for the others; that does not take a record back

    async def check(self) -> None:
        """Ask the brokers whether every partition has a leader; writes nothing.

        Raises TimeoutError, OSError or KafkaError within CHECK_TIMEOUT_S when one has none, or nobody answers.
        """
        async with self._within(CHECK_TIMEOUT_S) as producer:
            if not await producer.client.force_metadata_update():
                raise NodeNotReadyError("no broker answers")
            led = producer.client.cluster.available_partitions_for_topic(self._servers.topic) or set()
            if missing := sorted(set(range(self._partitions)) - led):
                raise LeaderNotAvailableError(f"no leader for the partitions {missing} of {self._servers.topic}")

    async def prove(self) -> None:
        """Show that every partition takes records again, with one that changes nothing: the end of a batch.

        Raises as `append` does.
        """
        await self.check()
        await self.send([(partition, punctuation_key(Flush()), None) for partition in range(self._partitions)])

    async def close(self) -> None:
        """Give up the connections."""
        self._replace(self._producer)
        await asyncio.gather(*self._stopping)

    @asynccontextmanager
    async def _within(self, timeout_s: float) -> AsyncIterator[AIOKafkaProducer]:
        """The producer, for so long. One whose user fails is replaced."""
        producer = None
        try:
            async with asyncio.timeout(timeout_s):
                producer = await self._started()
                yield producer
        except (KafkaError, TimeoutError, OSError):
            self._replace(producer)
            raise

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers.kafka,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="lz4",
                    max_batch_size=1 << 20,
                    max_request_size=RECORD_BYTES_MAX,
                    request_timeout_ms=int(APPEND_TIMEOUT_S * 1000),
                )
                try:
                    await producer.start()
                    await producer.partitions_for(self._servers.topic)
                except BaseException:
                    self._drop(producer)
                    raise
                self._producer = producer
            return self._producer

    def _replace(self, failed: AIOKafkaProducer | None) -> None:
        """Let the next user start a fresh one, unless another user has done so."""
        if failed is not None and failed is self._producer:
            self._producer = None
            self._drop(failed)

    def _drop(self, producer: AIOKafkaProducer) -> None:
        stopping = asyncio.get_running_loop().create_task(_stop(producer))
        self._stopping.add(stopping)
        stopping.add_done_callback(self._stopping.discard)


async def _stop(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await producer.stop()
    except (KafkaError, TimeoutError, OSError):
        logger.warning("a producer did not stop in time; what it held was not acknowledged", exc_info=True)
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await producer._sender.close()  # noqa: SLF001  what stop() would have gone on with, behind its flush
                await producer.client.close()
        except (KafkaError, TimeoutError, OSError):
            logger.warning("its requests did not end either", exc_info=True)
