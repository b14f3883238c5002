"""What a log adds up to: cut into batches and counted line by line with plain Python, slowly and plainly."""

import json
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from schemas.log import LogConfig, Record
from schemas.meter import Meter

Key = tuple[str, str, tuple[tuple[str, str], ...], int, int]  # meter, subject, dimensions, window start, epoch
Place = tuple[Hashable, int, int]  # partition, offset, line
Latest = tuple[datetime, int, Hashable, int, int, Decimal]  # event time, appended at (ms), place, value
DAY_MS = 86_400_000
BLANK_BYTES_MAX = 64


@dataclass
class Recount:
    """What partitions add up to: count and sum of each rollup, what stands where in the log, and the batches."""

    rollups: dict[Key, tuple[int, Decimal]] = field(default_factory=dict)
    latest: dict[Key, Latest] = field(default_factory=dict)
    """Of the LATEST meters' rollups, the value that is last in time, then in the order of arrival."""

    places: dict[str, set[Place]] = field(
        default_factory=lambda: {"events": set(), "duplicates": set(), "rejections": set()}
    )
    batches: dict[Hashable, list[tuple[int, int, int, int]]] = field(default_factory=lambda: defaultdict(list))
    """For each partition the batches that have ended: first and next offset, epoch and version in force after it."""

    epochs: dict[Place, int] = field(default_factory=dict)
    """The epoch of each event."""

    def add(self, partition: Hashable, records: Iterable[Record], versions: Callable[[int], LogConfig]) -> None:
        """Count a partition's records from its first one on."""
        counting = _Partition(partition, versions, self)
        for record in records:
            counting.record(record)

    def counts(self) -> dict[str, int]:
        """How many lines became what."""
        return {table: len(places) for table, places in self.places.items()}


@dataclass
class _Partition:
    """One partition, in the order of the log."""

    name: Hashable
    versions: Callable[[int], LogConfig]
    result: Recount
    config: LogConfig = field(default_factory=LogConfig)
    version: int = 0
    epoch: int = 0
    newest_ms: int = 0
    start: int = 0
    lines: int = 0
    size: int = 0
    accepted_day: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def record(self, record: Record) -> None:
        self.newest_ms = max(self.newest_ms, record.appended_at_ms)  # a clock may be set back
        limits = self.config.limits
        if record.value is None:
            self.punctuation((record.key or b"").decode())
        else:
            lines = record.value.split(b"\n")
            self.lines += len(lines)
            self.size += len(record.value)
            for number, line in enumerate(lines):
                if line.strip(b" \t\r") or len(line) > BLANK_BYTES_MAX:
                    place = (self.name, record.offset, number)
                    table = self.line(line, place)
                    self.result.places[table].add(place)
                    if table == "events":
                        self.result.epochs[place] = self.epoch
        full = self.lines >= limits.batch_events_max or self.size >= limits.batch_bytes_max
        if record.value is None or full:
            batch = (self.start, record.offset + 1, self.epoch, self.version)
            self.result.batches[self.name].append(batch)
            self.start, self.lines, self.size = record.offset + 1, 0, 0

    def punctuation(self, key: str) -> None:
        kind, _, number = key.partition(":")
        if kind == "barrier":
            self.epoch = max(self.epoch, int(number))
        elif kind == "config":
            self.version = max(self.version, int(number.split(":")[0]))
            self.config = self.versions(self.version)

    def line(self, line: bytes, place: Place) -> str:
        """Count one line; the table in which it ends."""
        event = self.event(line)
        if event is None:
            return "rejections"
        identity = (event.get("tenant", "default"), event["source"], event["id"])
        day = self.newest_ms // DAY_MS
        if identity in self.accepted_day and day - self.accepted_day[identity] <= self.config.limits.dedup_horizon_days:
            return "duplicates"
        self.accepted_day[identity] = day
        for meter in self.config.meters:
            if meter.event_type == event["type"]:
                self.meter(event, meter, place)
        return "events"

    def event(self, line: bytes) -> dict[str, Any] | None:
        limits = self.config.limits
        try:
            event = json.loads(line, parse_float=Decimal)
            fields = [event[name] for name in ("specversion", "id", "source", "type", "subject")]
            at = datetime.fromtimestamp(self.newest_ms / 1000, UTC)
            event["time"] = datetime.fromisoformat(event["time"]) if "time" in event else at
        except (ValueError, KeyError, TypeError):
            return None
        wrong = (
            len(line) > limits.event_bytes_max
            or event["specversion"] != "1.0"
            or not all(isinstance(each, str) and 0 < len(each) <= limits.field_bytes_max for each in fields)
            or not limits.event_at_min <= event["time"] < limits.event_at_max
        )
        return None if wrong else event

    def meter(self, event: dict[str, Any], meter: Meter, place: Place) -> None:
        data = event.get("data") or {}
        at, appended_at = event["time"], datetime.fromtimestamp(self.newest_ms / 1000, UTC)
        texts = {path: data.get(path.removeprefix("$."), "") for path in meter.paths}
        wanted = meter.event_from is None or at >= meter.event_from
        for path, texts_let in meter.filters.items():
            wanted &= texts_let.allowed is None or texts[path] in texts_let.allowed
            wanted &= texts[path] not in (texts_let.refused or ())
        forever = timedelta.max
        in_time = appended_at - at <= (forever if meter.event_age_max is None else meter.event_age_max)
        in_time &= at - appended_at <= (forever if meter.event_ahead_max is None else meter.event_ahead_max)
        if not wanted or not in_time:
            return  # an event that is wanted and out of time keeps a validation error
        value = Decimal(0)
        if meter.value_property:
            try:
                value = Decimal(str(data[meter.value_property.removeprefix("$.")]))
            except (KeyError, InvalidOperation):
                return  # the event keeps a validation error
        start = int(at.timestamp()) // 3600 * 3600
        dimensions = tuple((name, texts[path]) for name, path in sorted(meter.group_by.items()))
        key = (meter.slug, event["subject"], dimensions, start, self.epoch)
        count, total = self.result.rollups.get(key, (0, Decimal(0)))
        added = value if meter.aggregation in {"SUM", "AVG"} else Decimal(0)
        self.result.rollups[key] = (count + 1, total + added)
        if meter.aggregation == "LATEST":
            latest = (at, self.newest_ms, *place, value)
            self.result.latest[key] = max(latest, self.result.latest.get(key, latest))
