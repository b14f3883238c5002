"""The embedded path at full speed: the flights of 2013 from a file into the log, events and rollups.

    python -m benchmarks.import_flights [--flights 336776] [--runs 5]

Timed is the whole of `meterline import` after start-up: read, pack, append durably, read back, decode, deduplicate,
fold, and store events and rollups synced to disk. Beside it, in the same run, the ceiling: decoding the same bytes with
polars and nothing else.
"""

import argparse
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.report import peak_memory_mib, report
from examples.flights.events import flights, usage_events
from meterline.embedded import embedded
from meterline.operations import outputs_of
from meterline.output import Failure
from meterline.system import configure_meters
from schemas.log import Flush
from stores.clickhouse import query

METERS = Path(__file__).parents[1] / "examples" / "flights" / "meters.yaml"


def run(count: int) -> dict[str, Any]:
    """Import this many flights; parameters, rates (events a second), peak memory and the digest of the usage."""
    with tempfile.TemporaryDirectory(prefix="meterline-bench-") as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user where this runs as root
        file = Path(folder) / "flights.ndjson"
        file.write_bytes(b"\n".join(usage_events(flights().head(count)).cast(pl.Binary).to_list()))
        ceiling_s = _seconds_to_decode(file.read_bytes())
        with embedded(Path(folder) / "data") as app:
            configure_meters(app.log, METERS.read_text(), METERS.name)
            app.follower.wait_for(app.log.punctuate(Flush()), 60)
            started_s = time.perf_counter()
            failures = [o for o in outputs_of(app, "import_usage", {"path": str(file)}) if isinstance(o, Failure)]
            seconds = time.perf_counter() - started_s
            assert not failures, failures
            usage = query(
                app.clickhouse,
                "SELECT meter, subject, sum(count), toString(sum(sum)), toString(max(max)), "
                "arraySort(groupUniqArrayArray(uniques)) FROM rollups GROUP BY meter, subject ORDER BY meter, subject",
            )
        return {
            "flights": count,
            "seconds": round(seconds, 2),
            "events_per_second": round(count / seconds),
            "decode_only_events_per_second": round(count / ceiling_s),
            "share_of_decode_only": round(ceiling_s / seconds, 3),
            "peak_memory_mib": peak_memory_mib(),
            "digest": hashlib.sha256(usage.write_json().encode()).hexdigest()[:16],
        }


def _seconds_to_decode(raw: bytes) -> float:
    schema = dict.fromkeys(("id", "source", "type", "subject", "time"), pl.String)
    started_s = time.perf_counter()
    decoded = pl.read_ndjson(raw, schema=schema)
    seconds = time.perf_counter() - started_s
    assert len(decoded) == raw.count(b"\n") + 1
    return seconds


def median_of(runs: int, count: int) -> dict[str, Any]:
    """The run in the middle of so many, by rate, with the rates of all: a shared machine is not steady."""
    results = sorted((run(count) for _ in range(runs)), key=lambda result: result["events_per_second"])
    assert len({result["digest"] for result in results}) == 1, "runs over the same flights differ"
    return {**results[runs // 2], "all_runs": ", ".join(f"{result['events_per_second']:,}" for result in results)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flights", type=int, default=336_776)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    report("import_flights", median_of(options.runs, options.flights))
