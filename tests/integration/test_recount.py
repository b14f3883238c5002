"""The audit's recount and the rebuild, over real stores: any damage to rollups is found, and repaired from the events."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prometheus_client import REGISTRY

from meterline.operations import outputs_of
from meterline.output import Failure, Output, Table, Text
from meterline.rollups import whole_rollups
from meterline.system import System
from schemas.log import Flush, Limits, LogConfig
from schemas.meter import Meter
from schemas.tables import ROLLUPS
from stores.clickhouse import Client, insert, query
from tests.conftest import empty_tables
from tests.integration.kept_stores import Kept, kept_stores

PROPERTY = {"event_type": "call", "value_property": "$.bytes"}
METERS = (
    Meter(slug="calls", event_type="call", aggregation="COUNT", group_by={"region": "$.region"}),
    Meter(slug="bytes", aggregation="SUM", **PROPERTY),
    Meter(slug="least", aggregation="MIN", **PROPERTY),
    Meter(slug="most", aggregation="MAX", **PROPERTY),
    Meter(slug="mean", aggregation="AVG", filters={"$.region": {"not_in": ["us"]}}, **PROPERTY),
    Meter(slug="last", aggregation="LATEST", event_from="2026-01-10T00:00:00Z", **PROPERTY),
)
LATER = Meter(slug="sizes", aggregation="UNIQUE_COUNT", **PROPERTY)
ROWS = (
    "SELECT meter, subject, dimensions, window_start, epoch, sum(count), sum(sum), min(min), max(max),"
    " arraySort(groupUniqArrayArray(uniques)), max(latest) FROM rollups GROUP BY ALL ORDER BY ALL"
)
DAMAGES = {
    "a rollup is gone": "ALTER TABLE rollups DELETE WHERE meter = 'calls' AND subject = 's3'",
    "a sum is off by the last digit": "INSERT INTO rollups (tenant, meter, subject, window_start, epoch, sum)"
    " SELECT tenant, meter, subject, window_start, epoch, toDecimal128('0.000000001', 9) FROM rollups"
    " WHERE meter = 'bytes' LIMIT 1",
    "rows stand twice": "INSERT INTO rollups SELECT * FROM rollups WHERE meter = 'calls'",
    "a minimum is too low": "INSERT INTO rollups (tenant, meter, subject, window_start, epoch, min)"
    " SELECT tenant, meter, subject, window_start, epoch, toDecimal128('-1', 9) FROM rollups WHERE meter = 'least' LIMIT 1",
    "a unique value is another": "ALTER TABLE rollups UPDATE uniques = arrayMap(x -> concat(x, '0'), uniques)"
    " WHERE meter = 'sizes'",
    "the latest value came from elsewhere in the log": "ALTER TABLE rollups UPDATE latest ="
    " arrayMap(x -> (x.1, x.2, x.3, x.4 + 1, x.5, x.6)::Tuple(time DateTime64(6, 'UTC'), appended_at DateTime64(3, 'UTC'),"
    " partition UInt16, offset UInt64, line UInt32, value Decimal(38, 9)), latest) WHERE meter = 'last'",
    "usage that no event has": "INSERT INTO rollups (tenant, meter, subject, window_start, epoch, count)"
    " SELECT tenant, 'unheard_of', subject, window_start, epoch, 1 FROM rollups WHERE meter = 'calls' LIMIT 1",
}


def line(number: int, **fields: Any) -> bytes:
    """A usage event of January or February; one in seven has no usable value."""
    value: Any = f"{number}.25" if number % 7 else "many"
    return json.dumps({
        "specversion": "1.0", "id": str(number), "source": "/s", "type": "call", "subject": f"s{number % 5}",
        "time": f"2026-0{1 + number % 2}-{number % 28 + 1:02d}T{number % 24:02d}:30:00Z",
        "data": {"bytes": value, "region": ("eu", "us")[number % 2]}, **fields,
    }).encode()  # fmt: skip


def fill(app: System) -> None:
    """Events of two months in several epochs and under two configurations, with copies and with lines that are none."""
    app.log.configure(LogConfig(limits=Limits(batch_events_max=100), meters=METERS))
    app.log.append([(0, b"\n".join(line(number) for number in range(250)))])
    run(app, "audit")  # a barrier
    app.log.append([(0, b"\n".join([*(line(number) for number in range(200, 400)), b"not json"]))])
    app.log.configure(LogConfig(limits=Limits(batch_events_max=70), meters=(*METERS, LATER)))
    untimed = json.loads(line(400))
    del untimed["time"]
    app.log.append([(0, b"\n".join([*(line(number) for number in range(401, 600)), json.dumps(untimed).encode()]))])
    assert app.follower.wait_for(app.log.punctuate(Flush()), 60)


@pytest.fixture(scope="module")
def kept(postgres_url: str, _engine: Path) -> Iterator[Kept]:
    """The stores when all of that is in them."""
    with empty_tables(_engine) as clickhouse, kept_stores(postgres_url, clickhouse, fill) as filled:
        yield filled


@pytest.fixture
def app(kept: Kept, clickhouse: Client) -> Iterator[System]:
    """A copy of them, and a worker that goes on."""
    with kept.copied(clickhouse) as copy:
        yield copy


def run(app: System, operation: str, **parameters: Any) -> list[Output]:
    return list(outputs_of(app, operation, parameters))


def found(outputs: list[Output]) -> dict[str, str]:
    """The audit's results by promise."""
    table = next(each for each in outputs if isinstance(each, Table) and each.title == "Audit")
    return dict(tuple(row) for row in table.rows)


def rebuild_all(app: System) -> None:
    """Rebuild every month that has usage."""
    sql = "SELECT DISTINCT formatDateTime(time, '%Y-%m') AS month FROM events ORDER BY month"
    for month in query(app.clickhouse, sql)["month"]:
        assert isinstance(run(app, "rebuild_rollups", month=month)[-1], Text)


def metric(check: str) -> float | None:
    return REGISTRY.get_sample_value("meterline_audit_faults", {"check": check})


def test_rollups_are_what_a_recount_says(app: System) -> None:
    """Over epochs, a change of meters and an event without a time: no difference, and the metric says so."""
    outputs = run(app, "audit")
    assert set(found(outputs).values()) == {"holds"}
    assert metric("rollups are the sum of their events") == 0
    assert query(app.clickhouse, "SELECT count() FROM rollups WHERE meter = 'sizes'").item() > 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_and_repaired(app: System, damage: str) -> None:
    """The audit names what differs; rebuilding the months makes every row what it was."""
    before = query(app.clickhouse, ROWS)
    app.clickhouse.command(f"{DAMAGES[damage]} SETTINGS mutations_sync = 2")
    outputs = run(app, "audit")
    assert found(outputs)["rollups are the sum of their events"].endswith("faults")
    assert (metric("rollups are the sum of their events") or 0) > 0
    assert isinstance(outputs[-1], Failure)
    assert any(isinstance(each, Table) and "differ from the recount" in each.title for each in outputs)
    rebuild_all(app)
    assert query(app.clickhouse, ROWS).equals(before)
    assert set(found(run(app, "audit")).values()) == {"holds"}


def test_a_rebuild_leaves_other_months_and_later_epochs(app: System) -> None:
    """What is not in the month, or came behind the cut, has the very rows it had."""
    app.clickhouse.command(DAMAGES["rows stand twice"])
    damaged = query(app.clickhouse, "SELECT * FROM rollups WHERE window_start >= '2026-02-01' ORDER BY ALL")
    assert isinstance(run(app, "rebuild_rollups", month="2026-01")[-1], Text)
    after = query(app.clickhouse, "SELECT * FROM rollups WHERE window_start >= '2026-02-01' ORDER BY ALL")
    assert after.equals(damaged)


def test_the_audit_of_a_month_is_about_that_month(app: System) -> None:
    """Damage elsewhere is not its business."""
    app.clickhouse.command(DAMAGES["a rollup is gone"] + " AND window_start < '2026-02-01' SETTINGS mutations_sync = 2")
    assert isinstance(run(app, "audit", month="2026-01")[-1], Failure)
    assert set(found(run(app, "audit", month="2026-02")).values()) == {"holds"}


def test_an_event_whose_columns_are_not_its_line(app: System) -> None:
    """A stored event that was changed is found, though its rollups may still be right."""
    app.clickhouse.command("ALTER TABLE events UPDATE source = '/other' WHERE id = '17' SETTINGS mutations_sync = 2")
    results = found(run(app, "audit"))
    assert results["every event is stored as its line says"] == "1 faults"
    assert results["rollups are the sum of their events"] == "holds"


def test_a_rebuild_from_too_few_events_is_refused(app: System) -> None:
    """Where events are missing, the rollups may be all that is left of them."""
    before = query(app.clickhouse, ROWS)
    app.clickhouse.command("ALTER TABLE events DELETE WHERE id = '17' SETTINGS mutations_sync = 2")
    outputs = run(app, "rebuild_rollups", month="2026-01")
    assert outputs[-1] == Failure(message="1 accepted events are not stored: a rebuild would lose their usage")
    assert query(app.clickhouse, ROWS).equals(before)


class _Dies:
    """A client that dies at a statement."""

    def __init__(self, client: Client, at: str, *, after: bool) -> None:
        self._client, self._at, self._after = client, at, after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def command(self, sql: str, **options: Any) -> Any:
        """Run a statement, unless it is the one."""
        if not sql.startswith(self._at):
            return self._client.command(sql, **options)
        if self._after:
            self._client.command(sql, **options)
        raise OSError("the engine went away")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("statement", ["ALTER TABLE rollups DELETE", "INSERT INTO rollups SELECT"])
def test_a_rebuild_that_died_is_not_billed(app: System, statement: str, after: bool) -> None:
    """Whatever is left of the month, no usage of it is read until the rebuild was finished by another one."""
    before = query(app.clickhouse, ROWS)
    app.clickhouse.command(DAMAGES["rows stand twice"])
    dying = System(app.database, _Dies(app.clickhouse, statement, after=after), app.log, app.follower)
    assert isinstance(run(dying, "rebuild_rollups", month="2026-01")[-1], Failure)
    refused = "a rebuild of 2026-01 did not finish; finish it with `meterline rollups rebuild --month 2026-01`"
    assert run(app, "show_usage", period="2026-02") == [Failure(message=refused)]
    rebuild_all(app)
    assert query(app.clickhouse, ROWS).equals(before)
    assert isinstance(run(app, "show_usage", period="2026-02")[-1], Table)


def test_a_token_still_counts_once_after_a_rebuild(app: System) -> None:
    """A batch that is stored again after its rollups were deleted and copied changes nothing."""
    rows = query(app.clickhouse, "SELECT * FROM rollups WHERE meter = 'calls' LIMIT 1").cast(
        ROLLUPS.frame, strict=False
    )
    insert(app.clickhouse, ROLLUPS, rows, "some batch:rollups")
    rebuild_all(app)
    before = query(app.clickhouse, ROWS)
    insert(app.clickhouse, ROLLUPS, rows, "some batch:rollups")
    assert query(app.clickhouse, ROWS).equals(before)


def test_billing_and_rebuilding_exclude_each_other(app: System) -> None:
    """While one reads the rollups the other one is refused, in words."""
    with whole_rollups(app.database), whole_rollups(app.database):
        outputs = run(app, "rebuild_rollups", month="2026-01")
    assert outputs[-1] == Failure(message="a billing run reads the rollups; wait for it to end")
    with app.database.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended('rollups', 0))"))
        outputs = run(app, "show_usage", period="2026-01")
    assert outputs == [Failure(message="the rollups are being rebuilt or backfilled; wait for it to end")]
    assert isinstance(run(app, "show_usage", period="2026-01")[0], Table)
