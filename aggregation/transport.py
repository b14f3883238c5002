"""A Faust transport whose messages are whole batches.

Stock Faust spends some 60 us on each record. Here the consumer cuts a partition's records into batches as they are
fetched, and hands each batch on as one message: its offset is that of the batch's last record, so acknowledgements,
commits, rebalances and back-pressure are Faust's own and work on batches.

Owns where reading starts: behind the last batch that is stored, as ClickHouse knows it, and never where the consumer
group's committed offset is. That offset is written for those who watch the group, and decides nothing.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any

from aiokafka.structs import TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from aggregation.batch import Cutter
from schemas.configuration import ConfigurationError, Fault


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"  # noqa: SLF001  what an aborted transaction left is no event
        return consumer

    def positions(self, tp: TP) -> tuple[int, int] | None:
        """Up to which offset a partition was fetched, and where it ended then. None before the first fetch.

        It ends before the first transaction that is open: where some overlap all the time, it is never read further.
        """
        subscription = self._ensure_consumer()._subscription.subscription  # noqa: SLF001
        assignment = subscription.assignment if subscription else None
        state = assignment.state_value(TopicPartition(tp.topic, tp.partition)) if assignment else None
        if state is None or not state.has_valid_position or state.highwater is None:
            return None
        return state.position, state.highwater if state.lso is None else state.lso

    async def first_offset(self, tp: TP) -> int:
        """The first offset of a partition that the broker still has."""
        offsets = await self.call_thread(self._ensure_consumer().beginning_offsets, [tp])
        return int(offsets[tp])


class BatchConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer, with batches for messages."""

    cutters: dict[TP, Cutter]
    """For each partition that may be read, the cutter that its records go through."""
    stored: dict[TP, int]
    """For each partition, the offset behind its last stored batch: what a commit commits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.cutters, self.stored = {}, {}
        super().__init__(*arguments, **options)

    def at_end(self, tp: TP, end: int | None = None) -> bool:
        """Whether a partition was fetched up to an offset, or to where it ended at the last fetch."""
        positions = self._thread.positions(tp)
        return positions is not None and positions[0] >= (positions[1] if end is None else end)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:  # noqa: ASYNC109  as the base
        """The batches that the next fetched records end."""
        fetched, active = await self._wait_next_records(timeout)
        if fetched is None or self.should_stop:
            return
        generation = self.app.consumer_generation_id
        for tp, records in fetched.items():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return  # a rebalance: reading starts anew, where the stored batches end
            if tp not in self.cutters or not (active is None or tp in active or tp in self._buffered_partitions):
                continue
            self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
            await self._refuse_loss(tp, next((int(part.offsets[0]) for part in records if len(part)), 0))
            for batch in (batch for part in records for batch in self.cutters[tp].cut(part)):
                last = batch.records.last
                yield (
                    tp,
                    ConsumerMessage(
                        tp.topic, tp.partition, last.offset, last.appended_at_ms / 1000.0, 1, (), None, batch, None,
                        0, 0, tp, generation_id=generation,
                    ),
                )  # fmt: skip

    async def _refuse_loss(self, tp: TP, offset: int) -> None:
        """Raise ConfigurationError where records were deleted before they were read: the next one is at this offset.

        Offsets that are missing are the marks of transactions as a rule, so the broker is asked.
        """
        expected = self.cutters[tp].read_offset
        if offset > expected and (first := await self._thread.first_offset(tp)) > expected:
            value = (
                f"partition {tp.partition}: the records {expected} to {first - 1} were deleted before they were stored"
            )
            allowed = "allowed: retention.ms=-1, or longer than workers are ever behind"
            raise ConfigurationError([Fault("Kafka", tp.topic, value, allowed)])

    def on_buffer_full(self, tp: TP) -> None:
        """A full buffer makes the reader wait for room in it; Faust's way is to look away, for a second at a time."""

    def on_buffer_drop(self, tp: TP) -> None:
        """Nothing was held back."""

    async def perform_seek(self) -> None:
        """Read on behind the last stored batch of each partition."""
        assignment = self.assignment()
        for tp, cutter in self.cutters.items():
            if tp in assignment:
                await self.seek(tp, cutter.read_offset)

    async def on_partitions_revoked(self, revoked: Iterable[TP]) -> None:
        """Wait for what is being stored, and commit; then nothing of the partitions is read any more."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self.cutters.pop(tp, None)
            self.stored.pop(tp, None)

    def _new_consumer_thread(self) -> _ConsumerThread:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def _filter_committable_offsets(self, _: Iterable[TP]) -> dict[TP, int]:
        """What to commit: where the stored batches end. Faust's own reckoning from acknowledgements is not needed."""
        self._acked.clear()
        self._acked_index.clear()
        return {tp: offset for tp, offset in self.stored.items() if offset > (self._committed_offset[tp] or 0)}

    async def _add_gap(self, *_: Any) -> None:
        """Offsets between two messages are within a batch, or are no records: there is nothing to wait for."""


class BatchTransport(driver.Transport):  # type: ignore[misc]
    """Faust's aiokafka transport with BatchConsumer."""

    Consumer = BatchConsumer
