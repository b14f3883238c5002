"""How many entries a second go into an archive, and how fast an archive is verified without a database.

    python -m benchmarks.archive [--entries 1000000]

Invoices of 120.00 with 20.00 tax, three postings each, in one tenant's chain in the embedded PostgreSQL, as in
`benchmarks.ledger`. To archive is to read them from the database, verify each, and write Parquet files and the manifest
to disk; to verify is to hash all files and compute the chain, the digests and the sums again. Prints parameters, rates,
bytes an entry, peak memory and the hash of the chain's last entry as the digest.
"""

import argparse
import os
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.ledger import journals
from benchmarks.report import peak_memory_mib, report
from invoicing.archive.app import create
from invoicing.archive.manifest import Manifest
from invoicing.ledger import store
from meterline.archive_verification import verified
from meterline.verification import ahead
from stores.postgres import embedded_server, engine_for, migrate

ENTRIES, SMOKE_ENTRIES = 1_000_000, 2_000
_TENANT = "bulk"


def run(entries: int) -> dict[str, Any]:
    """Post, archive and verify over a server of its own; the parameters, rates and digest of it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user when this runs as root
        with embedded_server(Path(folder) / "postgres") as url:
            engine = engine_for(url)
            migrate(engine)
            try:
                return measured(engine, Path(folder) / "archive", entries)
            finally:
                engine.dispose()


def measured(engine: sa.Engine, folder: Path, entries: int) -> dict[str, Any]:
    """The same over a database, into a folder."""
    for journal in ahead(journals(entries, _TENANT)):
        with engine.begin() as connection:
            store.post(connection, journal.entries, journal.postings)
    load, started, cpu = os.getloadavg()[0], time.perf_counter(), time.process_time()
    manifest = _archived(engine, folder)
    archive_s, archive_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    started, cpu = time.perf_counter(), time.process_time()
    found = verified(folder)
    verify_s, verify_cpu_s = time.perf_counter() - started, time.process_time() - cpu
    assert (found.faults, found.entries) == ([], entries)
    size = sum(each.bytes for each in manifest.files)
    return {
        "entries": entries,
        "postings": found.postings,
        "files": len(manifest.files),
        "archived_entries_per_second": round(entries / archive_s),
        "archived_entries_per_own_cpu_second": round(entries / archive_cpu_s),
        "verified_entries_per_second": round(entries / verify_s),
        "verified_entries_per_cpu_second": round(entries / verify_cpu_s),
        "bytes_an_entry": round(size / entries),
        "load_before": round(load, 1),
        "load_after": round(os.getloadavg()[0], 1),
        "peak_memory_mib": peak_memory_mib(),
        "digest": manifest.stretches[-1].hash,
    }


def _archived(engine: sa.Engine, folder: Path) -> Manifest:
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        steps = create(connection, folder, _TENANT, through=date(2026, 1, 31), now=datetime.now(UTC), open_months=True)
        *_, manifest = steps
    assert isinstance(manifest, Manifest)
    return manifest


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=ENTRIES)
    report("archive", run(parser.parse_args().entries))
