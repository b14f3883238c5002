"""A meter that was added later, filled from the stored events: exactly, whoever is killed when. Real stores."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from aggregation.store import usage_between
from ingest.pack import identify, pack
from meterline.operations import outputs_of
from meterline.output import Failure, Output, Table, Text
from meterline.system import System
from meterline.worker import Worker
from schemas.log import Flush, Limits, LogConfig
from schemas.meter import Aggregation, Meter
from schemas.tenant import DEFAULT_TENANT
from stores.clickhouse import Client, query
from stores.postgres_log import open_log

PARTITIONS = 2
FIRST = Meter(slug="calls", event_type="call", aggregation="COUNT")
LATER = tuple(
    Meter(
        slug=kind.value.lower(), event_type="call", aggregation=kind, group_by={"region": "$.region"},
        value_property=None if kind is Aggregation.COUNT else "$.bytes", filters={"$.kind": {"not_in": ["x"]}},
    )
    for kind in Aggregation
)  # fmt: skip
ROWS = (
    "SELECT tenant, meter, subject, dimensions, window_start, epoch, sum(count), sum(sum), min(min), max(max),"
    " arraySort(groupUniqArrayArray(uniques)), max(latest) FROM rollups WHERE {where} GROUP BY ALL ORDER BY ALL"
)
START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


def event(number: int) -> bytes:
    """A usage event of January or February; one in seven has no usable value, one in five is filtered out."""
    return json.dumps({
        "specversion": "1.0", "id": str(number), "source": "/s", "type": "other" if number % 11 == 0 else "call",
        "subject": f"s{number % 3}", "time": f"2026-0{1 + number % 2}-{number % 28 + 1:02d}T{number % 24:02d}:30:00Z",
        "data": {"bytes": f"{number}.25" if number % 7 else "many", "region": ("eu", "us")[number % 2],
                 "kind": "x" if number % 5 == 0 else "a"},
    }).encode()  # fmt: skip


def append(app: System, numbers: range) -> None:
    lines = [event(number) for number in numbers]
    app.log.append(pack(lines, identify(lines), PARTITIONS))


def run(app: System, operation: str, **parameters: Any) -> list[Output]:
    return list(outputs_of(app, operation, parameters))


def rows(app: System, where: str = "true") -> pl.DataFrame:
    return query(app.clickhouse, ROWS.format(where=where))


def faults(app: System) -> set[str]:
    """The promises that the audit found broken."""
    table = next(each for each in run(app, "audit") if isinstance(each, Table) and each.title == "Audit")
    return {name for name, result in table.rows if result != "holds"}


def caught_up(app: System) -> None:
    assert app.follower.wait_for(app.log.punctuate(Flush()), 60)


@pytest.fixture
def app(database: sa.Engine, clickhouse: Client) -> Iterator[System]:
    """Events of two months in two epochs, before and behind the offsets from which the later meters are in force."""
    log = open_log(database, PARTITIONS)
    worker = Worker(log, clickhouse)
    worker.start()
    opened = System(database, clickhouse, log, worker)
    log.configure(LogConfig(limits=Limits(batch_events_max=40), meters=(FIRST,)))
    append(opened, range(200))
    run(opened, "audit")  # a barrier
    append(opened, range(150, 300))
    log.configure(LogConfig(limits=Limits(batch_events_max=30), meters=(FIRST, *LATER[1:])))
    append(opened, range(250, 400))
    caught_up(opened)
    yield opened
    worker.stop()
    log.close()


def expected(app: System, slug: str) -> dict[tuple[str, str], int]:
    """How many events of each subject and region a later meter counts, by a plain look at them all."""
    counts: dict[tuple[str, str], int] = {}
    for number in range(400):
        if number % 11 and number % 5 and (number % 7 or slug in {"count", "unique_count"}):
            key = (f"s{number % 3}", ("eu", "us")[number % 2])
            counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("meter", LATER[1:], ids=lambda meter: meter.slug)
def test_a_backfilled_meter_counts_every_stored_event_once(app: System, meter: Meter) -> None:
    """Those before it, and those that the worker counted itself; a second time changes nothing, and the audit holds."""
    others = rows(app, f"meter != '{meter.slug}'")
    assert isinstance(run(app, "backfill_meter", slug=meter.slug)[-1], Text)
    found = query(
        app.clickhouse,
        f"SELECT subject, dimensions['region'], toUInt64(sum(count)) FROM rollups WHERE meter = '{meter.slug}' GROUP BY ALL",
    )
    assert {(subject, region): count for subject, region, count in found.rows()} == expected(app, meter.slug)
    epochs = query(app.clickhouse, f"SELECT count(DISTINCT epoch) FROM rollups WHERE meter = '{meter.slug}'").item()
    assert epochs == 2
    assert rows(app, f"meter != '{meter.slug}'").equals(others)
    before = rows(app)
    assert isinstance(run(app, "backfill_meter", slug=meter.slug)[-1], Text)
    assert rows(app).equals(before)
    assert faults(app) == set()


def test_a_backfilled_meter_goes_on_counting(app: System) -> None:
    """Events that arrive during and after the backfill count once; its usage is what a meter of old would have."""
    run(app, "backfill_meter", slug="avg")
    append(app, range(300, 500))
    caught_up(app)
    run(app, "backfill_meter", slug="avg")
    run(app, "backfill_meter", slug="latest")
    usage = usage_between(app.clickhouse, DEFAULT_TENANT, LATER, START, END, cut=2**32 - 1)
    for subject in range(3):
        numbers = [n for n in range(500) if n % 11 and n % 5 and n % 7 and n % 3 == subject]
        values = [Decimal(f"{number}.25") for number in numbers]
        (found,) = usage.filter(subject=f"s{subject}", meter="avg").to_dicts()
        assert (found["sum"], found["count"]) == (sum(values), len(values))
        assert found["quantity"] == (sum(values) / len(values)).quantize(Decimal("1e-9"))
        (latest,) = usage.filter(subject=f"s{subject}", meter="latest").to_dicts()
        newest = max(json.loads(event(number))["time"] for number in numbers)
        last = [number for number in numbers if json.loads(event(number))["time"] == newest]
        assert latest["quantity"] in {Decimal(f"{number}.25") for number in last}
        assert latest["latest"]["time"] == datetime.fromisoformat(newest)
    assert faults(app) == set()


def test_only_a_range_is_filled(app: System) -> None:
    """Events of other hours stay uncounted, and the recount knows; widening the range later fills the rest."""
    run(app, "backfill_meter", slug="sum", start="2026-01-05", end="2026-02-01T00:00:00Z")
    outside = "meter = 'sum' AND (window_start < '2026-01-05' OR window_start >= '2026-02-01')"
    some = rows(app, outside)
    assert faults(app) == set()
    run(app, "backfill_meter", slug="sum")
    assert len(rows(app, outside)) > len(some)
    counted = query(app.clickhouse, "SELECT toUInt64(sum(count)) FROM rollups WHERE meter = 'sum'").item()
    assert counted == sum(expected(app, "sum").values())
    assert faults(app) == set()


def test_a_meter_that_was_withdrawn_and_came_back(app: System) -> None:
    """What was appended in between is filled, and nothing twice."""
    newest = app.log.newest_config()
    without = tuple(meter for meter in newest.meters if meter.slug != "sum")
    app.log.configure(newest.model_copy(update={"meters": without}))
    append(app, range(400, 450))
    app.log.configure(newest)
    append(app, range(450, 500))
    caught_up(app)
    run(app, "backfill_meter", slug="sum")
    counted = query(app.clickhouse, "SELECT toUInt64(sum(count)) FROM rollups WHERE meter = 'sum'").item()
    assert counted == len([n for n in range(500) if n % 11 and n % 5 and n % 7])
    app.log.configure(newest.model_copy(update={"meters": without}))
    append(app, range(500, 550))
    caught_up(app)
    assert faults(app) == set()  # what came after the cut is not the backfill's


class _Dies:
    """A client that dies at a statement, or when rows are inserted."""

    def __init__(self, client: Client, at: str, *, after: bool) -> None:
        self._client, self._at, self._after = client, at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def _died(self, sql: str, call: Any) -> Any:
        if not sql.startswith(self._at):
            return call()
        if self._after:
            call()
        raise OSError("the engine went away")

    def command(self, sql: str, **options: Any) -> Any:
        """Run a statement, unless it is the one."""
        return self._died(sql, lambda: self._client.command(sql, **options))

    def raw_insert(self, table: str, *arguments: Any, **options: Any) -> Any:
        """Insert rows, unless it is that table."""
        return self._died(table, lambda: self._client.raw_insert(table, *arguments, **options))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("statement", ["rollups_recounted", "ALTER TABLE rollups DELETE", "INSERT INTO rollups SELECT"])
def test_a_backfill_that_died_is_finished_by_another(app: System, statement: str, after: bool) -> None:
    """Until then nothing is read for money and the audit finds what is missing; then all is as if it had not died."""
    dying = System(app.database, _Dies(app.clickhouse, statement, after=after), app.log, app.follower)
    assert isinstance(run(dying, "backfill_meter", slug="latest", start="2026-01-03")[-1], Failure)
    refused = "a backfill of latest did not finish; finish it with `meterline meters backfill latest`"
    assert run(app, "show_usage", period="2026-01") == [Failure(message=refused)]
    if not (statement.startswith("INSERT") and after):
        assert faults(app) == {"rollups are the sum of their events"}
    append(app, range(400, 430))  # the worker goes on meanwhile
    assert isinstance(run(app, "backfill_meter", slug="latest", start="2026-02-03")[-1], Text)
    assert isinstance(run(app, "show_usage", period="2026-01")[-1], Table)
    assert faults(app) == set()
    counted = query(app.clickhouse, "SELECT toUInt64(sum(count)) FROM rollups WHERE meter = 'latest'").item()
    of_range = [n for n in range(430) if n % 11 and n % 5 and n % 7]
    early = [n for n in of_range if json.loads(event(n))["time"] < "2026-01-03" and n < 300]
    assert counted == len(of_range) - len([n for n in early if n < 300])


BOOK = """
book: cloud
version: 1
effective_at: 2013-01-01
currency: USD
plans:
  - id: team
    charges:
      - {{id: use, model: graduated, meter: {meter}, tiers: [{{up_to: null, unit_price: 1}}]}}
      - {{id: fee, model: flat, amount: 5}}
{default}
"""


@pytest.mark.parametrize(
    ("slug", "charged", "default", "refused"),
    [
        ("sum", "sum", "", True), ("sum", "calls", "", False), ("sum", "calls", "default_plan: team", False),
        ("uploads", "calls", "default_plan: team", True),
    ],
    ids=["priced", "not priced", "every subject is a customer", "a subject would become a customer"],
)  # fmt: skip
def test_a_billed_month_keeps_its_invoices(app: System, slug: str, charged: str, default: str, refused: bool) -> None:
    """Usage that would change an invoice is not added below its cut; that of other months, and of other meters, is."""
    upload = {**json.loads(event(1)), "id": "upload", "type": "upload", "subject": "s9"}
    app.log.append([(0, json.dumps(upload).encode())])
    newest = app.log.newest_config()
    uploads = Meter(slug="uploads", event_type="upload", aggregation="COUNT")
    app.log.configure(newest.model_copy(update={"meters": (*newest.meters, uploads)}))
    caught_up(app)
    contracts = "contracts: [{customer: c, name: C, plan: team, starts_on: 2013-01-01, subjects: [s0, s1, s2]}]"
    run(app, "apply_price_book", text=BOOK.format(meter=charged, default=default), file="book.yaml")
    run(app, "apply_contracts", text=contracts, file="contracts.yaml")
    assert not isinstance(run(app, "bill", period="2026-02")[-1], Failure)
    last = run(app, "backfill_meter", slug=slug)[-1]
    if not refused:
        assert isinstance(last, Text)
        return
    assert isinstance(last, Failure)
    assert "2026-02: billed already, and the added usage of" in last.message
    assert isinstance(run(app, "backfill_meter", slug=slug, end="2026-02-01")[-1], Text)
    assert isinstance(run(app, "backfill_meter", slug=slug, start="2026-03-01")[-1], Text)
    assert faults(app) == set()
