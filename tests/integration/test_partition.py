"""A partition in a worker, over the real engine: what a restart reads is what the worker had."""

import sqlalchemy as sa

from aggregation.batch import Batch
from aggregation.store import Partition
from schemas.log import Barrier, Configure, Limits, LogConfig, Record, Records, punctuation_key
from stores.clickhouse import Client, query
from stores.postgres_log import open_log

DAY_MS = 86_400_000


def line(event_id: str) -> bytes:
    head = '{"specversion":"1.0","source":"/s","type":"call","subject":"x","time":"2013-01-31T10:00:00Z","id":"'
    return head.encode() + event_id.encode() + b'"}'


def test_a_restart_finds_the_state_and_the_keys(database: sa.Engine, clickhouse: Client) -> None:
    """After each batch, a fresh partition has the state of the one that folded it, and knows the same copies."""
    log = open_log(database, 1)
    version = log.configure(LogConfig(limits=Limits(dedup_horizon_days=2)))
    records = [
        Record(0, 0, punctuation_key(Configure(version, log.log_id)), None),
        Record(1, 10 * DAY_MS, None, line("a") + b"\n" + line("b")),
        Record(4, 13 * DAY_MS + 5, punctuation_key(Barrier(7)), None),
        Record(5, 12 * DAY_MS, None, line("a") + b"\nnot json"),  # by a clock that was set back; on day 13 all the same
        Record(6, 15 * DAY_MS, None, line("a") + b"\n" + line("b")),
    ]
    first, folding = Partition(clickhouse, log, 0), Partition(clickhouse, log, 0)
    for record in records:
        batch = Batch(folding.state.next_offset, Records.of([record]))
        folding.store(folding.fold(batch))
        if folding.must_reload:
            folding.reload()
        restarted = Partition(clickhouse, log, 0)
        assert restarted.state == folding.state
        folding = restarted if record.offset % 2 else folding
    assert first.state.next_offset == 0
    rows = query(clickhouse, "SELECT offset, line, toUnixTimestamp64Milli(appended_at) FROM events ORDER BY ALL").rows()
    late = 13 * DAY_MS + 5
    assert rows == [(1, 0, 10 * DAY_MS), (1, 1, 10 * DAY_MS), (5, 0, late), (6, 1, 15 * DAY_MS)]
    assert query(clickhouse, "SELECT toUnixTimestamp64Milli(appended_at) FROM rejections").rows() == [(late,)]
