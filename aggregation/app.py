"""The Faust worker: batches from the log, folded and stored one after another.

    faust -A aggregation.app worker          (or `meterline worker`), with the servers named in the environment

Crash-only: what cannot be stored after a few tries ends the process, at once and with status 1; whoever supervises it
starts it again, and it goes on behind the last stored batch. Owns that a batch is acknowledged, and its offset
committed, only after all of it is stored.
"""

import stores.memory  # noqa: F401, I001  before polars

import asyncio
import gc
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import faust
from aiohttp import web
from faust.tables import TableManager
from faust.types import TP
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from aggregation.batch import Batch, FlushTimer
from aggregation.fold_batch import FoldedBatch
from aggregation.health import Health
from aggregation.metrics import DEDUP_BYTES, DEDUP_KEYS, FRESHNESS_SECONDS
from aggregation.store import Partition, stored_offsets
from aggregation.transport import BatchTransport
from schemas.configuration import ConfigurationError, Fault
from schemas.log import Flush
from stores.clickhouse import open_clickhouse
from stores.faults import reached
from stores.kafka_log import open_log
from stores.kafka_records import fetch_columns
from stores.postgres import engine_for
from stores.servers import Servers, servers_of

FLUSH_INTERVAL_S = 1.0
FLUSH_POLL_S = 0.1
WATCH_INTERVAL_S = 2.0
BATCHES_AHEAD = 2  # waiting to be folded, in each partition
STORED_AT_ONCE = 2  # batches of different partitions: the engine's part of an insert is one thread's work

logger = logging.getLogger(__name__)


def __getattr__(name: str) -> Any:
    """The application, for `faust -A aggregation.app`: made of the environment, when it is asked for."""
    if name != "app":
        raise AttributeError(name)
    servers = servers_of(os.environ)
    if servers is None:
        allowed = "allowed: METERLINE_KAFKA, METERLINE_CLICKHOUSE and METERLINE_POSTGRES"
        raise ConfigurationError([Fault("environment", "METERLINE_KAFKA", "not set", allowed)])
    return worker_app(servers, name=os.environ.get("METERLINE_WORKER"))


def worker_app(servers: Servers, *, name: str | None = None, port: int = 6066) -> faust.App:
    """A worker of the group. One with a `name` (static membership) takes its partitions up again after a restart.

    Raises ConfigurationError when the log is not made yet.
    """
    app = faust.App(
        f"meterline.{servers.topic}",
        broker=f"kafka://{servers.kafka}",
        store="memory://",
        TableManager=_NoTables,
        datadir=str(Path(gettempdir()) / "meterline"),  # Faust makes one, and nothing stands in it
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_buffer_maxsize=BATCHES_AHEAD,
        broker_commit_interval=1.0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.5,
        broker_rebalance_timeout=60.0,
        broker_request_timeout=30.0,
        consumer_max_fetch_size=2 << 20,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=name,
        # Faust asserts that a member's address is the one it joined with; one that comes back elsewhere has another
        canonical_url=f"http://{name}" if name else None,
        consumer_metadata_max_age_ms=10_000,
        web_port=port,
        web_bind="0.0.0.0",  # noqa: S104  metrics and health, nothing else: Faust's own pages are switched off below
    )
    fetch_columns()
    app.transport = BatchTransport(app.conf.broker, app)
    _Worker(app, servers)
    return app


class _NoTables(TableManager):  # type: ignore[misc]
    """Faust's tables, of which we have none. Faust waits a second of each start for those that are declared late."""

    async def on_start(self) -> None:
        """Go on at once."""
        await self._update_channels()
        await self.recovery.start()


class _Worker:
    """What the application's hooks share: the stores, and the partitions that are assigned now."""

    def __init__(self, app: faust.App, servers: Servers) -> None:
        self._app = app
        self._servers = servers
        self._clients = [open_clickhouse(servers.clickhouse) for _ in range(STORED_AT_ONCE)]
        self._log = open_log(engine_for(servers.postgres), servers)
        self._partitions: dict[int, Partition] = {}
        self._timers: dict[int, FlushTimer] = {}
        self._storing: dict[int, asyncio.Future[None]] = {}
        self._may_store = asyncio.Semaphore(STORED_AT_ONCE)
        self.health = Health()
        topic = app.topic(servers.topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
        app.agent(topic, name="aggregate")(self.aggregate)
        app.on_rebalance_complete.connect(self.on_assigned, weak=False)
        app.timer(FLUSH_POLL_S, name="flush")(self.flush)
        app.timer(WATCH_INTERVAL_S, name="watch")(self.watch)
        for path, view in (("/metrics", self.metrics), ("/healthz", self.healthz), ("/readyz", self.readyz)):
            app.page(path, name=path[1:])(view)

    async def on_assigned(self, *_: Any, **__: Any) -> None:
        """Take up the partitions that are assigned now, each behind its last stored batch."""
        try:
            await asyncio.to_thread(self._take_up, {tp.partition for tp in self._app.consumer.assignment()})
        except Exception as error:  # noqa: BLE001  crash-only
            _end(error)
        for number, partition in self._partitions.items():
            tp = TP(self._servers.topic, number)
            self._app.consumer.cutters[tp] = partition.cutter()
            self._app.consumer.stored[tp] = partition.state.next_offset
        gc.freeze()  # what lives now lives long; collections need not look at it
        stored = {number: partition.state.next_offset for number, partition in self._partitions.items()}
        self.health.assigned(stored, time.time())

    def _take_up(self, numbers: set[int]) -> None:
        stored = stored_offsets(self._clients[0], self._log.log_id)
        kept = {
            number: partition
            for number, partition in self._partitions.items()
            # a state is a function of the log up to its offset: where that is still the end, it is still right
            if number in numbers and partition.state.next_offset == stored.get(number, 0)
        }
        with ThreadPoolExecutor(STORED_AT_ONCE) as loading:
            loaded = loading.map(self._load, new := sorted(numbers - kept.keys()))
            self._partitions = kept | dict(zip(new, loaded, strict=True))
        self._timers = {number: FlushTimer(FLUSH_INTERVAL_S) for number in numbers}
        for gauge in (DEDUP_KEYS, DEDUP_BYTES):
            gauge.clear()  # of the partitions that are another worker's now
        for partition in self._partitions.values():
            partition.measure_index()

    def _load(self, number: int) -> Partition:
        return Partition(self._clients[number % STORED_AT_ONCE], self._log, number)

    async def aggregate(self, batches: faust.StreamT[Batch]) -> None:
        """Fold a batch while those before it are being stored; a partition's are stored in the order of the log."""
        async for event in batches.noack().events():
            batch: Batch = event.value
            number = event.message.partition
            partition = self._partitions.get(number)
            if partition is None or batch.start != partition.state.next_offset:
                event.ack()  # left over from before a rebalance: it is read again, by whoever has the partition now
                continue
            try:
                folded = await asyncio.to_thread(partition.fold, batch)
                if number in self._storing:
                    await self._storing[number]
                await self._may_store.acquire()
                self._storing[number] = asyncio.ensure_future(self._store(partition, folded, event))
                if partition.must_reload:
                    await self._storing[number]
                    await asyncio.to_thread(partition.reload)
            except Exception as error:  # noqa: BLE001  crash-only
                _end(error)

    async def _store(self, partition: Partition, folded: FoldedBatch, event: faust.EventT) -> None:
        try:
            await asyncio.to_thread(partition.store, folded)
        except Exception as error:  # noqa: BLE001  crash-only
            _end(error)
        self._may_store.release()
        tp = event.message.tp
        if tp in self._app.consumer.cutters:
            self._app.consumer.stored[tp] = folded.state.next_offset
        event.ack()
        appended_at_s = event.value.records.appended_at_ms / 1000
        self.health.stored(tp.partition, folded.state.next_offset, float(appended_at_s[-1]), time.time())
        FRESHNESS_SECONDS.observe(time.time() - float(appended_at_s[0]))
        reached("commit")

    async def flush(self) -> None:
        """End the batches that have waited for long, in partitions that are read to their end."""
        due = [
            number
            for number, timer in self._timers.items()
            if (cutter := self._app.consumer.cutters.get(tp := TP(self._servers.topic, number)))
            and self._app.consumer.at_end(tp)
            and timer.due(cutter, time.monotonic())
        ]
        if due:
            try:
                await asyncio.to_thread(self._log.punctuate, Flush(), due)
            except Exception:  # the broker is away: the timer asks again
                logger.warning("no flush record was written to the partitions %s", due, exc_info=True)

    async def watch(self) -> None:
        """Ask the broker, not the fetcher, where the partitions end: a fetcher that is stuck would not know."""
        consumer = self._app.consumer
        try:
            ends = await asyncio.wait_for(consumer.highwaters(*consumer.cutters), timeout=WATCH_INTERVAL_S)
        except Exception:  # health says so when it lasts
            logger.warning("the broker does not say where the log ends", exc_info=True)
            return
        stored = consumer.stored
        read_out = {  # what follows the last batch is no record, but the mark of a transaction
            tp for tp, cutter in consumer.cutters.items()
            if consumer.at_end(tp, ends[tp]) and not cutter.holds and cutter.start == stored[tp]
        }  # fmt: skip
        self.health.watched(
            {tp.partition: stored[tp] if tp in read_out else end for tp, end in ends.items() if tp in stored},
            time.time(),
        )

    async def metrics(self, _: web.Request) -> web.Response:
        """The metrics, as Prometheus reads them."""
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(self, _: web.Request) -> web.Response:
        """Whether the process does its work: 503 where records wait and nothing is stored."""
        return self._answer(self.health.faults(time.time()))

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether it has partitions, and does its work."""
        return self._answer(self.health.faults(time.time(), ready=True))

    def _answer(self, faults: list[str]) -> web.Response:
        return web.json_response({"status": "; ".join(faults) or "ok"}, status=503 if faults else 200)


def _end(error: BaseException) -> None:
    logger.critical("the worker ends: %s", error, exc_info=error)
    logging.shutdown()
    os._exit(1)  # at once: an orderly stop would wait for the batch that cannot be stored
