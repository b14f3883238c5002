"""What the right answer is: plain Python over the events, one after the other. And how a system's answer differs."""

from collections.abc import Iterable, Sequence

import orjson
import polars as pl

KEYS = ("subject", "region", "hour")


class Oracle:
    """Count and sum by subject, region and hour, with copies counted once and with every line counted."""

    def __init__(self) -> None:
        self.lines = 0
        self._seen: set[tuple[str, str]] = set()
        self._groups: dict[tuple[str, str, str], list[int]] = {}

    def observe(self, lines: Iterable[bytes]) -> None:
        """Count some more lines."""
        for line in lines:
            event = orjson.loads(line)
            key = (event["subject"], event["data"]["region"], event["time"][:13])
            amount = event["data"]["bytes"]
            identity = (event["source"], event["id"])
            new = identity not in self._seen
            self._seen.add(identity)
            group = self._groups.setdefault(key, [0, 0, 0, 0])
            group[0] += 1
            group[1] += amount
            group[2] += new
            group[3] += amount * new
            self.lines += 1

    @property
    def distinct(self) -> int:
        """How many events there are, copies counted once."""
        return len(self._seen)

    def groups(self, *, deduplicated: bool) -> pl.DataFrame:
        """A row with count and sum for each subject, region and hour."""
        count, total = (2, 3) if deduplicated else (0, 1)
        columns: list[list[str]] = [[key[place] for key in self._groups] for place in range(len(KEYS))]
        measures = [[group[place] for group in self._groups.values()] for place in (count, total)]
        return pl.DataFrame({**dict(zip(KEYS, columns, strict=True)), "count": measures[0], "sum": measures[1]})


def difference(found: pl.DataFrame, expected: pl.DataFrame) -> str:
    """How what was found differs from what was expected, in words; empty where it does not.

    `found` may lack keys and measures of `expected`; then those that it has are compared. It may have several rows a
    key, which add up.
    """
    keys = [name for name in KEYS if name in found.columns]
    measures = [name for name in ("count", "sum") if name in found.columns]
    left, right = (_added_up(frame, keys, measures) for frame in (found, expected))
    if left.equals(right):
        return ""
    sides = [f"{len(frame):,} groups, {frame[measures[-1]].sum():,} in all" for frame in (left, right)]
    return f"{sides[0]}, not {sides[1]}"


def _added_up(frame: pl.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> pl.DataFrame:
    sums = [pl.col(name).cast(pl.Int64).sum() for name in measures]
    return frame.group_by(keys).agg(sums).sort(keys) if keys else frame.select(sums)
