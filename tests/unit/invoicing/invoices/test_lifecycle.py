"""The state machine of invoices: its edges are those of the schema, and every step balances."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from invoicing.invoices import lifecycle
from invoicing.invoices.lifecycle import EDGES, Application, Booking, NotTakenError, Step, Trigger, due_of, shares
from invoicing.settlement.postings import journal_of_posts
from schemas import invoice as words
from schemas.invoice import ApplicationKind, State
from schemas.payment import FailedPayment, Payment, WriteOff

NOW = datetime(2026, 2, 10, tzinfo=UTC)
TODAY = Booking(date(2026, 2, 10))
TAXES = [("VAT 19%", 1_900), ("VAT 7%", 100)]


def invoice(state: str = "open", settled: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "i", "tenant": "default", "number": "INV-000001", "customer": "c", "customer_name": "C", "period": "2026-01",
        "currency": "EUR", "minor_units": 2, "subtotal_minor": 10_000, "tax_minor": 2_000, "total_minor": 12_000,
        "settled_minor": settled, "state": state, "payment_status": "pending", "due_on": None, "version": 3, **more,
    }  # fmt: skip


def paid(minor: int) -> Payment:
    return Payment(payment="p", amount_minor=minor, currency="EUR", paid_on=date(2026, 2, 10), payout="po")


def take(row: dict[str, Any], trigger: Trigger) -> Step:  # noqa: PLR0911  one for each trigger
    """What a trigger comes to, with some amounts."""
    application = Application(ApplicationKind.WRITE_OFF, 12_000, "i", "0" * 32)
    failure = FailedPayment(payment="p", amount_minor=1, currency="EUR", failed_on=date(2026, 2, 10))
    match trigger:
        case Trigger.PAY:
            return lifecycle.pay(row, paid(5_000), TODAY, now=NOW)
        case Trigger.FAIL_PAYMENT:
            return lifecycle.fail_payment(row, failure, now=NOW)
        case Trigger.APPLY_CREDIT:
            return lifecycle.apply_credit(row, 100, TODAY, now=NOW)
        case Trigger.VOID:
            return lifecycle.void(row, [], "x", now=NOW)
        case Trigger.MARK_UNCOLLECTIBLE:
            return lifecycle.mark_uncollectible(row, TAXES, 0, WriteOff(reason="x", tax_relief=True), TODAY, now=NOW)
        case Trigger.RECOVER:
            return lifecycle.recover(row, paid(5_000), application, None, TODAY, now=NOW)
        case Trigger.FINALIZE:
            lifecycle.refuse(row, trigger)
            return Step({**row, "state": "open"})


def minors(step: Step) -> list[tuple[str, int, str, int]]:
    """Template, account, dimension and minor units of what a step posts."""
    if not step.posts:
        return []
    journal = journal_of_posts(step.posts, tenant="default", customer="c", currency="EUR", booked_at=NOW)
    templates = dict(journal.entries.select("id", "template").rows())
    rows = journal.postings.select("entry_id", "account", "dimension", "amount_minor").rows()
    return [(templates[entry], *rest) for entry, *rest in rows]


def test_the_edges_of_the_triggers_are_those_of_the_schema() -> None:
    """Beside triggers that leave a state as it is; every trigger is taken somewhere."""
    for state, triggers in EDGES.items():
        led_to = {to for targets in triggers.values() for to in targets} - {state}
        assert led_to == set(words.EDGES[state]), state
    assert set(EDGES) == set(State)
    assert {trigger for triggers in EDGES.values() for trigger in triggers} == set(Trigger)


@pytest.mark.parametrize("trigger", list(Trigger))
@pytest.mark.parametrize("state", list(State))
def test_a_state_takes_its_triggers_and_refuses_others_with_those(state: State, trigger: Trigger) -> None:
    """What is refused says what is allowed; what is taken leads along an edge."""
    row = invoice(state, 12_000 if state in {State.PAID, State.UNCOLLECTIBLE} else 0)
    if trigger not in EDGES[state]:
        with pytest.raises(NotTakenError, match=f"is {state} and does not take {trigger}; allowed: ") as refused:
            take(row, trigger)
        assert refused.value.allowed == tuple(EDGES[state])
        return
    step = take(row, trigger)
    assert State(step.invoice["state"]) in EDGES[state][trigger]
    assert (
        step.invoice["settled_minor"] - row["settled_minor"] == sum(each.amount_minor for each in step.applications)
        or state == "void"
    )
    assert step.invoice["version"] == 3
    assert {event.version for event in step.events} <= {4}


def test_a_payment_posts_what_is_due_and_what_is_too_much() -> None:
    """P09 up to what is due; above, P11 with the rest on customer credit."""
    assert minors(take(invoice(), Trigger.PAY)) == [("P09", 1010, "po", 5_000), ("P09", 1100, "", -5_000)]
    step = lifecycle.pay(invoice(settled=11_000), paid(5_000), TODAY, now=NOW)
    assert minors(step) == [("P11", 1010, "po", 5_000), ("P11", 1100, "", -1_000), ("P11", 2100, "", -4_000)]
    assert (step.invoice["state"], step.invoice["payment_status"]) == ("paid", "succeeded")
    [told] = step.events
    assert told.type == "invoice.paid"
    again = lifecycle.pay(dict(step.invoice), paid(7), TODAY, now=NOW)
    assert (minors(again)[1:], again.applications, again.events) == ([("P11", 2100, "", -7)], (), [])


@pytest.mark.parametrize(
    ("relief", "allowance", "expected"),
    [
        (True, 0, [("P18", 6100, "", 5_000), ("P18", 1190, "", -5_000), ("P19", 1190, "", 5_000),
                   ("P19", 2000, "VAT 19%", 950), ("P19", 2000, "VAT 7%", 50), ("P19", 1100, "", -6_000)]),
        (False, 5_999, [("P18", 6100, "", 1), ("P18", 1190, "", -1), ("P19", 1190, "", 6_000), ("P19", 1100, "", -6_000)]),
        (False, 9_000, [("P19", 1190, "", 6_000), ("P19", 1100, "", -6_000)]),
        (True, -100, [("P18", 6100, "", 5_000)]),
    ],
)  # fmt: skip
def test_a_write_off_shares_what_is_due_over_net_and_taxes(relief: bool, allowance: int, expected: list[Any]) -> None:
    """In proportion, with tax relief; the provision is for what the allowance does not cover."""
    why = WriteOff(reason="x", tax_relief=relief)
    step = lifecycle.mark_uncollectible(invoice(settled=6_000), TAXES, allowance, why, TODAY, now=NOW)
    assert minors(step)[: len(expected)] == expected
    assert (step.invoice["state"], due_of(step.invoice)) == ("uncollectible", 0)


def test_a_write_off_takes_taxes_below_zero() -> None:
    """An adjustment may leave one tax of several below zero; the others make up for it."""
    why = WriteOff(reason="x", tax_relief=True)
    step = lifecycle.mark_uncollectible(invoice(), [("A", 2_500), ("B", -500)], 0, why, TODAY, now=NOW)
    assert minors(step)[3:5] == [("P19", 2000, "A", 2_500), ("P19", 2000, "B", -500)]


def test_what_was_taken_back_stands_no_more() -> None:
    """An application of credit whose entry was reversed; another one of the same customer still stands."""
    entries = ["a" * 32, "b" * 32]
    first, second = (Application(ApplicationKind.CUSTOMER_CREDIT, 5, "c", entry) for entry in entries)
    back = Application(ApplicationKind.CUSTOMER_CREDIT, -5, "c", lifecycle.reversal_id("t", "P14", entries[0]))
    assert lifecycle.standing([first, second, back], "t") == [second]
    assert lifecycle.standing([first, back], "t") == []
    paid_back = [Application(ApplicationKind.WALLET, minor, "w", f"{minor}") for minor in (5, -5)]
    assert lifecycle.standing(paid_back, "t") == []


def test_shares_add_up_however_they_are_rounded() -> None:
    """The shares of all parts of all of it are the parts; the last one takes no more than a unit of rounding."""
    assert shares([3, -1, 7], 9, 9) == [3, -1, 7]
    assert sum(shares([333, 333, 334], 500, 1_000)) == 500
    assert shares([], 5, 9) == []
