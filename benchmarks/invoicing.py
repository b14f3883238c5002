"""How long a million customers take from charges to issued invoices: lines, taxes, numbers, entries, events.

    python -m benchmarks.invoicing [--customers 1000000]

Each customer has five charges: a fee paid in advance, and usage of four meters with a slice each; VAT of 19 % on top.
One tenant, one run, one transaction, a chunk of customers at a time, into the embedded PostgreSQL with its own settings
and all rules of the books. Prints parameters, rates, peak memory of this process and of PostgreSQL's backend, and the
hash of the chain's last entry, which is the digest of all that was posted.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from benchmarks.report import peak_memory_mib, report
from invoicing import store
from invoicing.invoices.app import issue
from invoicing.late_usage.policies import LATE
from invoicing.ledger.store import head
from meterline.assembling import Assembly
from meterline.charged import Charged
from meterline.verification import ahead
from schemas.invoice import CHARGED, Basis
from schemas.plan import Policies, TaxMode, TaxRule
from stores.postgres import embedded_server, engine_for, migrate

CUSTOMERS, CHUNK = 1_000_000, 20_000
SMOKE_CUSTOMERS = 300
NOW = datetime(2026, 2, 1, tzinfo=UTC)
BASIS = Basis(cut=3, book="book", book_version=1, book_digest="b" * 64, contracts_digest="c" * 64)


def charges(first: int, count: int) -> pl.DataFrame:
    """The charges of so many customers, the same for the same numbers (columns `schemas.invoice.CHARGED`)."""
    rule = TaxRule(mode=TaxMode.EXCLUSIVE, name="VAT", rate_percent=Decimal(19)).model_dump_json(exclude_defaults=True)
    advance = pl.col("place") == 0
    used = pl.col("customer_number") % 1000 + pl.col("place")
    rows = pl.select(customer_number=pl.int_range(first, first + count)).join(
        pl.DataFrame({"place": range(5), "cents": [4900, 3, 7, 11, 13]}), how="cross"
    )
    quantity = pl.when(advance).then(1).otherwise(used)
    price = (pl.col("cents").cast(pl.Decimal(38, 12)) / 100).cast(pl.Decimal(38, 12))
    rows = rows.with_columns(quantity=quantity.cast(CHARGED["quantity"]), unit_price=price).with_columns(
        amount_minor=quantity * pl.col("cents")
    )
    amount = (pl.col("amount_minor").cast(pl.Decimal(38, 2)) / 100).cast(CHARGED["amount"])
    rows = rows.with_columns(amount=amount)
    one_slice = pl.concat_list(pl.struct(
        pl.lit("").alias("label"), pl.lit(None, CHARGED["quantity"]).alias("up_to"), "quantity", "unit_price",
        pl.lit(0).cast(pl.Decimal(38, 12)).alias("flat"), "amount",
    ))  # fmt: skip
    return rows.with_columns(
        customer="customer " + pl.col("customer_number").cast(pl.String).str.zfill(8),
        period=pl.when(advance).then(pl.lit("2026-02")).otherwise(pl.lit("2026-01")),
        charge=pl.when(advance).then(pl.lit("platform")).otherwise(pl.format("meter {}", "place")),
        kind=pl.when(advance).then(pl.lit("advance")).otherwise(pl.lit("usage")),
        revenue=pl.when(advance).then(pl.lit("advance")).otherwise(pl.lit("subtotal")),
        description=pl.when(advance).then(pl.lit("Platform fee")).otherwise(pl.format("Calls of kind {}", "place")),
        model=pl.when(advance).then(pl.lit("flat")).otherwise(pl.lit("standard")),
        meter=pl.when(advance).then(pl.lit(None, pl.String)).otherwise(pl.format("meter {}", "place")),
        slices=one_slice, currency=pl.lit("EUR"), tax_rule=pl.lit(rule),
        service_start=pl.when(advance).then(date(2026, 2, 1)).otherwise(date(2026, 1, 1)),
        service_end=pl.when(advance).then(date(2026, 3, 1)).otherwise(date(2026, 2, 1)),
        **{name: pl.lit(value) for name, value in vars(BASIS).items()},
    ).select(pl.col(name).cast(kind) for name, kind in CHARGED.items())  # fmt: skip


def chunks(customers: int) -> Iterator[pl.DataFrame]:
    """The charges of all customers, as rating hands them over."""
    for first in range(0, customers, CHUNK):
        yield charges(first, min(CHUNK, customers - first))


def run(customers: int = CUSTOMERS) -> dict[str, Any]:
    """Bill so many customers once, and return what it took."""
    with tempfile.TemporaryDirectory() as folder, embedded_server(Path(folder)) as url:
        engine = engine_for(url)
        migrate(engine)
        with Charged() as charged:
            for each in chunks(customers):
                charged.add(each)
            started, cpu = time.perf_counter(), time.process_time()
            _issue(engine, charged)
            seconds, own_cpu = time.perf_counter() - started, time.process_time() - cpu
        with engine.connect() as connection:
            last = head(connection, "default")
            postings = connection.exec_driver_sql("SELECT count(*) FROM postings").scalar_one()
            lines = connection.exec_driver_sql("SELECT count(*) FROM invoice_lines").scalar_one()
        engine.dispose()
    return {
        "customers": customers, "lines": lines, "postings": postings, "seconds": round(seconds, 1),
        "own_cpu_seconds": round(own_cpu, 1), "invoices_per_second": round(customers / seconds),
        "lines_per_second": round(lines / seconds), "postings_per_second": round(postings / seconds),
        "peak_memory_mib": peak_memory_mib(), "digest": last.hash,
    }  # fmt: skip


def _issue(engine: sa.Engine, charged: Charged) -> None:
    with engine.begin() as connection:
        store.apply_price_book(
            connection, "default", book="book", version=1, digest="b" * 64, body="{}", applied_at=NOW
        )
        store.apply_contracts(connection, "default", digest="c" * 64, body="[]", applied_at=NOW)
        started = store.start_run(connection, "default", "2026-01", BASIS, started_at=NOW)
    assembly = Assembly("default", "2026-01", {"2026-01": BASIS, "2026-02": BASIS}, {}, Policies())
    with engine.begin() as connection, engine.connect() as reader:
        store.finish_run(connection, started, {"2026-01": BASIS}, posted_at=NOW)
        for part in ahead(assembly.parts(reader, charged, lambda _: pl.DataFrame(schema=LATE))):
            assert part.drafts is not None
            issue(connection, part.drafts, at=NOW)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=CUSTOMERS)
    report("invoicing", run(parser.parse_args().customers))
