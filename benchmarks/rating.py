"""How many charge lines a second the rater makes, with slices, and how that compares to rating a customer at a time.

    python -m benchmarks.rating [--lines 1000000]

Prints the parameters, the rate, the peak memory and a digest of the result. The slow side is the fractions oracle of
the tests, one customer at a time, on a sample of them in the same run; its lines must be the same.
"""

import argparse
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import polars as pl

from benchmarks.report import peak_memory_mib, report
from rating.rater import Rated, period_end, rate
from schemas.contract import Contracts, parse_contracts
from schemas.identity import content_digest
from schemas.money import QUANTITY
from schemas.price_book import PriceBook, parse_price_book
from tests.oracles.rating_oracle import rate_slowly

METERS = [f"meter_{number}" for number in range(5)]
AGGREGATIONS = dict.fromkeys(METERS, "SUM")
CONTRACTS_MAX = 1_000  # customers of three subjects each; the others are on the default plan
SAMPLE = 500
PERIOD = "2013-01"

T = TypeVar("T")


def price_book() -> PriceBook:
    """Four graduated charges of four tiers and a package charge."""
    tiers = [(1_000, "0.0125", 0), (10_000, "0.011", 5), (100_000, "0.0095", 0), ("null", "0.00725", 0)]
    listed = ", ".join(f"{{up_to: {up_to}, unit_price: {price}, flat: {flat}}}" for up_to, price, flat in tiers)
    charges = [f"{{id: {meter}, model: graduated, meter: {meter}, tiers: [{listed}]}}" for meter in METERS[:-1]]
    charges.append(f"{{id: packs, model: package, meter: {METERS[-1]}, size: 1000, price: 4.20}}")
    head = "book: bench, version: 1, effective_at: 2013-01-01, currency: USD, default_plan: standard"
    return parse_price_book(f"{{{head}, plans: [{{id: standard, charges: [{', '.join(charges)}]}}]}}", "bench", METERS)


def some_contracts(customers: int) -> Contracts:
    """A tenth of the customers, at most CONTRACTS_MAX, pay for three subjects."""
    terms = "name: N, plan: standard, starts_on: 2013-01-01"
    listed = [
        f"{{customer: C{number}, subjects: [c{number}a, c{number}b, c{number}c], {terms}}}"
        for number in range(min(customers // 10, CONTRACTS_MAX))
    ]
    return parse_contracts(f"contracts: [{', '.join(listed)}]", "bench")


def some_usage(customers: int, contracts: Contracts) -> pl.DataFrame:
    """Usage of every customer and meter: less than 150,000 units with 9 decimals, in no order."""
    contracted = [subject for contract in contracts.contracts for subject in contract.subjects]
    others = [f"s{number:08d}" for number in range(customers - len(contracts.contracts))]
    pairs = pl.DataFrame({"subject": contracted + others}).join(pl.DataFrame({"meter": METERS}), how="cross")
    row = pl.int_range(1, pl.len() + 1)
    billionths = (row * 7_919_777_777 % 150_000_000_000_000).cast(pl.Int128).cast(pl.Decimal(38, 0))
    quantity = (billionths * pl.lit("0.000000001").cast(QUANTITY)).cast(QUANTITY)
    usage = pairs.with_columns(quantity=quantity, uniques=pl.lit(None, pl.List(pl.String)))
    return usage.sort(row * 2_654_435_761 % 2**32)


def run(lines: int) -> dict[str, Any]:
    """Rate a period of about so many lines, best of three; the parameters, rates and digest of it."""
    customers = max(lines // len(METERS), 10)
    book, contracts = price_book(), some_contracts(customers)
    usage = some_usage(customers, contracts)
    seconds, rated = min((_timed(lambda: _rate(usage, book, contracts)) for _ in range(3)), key=lambda timed: timed[0])
    charges = rated.charges
    rate_fast = charges.height / seconds
    rate_slow = _oracle_rate(usage, book, contracts, rated)
    return {
        "customers": customers,
        "lines": charges.height,
        "slices": int(charges["slices"].list.len().sum()),
        "threads": pl.thread_pool_size(),
        "seconds": round(seconds, 3),
        "lines_per_second": round(rate_fast),
        "oracle_lines_per_second": round(rate_slow),
        "times_the_oracle": round(rate_fast / rate_slow, 1),
        "peak_memory_mib": peak_memory_mib(),
        "digest": digest_of(charges),
    }


def digest_of(charges: pl.DataFrame) -> str:
    """SHA-256 over customer, charge, quantity, exact amount and number of slices of every line."""
    told = charges.select("customer", "charge", "quantity", "amount", "amount_minor", pl.col("slices").list.len())
    return content_digest(told.write_csv().encode())


def _rate(usage: pl.DataFrame, book: PriceBook, contracts: Contracts) -> Rated:
    return rate(usage, book, contracts, period=PERIOD, cut=1, aggregations=AGGREGATIONS)


def _oracle_rate(usage: pl.DataFrame, book: PriceBook, contracts: Contracts, rated: Rated) -> float:
    """Lines a second of the oracle, which rates some of the customers one after the other."""
    contract_of = {contract.customer: contract for contract in contracts.contracts}
    customers = rated.charges["customer"].unique().sort()
    customers = customers.gather_every(max(len(customers) // SAMPLE, 1))
    work = []
    for customer in customers:
        own = (contract_of[customer],) if customer in contract_of else ()
        subjects = own[0].subjects if own else (customer,)
        rows = usage.filter(pl.col("subject").is_in(subjects)).rows()
        exact = [(subject, meter, Fraction(quantity), None) for subject, meter, quantity, _ in rows]
        work.append((exact, book, Contracts(contracts=own), period_end(PERIOD), AGGREGATIONS))
    seconds, answers = _timed(lambda: [rate_slowly(*each) for each in work])
    found = [(line.customer, line.charge, line.amount) for answer in answers for line in answer.lines]
    sampled = rated.charges.filter(pl.col("customer").is_in(customers.to_list()))
    expected = [(*key, Fraction(amount)) for *key, amount in sampled.select("customer", "charge", "amount").rows()]
    assert found == expected, "the rater and the oracle differ"
    return len(found) / seconds


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    report("rating", run(parser.parse_args().lines))
