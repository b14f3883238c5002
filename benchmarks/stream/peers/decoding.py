"""What both ceilings share: lines to frames with a fixed schema, their number and the sum of their values."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import polars as pl

LINES = 65_536
_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    **dict.fromkeys(("source", "id", "type", "subject", "time"), pl.String),
    "data": pl.Struct({"bytes": pl.Int64, "region": pl.String}),
}


class Decoder:
    """Decodes records of one or more lines. Their values wait until there are enough of them."""

    def __init__(self) -> None:
        self.count = self.sum = 0
        self._waiting: list[bytes] = []
        self._lines = 0

    def add(self, values: Iterable[bytes]) -> None:
        """Take some more records."""
        for value in values:
            self._waiting.append(value)
            self._lines += value.count(b"\n") + 1
            if self._lines >= LINES:
                self.finish()

    def finish(self) -> None:
        """Decode what waits."""
        if self._waiting:
            frame = pl.read_ndjson(b"\n".join(self._waiting), schema=_SCHEMA)
            self.count += len(frame)
            self.sum += int(frame["data"].struct.field("bytes").sum())
            self._waiting, self._lines = [], 0


def say(decoder: Decoder, started_at: float, result: Path) -> None:
    """Tell the benchmark when it was, and what was found."""
    ended_at = time.time()
    pl.DataFrame({"count": [decoder.count], "sum": [decoder.sum]}).write_csv(result)
    print(json.dumps({"events": decoder.count, "started_at": started_at, "ended_at": ended_at}), flush=True)
