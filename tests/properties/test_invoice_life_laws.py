"""Laws of the life of invoices: random triggers never reach an undeclared edge, and the ledger is what is due.

First in memory, where a machine takes any trigger at any time over the core alone; then the same triggers over a real
PostgreSQL, held against the audit.
"""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from random import Random
from typing import Any

import polars as pl
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from invoicing.invoices import lifecycle
from invoicing.invoices.drafts import finalised
from invoicing.invoices.entries import journal, taxes_of, void_journal
from invoicing.invoices.lifecycle import EDGES, Application, Booking, NotTakenError, Step, Trigger, due_of
from invoicing.ledger.journal import Journal
from invoicing.settlement import app
from invoicing.settlement.app import NoCreditError
from invoicing.settlement.postings import journal_of_posts
from meterline.audit import _BOOK_CHECKS
from meterline.verification import verified
from schemas import invoice as words
from schemas.invoice import INVOICES, ApplicationKind, State
from schemas.payment import FailedPayment, Payment, Refund, WriteOff
from tests.simulation.issued import LATER, act, drafts_of, issued, stored

NOW = datetime(2026, 2, 10, tzinfo=UTC)
TODAY = date(2026, 2, 10)
NETS = st.integers(-9_999, 20_000).filter(bool)
MINOR = st.integers(1, 25_000)
WHICH = st.integers(0, 3)
TRIGGERS = [each for each in Trigger if each is not Trigger.FINALIZE]


class Life(RuleBasedStateMachine):
    """Four invoices of a customer, what was applied to each, and the ledger's balances."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []
        self.applied: list[list[Application]] = []
        self.entries: dict[str, pl.DataFrame] = {}
        self.balances: Counter[int] = Counter()
        self.number = 0

    @initialize(nets=st.lists(st.lists(NETS, min_size=1, max_size=2), min_size=4, max_size=4))
    def issue(self, nets: list[list[int]]) -> None:
        """Invoices above and below zero; those of which nothing is due are paid at once."""
        drafts = drafts_of(*nets, customer="c", kind="manual")
        self.invoices = finalised(drafts.invoices, last_number=0, issued_at=NOW)
        self.lines = drafts.lines
        self.rows = self.invoices.to_dicts()
        self.applied = [[] for _ in self.rows]
        self._book(journal(self.invoices, drafts.lines, booked_at=NOW))

    def _book(self, posted: Journal) -> None:
        for (entry,), lines in posted.postings.group_by("entry_id"):
            assert entry not in self.entries, "an entry is posted once"
            assert lines["amount_minor"].sum() == 0
            self.entries[str(entry)] = lines
            self.balances.update(dict(lines.group_by("account").agg(pl.sum("amount_minor")).rows()))

    @rule(which=WHICH, trigger=st.sampled_from(TRIGGERS), minor=MINOR, relief=st.booleans())
    def happen(self, which: int, trigger: Trigger, minor: int, relief: bool) -> None:
        """Any trigger of any invoice."""
        before = self.rows[which]
        self.number += 1
        try:
            step = self._step(which, trigger, minor, relief=relief)
        except NotTakenError:
            step = None
            others = {each.kind for each in self._standing(which)} - {ApplicationKind.CUSTOMER_CREDIT}
            assert trigger not in EDGES[State(before["state"])] or (trigger is Trigger.VOID and others)
        if step is None:
            return
        assert State(step.invoice["state"]) in EDGES[State(before["state"])][trigger]
        for each in step.reverses:
            self._book_mirror(each)
        self._book(journal_of_posts(step.posts, tenant="default", customer="c", currency="EUR", booked_at=NOW))
        if trigger is Trigger.VOID:
            frame = pl.DataFrame([before], schema=INVOICES)
            own = self.lines.filter(pl.col("invoice_id") == before["id"])
            self._book(void_journal(frame, own, effective_at=TODAY, reason="x", booked_at=NOW))
        self.rows[which] = {**step.invoice, "version": step.invoice["version"] + 1}
        self.applied[which] += step.applications

    def _step(self, which: int, trigger: Trigger, minor: int, *, relief: bool) -> Step | None:
        row, name = self.rows[which], f"p{self.number}"
        payment = Payment(payment=name, amount_minor=minor, currency="EUR", paid_on=TODAY)
        match trigger:
            case Trigger.PAY:
                return lifecycle.pay(row, payment, Booking(TODAY), now=NOW)
            case Trigger.APPLY_CREDIT:
                lifecycle.refuse(row, trigger)
                amount = min(minor, due_of(row), -self.balances[2100])
                return lifecycle.apply_credit(row, amount, Booking(TODAY), now=NOW) if amount else None
            case Trigger.VOID:
                return lifecycle.void(row, self._standing(which), "x", now=NOW)
            case Trigger.MARK_UNCOLLECTIBLE:
                taxes = taxes_of(pl.DataFrame([row], schema=INVOICES))
                why = WriteOff(reason="x", tax_relief=relief)
                return lifecycle.mark_uncollectible(row, taxes, -self.balances[1190], why, Booking(TODAY), now=NOW)
            case Trigger.RECOVER:
                lifecycle.refuse(row, trigger)
                [off] = [each for each in self._standing(which) if each.kind is ApplicationKind.WRITE_OFF]
                made = next(
                    v for v in range(2, 99) if lifecycle.entry_id("default", "P19", row["id"], v) == off.entry_id
                )
                provision = lifecycle.entry_id("default", "P18", row["id"], made)
                known = provision if provision in self.entries else None
                return lifecycle.recover(row, payment, off, known, Booking(TODAY), now=NOW)
            case _:
                failure = FailedPayment(payment=name, amount_minor=minor, currency="EUR", failed_on=TODAY)
                return lifecycle.fail_payment(row, failure, now=NOW)

    def _standing(self, which: int) -> list[Application]:
        return lifecycle.standing(self.applied[which], "default")

    def _book_mirror(self, entry: str) -> None:
        mirror = f"mirror of {entry}"
        assert mirror not in self.entries, "an entry is reversed once"
        self.entries[mirror] = self.entries[entry]
        self.balances.subtract(dict(self.entries[entry].group_by("account").agg(pl.sum("amount_minor")).rows()))

    @invariant()
    def the_receivable_is_what_is_due(self) -> None:
        """Of all invoices together; credit is never below nothing, and no more is settled than is due."""
        assert self.balances[1100] == sum(map(due_of, self.rows))
        assert self.balances[2100] <= 0
        assert sum(self.balances.values()) == 0
        for row, applied in zip(self.rows, self.applied, strict=True):
            assert row["settled_minor"] == sum(each.amount_minor for each in applied)
            assert row["state"] == State.VOID or 0 <= due_of(row) <= max(row["total_minor"], 0)
            assert (row["state"] in {State.PAID, State.UNCOLLECTIBLE}) <= (due_of(row) == 0)
            assert (row["state"] == State.OPEN) <= (due_of(row) > 0)


def test_random_triggers_keep_to_the_edges_and_the_ledger_to_what_is_due() -> None:
    """I16 and I13 of the core alone."""
    run_state_machine_as_test(Life, settings=settings(max_examples=25, stateful_step_count=20, deadline=None))


def test_the_database_agrees(database: sa.Engine) -> None:
    """What is not refused is booked so that the audit finds nothing, and the chain holds. Each seed is a tenant."""
    taken: Counter[str] = Counter()
    for seed in range(5):
        chance, tenant = Random(seed), f"t{seed}"
        nets = [[chance.randint(5_000, 20_000)] for _ in range(3)]
        keys = issued(database, *nets, tenant=tenant, customer="c", kind="manual")
        keys += stored(database, *nets, tenant=tenant, customer="c", kind="manual", first=10)
        for number in range(45):
            trigger, key, minor = chance.choice([*CALLS]), chance.choice(keys), chance.randint(1, 30_000)
            if number % 8 == 0:
                issued(database, [-minor], tenant=tenant, customer="c", kind="manual", first=100 + number)
            try:
                with database.begin() as connection:
                    CALLS[trigger](connection, act(LATER, tenant), key, f"p{number}", minor)
            except (NotTakenError, NoCreditError):
                continue
            taken[trigger] += 1
        with database.connect() as connection:
            found = {name: connection.execute(sa.text(sql)).scalar_one() for name, sql in _BOOK_CHECKS.items()}
        assert {name: count for name, count in found.items() if count} == {}, seed
    assert [each for _, _, each in verified(database) if each] == []
    with database.connect() as connection:
        query = "SELECT DISTINCT from_state || ' to ' || to_state FROM invoice_changes"
        edges = set(connection.exec_driver_sql(query).scalars())
        assert edges >= {f"{one} to {other}" for one, others in words.EDGES.items() for other in others}
    assert taken.keys() == CALLS.keys()


Call = Callable[[sa.Connection, app.Act, str, str, int], Any]


def _money(minor: int, day: str) -> dict[str, Any]:
    return {"amount_minor": minor, "currency": "EUR", day: TODAY}


def _paid(connection: sa.Connection, by: app.Act, key: str, name: str, minor: int) -> Any:
    return app.pay(connection, by, key, Payment(payment=name, **_money(minor, "paid_on")))


CALLS: dict[str, Call] = {
    Trigger.PAY: _paid,
    Trigger.FAIL_PAYMENT: lambda connection, by, key, name, minor: app.fail_payment(
        connection, by, key, FailedPayment(payment=name, **_money(minor, "failed_on"))
    ),
    Trigger.APPLY_CREDIT: lambda connection, by, key, _, minor: app.apply_credit(connection, by, key, minor),
    Trigger.VOID: lambda connection, by, key, *_: app.void(connection, by, key, "x"),
    Trigger.MARK_UNCOLLECTIBLE: lambda connection, by, key, _, minor: app.mark_uncollectible(
        connection, by, key, WriteOff(reason="x", tax_relief=minor % 2 == 0)
    ),
    "finalize": lambda connection, by, key, *_: app.finalize(connection, by, key),
    "refund": lambda connection, by, _, name, minor: app.refund(
        connection, by, "c", Refund(refund=name, **_money(minor, "paid_on"))
    ),
}
