"""Recurring charges billed month by month, over real stores: what one rating of the whole time without stores gives."""

import json
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import sqlalchemy as sa

from meterline.billable import billable
from meterline.billing import bill
from meterline.levels import levels_before
from meterline.offline import Question, rate_offline
from meterline.operations import outputs_of
from meterline.output import Failure, Output, Progress, Table
from meterline.period import Period
from meterline.system import System
from meterline.usage_files import read_usage
from meterline.worker import Worker
from rating.store import level_ratings, levels_of
from schemas.contract import parse_contracts
from schemas.log import Flush
from schemas.meter import parse_meters
from schemas.price_book import parse_price_book
from schemas.tenant import DEFAULT_TENANT
from stores.clickhouse import Client
from stores.postgres_log import open_log

METERS = """
meters:
  - {slug: seats, eventType: seats, aggregation: SUM, valueProperty: $.n, groupBy: {region: $.region}}
  - {slug: calls, eventType: calls, aggregation: SUM, valueProperty: $.n}
"""
BOOK = """
book: cloud
version: 1
effective_at: 2025-11-15
currency: USD
default_plan: free
plans:
  - {id: free, charges: [{id: seats, model: standard, meter: seats, unit_price: 2, recurring: true}]}
  - id: pro
    charges:
      - {id: seats, model: standard, meter: seats, unit_price: 10, recurring: true, buckets: {window: hour, take: time_weighted}}
      - {id: licences, model: graduated, meter: seats, recurring: true, tiers: [{up_to: 4, unit_price: 3}, {up_to: null, unit_price: 1}]}
      - {id: regions, model: standard, meter: seats, unit_price: 5, recurring: true, group_by: [region]}
      - {id: calls, model: standard, meter: calls, unit_price: 0.01}
"""
CONTRACTS = """
contracts:
  - {customer: acme, name: Acme, subjects: [a, b], plan: pro, starts_on: 2025-11-15}
  - {customer: mid, name: Mid, subjects: [m], plan: pro, starts_on: 2025-12-15, cycle: {every: month, anchor: anniversary}}
  - {customer: berlin, name: Berlin, subjects: [z], plan: pro, starts_on: 2025-11-15, time_zone: Europe/Berlin, cycle: {every: week, anchor: calendar}}
  - {customer: quarter, name: Quarter, subjects: [q], plan: pro, starts_on: 2025-11-15, cycle: {every: quarter, anchor: calendar}}
"""


class Use(NamedTuple):
    """Usage of a subject at a time of a region."""

    subject: str
    at: str
    number: str
    region: str = ""
    meter: str = "seats"


JANUARY = [
    Use("a", "2026-01-05T06:00:00Z", "5", "eu"), Use("b", "2026-01-20T00:00:00Z", "1.5", "us"),
    Use("a", "2026-01-31T23:59:59Z", "-2", "eu"), Use("a", "2026-01-07T00:00:00Z", "100", meter="calls"),
    Use("m", "2026-01-14T23:00:00Z", "3"), Use("m", "2026-01-15T00:00:00Z", "1"), Use("z", "2026-01-09T10:30:00Z", "7", "eu"),
    Use("free", "2026-01-12T00:00:00Z", "4"), Use("gone", "2026-01-12T00:00:00Z", "4"), Use("q", "2026-01-03T00:00:00Z", "2"),
]  # fmt: skip
FEBRUARY = [
    Use("b", "2026-02-10T12:00:00Z", "2", "us"), Use("m", "2026-02-14T00:00:00Z", "-1"), Use("gone", "2026-02-03T00:00:00Z", "-4"),
    Use("z", "2026-02-22T23:30:00Z", "-7", "eu"), Use("z", "2026-02-27T00:00:00Z", "1", "us"),
]  # fmt: skip
LATE = [
    Use("a", "2026-01-10T00:00:00Z", "3", "eu"),
    Use("m", "2026-01-02T00:00:00Z", "2"),
    Use("free", "2026-01-13T00:00:00Z", "1"),
]
MARCH = [
    Use("free", "2026-03-03T00:00:00Z", "1"),
    Use("a", "2026-03-16T00:00:00Z", "-1", "eu"),
    Use("q", "2026-03-03T00:00:00Z", "5"),
]


@pytest.fixture
def app(database: sa.Engine, clickhouse: Client) -> Iterator[System]:
    """A system with meters, prices and contracts, and a worker that follows its log."""
    log = open_log(database, 1)
    worker = Worker(log, clickhouse)
    worker.start()
    opened = System(database, clickhouse, log, worker)
    for kind, text in (("meters", METERS), ("price_book", BOOK), ("contracts", CONTRACTS)):
        done(opened, f"apply_{kind}", text=text, file=f"{kind}.yaml")
    yield opened
    worker.stop()
    log.close()


def done(app: System, operation: str, **parameters: Any) -> list[Output]:
    """All that an operation yields; a failure fails the test."""
    outputs = list(outputs_of(app, operation, parameters))
    assert not [output for output in outputs if isinstance(output, Failure)], outputs
    return outputs


def arrive(app: System, used: Sequence[Use]) -> None:
    """Put usage into the log, and wait until it is stored."""
    lines = [
        json.dumps({
            "specversion": "1.0", "id": repr(each), "source": "/s", "type": each.meter, "subject": each.subject,
            "time": each.at, "data": {"n": each.number, **({"region": each.region} if each.region else {})},
        }).encode()
        for each in used
    ]  # fmt: skip
    app.log.append([(0, b"\n".join(lines))])
    assert app.follower.wait_for(app.log.punctuate(Flush()), 60)


def rows(app: System, sql: str) -> list[Any]:
    with app.database.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(sql))]


def booked(app: System, months: Sequence[str]) -> dict[Any, int]:
    """What lines for usage of these months add up to, where it is not 0."""
    sql = """SELECT l.usage_period, l.customer, l.charge, CAST(sum(l.amount_minor) AS bigint) FROM invoice_lines l
             GROUP BY 1, 2, 3 HAVING sum(l.amount_minor) <> 0"""
    return {(month, customer, charge): amount for month, customer, charge, amount in rows(app, sql) if month in months}


def rated_at_once(folder: Path, used: Sequence[Use], after: date, months: Sequence[str]) -> dict[Any, int]:
    """What one rating of all that time without stores gives for these months, as a bill names it."""
    file = folder / "usage.csv"
    cells = [f"{each.subject},{each.meter},{each.number},{each.at},{each.region}" for each in used]
    file.write_text("\n".join(["customer,meter,quantity,at,dimensions.region", *cells]))
    meters = parse_meters(METERS, "meters.yaml")
    book = parse_price_book(BOOK, "book.yaml", {each.slug: each for each in meters})
    answer = rate_offline(Question(
        books={"book.yaml": book},
        contracts=parse_contracts(CONTRACTS, "contracts.yaml"), contracts_file="contracts.yaml", meters=meters,
        usage=read_usage(file), usage_file="usage.csv", after=after, through=Period.parse(months[-1]).end.date(),
    ))  # fmt: skip
    last = Period.parse(months[-1])
    charged = billable(answer.rated.charges, answer.rated.slices, month=last, contracts=answer.contracts, books=[book])
    found = charged.filter(pl.col("amount_minor") != 0).select("period", "customer", "charge", "amount_minor")
    return {(month, customer, charge): amount for month, customer, charge, amount in found.rows() if month in months}


def levels(app: System, month: str) -> dict[tuple[str, str], Decimal]:
    """The levels of charges without groups that are in force at the end of the month before."""
    found = levels_before(app.database, Period.parse(month)).filter(pl.col("group") == "")
    return {(customer, charge): quantity for customer, charge, _, _, quantity in found.rows()}


def test_months_billed_one_by_one_are_the_whole(app: System, tmp_path: Path) -> None:
    """Months, weeks, quarters, anniversaries and the default plan; and seats of January that are told after February."""
    arrive(app, JANUARY)
    done(app, "bill", period="2026-01")
    start, january = date(2026, 1, 1), ["2026-01"]
    assert booked(app, january) == rated_at_once(tmp_path, JANUARY, start, january)
    arrive(app, FEBRUARY)
    done(app, "bill", period="2026-02")
    assert booked(app, ["2026-01", "2026-02"]) == rated_at_once(
        tmp_path, [*JANUARY, *FEBRUARY], start, ["2026-01", "2026-02"]
    )
    assert not rows(app, "SELECT FROM invoice_lines WHERE kind = 'adjustment'")
    assert levels(app, "2026-03")["free", "seats"] == 4  # without usage in February it rests
    assert ("gone", "seats") not in levels(app, "2026-03")
    # seats of January arrive: February starts with three more, and April's first quarter has two
    arrive(app, [*LATE, *MARCH])
    march = done(app, "bill", period="2026-03")
    months = ["2026-01", "2026-02", "2026-03"]
    whole = rated_at_once(tmp_path, [*JANUARY, *FEBRUARY, *LATE, *MARCH], start, months)
    assert booked(app, months) == whole
    assert whole["2026-02", "acme", "licences"] == 1750  # 4 for 3.00, and 5.5 for 1.00
    adjusted = (
        "SELECT DISTINCT usage_period FROM invoice_lines WHERE kind = 'adjustment' AND customer = 'acme' ORDER BY 1"
    )
    assert rows(app, adjusted) == [("2026-01",), ("2026-02",)]
    assert levels(app, "2026-04")["free", "seats"] == 6
    # the same again, and the audit
    everything = [
        rows(app, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in ("invoices", "level_ratings", "levels")
    ]
    assert done(app, "bill", period="2026-03")[-1] == march[-1]
    assert everything == [
        rows(app, f"SELECT * FROM {table} ORDER BY 1, 2, 3") for table in ("invoices", "level_ratings", "levels")
    ]
    (simulated,) = done(app, "simulate_prices", text=BOOK.replace("version: 1", "version: 2").replace("unit_price: 2,", "unit_price: 4,"), file="new.yaml", period="2026-03")  # fmt: skip
    assert isinstance(simulated, Table)
    assert ["free", "USD", "12.00", "24.00", "+12.00"] in simulated.rows
    assert len([row for row in simulated.rows if row[-1] != "+0.00"]) == 2


def test_a_run_that_ends_early_leaves_nothing(app: System) -> None:
    """Given up at each step, and asked for again: the levels and lines of a run that was left alone."""
    arrive(app, JANUARY)
    done(app, "bill", period="2026-01")
    arrive(app, [*FEBRUARY, *LATE])
    told = rows(app, "SELECT period, run_period, digest FROM level_ratings")
    for steps in range(1, 4):
        outputs = bill(app, period="2026-02")
        for _ in range(steps):
            assert isinstance(next(outputs), Progress)
        outputs.close()
        assert rows(app, "SELECT period, run_period, digest FROM level_ratings") == told
    done(app, "bill", period="2026-02")
    found = rows(app, "SELECT period, run_period, digest <> '' FROM level_ratings ORDER BY cut, period")
    assert found == [("2026-01", "2026-01", True), ("2026-01", "2026-02", True), ("2026-02", "2026-02", True)]
    assert levels(app, "2026-03")["acme", "licences"] == Decimal("9.5")


def test_months_that_nobody_billed_move_levels(app: System, tmp_path: Path) -> None:
    """Of November before the first run, and of February between two; billed after all, and changed after that."""
    november = [Use("a", "2025-11-20T00:00:00Z", "10", "eu"), Use("free", "2025-11-20T00:00:00Z", "1")]
    late = [Use("a", "2025-11-21T00:00:00Z", "4", "us")]
    start = date(2025, 11, 1)
    arrive(app, [*november, *JANUARY, *FEBRUARY, *MARCH])
    done(app, "bill", period="2026-01")
    # a contract that began before there were prices has no say in what others held
    legacy = "  - {customer: legacy, name: Legacy, subjects: [l], plan: pro, starts_on: 2025-10-01}"
    done(app, "apply_contracts", text=f"{CONTRACTS.rstrip()}\n{legacy}\n", file="contracts.yaml")
    done(app, "bill", period="2026-03")
    used = [*november, *JANUARY, *FEBRUARY, *MARCH]
    assert booked(app, ["2026-01", "2026-03"]) == rated_at_once(tmp_path, used, start, ["2026-01", "2026-03"])
    assert not rows(app, "SELECT FROM invoice_lines WHERE kind = 'adjustment'")
    arrive(app, late)
    done(app, "bill", period="2026-02")  # February has no say in what March was billed with
    done(app, "bill", period="2026-04")
    months = ["2026-01", "2026-02", "2026-03", "2026-04"]
    assert booked(app, months) == rated_at_once(tmp_path, [*used, *late], start, months)
    lines = rows(app, "SELECT count(*) FROM invoice_lines")
    done(app, "bill", period="2026-05")
    later = (
        "SELECT count(*) FROM invoice_lines WHERE invoice_id NOT IN (SELECT id FROM invoices WHERE period = '2026-05')"
    )
    assert rows(app, later) == lines
    assert not rows(app, "SELECT FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id WHERE l.kind = 'adjustment' AND period = '2026-05'")  # fmt: skip


def test_levels_that_were_changed_are_not_billed_with(app: System) -> None:
    """A row that somebody adds to the levels of a month is found before the next month starts with it."""
    arrive(app, JANUARY)
    done(app, "bill", period="2026-01")
    with app.database.begin() as connection:
        (rating,) = [each for each in level_ratings(connection, DEFAULT_TENANT) if each.period == "2026-01"]
        assert levels_of(connection, DEFAULT_TENANT, rating).height > 5
        connection.execute(
            sa.text("INSERT INTO levels VALUES ('default', '2026-01', '2026-01', 'x', 'seats', '', 0, 99)")
        )
    failure = list(outputs_of(app, "bill", {"period": "2026-02"}))[-1]
    assert isinstance(failure, Failure)
    assert "the levels at the end of 2026-01 are not those that the run of 2026-01 found" in failure.message


def test_a_book_that_begins_within_the_first_month(app: System) -> None:
    """The month's basis is the version that becomes effective in it, where none was in force on its first day."""
    (refused,) = outputs_of(app, "bill", {"period": "2025-10"})
    assert isinstance(refused, Failure)
    assert refused.message.startswith("no price book is in force on 2025-10-31")
    arrive(app, [Use("a", "2025-11-25T00:00:00Z", "3")])
    done(app, "bill", period="2025-11")
    assert rows(app, "SELECT customer, book, book_version FROM invoices") == [("acme", "cloud", 1)]
