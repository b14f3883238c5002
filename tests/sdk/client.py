"""A program of the Python client's environment: `send URL` sends events, `ask URL` prints what it is answered, as JSON."""

import datetime as dt
import json
import sys

from corehttp.exceptions import HttpResponseError
from openmeter import Client
from openmeter.models import Event, MeterQueryRequest

NOW = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
START, END = NOW - dt.timedelta(hours=2), NOW


def event(number: int) -> Event:
    return Event(
        id=f"sdk-{number}", source="my-app", specversion="1.0", type="call", subject=f"customer-{number % 2}",
        time=START + dt.timedelta(minutes=number), data={"bytes": 1.25, "region": ("eu", "us")[number % 2]},
    )  # fmt: skip


def send(client: Client) -> None:
    client.events.ingest_event(event(0))
    client.events.ingest_events([event(number) for number in range(1, 90)])
    client.events.ingest_events_json(event(90))


def ask(client: Client) -> dict:
    bounds = {"from_parameter": START, "to": END}
    daily = client.meters.query_json("bytes", window_size="HOUR", group_by=["region"], **bounds)
    filtered = client.meters.query_json("bytes", advanced_meter_group_by_filters={"region": {"$eq": "eu"}}, **bounds)
    posted = client.meters.query(
        "calls", MeterQueryRequest({"from": START.isoformat(), "to": END.isoformat(), "subject": ["customer-1"]})
    )
    csv = client.meters.query_csv("bytes", subject=["customer-0"], **bounds)
    failures = {}
    for name, call in {
        "unknown": lambda: client.meters.query_json("nothing"),
        "zone": lambda: client.meters.query_json("calls", window_size="DAY", window_time_zone="Mars"),
        "event": lambda: client.events.ingest_event(Event(id="", source="", specversion="1.0", type="", subject="")),
    }.items():
        try:
            call()
        except HttpResponseError as error:
            failures[name] = [error.response.status_code, json.loads(error.response.text())["detail"]]
    return {
        "meters": [[meter.slug, meter.aggregation.value] for meter in client.meters.list()],
        "meter": client.meters.get("bytes").value_property,
        "total": client.meters.query_json("calls", **bounds).data[0].value,
        "hourly": [[row.value, row.group_by, row.window_start.isoformat()] for row in daily.data],
        "filtered": [row.value for row in filtered.data],
        "posted": [[row.value, row.subject] for row in posted.data],
        "csv": csv if isinstance(csv, str) else b"".join(csv).decode(),
        "events": [[each.event.id, each.event.subject] for each in client.events.list(subject="customer-1", limit=3)],
        "pages": [
            [each.event.id, each.ingested_at is not None]
            for each in client.events_v2.list(
                limit=20, filter={"subject": {"$eq": "customer-1"}, "id": {"$like": "sdk-%"}}
            )
        ],
        "since": len([*client.events_v2.list(filter={"time": {"$gte": START.isoformat()}})]),
        "subjects": client.meters.list_subjects("calls"),
        "values": client.meters.list_group_by_values("bytes", "region"),
        "metrics": client.debug.metrics(),
        "failures": failures,
        "start": START.isoformat(),
    }


if __name__ == "__main__":
    opened = Client(endpoint=sys.argv[2], token="unused")
    if sys.argv[1] == "send":
        send(opened)
    else:
        print(json.dumps(ask(opened)))  # noqa: T201
