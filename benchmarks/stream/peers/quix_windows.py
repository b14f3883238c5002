"""Quix Streams: hourly sums by subject, which is the message key. No deduplication, and no sink but a dictionary.

    python quix_windows.py BROKER TOPIC EVENTS RESULT

The rest is as it comes: JSON, state in RocksDB with a changelog topic, at least once. A window's sum is told with every
event; the grace is longer than the latest event is late. The program ends when it has all events, or, where another one
has some of them, when nothing has come for a while.
"""

import csv
import json
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from quixstreams import Application, message_context
from quixstreams.models.serializers.exceptions import IgnoreMessage

IDLE_S = 4.0  # counted anew after a rebalance
GRACE = timedelta(days=21)


class Tally:
    """The newest sum of each window and key in a partition."""

    def __init__(self) -> None:
        self.events = 0
        self.started_at = self.ended_at = 0.0
        self.sums: dict[tuple[int, bytes, int], int] = {}

    def first(self, event: dict[str, Any]) -> int:
        """The event's value. Notes when the first came."""
        if not self.started_at:
            self.started_at = time.time()
        amount: int = event["data"]["bytes"]
        return amount

    def update(self, window: dict[str, Any], key: bytes, _timestamp: int, _headers: Any) -> None:
        """Note a window's newest sum."""
        self.sums[message_context().partition, key, window["start"]] = window["value"]
        self.events += 1
        self.ended_at = time.time()


def event_time_ms(event: dict[str, Any] | None, _headers: Any, _timestamp: float, _kind: Any) -> int:
    """When it happened."""
    if event is None:
        raise IgnoreMessage  # Meterline's punctuation has no value
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)


def main(broker: str, name: str, events: int, result: Path) -> None:
    """Read the topic, then write what was found."""
    app = Application(
        broker_address=broker,
        consumer_group=result.parent.name,
        auto_offset_reset="earliest",
        state_dir=result.with_suffix(".state"),
        loglevel="WARNING",
    )
    topic = app.topic(name, timestamp_extractor=event_time_ms)
    tally = Tally()
    amounts = app.dataframe(topic).apply(tally.first)
    sums = amounts.tumbling_window(timedelta(hours=1), grace_ms=GRACE).sum().current()
    sums.update(tally.update, metadata=True)
    app.run(timeout=IDLE_S, count=events, collect=False)
    with result.open("w") as file:
        rows = csv.writer(file)
        rows.writerow(("partition", "subject", "hour", "sum"))
        for (partition, subject, start_ms), amount in tally.sums.items():
            rows.writerow(
                (partition, subject.decode(), f"{datetime.fromtimestamp(start_ms / 1000, UTC):%Y-%m-%dT%H}", amount)
            )
    print(json.dumps({"events": tally.events, "started_at": tally.started_at, "ended_at": tally.ended_at}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
