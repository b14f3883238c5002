"""How many events a second go into the outbox, and how many webhooks a second out of it, to receivers on this machine.

    python -m benchmarks.outbox [--events 1000000] [--webhooks 5000]

The events are those of posted invoices, in one transaction; then the same again, which adds none. The receiver is a
process of its own that answers 204 at once; webhooks go to one endpoint, and then to eight. All is counted: in the
outbox, and at the receiver.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa
from aiohttp import ClientSession, web

from benchmarks.report import peak_memory_mib, report
from invoicing.deliveries.app import Sender
from invoicing.outbox.events import finalized
from invoicing.outbox.store import emit_frame
from invoicing.webhooks.signatures import secret_text
from invoicing.webhooks.store import create_endpoint
from schemas.webhook import NewEndpoint
from stores.postgres import embedded_server, engine_for, migrate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINTS = 8


def invoices(count: int, tenant: str) -> pl.DataFrame:
    """Posted invoices, as far as their events say something of them."""
    row = pl.int_range(count, dtype=pl.Int64)
    return pl.select(
        pl.format("{}{}", pl.lit(tenant), row).alias("id"),
        pl.lit(tenant).alias("tenant"),
        pl.format("C{}", row).alias("customer"),
        pl.format("Customer {}", row).alias("customer_name"),
        pl.lit("2026-01").alias("period"),
        pl.format("INV-{}", row).alias("number"),
        pl.lit("USD").alias("currency"),
        pl.lit(2, pl.Int64).alias("minor_units"),
        (row * 100).alias("subtotal_minor"),
        (row * 19).alias("tax_minor"),
        (row * 119).alias("total_minor"),
        pl.lit(NOW, pl.Datetime("us", "UTC")).alias("issued_at"),
        pl.lit(None, pl.Date).alias("due_on"),
        pl.lit(1, pl.Int64).alias("version"),
    )


def run(events: int, webhooks: int) -> dict[str, Any]:
    """Emit so many events, and deliver so many webhooks, twice; the rates."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where we are root
        with embedded_server(Path(folder) / "postgres") as url:
            database = engine_for(url)
            try:
                migrate(database)
                result = _emitted(database, events)
                with _receiver() as target:
                    one = asyncio.run(_delivered(database, target, webhooks, 1))
                    eight = asyncio.run(_delivered(database, target, webhooks, ENDPOINTS))
            finally:
                database.dispose()
    return {
        **result, "webhooks": webhooks, "webhooks_per_second_to_one": one, f"webhooks_per_second_to_{ENDPOINTS}": eight,
        "peak_memory_mib": peak_memory_mib(),
    }  # fmt: skip


def _emitted(database: sa.Engine, events: int) -> dict[str, Any]:
    frame, seconds = finalized(invoices(events, "a")), []
    for expected in (events, 0):
        started = time.perf_counter()
        with database.begin() as connection:
            assert emit_frame(connection, frame) == expected
        seconds.append(time.perf_counter() - started)
    return {
        "events": events, "events_per_second": round(events / seconds[0]),
        "known_events_per_second": round(events / seconds[1]),
    }  # fmt: skip


async def _delivered(database: sa.Engine, target: str, webhooks: int, endpoints: int) -> int:
    """Webhooks a second to so many endpoints, from the outbox to the noted answer."""
    tenant = f"to {endpoints}"
    with database.begin() as connection:
        for number in range(endpoints):
            create_endpoint(
                connection, tenant, NewEndpoint(url=f"{target}/{endpoints}/{number}"),
                endpoint_id=f"we_{endpoints * 100 + number:024x}", secret=secret_text(bytes(32)), now=NOW,
            )  # fmt: skip
        emit_frame(connection, finalized(invoices(webhooks // endpoints, tenant)))
    sender = Sender(database, private_allowed=True)
    async with sender.running():
        started = time.perf_counter()
        made = await sender.send_due()
        seconds = time.perf_counter() - started
    async with ClientSession() as session, session.get(f"{target}/{endpoints}") as answer:
        assert int(await answer.text()) == made == webhooks // endpoints * endpoints
    return round(made / seconds)


@contextmanager
def _receiver() -> Iterator[str]:
    """A receiver in a process of its own; its URL."""
    command = [sys.executable, "-m", "benchmarks.outbox", "--receive"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


async def _receive() -> None:
    received: dict[str, int] = {}

    async def take(request: web.Request) -> web.Response:
        await request.read()
        name = request.match_info["name"]
        if request.method == "GET":
            return web.Response(text=str(received.get(name, 0)))
        received[name] = received.get(name, 0) + 1
        return web.Response(status=204)

    application = web.Application()
    application.router.add_route("*", "/{name}{rest:.*}", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--webhooks", type=int, default=5_000)
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        asyncio.run(_receive())
    else:
        report("outbox", run(options.events, options.webhooks))
