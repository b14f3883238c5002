"""Logs made of a number: short, and full of all that a log can hold. The same number always makes the same logs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from random import Random

from schemas.log import Barrier, Configure, Flush, Limits, LogConfig, Record, punctuation_key
from schemas.meter import Meter
from tests.oracles.log_oracle import DAY_MS, Recount

Stream = tuple[str, int]  # log id, partition
LOG_IDS = ("a" * 32, "b" * 32)
FROM = datetime(2013, 1, 31, 23, 40, tzinfo=UTC)
METERS = (
    Meter(slug="calls", event_type="call", aggregation="COUNT", group_by={"region": "$.region"}),
    Meter(slug="bytes", event_type="call", aggregation="SUM", value_property="$.bytes"),
    Meter(slug="mean", event_type="call", aggregation="AVG", value_property="$.bytes", event_from=FROM),
    Meter(slug="last", event_type="call", aggregation="LATEST", value_property="$.bytes", filters={"$.region": ["eu"]}),
    Meter(slug="fresh", event_type="call", aggregation="COUNT", event_age_max=timedelta(days=2), event_ahead_max="P1D"),
)
VALUES = ("1", "2.5", "-3", "0.000000001", "many", None)
POISON = (b"not json", b"[]", b'{"id":"a"}', b"\xff", b" " * 80)
BLANK = (b"", b" \r", b"\n")
HOURS = [datetime(2013, 1, 31, 23, tzinfo=UTC) + timedelta(minutes=40 * n) for n in range(3)]
START_MS = 1_359_675_600_000  # 2013-01-31T23:40
RECORDS = (8, 22)


@dataclass(frozen=True)
class Logs:
    """One or two partitions of a log, and perhaps the log that took its place, under common configurations."""

    number: int
    streams: dict[Stream, Sequence[Record]]
    configs: Sequence[LogConfig]

    def version(self, number: int) -> LogConfig:
        """A version of the configuration."""
        return self.configs[number]


@cache
def recount(number: int, ends: tuple[tuple[Stream, int], ...]) -> Recount:
    """What the oracle says about the logs of a number, each stream up to an offset. Not to be changed."""
    logs, result = logs_of(number), Recount()
    for stream, end in ends:
        result.add(stream, [record for record in logs.streams[stream] if record.offset < end], logs.version)
    return result


@cache
def logs_of(number: int) -> Logs:
    """The logs of a number."""
    random = Random(number)
    streams = [(LOG_IDS[0], 0)]
    streams += [(LOG_IDS[0], 1)] * (random.random() < 0.3) + [(LOG_IDS[1], 0)] * (random.random() < 0.3)
    configs = [LogConfig(), *(_config(random) for _ in range(3))]
    return Logs(number, {stream: _records(random, stream[0]) for stream in streams}, configs)


def _config(random: Random) -> LogConfig:
    limits = Limits(
        batch_events_max=random.randint(1, 7), batch_bytes_max=random.choice((300, 1000, 10_000)),
        event_bytes_max=random.choice((250, 10_000)), dedup_horizon_days=random.choice((0, 1, 2, 35)),
    )  # fmt: skip
    return LogConfig(limits=limits, meters=random.choice((METERS, METERS[:1], METERS[1:])))


def _records(random: Random, log_id: str) -> list[Record]:
    """Records that begin with the log's name and end with a flush."""
    numbers = count(1)
    records = [Record(0, START_MS, punctuation_key(Configure(random.choice((0, 1)), log_id)), None)]
    for _ in range(random.randint(*RECORDS)):
        last = records[-1]
        offset = last.offset + random.choice((1, 1, 1, 1, 2, 3))  # what is missing are the marks of transactions
        # time stands still, goes on, goes on for days; and back, where a clock was wrong or another broker's is slow
        at_ms = last.appended_at_ms + random.choice((0, 0, 0, 10, 1000, DAY_MS, 2 * DAY_MS, -1000, -DAY_MS))
        key, value = _punctuation(random, log_id, numbers) if random.random() < 0.25 else (None, _value(random))
        records.append(Record(offset, at_ms, key, value))
    return [*records, Record(records[-1].offset + 1, records[-1].appended_at_ms, b"flush", None)]


def _punctuation(random: Random, log_id: str, numbers: "count[int]") -> tuple[bytes, None]:
    """A flush, a barrier, a configuration; the last two may be written again, late."""
    barrier = Barrier(random.choice((next(numbers), 1)))
    configure = Configure(random.randint(0, 3), log_id)
    chosen = random.choice((Flush(), Flush(), barrier, barrier, configure, configure, configure, None))
    return (b"someone's tombstone" if chosen is None else punctuation_key(chosen)), None


def _value(random: Random) -> bytes:
    """A record's lines: one as a rule, and few that are no events."""
    return b"\n".join(
        random.choice(POISON) if (chance := random.random()) < 0.08 else
        random.choice(BLANK) if chance < 0.14 else _event(random)
        for _ in range(random.choice((1, 1, 1, 2, 4)))
    )  # fmt: skip


def _event(random: Random) -> bytes:
    """An event of few identities, so that many are copies, with other properties as a rule."""
    fields = {
        "specversion": "1.0", "id": random.choice("abcdef"), "source": random.choice(("/s", "/s", "/t")), "type": random.choice(("call", "call", "call", "other")),
        "subject": random.choice("xy"), "data": {"bytes": random.choice(VALUES), "region": random.choice(("eu", "us"))},
    }  # fmt: skip
    if random.random() < 0.8:
        fields["time"] = random.choice(HOURS).isoformat()
    if random.random() < 0.1:
        fields["tenant"] = "t"
    if random.random() < 0.1:
        fields["padding"] = "." * 300
    return json.dumps(fields).encode()
