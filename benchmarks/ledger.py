"""How many postings a second the ledger takes for good, with all its rules and the chain, and how fast it is verified.

    python -m benchmarks.ledger [--entries 400000] [--rowwise 300]

Durability is on, the database is the embedded PostgreSQL with its own settings. Invoices of 120.00 with 20.00 tax go
into one tenant's chain: three postings each. Beside it, in the same run and into the same tables, entries one by one
with an INSERT for each row, as an ORM writes them, a commit each; and single invoices, as the application posts them.
Prints parameters, rates, peak memory and the hash of the chain's last entry, the digest of all that was posted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import sqlalchemy as sa

from benchmarks.report import peak_memory_mib, report
from invoicing.ledger import store
from invoicing.ledger.chain import chained
from invoicing.ledger.journal import DOCUMENTS, Journal, entries_of
from invoicing.ledger.sound import sound
from invoicing.ledger.verify import Place
from meterline.verification import ahead, verified
from schemas.journal import CHAINED
from stores.postgres import as_tenant, embedded_server, engine_for, migrate

ENTRIES, ROWWISE, BATCH = 400_000, 300, 50_000
SMOKE_ENTRIES, SMOKE_ROWWISE = 2_000, 20
BOOKED_AT = datetime(2026, 2, 1, tzinfo=UTC)
PGLEDGER_TRANSFERS_PER_SECOND = 10_000  # a transfer is two postings; not measured here, its author's figure:
PGLEDGER_SOURCE = "https://www.pgrs.net/2025/05/16/pgledger-in-postgresql-is-fast"


def invoices(first: int, count: int, tenant: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents and amounts of invoices, the same for the same numbers."""
    row = pl.int_range(first, first + count)
    documents = pl.select(
        tenant=pl.lit(tenant), template=pl.lit("P02"), document_kind=pl.lit("invoice"),
        document_id=pl.format("c1cbe88d2541b13be0550{}", row), document_version=1, part=1,
        relates_to=pl.lit(None, pl.String), relates_to_period=pl.lit(None, pl.String),
        effective_at=pl.lit(date(2026, 1, 31)), description=pl.format("Invoice for 2026-01 to customer {}", row),
        customer=pl.format("customer {}", row % 100_000),
    ).select(pl.col(name).cast(kind) for name, kind in DOCUMENTS.items())  # fmt: skip
    parts = pl.DataFrame({"amount": ["total", "subtotal", "tax"], "amount_minor": [12_000, 10_000, 2_000],
                          "dimension": ["", "", "VAT 20%"]})  # fmt: skip
    amounts = pl.select(document=pl.int_range(count)).join(parts, how="cross").with_columns(currency=pl.lit("USD"))
    return documents, amounts


def journals(entries: int, tenant: str) -> Iterator[Journal]:
    """The journal of so many invoices, a batch at a time."""
    for first in range(0, entries, BATCH):
        yield entries_of(*invoices(first, min(BATCH, entries - first), tenant), booked_at=BOOKED_AT)


def run(entries: int, rowwise: int) -> dict[str, Any]:
    """Post and verify; the parameters, rates and digest of it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user when this runs as root
        with embedded_server(Path(folder) / "postgres") as url:
            engine = engine_for(url)
            migrate(engine)
            try:
                return _run(engine, entries, rowwise)
            finally:
                engine.dispose()


def _run(engine: sa.Engine, entries: int, rowwise: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    _one_by_one(engine, 2, "warm")
    slow = 3 * rowwise / _spent(engine, lambda: _one_by_one(engine, rowwise, "rowwise"))[0]
    seconds, cpu_seconds = _spent(engine, lambda: _in_bulk(engine, entries))
    bulk = 3 * entries / seconds
    with engine.connect() as connection, as_tenant(connection, "bulk"):
        head = store.head(connection, "bulk")
    assert head.sequence == entries
    _verify(engine, entries)  # once before: programs are compiled, and PostgreSQL notes what is committed
    verify_s, verify_cpu_s = min(_spent(engine, lambda: _verify(engine, entries)) for _ in range(3))
    memory_s, memory_cpu_s = _in_memory(engine, min(entries, store.STRETCH_ENTRIES_MAX))
    singles = _singles(engine, rowwise)
    return {
        "entries": entries,
        "postings": 3 * entries,
        "postings_per_second": round(bulk),
        "postings_per_cpu_second": round(3 * entries / cpu_seconds),
        "rowwise_entries": rowwise,
        "rowwise_postings_per_second": round(slow),
        "times_row_by_row": round(bulk / slow, 1),
        "pgledger_published_postings_per_second": 2 * PGLEDGER_TRANSFERS_PER_SECOND,
        "pgledger_source": PGLEDGER_SOURCE,
        "verified_entries_per_second": round(entries / verify_s),
        "verified_entries_per_cpu_second": round(entries / verify_cpu_s),
        "verified_in_memory_per_second": round(min(entries, store.STRETCH_ENTRIES_MAX) / memory_s),
        "verified_in_memory_per_cpu_second": round(min(entries, store.STRETCH_ENTRIES_MAX) / memory_cpu_s),
        "single_invoices": rowwise,
        "single_invoice_ms_p50": round(1000 * singles[len(singles) // 2], 2),
        "single_invoice_ms_p99": round(1000 * singles[len(singles) * 99 // 100], 2),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "peak_memory_mib": peak_memory_mib(),
        "digest": head.hash,
    }


def _in_bulk(engine: sa.Engine, entries: int) -> None:
    for journal in ahead(journals(entries, "bulk")):  # the next one is made while this one is posted
        with engine.begin() as connection:
            store.post(connection, journal.entries, journal.postings)


def _verify(engine: sa.Engine, entries: int) -> None:
    places = {tenant: (place.sequence, finding) for tenant, place, finding in verified(engine)}
    assert places["bulk"] == (entries, None)


def _in_memory(engine: sa.Engine, entries: int) -> tuple[float, float]:
    with engine.connect() as connection:
        found = store.stretch(connection, "bulk", 1, entries)
    assert sound(found)
    return min(_spent(engine, lambda: sound(found)) for _ in range(3))


def _singles(engine: sa.Engine, entries: int) -> list[float]:
    """The seconds that each of so many invoices takes by itself, from its document to the commit, shortest first."""
    seconds = []
    for number in range(entries):
        started = time.perf_counter()
        journal = entries_of(*invoices(number, 1, "single"), booked_at=BOOKED_AT)
        with engine.begin() as connection:
            assert store.post(connection, journal.entries, journal.postings) == 1
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


def _one_by_one(engine: sa.Engine, entries: int, tenant: str) -> None:
    """An INSERT for each row and a commit for each entry, with the same rules and chain."""
    [journal] = journals(entries, tenant)
    placed = chained(journal.entries, after=0, previous_hash=Place().hash, booked_from=None)
    lines = journal.postings.join(placed.select("sequence", entry_id="id"), on="entry_id", maintain_order="left")
    of_entry = dict(lines.drop("entry_id").partition_by("sequence", as_dict=True))
    entry = sa.text(f"INSERT INTO journal_entries ({', '.join(CHAINED)}) VALUES ({', '.join(_bound(CHAINED))})")  # noqa: S608
    line = sa.text("""INSERT INTO postings VALUES (:tenant, :sequence, :position, :account, :customer, :currency,
                      :dimension, :amount_minor)""")
    for row in placed.iter_rows(named=True):
        with engine.begin() as connection, as_tenant(connection, tenant):
            connection.execute(entry, row)
            for posting in of_entry[row["sequence"],].iter_rows(named=True):
                connection.execute(line, {"tenant": tenant, **posting})


def _bound(columns: Any) -> list[str]:
    binary = {"content_digest", "previous_hash", "hash"}
    return [f"decode(:{name}, 'hex')" if name in binary else f":{name}" for name in columns]


def _spent(engine: sa.Engine, work: Callable[[], object]) -> tuple[float, float]:
    """The seconds, and the CPU seconds of this process and of PostgreSQL's, that some work takes."""
    before, started = _cpu_seconds(engine), time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, _cpu_seconds(engine) - before


def _cpu_seconds(engine: sa.Engine) -> float:
    with engine.connect() as connection:
        backend = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    server = psutil.Process(backend).parent()
    assert server
    own = time.process_time()
    for process in [server, *server.children()]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            own += times.user + times.system
    return own


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    parser.add_argument("--rowwise", type=int, default=ROWWISE)
    arguments = parser.parse_args()
    report("ledger", run(arguments.entries, arguments.rowwise))
