"""Invoices go on: they are finalised, paid, voided, written off, and settled by credit. In the caller's transaction.

A shell. Owns that a change of an invoice comes with what it posts, what settles it and what is told of it, or not at
all. Whoever changes an invoice holds its row until the commit: the next one reads what the first one left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing import store as books
from invoicing.invoices import lifecycle
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.entries import taxes_of, void_journal
from invoicing.invoices.lifecycle import Booking, NotTakenError, Post, Step, Trigger, booked_on, due_of
from invoicing.invoices.store import change, drafts_of, invoice, lines_of, periodic_drafts
from invoicing.ledger import store as ledger
from invoicing.ledger.journal import Journal, reversal
from invoicing.outbox.store import emit
from invoicing.periods import store as periods
from invoicing.recognition.store import left_of, reverse_deferred
from invoicing.settlement import store
from invoicing.settlement.postings import joined, journal_of_posts
from invoicing.wallets.store import give_back
from schemas.invoice import INVOICES, ApplicationKind, InvoiceKind, Revenue, State
from schemas.money import MINOR_UNITS
from schemas.payment import FailedPayment, Payment, Refund, WriteOff

Expected = Callable[[int], None]
"""Is told the version of an invoice that is about to change, and raises where it is not the one that was read."""


class ClosedPeriodError(ValueError):
    """The period is closed, and what was asked for would change it. Nothing was written."""


class NoCreditError(ValueError):
    """The customer has not so much credit. Nothing was written."""


@dataclass(frozen=True)
class Act:
    """Who does something for which tenant, and when."""

    tenant: str
    by: str
    now: datetime
    expected: Expected = lambda _: None


def finalize(connection: sa.Connection, act: Act, key: str) -> dict[str, Any]:
    """Issue a stored draft, and return the invoice. Raises LookupError, or NotTakenError where it is no draft.

    A periodic one waits for a run that is being posted. Where its period's run is not posted yet, what comes until then
    is for a later run: the period is rated again.
    """
    return issue_held(connection, act, held_draft(connection, act, key)).row(0, named=True)


def held_draft(connection: sa.Connection, act: Act, key: str) -> Drafts:
    """The draft with this id, which nobody else changes now. Raises as `finalize` does."""
    drafts = held_drafts(connection, act.tenant, [key])
    if drafts.invoices.is_empty():
        raise NotTakenError(invoice(connection, act.tenant, key).row(0, named=True), Trigger.FINALIZE)
    act.expected(drafts.invoices["version"].item())
    return drafts


def held_drafts(connection: sa.Connection, tenant: str, keys: Sequence[str]) -> Drafts:
    """Those of the tenant's invoices with these ids that are drafts, in their order; nobody else changes them now.

    Where a periodic one is among them, a run that is being posted is waited for first.
    """
    if periodic_drafts(connection, tenant, keys):
        books.lock(connection, tenant)
    return drafts_of(connection, tenant, keys)


def issue_held(connection: sa.Connection, act: Act, drafts: Drafts) -> pl.DataFrame:
    """Issue drafts that `held_drafts` gave, and return the invoices (columns INVOICES)."""
    periodic = drafts.invoices.filter(pl.col("kind") == InvoiceKind.PERIODIC)["period"].unique().sort()
    for period in periodic:
        run = books.run_of(connection, act.tenant, period)
        if run is None or run.state != "posted":
            books.rate_again(connection, act.tenant, period, reason="finalised before its run", at=act.now)
    return issue(connection, drafts, at=act.now, stored_by=act.by)


def pay(connection: sa.Connection, act: Act, key: str, payment: Payment) -> tuple[dict[str, Any], bool]:
    """Book a payment of an invoice; returns the invoice, and whether the payment is new.

    In this order: (1) hold the invoice; (2) a payment that is known changes nothing, whatever became of the invoice
    since; (3) look at the version; (4) take back a write-off; (5) book.
    """
    # 1: hold
    before = _held(connection, act.tenant, key)
    # 2: known?
    if store.is_known(connection, act.tenant, before["id"], payment):
        return before, False
    # 3: version
    act.expected(before["version"])
    _refuse_unfit(before, payment.currency, payment.paid_on, act.now)
    booking = booked_on(payment.paid_on, periods.closed_through(connection, act.tenant))
    if before["state"] == State.UNCOLLECTIBLE:  # 4: take back
        step = _recovered(connection, act, before, payment, booking)
    else:
        step = lifecycle.pay(before, payment, booking, now=act.now)
    # 5: book
    applied = sum(each.amount_minor for each in step.applications if each.kind == ApplicationKind.PAYMENT)
    [post] = step.posts
    store.add_payment(
        connection, act.tenant, before["id"], payment, applied_minor=applied, entry_id=post.entry_id(act.tenant),
        at=act.now,
    )  # fmt: skip
    return _written(connection, act, step, f"payment {payment.payment}"), True


def fail_payment(connection: sa.Connection, act: Act, key: str, payment: FailedPayment) -> tuple[dict[str, Any], bool]:
    """Note that a payment failed, and tell of it; returns the invoice, and whether it is new."""
    before = _held(connection, act.tenant, key)
    if store.is_known(connection, act.tenant, before["id"], payment):
        return before, False
    act.expected(before["version"])
    _refuse_unfit(before, payment.currency, payment.failed_on, act.now)
    step = lifecycle.fail_payment(before, payment, now=act.now)
    store.add_payment(connection, act.tenant, before["id"], payment, at=act.now)
    return _written(connection, act, step, f"payment {payment.payment} failed"), True


def apply_credit(
    connection: sa.Connection, act: Act, key: str, at_most: int | None = None
) -> tuple[dict[str, Any], int]:
    """Settle an invoice by what its customer has in credit; returns it, and how much was applied.

    Without credit nothing changes.
    """
    before = _held(connection, act.tenant, key)
    lifecycle.refuse(before, Trigger.APPLY_CREDIT)
    act.expected(before["version"])
    credit = store.spendable_credit(connection, act.tenant, [before["customer"]])
    [has] = credit.filter(pl.col("currency") == before["currency"])["credit_minor"].to_list() or [0]
    amount = min(has, due_of(before), *([at_most] if at_most is not None else []))
    if amount == 0:
        return before, 0
    booking = booked_on(act.now.date(), periods.closed_through(connection, act.tenant))
    step = lifecycle.apply_credit(before, amount, booking, now=act.now)
    return _written(connection, act, step, "customer credit"), amount


def void(connection: sa.Connection, act: Act, key: str, reason: str) -> dict[str, Any]:
    """Void an open invoice: its entry is mirrored on its own day, its credit given back, and its usage billed again.

    What it billed in advance and was earned by now is taken off what was earned; the rest was unearned.

    Raises NotTakenError where the state does not take it, or anything but credit settled a part of it, and
    ClosedPeriodError where its entry is in a closed period: that takes a credit note.
    """
    before = _held(connection, act.tenant, key)
    act.expected(before["version"])
    applied = lifecycle.standing(store.applied_to(connection, before["id"]), act.tenant)
    step = lifecycle.void(before, applied, reason, now=act.now)
    entries, _ = ledger.entries(connection, act.tenant, document=before["id"])
    [day] = entries.filter(pl.col("document_kind") == "invoice")["effective_at"].to_list()
    if not store.takes_entries(connection, act.tenant, day, act.now):
        raise ClosedPeriodError(
            f"invoice {before['number']} is posted on {day}, and the books of that day are closed; make a credit note"
        )
    lines = _with_earned(connection, act, before["id"], lines_of(connection, before["id"]))
    prepaid = sum(each.amount_minor for each in applied if each.kind == ApplicationKind.WALLET)
    if prepaid:
        give_back(
            connection, act.tenant, invoice_id=before["id"], amount_minor=prepaid, reference=f"void {before['id']}",
            at=act.now,
        )  # fmt: skip
    mirror = void_journal(_frame(before), lines, effective_at=day, reason=reason, booked_at=act.now)
    used = lines["usage_period"].unique().sort().to_list() if before["kind"] != InvoiceKind.MANUAL else []
    for period in used:
        books.rate_again(connection, act.tenant, period, reason="an invoice is void", at=act.now)
    return _written(connection, act, step, f"void: {reason}", mirror)


def _with_earned(connection: sa.Connection, act: Act, invoice_id: str, lines: pl.DataFrame) -> pl.DataFrame:
    """The lines, those in advance in two parts: what is unearned, and what was earned. Their schedules end."""
    advance = lines.filter((pl.col("revenue") == Revenue.ADVANCE) & (pl.col("net_minor") != 0))
    if advance.is_empty():
        return lines
    left = left_of(connection, act.tenant, advance["id"].to_list())
    parts = reverse_deferred(
        connection, act.tenant, left, document_id=f"void {invoice_id}", as_of=act.now.date(), at=act.now
    )
    split = lines.join(parts, left_on="id", right_on="line_id", how="left", maintain_order="left")
    unearned = split.with_columns(pl.coalesce("deferred_minor", "net_minor").alias("net_minor"))
    earned = split.filter(pl.col("recognised_minor") != 0).with_columns(
        net_minor="recognised_minor", revenue=pl.lit(Revenue.FEES.value)
    )
    return pl.concat([unearned, earned]).select(lines.columns)


def mark_uncollectible(connection: sa.Connection, act: Act, key: str, why: WriteOff) -> dict[str, Any]:
    """Give up what is due of an open invoice."""
    before = _held(connection, act.tenant, key)
    act.expected(before["version"])
    provided = store.allowance(connection, act.tenant, before["customer"], before["currency"])
    booking = booked_on(act.now.date(), periods.closed_through(connection, act.tenant))
    step = lifecycle.mark_uncollectible(before, taxes_of(_frame(before)), provided, why, booking, now=act.now)
    return _written(connection, act, step, f"uncollectible: {why.reason}")


def refund(connection: sa.Connection, act: Act, customer: str, told: Refund) -> bool:
    """Pay a customer's credit back: P15. False when the refund was told before; nothing changes then.

    Raises NoCreditError where it is more than there is, and OtherContentError where it was told with other content.
    """
    if told.currency not in MINOR_UNITS:
        raise ValueError(f"currency {told.currency}; allowed: {', '.join(MINOR_UNITS)}")
    _refuse_future(told.paid_on, act.now)
    credit = store.spendable_credit(connection, act.tenant, [customer])
    [has] = credit.filter(pl.col("currency") == told.currency)["credit_minor"].to_list() or [0]
    booking = booked_on(told.paid_on, periods.closed_through(connection, act.tenant))
    post = Post(
        "P15", "refund", told.refund, 1, booking, f"Refund {told.refund} to {customer}",
        [("refund", told.payout, told.amount_minor)],
    )  # fmt: skip
    entry = post.entry_id(act.tenant)
    if not store.add_refund(connection, act.tenant, customer, told, entry_id=entry, at=act.now):
        return False
    if told.amount_minor > has:
        raise NoCreditError(
            f"{customer} has {has} minor units of {told.currency} in credit; allowed: a refund of at most so much"
        )
    found = journal_of_posts([post], tenant=act.tenant, customer=customer, currency=told.currency, booked_at=act.now)
    ledger.post(connection, found.entries, found.postings)
    return True


def _recovered(connection: sa.Connection, act: Act, before: dict[str, Any], payment: Payment, booking: Booking) -> Step:
    applied = lifecycle.standing(store.applied_to(connection, before["id"]), act.tenant)
    [written_off] = [each for each in applied if each.kind == ApplicationKind.WRITE_OFF]
    entry, _ = ledger.entries(connection, act.tenant, entry_id=written_off.entry_id)
    provision = lifecycle.entry_id(act.tenant, "P18", before["id"], entry["document_version"].item())
    provided = ledger.entries(connection, act.tenant, entry_id=provision)[0].height == 1
    return lifecycle.recover(before, payment, written_off, provision if provided else None, booking, now=act.now)


def _written(
    connection: sa.Connection, act: Act, step: Step, reason: str, mirror: Journal | None = None
) -> dict[str, Any]:
    """Write a step, in this order: the invoice; what settles it; the entries; last what is told, as emitters wait."""
    after = dict(step.invoice)
    change(connection, _frame(after), by=act.by, reason=reason, at=act.now)
    store.add_applications(connection, store.rows_of(step.applications, after, act.now))
    today = (
        booked_on(act.now.date(), periods.closed_through(connection, act.tenant)).effective_at
        if step.reverses
        else None
    )
    journals = []
    for each in step.reverses:
        assert today
        original = ledger.entries(connection, act.tenant, entry_id=each)
        journals.append(reversal(*original, effective_at=today, reason=reason, booked_at=act.now))
    if step.posts:
        journals.append(
            journal_of_posts(
                step.posts, tenant=act.tenant, customer=after["customer"], currency=after["currency"], booked_at=act.now
            )
        )
    journals += [mirror] if mirror else []
    if journals:
        entries = joined(*journals)
        ledger.post(connection, entries.entries, entries.postings)
    emit(connection, act.tenant, step.events)
    return {**after, "version": after["version"] + 1}


def _held(connection: sa.Connection, tenant: str, key: str) -> dict[str, Any]:
    return invoice(connection, tenant, key, lock=True).row(0, named=True)


def _frame(row: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame([row], schema=INVOICES)


def _refuse_unfit(before: dict[str, Any], currency: str, day: date, now: datetime) -> None:
    if currency != before["currency"]:
        raise ValueError(f"currency {currency}; allowed: that of invoice {before['number']}, {before['currency']}")
    _refuse_future(day, now)


def _refuse_future(day: date, now: datetime) -> None:
    """A day that has begun somewhere on earth is none of the future."""
    if day > (now + timedelta(days=1)).date():
        raise ValueError(f"{day} is in the future; allowed: a day until {now.date()}")
