"""Grafana's dashboard of usage: each of its queries, on the real engine, gives the number that the query API gives.

Variables and macros are expanded as Grafana and its ClickHouse plugin document it; no other ones may stand in a query.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from aggregation.api import UsageApi
from ingest.pack import identify, pack
from meterline.worker import Worker
from schemas.log import Flush, LogConfig
from schemas.meter import Meter
from stores.clickhouse import Client, Clients, open_embedded, query
from stores.postgres_log import PostgresLog, open_log
from tests.servers.compose import ROOT

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "usage.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
MEASURES = {"calls": "events", "bytes": "sum", "smallest": "min", "largest": "max", "typical": "average"}
METERS = tuple(
    Meter(slug=slug, event_type="call", aggregation=kind, value_property=path, group_by={"region": "$.region"})
    for slug, kind, path in (
        ("calls", "COUNT", None), ("bytes", "SUM", "$.bytes"), ("smallest", "MIN", "$.bytes"),
        ("largest", "MAX", "$.bytes"), ("typical", "AVG", "$.bytes"), ("users", "UNIQUE_COUNT", "$.user"),
    )
)  # fmt: skip
START = datetime(2026, 3, 9, 7, tzinfo=UTC)
HOURS = 60
SUBJECTS = [f"s{number:02d}" for number in range(13)] + ["o'neill"]


def event(number: int) -> bytes:
    """A usage event; those of larger numbers are later, and some subjects use more than others."""
    return json.dumps({
        "specversion": "1.0", "id": str(number), "source": "/s", "type": "call",
        "subject": SUBJECTS[number * number % 29 % len(SUBJECTS)],
        "time": (START + timedelta(minutes=20 * number)).isoformat(),
        "data": {"bytes": f"{number % 17}.000000001", "region": ("eu", "us", "ap")[number % 3], "user": f"u{number % 7}"},
    }).encode()  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What a person chose on the dashboard: `subjects` is empty for all. The range is what Grafana was asked for."""

    meter: str = "calls"
    measure: str = "events"
    subjects: tuple[str, ...] = ()
    start: datetime = START + timedelta(hours=5, minutes=20)
    end: datetime = START + timedelta(hours=51)
    tenant: str = "default"

    def expanded(self, sql: str) -> str:
        """A query as ClickHouse gets it."""
        value = {"tenant": [self.tenant], "meter": [self.meter], "subject": self.subjects, "measure": [self.measure]}
        conditional = r"\$__conditionalAll\(([^()]*\([^()]*\)), \$subject\)"
        sql = re.sub(conditional, r"\1" if self.subjects else "1=1", sql)
        for name, chosen in value.items():
            quoted = ",".join("'" + each.replace("'", "\\'") + "'" for each in chosen)
            sql = sql.replace(f"${{{name}:singlequote}}", quoted)
        for macro, at in (("$__fromTime", self.start), ("$__toTime", self.end)):
            sql = re.sub(re.escape(macro) + r"\b", f"toDateTime({int(at.timestamp())})", sql)
        assert "$" not in sql, sql
        return sql


@dataclass(frozen=True)
class Usage:
    """A store with usage in it: read by SQL as the dashboard does, and over the query API."""

    clickhouse: Client
    api: Starlette

    def panel(self, title: str, chosen: Chosen) -> list[dict[str, Any]]:
        """The rows of a panel."""
        (target,) = PANELS[title]["targets"]
        rows = query(self.clickhouse, chosen.expanded(target["rawSql"]))
        return rows.with_columns(pl.col(pl.Datetime("ms")).dt.replace_time_zone("UTC")).to_dicts()

    def ask(self, chosen: Chosen, **asked: Any) -> list[dict[str, Any]]:
        """The rows of the query API for the same meter, the same subjects and the hours that the range touches."""
        given = {
            "from": chosen.start.replace(minute=0).isoformat(), "to": chosen.end.isoformat(),
            "subject": [*chosen.subjects], **asked,
        }  # fmt: skip

        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(self.api)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                path = f"/api/v1/meters/{chosen.meter}/query?decimals=string"
                return await client.post(path, json={key: value for key, value in given.items() if value})

        response = asyncio.run(answered())
        assert response.status_code == 200, response.text
        rows: list[dict[str, Any]] = response.json()["data"]
        return [
            {**row, "value": Decimal(row["value"]), "at": datetime.fromisoformat(row["windowStart"])} for row in rows
        ]


@pytest.fixture
def usage(clickhouse: Client, _engine: Path, database: sa.Engine) -> Iterator[Usage]:
    """A store with usage of sixty hours, every meter of it, counted by a worker."""
    log = open_log(database, 2)
    log.configure(LogConfig(meters=METERS))
    lines = [event(number) for number in range(3 * HOURS)]
    log.append(pack(lines, identify(lines), 2))
    with _counted(log, clickhouse):
        api = UsageApi(Clients(lambda: open_embedded(_engine)), log, lambda: (), lambda _: {}, lambda _: {})
        yield Usage(clickhouse, Starlette(routes=api.routes()))
        api.close()


@contextmanager
def _counted(log: PostgresLog, clickhouse: Client) -> Iterator[None]:
    """The log's records in the tables."""
    worker = Worker(log, clickhouse)
    worker.start()
    try:
        assert worker.wait_for(log.punctuate(Flush()), 60)
        yield
    finally:
        worker.stop()


def close(found: Any, expected: Decimal) -> bool:
    """Whether two numbers agree. The dashboard's average has nine decimals, the last of which it does not round."""
    return abs(Decimal(found) - expected) <= Decimal("1e-9")


CHOSEN = [
    *(Chosen(meter, measure, subjects) for meter, measure in MEASURES.items() for subjects in ((), ("o'neill",))),
    Chosen(start=START, end=START + timedelta(days=30)),
]
TWO = Chosen("bytes", "sum", ("s01", "o'neill"))


def test_numbers_and_windows_are_those_of_the_query_api(usage: Usage) -> None:
    """Of every measure, for all subjects and for one of them, in whole and in cut hours, hours and days of UTC."""
    for chosen in CHOSEN:
        (total,) = usage.ask(chosen)
        (shown,) = usage.panel("Usage: ${measure}", chosen)
        assert close(shown["usage"], total["value"]), chosen
        counted = replace(chosen, meter="calls")
        assert usage.panel("Events", chosen) == [{"counted": usage.ask(counted)[0]["value"]}]
        hours = usage.ask(chosen, windowSize="HOUR")
        panel = usage.panel("Usage per hour: ${measure}", chosen)
        assert [row["time"] for row in panel] == [row["at"] for row in hours]
        assert all(close(row["usage"], hour["value"]) for row, hour in zip(panel, hours, strict=True))
        assert usage.panel("Last hour with usage", chosen) == [{"last_hour": int(hours[-1]["at"].timestamp() * 1000)}]
        whole = replace(chosen, start=midnight(chosen.start), end=midnight(chosen.end) + timedelta(days=1))
        days = usage.ask(whole, windowSize="DAY")
        panel = usage.panel("Usage per day: ${measure}", chosen)
        assert [row["time"] for row in panel] == [row["at"] for row in days]
        assert all(close(row["usage"], day["value"]) for row, day in zip(panel, days, strict=True))


def test_subjects_are_those_of_the_query_api(usage: Usage) -> None:
    """The largest first, ten of them by the hour, the longest silent; and none but those that were chosen."""
    for chosen in [*CHOSEN, TWO]:
        by_subject = usage.ask(chosen, groupBy=["subject"])
        assert usage.panel("Subjects", chosen) == [{"subjects": len(by_subject)}]
        largest = sorted(by_subject, key=lambda row: (-row["value"], row["subject"]))
        panel = usage.panel("Top subjects: ${measure}", chosen)
        assert [row["subject"] for row in panel] == [row["subject"] for row in largest]
        assert all(close(row["usage"], other["value"]) for row, other in zip(panel, largest, strict=True))
        ten = {row["subject"] for row in largest[:10]}
        hourly = {
            (row["at"], row["subject"]): row["value"]
            for row in usage.ask(chosen, windowSize="HOUR", groupBy=["subject"])
        }
        panel = usage.panel("Usage per hour of the ten largest subjects: ${measure}", chosen)
        assert [(row["time"], row["subject"]) for row in panel] == sorted(key for key in hourly if key[1] in ten)
        assert all(close(row["usage"], hourly[row["time"], row["subject"]]) for row in panel)
        last = {subject: max(at for at, who in hourly if who == subject) for _, subject in hourly}
        silent = usage.panel("Subjects by their last hour, the longest silent first", chosen)
        assert [(row["last_hour"], row["subject"]) for row in silent] == sorted((at, who) for who, at in last.items())
    # where subjects are chosen, the API gives a row for each of them
    (shown,) = usage.panel("Usage: ${measure}", TWO)
    assert close(shown["usage"], sum(row["value"] for row in usage.ask(TWO)))


def test_dimensions_and_meters_are_those_of_the_query_api(usage: Usage) -> None:
    """Each value of a dimension, and each meter of the tenant, whatever subjects were chosen."""
    for chosen in CHOSEN:
        regions = {row["groupBy"]["region"]: row["value"] for row in usage.ask(chosen, groupBy=["region"])}
        panel = usage.panel("By dimension: ${measure}", chosen)
        assert {(row["dimension"], row["value"]) for row in panel} == {("region", region) for region in regions}
        assert all(close(row["usage"], regions[row["value"]]) for row in panel)
    every = replace(CHOSEN[0], subjects=())
    events = {row["at"]: row["value"] for row in usage.ask(every, windowSize="HOUR")}
    shown = {(row["meter"], row["time"]): row["counted"] for row in usage.panel("Events by meter", CHOSEN[1])}
    assert shown == {(meter.slug, at): count for meter in METERS for at, count in events.items()}
    meters = usage.panel("Meters", CHOSEN[1])
    assert [row["meter"] for row in meters] == sorted(meter.slug for meter in METERS)
    assert {row["counted"] for row in meters} == {sum(events.values())}


def test_different_values_count_once_over_any_range(usage: Usage) -> None:
    """The view of values gives what the query API gives, for a range and for its days; adding up days does not."""
    for subjects in ((), ("o'neill",)):
        chosen = Chosen("users", "events", subjects, START.replace(hour=8), midnight(START) + timedelta(days=2))
        (total,) = usage.ask(chosen)
        assert usage.panel("Different values", chosen) == [{"different": total["value"]}]
        days = [(row["at"], row["value"]) for row in usage.ask(chosen, windowSize="DAY")]
        shown = [(row["time"], row["different"]) for row in usage.panel("Different values per day", chosen)]
        assert shown == days
        assert sum(count for _, count in days) > total["value"]


def test_variables_list_what_there_is(usage: Usage) -> None:
    """Tenants, meters and subjects that have usage in the range; the measures are all that a panel knows."""
    chosen = Chosen()
    listed = {
        name: query(usage.clickhouse, chosen.expanded(variable["query"])).to_series().to_list()
        for name, variable in VARIABLES.items()
        if variable["type"] == "query"
    }
    days = replace(chosen, start=midnight(chosen.start), end=midnight(chosen.end) + timedelta(days=1))
    by_subject = usage.ask(days, groupBy=["subject"])
    most = [row["subject"] for row in sorted(by_subject, key=lambda row: (-row["value"], row["subject"]))]
    assert listed == {"tenant": ["default"], "meter": sorted(meter.slug for meter in METERS), "subject": most}
    assert VARIABLES["measure"]["query"].split(",") == [*MEASURES.values()]
    later = replace(chosen, start=chosen.end + timedelta(days=9), end=chosen.end + timedelta(days=10))
    empty = [usage.panel(title, later) for title in PANELS if title not in {"Events", "Subjects", "Different values"}]
    assert not any(empty)
    assert usage.panel("Events", replace(chosen, tenant="globex")) == [{"counted": 0}]


def test_time_series_have_their_time_first_and_ascend(usage: Usage) -> None:
    """As the plugin needs it to make series of rows: a DateTime64 named time, texts as labels, and one number."""
    for panel in PANELS.values():
        (target,) = panel["targets"]
        series = panel["type"] == "timeseries"
        assert (target["format"], target["queryType"]) == ((0, "timeseries") if series else (1, "table"))
        if series:
            rows = query(usage.clickhouse, Chosen("users").expanded(target["rawSql"]))
            assert rows.columns[0] == "time"
            assert isinstance(rows.schema["time"], pl.Datetime)
            assert len(rows) > 2
            assert rows["time"].is_sorted()
            assert [kind.is_numeric() for kind in rows.dtypes[1:]].count(True) == 1


def midnight(at: datetime) -> datetime:
    return at.replace(hour=0, minute=0)
