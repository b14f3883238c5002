"""How fast usage queries are: one subject's month at hour windows, over many rollups, through HTTP.

    python -m benchmarks.query [--rollups 10000000] [--queries 200] [--events-an-hour 200]

The engine holds synthetic rollups of many subjects over a month, and the events of the subject that is asked about
among the events of others. The same query is answered from the rollups and, in the same run, from the raw events; both
answers must be equal. Queries come one after the other, on connections that are kept.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import uvicorn

from aggregation.answer import answer
from aggregation.plan import Scope, Statement
from benchmarks.report import peak_memory_mib, report
from meterline.embedded import embedded
from meterline.listening import HOST, Listening
from meterline.server import Server, application
from schemas.identity import content_digest
from schemas.log import Flush, LogConfig
from schemas.meter import Aggregation, Meter
from schemas.usage_query import usage_query
from stores.clickhouse import Client, query

SMOKE_ROLLUPS, SMOKE_QUERIES, SMOKE_EVENTS_AN_HOUR = 50_000, 5, 2
HOURS = 744  # of January
EVENTS_AN_HOUR = 200  # of each subject that has events; a rollup of it stands for so many
SUBJECTS_WITH_EVENTS = 50
RAW_QUERIES = 5
SUBJECT = "s1"
METER = Meter(slug="bytes", event_type="call", aggregation=Aggregation.SUM, value_property="$.bytes")
ASKED = {
    "from": "2026-01-01T00:00:00Z",
    "to": "2026-02-01T00:00:00Z",
    "windowSize": "HOUR",
    "subject": [SUBJECT],
}
_LATER = " FROM numbers({first:UInt64}, {rows:UInt64})"
_OF_ROLLUP = (
    "INSERT INTO rollups (tenant, meter, subject, window_start, epoch, count, sum) SELECT 'default', 'bytes',"
    " concat('s', toString(intDiv(number, 744))),"
    " toDateTime64('2026-01-01 00:00:00', 3, 'UTC') + toIntervalHour(number % 744),"
    " 0, {events:UInt64}, toDecimal128('1.25', 9) * {events:UInt64}"
)
_OF_EVENT = (
    "INSERT INTO events (tenant, type, subject, source, id, time, event, log_id, partition, offset, line, appended_at,"
    " epoch)"
    " SELECT 'default', 'call', concat('s', toString(number % 50)), '/bench', toString(number), at,"
    """ concat('{"specversion":"1.0","source":"/bench","id":"', toString(number), '","type":"call","subject":"s',"""
    " toString(number % 50), '\",\"time\":\"', formatDateTime(at, '%Y-%m-%dT%H:%i:%SZ', 'UTC'),"
    """ '","data":{"bytes":"1.25","path":"/v1/things"}}'),"""
    " {log_id:String}, 0, 1000 + number, 0, at, 0 FROM (SELECT number,"
    " toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + toIntervalHour(intDiv(number, 50 * {events:UInt64}))"
    " + toIntervalSecond(intDiv(number, 50) % {events:UInt64})"
    " AS at FROM numbers({rows:UInt64}))"
)


def run(rollups: int, queries: int, events_an_hour: int = EVENTS_AN_HOUR) -> dict[str, Any]:
    """Measure with so many rollups; the parameters, times in milliseconds, and a digest of the answer."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # PostgreSQL runs as another user when this one is root
        with embedded(Path(folder) / "data") as app:
            app.log.configure(LogConfig(meters=(METER,)))
            assert app.follower.wait_for(app.log.punctuate(Flush()), 60), "the configuration was not stored"
            made = _fill(app.clickhouse, rollups, events_an_hour, app.log.log_id)
            scope = Scope("default", METER, usage_query(ASKED))

            def read(statement: Statement) -> pl.DataFrame:
                return query(app.clickhouse, statement.sql, **statement.bound)

            def from_events() -> pl.DataFrame:
                return answer(scope, read, app.log.config, all_from_events=True).rows

            def from_rollups() -> pl.DataFrame:
                return answer(scope, read, app.log.config).rows

            assert from_rollups().equals(from_events()), "rollups and events differ"
            engine = _times(from_rollups, queries)
            raw = _times(from_events, min(queries, RAW_QUERIES))
            http, body = _through_http(application(app, Listening(0), None), queries)
    return {
        **made,
        "events_an_hour": events_an_hour,
        "windows": HOURS,
        "queries": queries,
        "http_p50_ms": _milliseconds(http, 50),
        "http_p99_ms": _milliseconds(http, 99),
        "planner_p50_ms": _milliseconds(engine, 50),
        "planner_p99_ms": _milliseconds(engine, 99),
        "raw_events_p50_ms": _milliseconds(raw, 50),
        "times_raw_events": round(statistics.median(raw) / statistics.median(engine), 1),
        "peak_memory_mib": peak_memory_mib(),
        "digest": content_digest(body),
    }


def _fill(client: Client, rollups: int, events_an_hour: int, log_id: str) -> dict[str, int]:
    """Insert the rows, a million at a time; returns how many there are."""
    for first in range(0, rollups, 1_000_000):
        rows = min(1_000_000, rollups - first)
        client.command(_OF_ROLLUP + _LATER, parameters={"first": first, "rows": rows, "events": events_an_hour})
    events = HOURS * events_an_hour * SUBJECTS_WITH_EVENTS
    client.command(_OF_EVENT, parameters={"rows": events, "events": events_an_hour, "log_id": log_id})
    counts = query(client, "SELECT (SELECT count() FROM rollups) AS rollups, (SELECT count() FROM events) AS events")
    return {name: int(value) for name, value in counts.row(0, named=True).items()}


def _through_http(app: Any, queries: int) -> tuple[list[float], bytes]:
    config = uvicorn.Config(app, host=HOST, port=0, log_config=None, access_log=False, loop="uvloop")
    socket = config.bind_socket()
    socket.listen()  # a request may come before the server's thread does
    server = Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        with httpx.Client(base_url=f"http://{HOST}:{socket.getsockname()[1]}", timeout=60) as client:
            body = b""

            def ask() -> None:
                nonlocal body
                response = client.get("/api/v1/meters/bytes/query", params=ASKED)
                assert response.status_code == 200, response.text
                body = response.content

            ask()
            return _times(ask, queries), body
    finally:
        server.should_exit = True
        thread.join()


def _times(work: Callable[[], Any], times: int) -> list[float]:
    seconds = []
    for _ in range(times):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return seconds


def _milliseconds(seconds: list[float], percent: int) -> float:
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000, 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollups", type=int, default=10_000_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--events-an-hour", type=int, default=EVENTS_AN_HOUR)
    given = parser.parse_args()
    report("query", run(given.rollups, given.queries, given.events_an_hour))
