"""The benchmarks at smoke size: they run, count right, and give the same digest every time."""

from pathlib import Path

import polars as pl
import sqlalchemy as sa

from benchmarks import archive, finalise, import_flights, invoicing, ledger, outbox, query, rating, worker
from benchmarks.stream.__main__ import SMOKE_EVENTS, SMOKE_FIRST_EVENTS
from benchmarks.stream.catalogue import REFERENCE, SYSTEMS
from benchmarks.stream.oracle import Oracle, difference
from benchmarks.stream.payload import Payload
from benchmarks.stream.run import run
from benchmarks.stream.tables import markdown, with_ratios


def test_the_import_benchmark_counts_every_flight() -> None:
    """Two runs over the first flights give the same usage."""
    first, second = import_flights.run(3000), import_flights.run(3000)
    assert first["events_per_second"] > 0
    assert first["digest"] == second["digest"]


def test_the_rating_benchmark_agrees_with_its_oracle() -> None:
    """Two runs give the same charges, the benchmark itself holds them against the slow oracle; chunks have them all."""
    first, second = (rating.whole_rater(rating.SMOKE_LINES) for _ in range(2))
    assert first["lines"] >= rating.SMOKE_LINES
    assert first["digest"] == second["digest"]
    assert rating.tiers_alone(rating.SMOKE_LINES) > 0
    in_chunks = rating.in_a_process(rating.SMOKE_LINES // 5)
    assert (in_chunks["lines"], in_chunks["total_minor"]) == (first["lines"], first["total_minor"])


def test_the_outbox_benchmark_counts_every_event_and_webhook() -> None:
    """In the outbox, and at the receiver, by the benchmark itself."""
    result = outbox.run(500, 80)
    assert (result["events"], result["webhooks"]) == (500, 80)
    assert min(value for name, value in result.items() if "_per_second" in name) > 0


def test_the_stream_benchmark_finds_what_its_oracle_finds_with_every_system() -> None:
    """Each of them reads all of its topic, and has the oracle's counts and sums; the table says so."""
    result = with_ratios(run(Payload(SMOKE_EVENTS), SMOKE_FIRST_EVENTS, SYSTEMS), REFERENCE)
    wrong = {each["system"]: each.get("failed", each.get("difference")) for each in result["systems"]}
    assert not any(wrong.values()), wrong
    assert markdown(result).count(" exact") == len(SYSTEMS)


def test_the_worker_benchmark_finds_the_keys_and_sees_every_event() -> None:
    """The worker that starts over stored identities has them in its index, and every event becomes visible."""
    result = worker.run(worker.SMOKE_KEYS, worker.SMOKE_EVENTS, 5)
    assert result["dedup_bytes_a_key"] <= 20
    assert result["freshness_events"] == 5
    assert result["restart_to_first_commit_s"] > 0


def test_the_query_benchmark_gives_one_answer_from_rollups_and_from_events() -> None:
    """The benchmark itself holds the two against each other, and its answer is the same every time."""
    first, second = (query.run(query.SMOKE_ROLLUPS, query.SMOKE_QUERIES, query.SMOKE_EVENTS_AN_HOUR) for _ in range(2))
    assert first["rollups"] == query.SMOKE_ROLLUPS
    assert first["digest"] == second["digest"]


def test_the_ledger_benchmark_posts_the_same_books_every_time() -> None:
    """All entries are posted and verified; the last hash of the chain is the same in a second run."""
    first, second = (ledger.run(ledger.SMOKE_ENTRIES, ledger.SMOKE_ROWWISE) for _ in range(2))
    assert first["postings"] == 3 * ledger.SMOKE_ENTRIES
    assert first["digest"] == second["digest"]


def test_the_archive_benchmark_proves_what_it_archived(database: sa.Engine, tmp_path: Path) -> None:
    """All entries are in the files, and what is verified is all of them."""
    result = archive.measured(database, tmp_path, archive.SMOKE_ENTRIES)
    assert result["postings"] == 3 * archive.SMOKE_ENTRIES
    assert result["verified_entries_per_second"] > 0


def test_the_benchmark_of_finalising_posts_the_same_books_every_time() -> None:
    """Every draft is issued, and some of them are settled by credit."""
    first, second = (finalise.run(finalise.SMOKE_PER_SECOND, finalise.SMOKE_SECONDS) for _ in range(2))
    assert first["finalised"] == finalise.SMOKE_PER_SECOND * finalise.SMOKE_SECONDS
    assert first["p50_ms"] <= first["p99_ms"] <= first["max_ms"]
    assert first["digest"] == second["digest"]


def test_the_payload_of_the_stream_benchmark_is_the_same_for_the_same_seed() -> None:
    """Two payloads are equal byte for byte; about one event in a hundred is a copy, and as many are late."""
    first, again, other = ([*Payload(20_000, seed=seed).chunks()] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    oracle = Oracle()
    for lines in first:
        oracle.observe(lines)
    assert 150 < oracle.lines - oracle.distinct < 250
    on_the_day = oracle.groups(deduplicated=False).filter(pl.col("hour").str.starts_with("2026-10-28"))["count"].sum()
    assert 150 < oracle.lines - on_the_day < 250


def test_the_oracle_of_the_stream_benchmark_tells_a_wrong_answer() -> None:
    """Rows of a key add up, missing keys are added over, and one unit too many is told."""
    oracle = Oracle()
    oracle.observe(next(Payload(1000).chunks()))
    right = oracle.groups(deduplicated=True)
    halves = pl.concat([right.head(500), right.tail(len(right) - 500)]).drop("region")
    assert not difference(halves, right)
    assert "not" in difference(right.with_columns(pl.col("sum") + 1), right)
    assert "not" in difference(oracle.groups(deduplicated=False).with_columns(pl.col("count") + 1), right)


def test_the_invoicing_benchmark_issues_the_same_invoices_every_time() -> None:
    """Five lines and one entry a customer, with the same chain however often."""
    first, second = (invoicing.run(invoicing.SMOKE_CUSTOMERS) for _ in range(2))
    assert first["lines"] == 5 * invoicing.SMOKE_CUSTOMERS
    assert first["postings"] == 4 * invoicing.SMOKE_CUSTOMERS
    assert first["digest"] == second["digest"]
