"""The SQL of the documents, on the real engine: each block runs as it stands, and finds what plain Python finds.

What a block calls now is a fixed instant here, so that the events are always where it looks for them.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
import sqlalchemy as sa

from ingest.pack import identify, pack
from meterline.worker import Worker
from schemas.log import Flush, LogConfig
from schemas.meter import Meter
from stores.clickhouse import Client, query
from stores.postgres_log import open_log
from tests.servers.compose import ROOT

NOW = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)
TODAY = NOW.date()
METERS = (
    Meter(slug="api_calls", event_type="call", aggregation="COUNT", group_by={"region": "$.region"}),
    Meter(
        slug="bytes", event_type="call", aggregation="SUM", value_property="$.bytes", group_by={"region": "$.region"}
    ),
    Meter(slug="active_users", event_type="call", aggregation="UNIQUE_COUNT", value_property="$.user"),
)
BLOCK = re.compile(r"(?:^### (?P<title>[^\n]*)\n\n)?```sql\n(?P<sql>.*?)```", re.MULTILINE | re.DOTALL)


def blocks(document: str) -> dict[str, list[str]]:
    """The statements of each block of SQL in a document, by the heading over it."""
    found = BLOCK.finditer((ROOT / "docs" / document).read_text())
    return {match["title"] or "": [each.strip() for each in match["sql"].split(";") if each.strip()] for match in found}


def event(number: int) -> dict[str, Any]:
    """A usage event of the last two months, every three hours and a bit; `new` came only this week, `old` has gone."""
    at = NOW - timedelta(minutes=200 * number + 7)
    subject = (
        "new" if number % 5 == 0 and number < 20 else "old" if number > 300 else ("acme", "globex")[number % 3 == 0]
    )
    return {
        "at": at, "subject": subject, "bytes": Decimal(f"{number % 23}.125"), "region": ("eu", "us")[number % 7 < 3],
        "user": f"u{number % 11 + at.month}",
    }  # fmt: skip


EVENTS = [event(number) for number in range(430)]


@pytest.fixture
def ask(clickhouse: Client, database: sa.Engine) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """What a statement of a document finds in a store with these events."""
    log = open_log(database, 1)
    log.configure(LogConfig(meters=METERS))
    lines = [
        json.dumps({
            "specversion": "1.0", "id": str(number), "source": "/s", "type": "call", "subject": each["subject"],
            "time": each["at"].isoformat(), "data": {"bytes": str(each["bytes"]), "region": each["region"], "user": each["user"]},
        }).encode()
        for number, each in enumerate(EVENTS)
    ]  # fmt: skip
    log.append(pack(lines, identify(lines), 1))
    worker = Worker(log, clickhouse)
    worker.start()

    def rows(sql: str) -> list[tuple[Any, ...]]:
        pinned = sql.replace("today()", f"toDate('{TODAY}')").replace("now()", f"toDateTime('{NOW:%F %T}', 'UTC')")
        return query(clickhouse, pinned).with_columns(pl.col(pl.Datetime("ms")).dt.replace_time_zone("UTC")).rows()

    assert worker.wait_for(log.punctuate(Flush()), 60)
    yield rows
    worker.stop()


def added(events: Iterable[dict[str, Any]], *keys: Callable[[dict[str, Any]], Any]) -> dict[Any, Decimal]:
    """The bytes of events by what the keys make of them."""
    sums: dict[Any, Decimal] = defaultdict(Decimal)
    for each in events:
        sums[tuple(key(each) for key in keys) if len(keys) > 1 else keys[0](each)] += each["bytes"]
    return sums


def day(each: dict[str, Any]) -> date:
    found: date = each["at"].date()
    return found


def hour(each: dict[str, Any]) -> datetime:
    found: datetime = each["at"].replace(minute=0)
    return found


def subject(each: dict[str, Any]) -> str:
    return str(each["subject"])


def since(days: int) -> list[dict[str, Any]]:
    return [each for each in EVENTS if day(each) >= TODAY - timedelta(days=days)]


def percent(part: Any, whole: Any) -> float:
    return pytest.approx(100 * float(part) / float(whole), abs=0.051)


def test_every_question_of_the_dashboards_page_is_answered_right(ask: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """Ten questions, ten answers, each counted by hand from the same events."""
    questions = blocks("dashboards.md")
    answers = {question: ask(sql) for question, (sql,) in questions.items()}
    month = [each for each in EVENTS if day(each) >= TODAY.replace(day=1)]
    by_subject = added(month, subject)
    most = sorted(by_subject.items(), key=lambda found: (-found[1], found[0]))
    week = added([each for each in since(7) if day(each) < TODAY], subject)
    before = added([each for each in since(14) if day(each) < TODAY - timedelta(days=7)], subject)
    old = [name for name in week if before.get(name)]
    growth = sorted(((percent(week[name], before[name]).expected - 100, name) for name in old), reverse=True)
    recent = [each for each in EVENTS if hour(each) >= NOW - timedelta(days=1)]
    hours: dict[str, Counter[datetime]] = defaultdict(Counter)
    for each in EVENTS:
        if hour(each) >= NOW - timedelta(days=7):
            hours[subject(each)][hour(each)] += 1
    users: dict[date, set[str]] = defaultdict(set)
    for each in EVENTS:
        users[day(each).replace(day=1)].add(each["user"])
    last = {name: max(hour(each) for each in EVENTS if subject(each) == name) for name in {*map(subject, EVENTS)}}
    zone = ZoneInfo("America/New_York")
    local = added(EVENTS, lambda each: each["at"].astimezone(zone).date())
    start = NOW.replace(minute=0) - timedelta(hours=12)
    acme = Counter(hour(each) for each in EVENTS if subject(each) == "acme" and hour(each) >= start)
    regions = Counter(each["region"] for each in recent)
    assert answers == {
        "What did each subject use, day by day?": [(*key, used) for key, used in sorted(added(since(30), day, subject).items())],
        "Who uses the most?": [(who, used, percent(used, sum(by_subject.values()))) for who, used in most],
        "Who grew since the week before?": [
            *((who, week[who], before[who], pytest.approx(grown, abs=0.051)) for grown, who in growth),
            *((who, used, 0, None) for who, used in week.items() if who not in old),
        ],
        "How much of its quota has each used this month?": sorted(
            ((who, by_subject[who], quota, percent(by_subject[who], quota)) for who, quota in (("acme", 2000), ("globex", 500))),
            key=lambda row: -row[1] / row[2],
        ),
        "How does usage split by a dimension?": sorted(regions.items(), key=lambda found: (-found[1], found[0])),
        "When is each subject's busiest hour?": answers["When is each subject's busiest hour?"],
        "How many different users were there each month?": [(at, len(names)) for at, names in sorted(users.items())],
        "Who has fallen silent?": [
            (who, at, (TODAY - at.date()).days) for who, at in sorted(last.items(), key=lambda found: (found[1], found[0]))
        ],
        "What were the days of another time zone?": [
            (at, used) for at, used in sorted(local.items()) if date(2026, 3, 2) <= at < date(2026, 3, 10)
        ],
        "In which hours was there nothing?": [(at, acme[at]) for at in (start + timedelta(hours=each) for each in range(13))],
    }  # fmt: skip
    # of several busiest hours any one is named
    for who, busiest, count in answers["When is each subject's busiest hour?"]:
        assert hours[who][busiest] == count == max(hours[who].values())
    assert len(answers["When is each subject's busiest hour?"]) == len(hours)
    assert len(answers) == 10


def test_the_examples_of_the_query_page_are_right(ask: Callable[[str], list[tuple[Any, ...]]]) -> None:
    """The two of them find the bytes of a subject by day, and the calls of a day by region."""
    (statements,) = blocks("querying.md").values()
    by_day, by_region = (ask(sql) for sql in statements)
    assert by_day == sorted(added([each for each in since(30) if subject(each) == "acme"], day).items())
    assert dict(by_region) == Counter(each["region"] for each in EVENTS if hour(each) >= NOW - timedelta(days=1))
