"""How long one invoice takes to be finalised, at a steady rate of requests: what the caller of the API waits for.

    python -m benchmarks.finalise [--per-second 50] [--seconds 20]

Drafts of three lines with a tax are stored; then each is issued by itself, numbered, posted, chained and told of, in a
transaction of its own that is durable. Requests come at their instants whether or not the ones before are done, so a
wait counts in full: first calls in this process, then requests over HTTP to a server of its own, each with an
idempotency key. One in ten customers has credit, which is applied. Prints the latencies, what of processors the server
used, and how many calls a second are done when the next one comes at once; the digest is of the ledger's amounts, which
are the same every time.
"""

import argparse
import hashlib
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from benchmarks.finalise_over_http import paced as paced_over_http
from benchmarks.finalise_over_http import server
from benchmarks.report import peak_memory_mib, report
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts, drafted
from invoicing.invoices.store import write
from invoicing.ledger.store import balances
from invoicing.settlement.app import Act, finalize
from meterline.taxing import with_taxes
from schemas.identity import digests
from schemas.invoice import DRAFTED, HEADS
from stores.postgres import embedded_server, engine_for, migrate

PER_SECOND, SECONDS, WARM, THREADS = 50, 20, 50, 8
SMOKE_PER_SECOND, SMOKE_SECONDS = 10, 1
AT = datetime(2026, 2, 1, tzinfo=UTC)
TAX = '{"mode":"exclusive","rates":[{"name":"VAT","rate_percent":"19"}]}'


def run(per_second: int, seconds: int) -> dict[str, Any]:
    """Finalise so many drafts at this rate, and half as many one after the other."""
    load = os.getloadavg()[0]
    paced, at_once = per_second * seconds, per_second * seconds // 2
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where we are root
        with embedded_server(Path(folder) / "postgres") as url:
            database = engine_for(url)
            try:
                migrate(database)
                ids = _drafts(database, 2 * (WARM + paced) + at_once)
                for key in ids[:WARM]:
                    _finalise(database, key)
                latencies = sorted(_paced(database, ids[WARM : WARM + paced], per_second))
                started, used = time.perf_counter(), time.process_time()
                for key in ids[WARM + paced : WARM + paced + at_once]:
                    _finalise(database, key)
                spent, cpu = time.perf_counter() - started, time.process_time() - used
                over_http = _over_http(url, ids[WARM + paced + at_once :], per_second)
                digest = _digest(database)
            finally:
                database.dispose()
    return {
        "per_second": per_second, "finalised": paced, "p50_ms": _at(latencies, 50), "p95_ms": _at(latencies, 95),
        "p99_ms": _at(latencies, 99), "max_ms": _at(latencies, 100), "one_by_one_per_second": round(at_once / spent),
        "cpu_ms_each": round(cpu / at_once * 1000, 1), **over_http, "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1), "peak_memory_mib": peak_memory_mib(), "digest": digest,
    }  # fmt: skip


def _drafts(database: sa.Engine, count: int) -> list[str]:
    """Store drafts of as many customers, give one in ten some credit; the drafts' ids."""
    lines = _lines(pl.int_range(count, dtype=pl.Int64, eager=True), 10_000)
    owing = _lines(pl.int_range(0, count, 10, dtype=pl.Int64, eager=True), -1_000)
    credit = _of(owing, "credit")
    drafts = _of(lines, "draft")
    with database.begin() as connection:
        issue(connection, credit, at=AT)
        write(connection, drafts.invoices, drafts.lines)
    return drafts.invoices["id"].to_list()


def _lines(customers: pl.Series, minor: int) -> pl.DataFrame:
    numbered = pl.DataFrame({"document": customers}).join(pl.DataFrame({"place": [1, 2, 3]}), how="cross")
    return numbered.select(
        pl.format("charge {}", "place").alias("charge"), pl.format("C{}", "document").alias("customer"), "document",
        kind=pl.lit("usage"), currency=pl.lit("EUR"), usage_period=pl.lit("2026-01"), description=pl.lit("Usage"),
        model=pl.lit("standard"), meter=pl.lit("calls"), quantity=pl.lit(1), amount=pl.lit(minor),
        amount_minor=pl.lit(minor) + pl.col("document") % 100, tax_rule=pl.lit(TAX), revenue=pl.lit("subtotal"),
        service_start=pl.lit(AT.date()).dt.offset_by("-1mo"), service_end=pl.lit(AT.date()), explanation=pl.lit("{}"),
    ).select(pl.col(name).cast(kind) for name, kind in DRAFTED.items())  # fmt: skip


def _of(lines: pl.DataFrame, what: str) -> Drafts:
    rated = ("cut", "book", "book_version", "book_digest", "contracts_digest")
    heads = lines.unique("document", keep="first", maintain_order=True).select(
        "document", "customer", digests(what, pl.col("customer")).alias("id"), tenant=pl.lit("default"),
        kind=pl.lit("manual"), customer_name=pl.lit("Somebody"), period=pl.lit("2026-01"), series=pl.lit("INV"),
        currency=pl.lit("EUR"), **dict.fromkeys(rated, pl.lit(None)),
    )  # fmt: skip
    taxed = with_taxes(lines)
    return drafted(taxed.lines, taxed.groups, heads.select(pl.col(name).cast(kind) for name, kind in HEADS.items()))


def _finalise(database: sa.Engine, key: str) -> None:
    with database.begin() as connection:
        finalize(connection, Act("default", "benchmark", AT), key)


def _paced(database: sa.Engine, ids: list[str], per_second: int) -> list[float]:
    """The seconds from the instant that each request was to come until it was done."""
    begin = time.perf_counter() + 0.1

    def one(place: int) -> float:
        due = begin + place / per_second
        time.sleep(max(due - time.perf_counter(), 0))
        _finalise(database, ids[place])
        return time.perf_counter() - due

    with ThreadPoolExecutor(THREADS) as pool:
        return [*pool.map(one, range(len(ids)))]


def _over_http(database_url: str, ids: list[str], per_second: int) -> dict[str, Any]:
    with server(database_url) as api:
        paced_over_http(api.url, ids[:WARM], per_second)
        used = api.cpu_seconds()
        latencies = sorted(paced_over_http(api.url, ids[WARM:], per_second))
        used = api.cpu_seconds() - used
    percentiles = {f"http_p{percent}_ms": _at(latencies, percent) for percent in (50, 95, 99)}
    return percentiles | {
        "http_max_ms": _at(latencies, 100), "http_server_cpu_ms_each": round(used / len(latencies) * 1000, 1),
    }  # fmt: skip


def _at(latencies: list[float], percent: int) -> float:
    place = min(len(latencies) * percent // 100, len(latencies) - 1)
    return round(latencies[place] * 1000, 1)


def _digest(database: sa.Engine) -> str:
    with database.connect() as connection:
        found = balances(connection, "default", by=("customer",))
    return hashlib.sha256(found.write_csv().encode()).hexdigest()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-second", type=int, default=PER_SECOND)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    arguments = parser.parse_args()
    report("finalise", run(arguments.per_second, arguments.seconds))
