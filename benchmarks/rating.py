"""How fast rating is: tiers alone, the whole rater, and from rollups in the engine to charges, a chunk at a time.

    python -m benchmarks.rating [--customers 1000000] [--lines 1000000]

(a) lines a second of four graduated tiers, with slices; (b) the whole of `Rater.rate` over so many lines; (c) that many
customers of five charges, of whom some have contracts, from the rollups of a ClickHouse engine to charges, in chunks;
and twice as many, for memory must not grow; (d) the fractions oracle of the tests on a sample of customers of (b): its
charges must be the same. (c) runs in processes of their own, so that each has a peak of memory of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from aggregation.plan import SubjectRange
from aggregation.store import metered_usage, subject_ranges
from benchmarks.report import peak_memory_mib, report
from meterline.rating_run import rated_in_chunks
from rating.books import Books
from rating.frames import PARTS
from rating.models import slices_of
from rating.prices import Term
from rating.rater import Basis, Rated, Rater
from schemas.charge import INSTANT
from schemas.contract import Contracts
from schemas.identity import content_digest
from schemas.log import LogConfig
from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from schemas.price_book import PriceBook, parse_price_book
from schemas.wanted import Want
from stores.clickhouse import Client, open_embedded
from tests.oracles.rating.kinds import Event
from tests.oracles.rating.rate import rate_slowly

METERS = [f"meter_{number}" for number in range(5)]
AGGREGATIONS = dict.fromkeys(METERS, "SUM")
CONTRACTS_MAX = 10_000  # a tenth of the customers at most; the others are on the default plan
OVERRIDDEN = 10  # one contract of so many has a price of its own
SMOKE_LINES = 5_000
SAMPLE = 200
AFTER, THROUGH = date(2026, 1, 1), date(2026, 2, 1)
AT = datetime(2026, 1, 15, tzinfo=UTC)
_FILL = (
    "INSERT INTO rollups (tenant, meter, subject, window_start, epoch, count, sum) SELECT 'default',"
    " concat('meter_', toString({meter:UInt8})), concat('s', leftPad(toString(number), 8, '0')),"
    " toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalHour(number % 744), 0, 1,"
    " reinterpret(toInt128((number * 5 + {meter:UInt8} + 1) * 7919777777 % 150000000000000), 'Decimal(38, 9)')"
    " FROM numbers({first:UInt64}, {rows:UInt64})"
)

T = TypeVar("T")


def price_book() -> PriceBook:
    """Four graduated charges of four tiers and a package charge."""
    tiers = [(1_000, "0.0125", 0), (10_000, "0.011", 5), (100_000, "0.0095", 0), ("null", "0.00725", 0)]
    listed = ", ".join(f"{{up_to: {up_to}, unit_price: {price}, flat: {flat}}}" for up_to, price, flat in tiers)
    charges = [f"{{id: {meter}, model: graduated, meter: {meter}, tiers: [{listed}]}}" for meter in METERS[:-1]]
    charges.append(f"{{id: packs, model: package, meter: {METERS[-1]}, size: 1000, price: 4.20}}")
    head = "book: bench, version: 1, effective_at: 2013-01-01, currency: USD, default_plan: standard"
    return parse_price_book(f"{{{head}, plans: [{{id: standard, charges: [{', '.join(charges)}]}}]}}", "bench", METERS)


def basis_of(customers: int) -> Basis:
    """A tenth of the customers have a contract, each for one subject, and some of them a price of their own."""
    contracts: list[dict[str, Any]] = [
        {
            "customer": f"C{number:08d}", "name": "N", "subjects": [f"s{number * 10:08d}"], "plan": "standard",
            "starts_on": date(2013, 1, 1),
            **({} if number % OVERRIDDEN else {"charges": {"packs": {"price": "3.90"}}}),
        }
        for number in range(min(customers // 10, CONTRACTS_MAX))
    ]  # fmt: skip
    agreed = Contracts.model_validate({"contracts": contracts})
    return Basis(Books([price_book()]), agreed, AGGREGATIONS, AFTER, THROUGH, cut=1)


def some_usage(customers: int) -> pl.DataFrame:
    """Usage of every customer and meter: less than 150,000 units with 9 decimals, in no order."""
    subjects = pl.DataFrame({"number": pl.int_range(customers, eager=True)})
    subjects = subjects.select(subject=pl.lit("s") + pl.col("number").cast(pl.String).str.zfill(8))
    pairs = subjects.join(pl.DataFrame({"meter": METERS}), how="cross")
    row = pl.int_range(1, pl.len() + 1)
    billionths = (row * 7_919_777_777 % 150_000_000_000_000).cast(pl.Int128).cast(pl.Decimal(38, 0))
    quantity = (billionths * pl.lit("0.000000001").cast(QUANTITY)).cast(QUANTITY)
    usage = pairs.with_columns(quantity=quantity, at=pl.lit(AT, INSTANT), count=pl.lit(1, pl.Int64))
    return usage.sort(row * 2_654_435_761 % 2**32)


def tiers_alone(lines: int) -> float:
    """Lines a second of four graduated tiers, with their slices; best of three."""
    usage = some_usage(max(lines // len(METERS), 1)).select("quantity")
    values = {"quantity": pl.col("quantity"), "total": pl.col("quantity"), "opens": True}
    row = pl.int_range(pl.len(), dtype=pl.UInt32)
    defaults = {"row": row, "segment": row, "term": 0, "cell": 0, "before": 0, "trial": False}
    given = {**defaults, **values}
    parts = usage.select(
        (each if isinstance(each := given.get(name), pl.Expr) else pl.lit(each)).cast(kind).alias(name)
        for name, kind in PARTS.items()
    )
    book = price_book()
    terms = [Term(book.plans[0].charges[0], book.policies)]
    seconds, priced = min((_timed(lambda: slices_of(parts, terms)) for _ in range(3)), key=lambda timed: timed[0])
    assert priced.slices.height > parts.height
    return parts.height / seconds


def whole_rater(lines: int) -> dict[str, Any]:
    """The rater over one frame of usage; best of three, and the oracle over a sample of its customers."""
    customers = max(lines // len(METERS), 10)
    basis, usage = basis_of(customers), some_usage(customers)
    seconds, rated = min((_timed(lambda: Rater(basis).rate(usage)) for _ in range(3)), key=lambda timed: timed[0])
    fast, slow = rated.charges.height / seconds, _oracle_rate(usage, basis, rated)
    return {
        "lines": rated.charges.height,
        "slices": rated.slices.height,
        "rater_s": round(seconds, 3),
        "rater_lines_per_second": round(fast),
        "oracle_lines_per_second": round(slow),
        "times_the_oracle": round(fast / slow, 1),
        "total_minor": int(rated.charges["amount_minor"].sum()),
        "digest": digest_of([rated]),
    }


def from_rollups(customers: int, subjects_at_once: int = 100_000) -> dict[str, Any]:
    """From rollups in the engine to charges, in chunks: seconds, peak memory and a digest."""
    with tempfile.TemporaryDirectory() as folder:
        client = open_embedded(Path(folder))
        try:
            fill_s, _ = _timed(lambda: _fill(client, customers))
            filled_mib = peak_memory_mib()
            lines, chunks, told = 0, 0, []
            started_s, started_cpu_s = time.perf_counter(), time.process_time()
            for rated in _chunks(client, customers, subjects_at_once):
                lines, chunks = lines + rated.charges.height, chunks + 1
                told.append(int(rated.charges["amount_minor"].sum()))
            seconds, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        finally:
            client.close()
    return {
        "customers": customers, "lines": lines, "chunks": chunks, "fill_s": round(fill_s, 1),
        "seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1), "lines_per_second": round(lines / seconds),
        "filled_memory_mib": filled_mib, "peak_memory_mib": peak_memory_mib(), "total_minor": sum(told),
    }  # fmt: skip


def _fill(client: Client, customers: int) -> None:
    for number in range(len(METERS)):
        for first in range(0, customers, 1_000_000):
            rows = min(1_000_000, customers - first)
            client.command(_FILL, parameters={"meter": number, "first": first, "rows": rows})


def _chunks(client: Client, customers: int, subjects_at_once: int) -> Any:
    meters = [Meter(slug=slug, event_type="call", aggregation=Aggregation.SUM, value_property="$.v") for slug in METERS]
    config = LogConfig(meters=tuple(meters))

    def usage(wants: Sequence[Want], subjects: Sequence[str] | SubjectRange) -> pl.DataFrame:
        return metered_usage(client, lambda _: config, "default", meters, wants, 1, subjects)

    def ranges(wants: Sequence[Want], count: int) -> Sequence[SubjectRange]:
        return subject_ranges(client, "default", wants, 1, count)

    return rated_in_chunks(Rater(basis_of(customers)), usage, ranges, subjects_at_once=subjects_at_once)


def run(lines: int, customers: int) -> dict[str, Any]:
    """All of it; the parameters, rates, peak memory and digests."""
    once, twice = (in_a_process(each) for each in (customers, 2 * customers))
    return {
        "load_average": round(os.getloadavg()[0], 1),
        "threads": pl.thread_pool_size(),
        "tiers_lines_per_second": round(tiers_alone(lines)),
        **whole_rater(lines),
        **{f"rollups_{name}": value for name, value in once.items()},
        **{f"rollups_twice_{name}": value for name, value in twice.items()},
        "peak_memory_mib": peak_memory_mib(),
    }


def digest_of(rated: Sequence[Rated]) -> str:
    """SHA-256 over customer, charge, quantity and exact amount of every line, and the number of slices."""
    charges = pl.concat(each.charges for each in rated).sort("customer", "charge")
    told = charges.select("customer", "charge", "quantity", "amount", "amount_minor").write_csv()
    return content_digest(f"{told}{sum(each.slices.height for each in rated)}".encode())


def in_a_process(customers: int) -> dict[str, Any]:
    """What `from_rollups` finds, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.rating", "--from-rollups", str(customers)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _oracle_rate(usage: pl.DataFrame, basis: Basis, rated: Rated) -> float:
    """Lines a second of the oracle, which rates some of the customers one after the other."""
    contract_of = {contract.customer: contract for contract in basis.contracts.contracts}
    customers = rated.charges["customer"].unique().sort()
    customers = customers.gather_every(max(len(customers) // SAMPLE, 1))
    subjects = {name: contract_of[name].subjects if name in contract_of else (name,) for name in customers}
    sampled = usage.filter(pl.col("subject").is_in([each for own in subjects.values() for each in own]))
    rows: dict[str, list[Event]] = {}
    for subject, meter, quantity, at, _ in sampled.rows():
        rows.setdefault(subject, []).append(Event(subject, meter, at, Fraction(quantity)))
    work = [
        ([row for each in own for row in rows[each]],
         Contracts(contracts=(contract_of[name],) if name in contract_of else ()))
        for name, own in subjects.items()
    ]  # fmt: skip
    book = price_book()
    seconds, answers = _timed(
        lambda: [
            rate_slowly(events, [book], own, after=AFTER, through=THROUGH, aggregations=AGGREGATIONS)
            for events, own in work
        ]
    )
    found = [(line.customer, line.charge, line.amount) for answer in answers for line in answer.rows]
    own = rated.charges.filter(pl.col("customer").is_in(customers.to_list()))
    expected = [(*key, Fraction(amount)) for *key, amount in own.select("customer", "charge", "amount").rows()]
    assert found == expected, "the rater and the oracle differ"
    return len(found) / seconds


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--from-rollups", type=int, help="only (c), with so many customers, as JSON")
    given = parser.parse_args()
    if given.from_rollups:
        print(json.dumps(from_rollups(given.from_rollups)))
    else:
        report("rating", run(given.lines, given.customers))
