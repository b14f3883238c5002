"""A deployment of real processes, hurt in every way we know. The oracle reads the topic and recounts it.

Whatever happens, each accepted event counts once, every copy is found to be one, and nothing is lost.
"""

import signal
import time

import pytest

from meterline.operations import outputs_of
from meterline.output import Table, Text
from schemas.log import Barrier, Configure, Limits, LogConfig
from tests.faults.conftest import METERS, PARTITIONS, Deployment, event

STEPS = ("decode", "dedup", "fold", "events", "rollups", "duplicates", "rejections", "progress", "commit")


def batches(deployment: Deployment, start: int = 0, count: int = 3000) -> None:
    """Events, copies of some of them, and lines that are no events; in records of one line and of many."""
    lines = [event(n) for n in range(start, start + count)]
    deployment.append(lines[: count // 2])
    deployment.append([*lines[count // 2 :], b"not json", *lines[: count // 5]], single=True)
    deployment.append(lines[count // 3 : count // 2])


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_a_step(deployment: Deployment, step: str) -> None:
    """Kill -9 right after a step of a batch in the middle of the work; the next life repeats the batch."""
    batches(deployment)
    worker = deployment.worker(kill_at=f"{step}:6")
    assert worker.wait_for_end() == -signal.SIGKILL
    batches(deployment, 2500, 1000)
    deployment.settle()
    counts = deployment.check()
    assert (counts["events"], counts["rejections"]) == (3500, 2)


def test_stopped_in_the_middle(deployment: Deployment) -> None:
    """SIGTERM ends a worker in order, and another one goes on."""
    batches(deployment)
    worker = deployment.worker()
    while not sum(deployment.system.follower.offsets().values()) > 8:
        time.sleep(0.02)  # there is no event: the batches are another process's
    worker.signal(signal.SIGTERM)
    assert worker.wait_for_end() == 0
    batches(deployment, 3000, 500)
    deployment.settle()
    deployment.check()


def test_a_zombie_that_wakes_up_changes_nothing(deployment: Deployment) -> None:
    """Frozen for longer than the session, it wakes up while another one has its partitions, and works on."""
    frozen = deployment.worker()
    batches(deployment)
    deployment.settle()
    batches(deployment, 3000, 3000)
    frozen.signal(signal.SIGSTOP)
    deployment.worker()
    batches(deployment, 6000, 2000)
    deployment.settle()
    frozen.signal(signal.SIGCONT)
    batches(deployment, 8000, 1000)
    deployment.settle()
    deployment.check()


def test_workers_come_and_go_under_load(deployment: Deployment) -> None:
    """Up to four workers, one killed, one stopped, new ones joining every few seconds, while events keep coming."""
    deployment.worker()
    for number in range(6):
        batches(deployment, number * 2000, 2500)
        if number in {0, 1, 3}:
            deployment.worker()
        if number == 2:
            deployment.workers[0].signal(signal.SIGKILL)
        if number == 4:
            deployment.workers[1].signal(signal.SIGTERM)
        time.sleep(2)
    deployment.settle(120)
    deployment.check()


def test_the_broker_is_killed(deployment: Deployment) -> None:
    """Kill -9 of the broker under load, and its restart: what was acknowledged is there, and is counted once."""
    deployment.worker()
    batches(deployment)
    deployment.broker.kill()
    with pytest.raises(Exception, match=r".*"):
        deployment.append([event(1)])
    deployment.broker.start()
    while True:
        try:
            batches(deployment, 3000, 1000)
            break
        except Exception:  # noqa: BLE001  the client sends it again, as clients do
            time.sleep(0.5)
    deployment.settle(120)
    deployment.check()


def test_clickhouse_is_away_and_then_slow(deployment: Deployment) -> None:
    """Killed under load and started again after some seconds; then every insert takes its time."""
    deployment.worker()
    batches(deployment)
    deployment.clickhouse.kill()
    batches(deployment, 3000, 500)
    time.sleep(3)
    deployment.clickhouse.start()
    deployment.clickhouse.slow_down(0.2, matching="INSERT INTO events")
    batches(deployment, 3500, 500)
    deployment.settle(120)
    deployment.check()


@pytest.mark.parametrize("table", ["events", "rollups", "duplicates", "rejections", "progress"])
def test_the_answer_of_an_insert_is_lost(deployment: Deployment, table: str) -> None:
    """The engine has the rows, the worker hears nothing, and tries again under the same token."""
    deployment.clickhouse.lose_answers(2, matching=f"INSERT INTO {table}")
    batches(deployment)
    deployment.worker()
    deployment.settle()
    deployment.check()


def test_the_same_event_again_and_again_over_restarts(deployment: Deployment) -> None:
    """Copies in one batch, in later ones, and after a restart that had to load the index."""
    worker = deployment.worker()
    for _ in range(3):
        deployment.append([event(n % 50) for n in range(500)])
        deployment.settle()
        worker.signal(signal.SIGKILL)
    deployment.settle()
    assert deployment.check() == {"events": 50, "duplicates": 1450, "rejections": 0}


def test_poison(deployment: Deployment) -> None:
    """Records that are no events, in all their kinds, end as rejections, and hold nothing up."""
    poison = [
        b"not json", b"\xff\xfe", b"[]", b"{}", b"null", b"1e999", b'{"specversion":"1.0"}', b"{" * 2000,
        event(1, time="1970-01-01T00:00:00Z"), event(1, time="2100-01-01T00:00:00Z"), event(1, id=1), event(1, id=""),
        event(1, subject="x" * 600), b'{"a":' + b"1" * 1_000_000 + b"}", b" " * 100,
    ]  # fmt: skip
    deployment.worker()
    deployment.system.log.append([(n % PARTITIONS, line) for n, line in enumerate([*poison, event(5), b"", b"\n\n"])])
    deployment.settle()
    counts = {
        table: deployment.system.clickhouse.command(f"SELECT count() FROM {table}")
        for table in ("events", "rejections")
    }
    assert counts == {"events": 1, "rejections": len(poison)}


def test_meters_and_limits_change_under_load_with_a_crash_between(deployment: Deployment) -> None:
    """A configuration takes effect at its place in the log; a crash around it neither loses nor doubles a row."""
    batches(deployment)
    deployment.worker(kill_at="rollups:9")
    for version, limit in enumerate((50, 500, 100)):
        limits = Limits(batch_events_max=limit, dedup_horizon_days=35 + version)
        deployment.system.log.configure(LogConfig(limits=limits, meters=METERS))
        batches(deployment, 3000 + version * 1000, 1000)
    deployment.system.log.punctuate(Configure(2, deployment.system.log.log_id), [1])  # written again, late
    batches(deployment, 6000, 500)
    deployment.settle()
    deployment.check()


def test_barriers_cut_the_log_for_all_workers(deployment: Deployment) -> None:
    """Events before a barrier are below the cut in every partition, whichever worker folds them."""
    for number in range(2):
        deployment.worker()
        batches(deployment, number * 1000, 1000)
        with deployment.system.database.begin() as connection:
            barrier = deployment.system.log.new_barrier(connection, "test")
        deployment.system.log.punctuate(Barrier(barrier))
    batches(deployment, 2000, 1000)
    deployment.settle()
    deployment.check()


def test_a_batch_that_spans_three_hundred_months_and_old_and_future_events(deployment: Deployment) -> None:
    """Events of any age in one batch: 25 years of them, 400 days ago, and 30 days ahead."""
    now = time.time()
    aged = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + days * 86400)) for days in (-400, -35, 0, 30)]
    months = [f"{2000 + month // 12}-{month % 12 + 1:02d}-15T12:00:00Z" for month in range(300)]
    deployment.append([event(n, time=at) for n, at in enumerate([*months, *aged])])
    deployment.worker()
    deployment.settle()
    assert deployment.check()["events"] == 304


def test_rollups_are_rebuilt_under_load(deployment: Deployment) -> None:
    """A month is rebuilt again and again while workers store batches of it; the audit and the oracle find nothing."""
    deployment.worker()
    deployment.worker()
    for number in range(4):
        batches(deployment, number * 2000, 2500)
        outputs = list(outputs_of(deployment.system, "rebuild_rollups", {"month": "2026-01"}))
        assert isinstance(outputs[-1], Text), outputs[-1]
        sql = "ALTER TABLE rollups DELETE WHERE subject = 's3' SETTINGS mutations_sync = 2"
        deployment.system.clickhouse.command(sql)  # what the next rebuild has to mend
    assert isinstance(list(outputs_of(deployment.system, "rebuild_rollups", {"month": "2026-01"}))[-1], Text)
    assert isinstance(list(outputs_of(deployment.system, "audit", {}))[-1], Table)
    deployment.check()
