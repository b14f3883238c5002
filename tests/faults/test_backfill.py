"""Meters of a deployment: made through its gateway, and filled beside a worker that is killed. Real broker and engine."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from meterline.operations import outputs_of
from meterline.output import Output, Table, Text
from schemas.meter import Meter
from stores.clickhouse import query
from tests.faults.conftest import Deployment, event
from tests.faults.gateways import Gateway
from tests.servers import plain_http

LATER = (
    Meter(slug="mean", event_type="call", aggregation="AVG", value_property="$.bytes"),
    Meter(slug="last", event_type="call", aggregation="LATEST", value_property="$.bytes"),
)


def run(deployment: Deployment, operation: str, **parameters: Any) -> list[Output]:
    return list(outputs_of(deployment.system, operation, parameters))


def test_a_backfill_beside_workers_that_are_killed(deployment: Deployment) -> None:
    """Every event counts once for the later meters: those before, those behind, and those that a crash replays."""
    log = deployment.system.log
    first = deployment.worker(kill_at="rollups:4")
    deployment.append([event(number) for number in range(2000)])
    deployment.settle()
    newest = log.newest_config()
    log.configure(newest.model_copy(update={"meters": (*newest.meters, *LATER)}))
    deployment.append([event(number) for number in range(1500, 3000)])
    for meter in LATER:
        assert isinstance(run(deployment, "backfill_meter", slug=meter.slug)[-1], Text)
    deployment.append([event(number) for number in range(2500, 3500)])
    deployment.settle()
    assert first.ended, "the worker was not killed"
    sums = query(
        deployment.system.clickhouse,
        "SELECT meter, toUInt64(sum(count)), sum(sum), max(latest)[1].value FROM rollups WHERE meter IN ('mean', 'last')"
        " GROUP BY meter ORDER BY meter",
    ).rows()
    (_, last_count, _, latest), (_, mean_count, total, _) = sums
    assert (last_count, mean_count) == (3500, 3500)
    assert total == sum(Decimal(number) + Decimal("0.5") for number in range(3500))
    assert latest % 1 == Decimal("0.5")
    audited = next(each for each in run(deployment, "audit") if isinstance(each, Table) and each.title == "Audit")
    assert {result for _, result in audited.rows} == {"holds"}


def test_a_meter_made_through_the_gateway_counts(deployment: Deployment, tmp_path: Path) -> None:
    """It is in force from its record on, in every partition; the same slug again is a conflict."""
    gateway = Gateway(deployment.servers, tmp_path / "gateway.log").start()
    try:
        url = gateway.url.replace("/events", "/meters")
        deployment.append([event(number) for number in range(100)])
        definition = {"slug": "newest", "eventType": "call", "aggregation": "LATEST", "valueProperty": "$.bytes"}
        answers = [plain_http.post(url, json=definition, timeout=30).status_code for _ in range(2)]
        assert answers == [201, 409]
        assert plain_http.delete(f"{url}/nothing", timeout=30).status_code == 404
    finally:
        gateway.stop()
    deployment.append([event(number) for number in range(100, 300)])
    deployment.worker()
    deployment.settle()
    counted = query(deployment.system.clickhouse, "SELECT toUInt64(sum(count)) FROM rollups WHERE meter = 'newest'")
    assert counted.item() == 200
    deployment.check()
