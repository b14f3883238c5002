"""Stock Faust: one agent, and a table in memory that adds up by subject and hour. No deduplication, and no sink.

    python faust_table.py BROKER TOPIC EVENTS RESULT

The values are raw, and decoded with orjson: with Faust's own JSON it takes 8 % longer. The rest is as it comes: one
message after the other, the table's changelog in a topic, acks and commits by Faust. The program ends when nothing has
come for a second after all events, or for longer before.
"""

import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import faust
import orjson

IDLE_S, IDLE_AT_END_S = 5.0, 1.0


def main(broker: str, name: str, events: int, result: Path) -> None:
    """Read the topic, then write what was found."""
    app = faust.App(
        result.parent.name,
        broker=f"kafka://{broker}",
        store="memory://",
        topic_replication_factor=1,
        consumer_auto_offset_reset="earliest",
        datadir=str(result.with_suffix(".state")),
        web_enabled=False,
    )
    topic = app.topic(name, key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")
    sums = app.Table("sums", default=int, partitions=4)
    times = [0, 0.0, 0.0]

    @app.agent(topic)
    async def add(stream: Any) -> None:
        async for value in stream:
            if value is None:
                continue  # Meterline's punctuation
            if not times[0]:
                times[1] = time.time()
            event = orjson.loads(value)
            sums[f"{event['subject']},{event['time'][:13]}"] += event["data"]["bytes"]
            times[0] += 1
            times[2] = time.time()

    @app.timer(0.5)
    async def end() -> None:
        if times[0] and time.time() - times[2] > (IDLE_AT_END_S if times[0] >= events else IDLE_S):
            with result.open("w") as file:
                rows = csv.writer(file)
                rows.writerow(("subject", "hour", "sum"))
                rows.writerows((*key.split(","), amount) for key, amount in sums.items())
            print(
                json.dumps({"events": times[0], "started_at": times[1], "ended_at": times[2]}),
                file=sys.__stdout__,
                flush=True,
            )
            os._exit(0)  # all is said; an orderly stop of a worker takes longer than the rest

    app.finalize()
    faust.Worker(app, loglevel="WARNING", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
