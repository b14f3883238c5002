"""The result as tables: on the terminal, as JSON in benchmarks/results/, and as Markdown for the README."""

import json
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, made_by
from benchmarks.stream.environment import versions

WIDTH_MIN = 120  # of what is written to a file or a pipe
FILE = RESULTS / "stream.json"
COLUMNS = ("system", "what it does", "events/s", "to Meterline", "a CPU second", "memory", "result")
_TEXTS = {"system", "what it does", "result"}


def show(result: dict[str, Any]) -> None:
    """Print the parameters and a row for each system."""
    for name, value in result.items():
        if name != "systems":
            print(f"  {name:32}{value:>20,}" if isinstance(value, int | float) else f"  {name:32}{value:>20}")
    table = Table()
    for name in COLUMNS:
        if name != "what it does":
            table.add_column(name, justify="left" if name in _TEXTS else "right")
    for row in _rows(result):
        table.add_row(row[0], *row[2:])
    Console(width=None if sys.stdout.isatty() else WIDTH_MIN).print(table)


def keep(result: dict[str, Any]) -> None:
    """Write the result, with each system's rate as a ratio to Meterline's, as results/stream.json."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"benchmark": "stream", **result, "made_by": made_by() | versions()}, indent=2)
    FILE.write_text(text + "\n")


def read() -> dict[str, Any]:
    """The result that was kept last."""
    kept: dict[str, Any] = json.loads(FILE.read_text())
    return kept


def markdown(result: dict[str, Any]) -> str:
    """The README's table."""
    lines = [COLUMNS, ["---" if name in _TEXTS else "---:" for name in COLUMNS], *_rows(result)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_ratios(result: dict[str, Any], reference: str) -> dict[str, Any]:
    """The result, and in it each system's rate by the rate of the one that is named, where that has one."""
    rates = {each["system"]: each["events_per_second"] for each in result["systems"] if "failed" not in each}
    own = rates.get(reference)
    ratios = {name: round(rate / own, 3) for name, rate in rates.items()} if own else {}
    systems = [{**each, f"ratio_to_{reference}": ratios.get(each["system"])} for each in result["systems"]]
    return {**result, "reference": reference, "systems": systems}


def _rows(result: dict[str, Any]) -> list[list[str]]:
    ratio = f"ratio_to_{result['reference']}"
    return [_row(each, each[ratio], result["events"]) for each in result["systems"]]


def _row(each: dict[str, Any], ratio: float | None, events: int) -> list[str]:
    if "failed" in each:
        return [each["system"], each["work"], "", "", "", "", "failed"]
    verdict = "exact" if each["equals_oracle"] else f"wrong: {each['difference']}"
    part = f"; the first {each['events']:,} events" if each["events"] < events else ""
    return [
        each["system"],
        each["work"] + part,
        f"{each['events_per_second']:,}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{each['events_per_cpu_second'] or 0:,}",
        f"{each['peak_memory_mib']:,} MiB",
        verdict if each["deduplicates"] else f"{verdict}, no deduplication",
    ]
