"""Runs a seed: a step, what the auditor says of it, and whether that is what is stored; crashes, threads and replays.

Afterwards, the steps are done once more, one after the other and undisturbed, on a new database: its chain ends with
the same hash.
"""

import pickle
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from threading import Barrier
from typing import Any

import psycopg
import sqlalchemy as sa

from invoicing.ledger.store import head
from meterline.audit import _BOOK_CHECKS
from meterline.verification import verified
from tests.simulation.billing.auditor import Auditor
from tests.simulation.billing.books import RefusedError
from tests.simulation.billing.crashes import DIES, HOWS, LOST, CrashError, Crashes
from tests.simulation.billing.customers import TENANT, Usage, customers_of
from tests.simulation.billing.money import apply
from tests.simulation.billing.seen import differences, foretold, stored
from tests.simulation.billing.workload import KEYED, Step, Workload
from tests.simulation.billing.world import BEGINS, World, drafts_shown

STEPS = 110
Fresh = Callable[[], AbstractContextManager[sa.Engine]]
"""Makes a database with the newest schema, which is gone behind the `with`."""


class WrongError(AssertionError):
    """What is stored is not what was foretold. Says the seed and the steps that led there."""


@dataclass
class Told:
    """What a seed did."""

    seed: int
    log: list[tuple[Step, str]] = field(default_factory=list)
    """The steps that had an effect or were refused, in the order in which they took effect, with what came of each."""
    outcomes: Counter[str] = field(default_factory=Counter)
    crashes: Counter[str] = field(default_factory=Counter)
    """By what died."""
    died_at: Counter[str] = field(default_factory=Counter)
    """By the statement before which it died."""
    orders: Counter[str] = field(default_factory=Counter)
    """Of two at once, what came of both."""
    replays: int = 0
    entries: int = 0
    hash: str = ""


def run(seed: int, fresh: Fresh, admin: sa.Engine, *, steps: int = STEPS) -> Told:
    """Do a seed's steps, disturbed and then undisturbed. Raises WrongError."""
    told = Told(seed)
    try:
        with fresh() as database:
            crashes = Crashes(admin)
            crashes.watch(database)
            _Disturbed(seed, database, crashes, told).go(steps)
        told.died_at = crashes.at
        with fresh() as database:
            _undisturbed(database, told, Random(seed))
    except WrongError:
        raise
    except Exception as error:
        raise WrongError(_report(told, f"{type(error).__name__}: {error}")) from error
    return told


class _Disturbed:
    """Steps of a seed, with all that may happen to them."""

    def __init__(self, seed: int, database: sa.Engine, crashes: Crashes, told: Told) -> None:
        self.chance, self.told, self.crashes = Random(seed), told, crashes
        usage = Usage(customers_of(self.chance, self.chance.randint(3, 5)))
        self.auditor, self.workload = Auditor(usage), Workload(self.chance, BEGINS)
        self.world, self.database = World(database, usage), database
        self.counts: dict[str, tuple[int, int]] = {}
        self.pool = ThreadPoolExecutor(2)

    def go(self, steps: int) -> None:
        """Do so many steps, and look at the whole at the end."""
        with self.pool:
            for _ in range(steps):
                step = self.workload.next(self.auditor)
                self._one(step)
                if self.chance.random() < 0.12 and (pair := self.workload.pair(self.auditor)):
                    self._both(*pair)
        _sound(self.database, self.told)

    def _one(self, step: Step) -> None:
        shown = None
        if self.chance.random() < 0.25 and step["do"] != "use" and self._crashed(step):
            return
        if step["do"] == "bill" and step["how"] == "final" and step["period"] not in self.auditor.posted:
            shown = self._previewed(step)
        issued = {key for key, each in self.auditor.invoices.items() if each.state != "draft"}
        expected, refused = self._foretell(step)
        self.told.log.append((step, expected))
        with self.crashes.counting():
            actual = self._done(step)
            self.counts[step["do"]] = (self.crashes.seen, self.crashes.commits)
        nothing_again = step["do"] in KEYED and (expected, actual) == ("nothing", "known")  # it died behind its commit
        if actual != expected and not nothing_again:
            raise WrongError(_report(self.told, f"foretold {expected}, came to {actual}"))
        self._compare()
        if shown is not None:
            self._as_shown(step, shown, issued)
        self.told.outcomes[f"{step['do']}: {actual}"] += 1
        if self.chance.random() < 0.25 and not refused:
            self._again(step)

    def _foretell(self, step: Step) -> tuple[str, bool]:
        """What a step comes to, with the auditor behind it, and whether it is refused."""
        before = pickle.dumps(self.auditor)
        self.world.usage = pickle.loads(before).usage
        try:
            return apply(self.auditor, step), False
        except RefusedError as refused:
            self._restore(before)
            return str(refused), True

    def _restore(self, before: bytes) -> None:
        self.auditor = pickle.loads(before)

    def _done(self, step: Step) -> str:
        """What the product makes of it; it rates what was used before it."""
        try:
            return self.world.do(step)
        except RefusedError as refused:
            return str(refused)

    def _again(self, step: Step) -> None:
        """The same once more: nothing changes, and where something has an id it is known."""
        self.told.replays += 1
        if step["do"] in KEYED:
            expected = "known"
        else:
            expected, _ = self._foretell(step)
            self.told.log.append((step, expected))
        actual = self._done(step)
        if actual != expected:
            raise WrongError(_report(self.told, f"again: foretold {expected}, came to {actual}"))
        self._compare()

    def _crashed(self, step: Step) -> bool:
        """Let a step die; whether it had its effect. What died before its commit has left nothing."""
        how, self.world.usage = self.chance.choice(HOWS), self.auditor.usage
        statements, commits = self.counts.get(step["do"], (30, 1))
        with self.crashes.armed(self.chance.randint(1, max(commits if how == LOST else statements, 1)), how):
            try:
                self.world.do(step)
            except (CrashError, sa.exc.DBAPIError, psycopg.Error):
                if not self.crashes.crashed:
                    raise
            except RefusedError:
                pass
            committed = self.crashes.commits
        if not self.crashes.crashed:
            return self._took_effect(step)
        self.told.crashes[how] += 1
        at = self.workload.now.date(), self.workload.now
        found = stored(self.database, *at)
        if not (wrong := differences(foretold(self.auditor, *at), found)):
            return False
        if committed == 0:
            raise WrongError(_report(self.told, f"{step} died before it committed, and left: {wrong}"))
        return self._took_effect(step)

    def _took_effect(self, step: Step) -> bool:
        """The step that was to die has had its effect: it is noted, and asked for again."""
        expected, refused = self._foretell(step)
        self.told.log.append((step, expected))
        self._compare()
        if not refused:
            self._again(step)
        return True

    def _previewed(self, step: Step) -> dict[str, str]:
        """What a dry run shows, which leaves nothing."""
        self.world.usage = self.auditor.usage
        self.world.do({**step, "how": "preview"})
        self._compare()
        return drafts_shown(self.world.shown)

    def _as_shown(self, step: Step, shown: dict[str, str], issued: set[str]) -> None:
        """I18: what the dry run showed is what came."""
        with self.database.connect() as connection:
            rows = connection.exec_driver_sql("SELECT id, content_digest FROM invoices WHERE state <> 'draft'")
            real = {key: digest for key, digest in rows if key not in issued}
        if shown != real:
            raise WrongError(_report(self.told, f"{step}: the dry run showed {shown}, what came is {real}"))
        self.told.outcomes["bill: as the dry run showed"] += 1

    def _both(self, one: Step, other: Step) -> None:
        """Two steps at once: what comes of them is what comes of one after the other, in some order."""
        before, barrier = pickle.dumps(self.auditor), Barrier(2)
        self.world.usage = self.auditor.usage

        def start(step: Step) -> str:
            barrier.wait()
            return self._done(step)

        came = [each.result() for each in [self.pool.submit(start, one), self.pool.submit(start, other)]]
        for place, step in enumerate((one, other)):  # who posts on a day that is closed meanwhile asks again
            if came[place] == "closed" and (one, other)[1 - place]["do"] == "close":
                came[place] = self._done(step)
                self.told.outcomes[f"{step['do']}: closed meanwhile"] += 1
        wrong = []
        for order in ((0, 1), (1, 0)):
            self._restore(before)
            steps = [(one, other)[place] for place in order]
            expected = [self._foretell(step)[0] for step in steps]
            if expected == [came[place] for place in order] and not (differing := self._differing()):
                self.told.log += zip(steps, expected, strict=True)
                self.told.orders[f"{steps[0]['do']} {expected[0]}, {steps[1]['do']} {expected[1]}"] += 1
                return
            wrong.append((expected, differing if expected == [came[place] for place in order] else ""))
        raise WrongError(_report(self.told, f"at once {one} and {other} came to {came}; one after the other: {wrong}"))

    def _differing(self) -> list[str]:
        at = self.workload.now.date() - timedelta(days=self.chance.randint(0, 60))
        booked = self.workload.now - timedelta(days=self.chance.choice((0, 5, 30)))
        return differences(foretold(self.auditor, at, booked), stored(self.database, at, booked))

    def _compare(self) -> None:
        if wrong := self._differing():
            raise WrongError(_report(self.told, "\n".join(wrong)))


def _undisturbed(database: sa.Engine, told: Told, chance: Random) -> None:
    """I2: the log of the steps makes the same books again, to the last hash."""
    world = World(database, Usage(customers_of(chance, chance.randint(3, 5))))
    for step, expected in told.log:
        try:
            came = world.do(step)
        except RefusedError as refused:
            came = str(refused)
        if step["do"] == "use":
            world.usage.use(step["customer"], step["period"], step["charge"], step["minor"])
        if step["do"] == "bill" and step["how"] == "final" and came == "done":
            _rated(world, step["period"])
        if came != expected and not (step["do"] in KEYED and came == "known"):
            raise WrongError(_report(told, f"undisturbed: {step} came to {came}, was {expected}"))
    _sound(database, told)


def _rated(world: World, period: str) -> None:
    """What changed is rated: of the run's periods. The auditor keeps the same for the disturbed run."""
    with world.database.connect() as connection:
        rows = connection.exec_driver_sql("SELECT period FROM period_ratings WHERE run_period = %(p)s", {"p": period})
        done = set(rows.scalars())
    world.usage.changed = {key: count for key, count in world.usage.changed.items() if key[1] not in done}


def _sound(database: sa.Engine, told: Told) -> None:
    """The chain is as posted, and no check of the audit finds anything; the same end each time."""
    found = [f"ledger of {tenant}: {finding}" for tenant, _, finding in verified(database) if finding]
    with database.connect() as connection:
        for name, sql in _BOOK_CHECKS.items():
            if faults := connection.execute(sa.text(sql)).scalar_one():
                found.append(f"audit: {name}: {faults} faults")
        end = head(connection, TENANT)
    if found:
        raise WrongError(_report(told, "\n".join(found)))
    if told.hash and (told.hash, told.entries) != (end.hash, end.sequence):
        raise WrongError(_report(told, f"the chain ended at {told.entries} {told.hash}, now at {end}"))
    told.hash, told.entries = end.hash, end.sequence


def _report(told: Told, what: str) -> str:
    """The bug report: the seed, what is wrong, and the steps that led there."""
    steps = "\n".join(f"{number:4} {shown(step)} -> {came}" for number, (step, came) in enumerate(told.log, 1))
    return f"seed {told.seed}\n{steps}\n\n{what}\n\nreplay: python -m tests.simulation.billing --seed {told.seed}"


def shown(step: Step) -> str:
    """A step in a line."""
    said: dict[str, Any] = {name: value for name, value in step.items() if name not in {"do", "at", "key"}}
    return f"{step['at']:%Y-%m-%d %H:%M} {step['do']} " + " ".join(f"{name}={value}" for name, value in said.items())


__all__ = ["DIES", "STEPS", "Told", "WrongError", "run"]
