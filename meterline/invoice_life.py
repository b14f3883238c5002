"""What can be asked of invoices: listing them, taking them along their lives, and customers' credit."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any, TypeVar

import sqlalchemy as sa
from pydantic import BaseModel, ValidationError

from invoicing.invoices.lifecycle import due_of
from invoicing.invoices.store import invoice as invoice_of
from invoicing.invoices.store import invoices_of
from invoicing.ledger.documents import minor_of
from invoicing.settlement import app as settling
from invoicing.settlement import store
from invoicing.settlement.app import Act
from meterline.output import Output, Table, Text
from meterline.system import System
from meterline.tables import due_table, invoice_table
from schemas.configuration import ConfigurationError, faults_of
from schemas.invoice import State
from schemas.money import MINOR_UNITS, major
from schemas.payment import CreditApplication, FailedPayment, Payment, Reason, Refund, WriteOff
from schemas.tenant import DEFAULT_TENANT

BY = "command line"
Told = TypeVar("Told", bound=BaseModel)


def list_invoices(
    app: System, *, period: str | None = None, customer: str | None = None, state: str | None = None
) -> Iterator[Output]:
    """Invoices that all the given conditions hold for."""
    if state is not None and state not in set(State):
        raise ValueError(f"state {state}; allowed: {', '.join(State)}")
    if not (period or customer or state):
        raise ValueError("allowed: at least one of period, customer and state")
    with app.database.connect() as connection:
        found = invoices_of(
            connection, DEFAULT_TENANT, period, customer=customer, state=State(state) if state else None
        )
    if period and not customer and not state:
        yield invoice_table(period, found)
        return
    title = " ".join(
        ["Invoices", *(each for each in (state, period and f"of {period}", customer and f"of {customer}") if each)]
    )
    yield due_table(title, found)


def finalize_invoice(app: System, *, invoice: str) -> Iterator[Output]:
    """Issue a draft."""
    yield from _done(app, lambda connection, act: settling.finalize(connection, act, invoice))


def pay_invoice(
    app: System, *, invoice: str, payment: str, amount: str, on: str | None = None, payout: str = ""
) -> Iterator[Output]:
    """Book a payment."""

    def book(connection: sa.Connection, act: Act) -> tuple[dict[str, Any], bool]:
        money = _money(connection, invoice, amount)
        told = _checked(Payment, payment=payment, **money, paid_on=_day(on, act), payout=payout)
        return settling.pay(connection, act, invoice, told)

    yield from _done(app, book)


def fail_invoice_payment(
    app: System, *, invoice: str, payment: str, amount: str, on: str | None = None, decline_code: str = ""
) -> Iterator[Output]:
    """Note a payment that failed."""

    def note(connection: sa.Connection, act: Act) -> tuple[dict[str, Any], bool]:
        money = _money(connection, invoice, amount)
        told = _checked(FailedPayment, payment=payment, **money, failed_on=_day(on, act), decline_code=decline_code)
        return settling.fail_payment(connection, act, invoice, told)

    yield from _done(app, note)


def apply_credit(app: System, *, invoice: str, amount: str | None = None) -> Iterator[Output]:
    """Settle an invoice by its customer's credit."""

    def apply(connection: sa.Connection, act: Act) -> dict[str, Any]:
        at_most = None if amount is None else _money(connection, invoice, amount)["amount_minor"]
        told = _checked(CreditApplication, amount_minor=at_most)
        return settling.apply_credit(connection, act, invoice, told.amount_minor)[0]

    yield from _done(app, apply)


def void_invoice(app: System, *, invoice: str, why: str) -> Iterator[Output]:
    """Void an invoice."""
    reason = _checked(Reason, reason=why).reason
    yield from _done(app, lambda connection, act: settling.void(connection, act, invoice, reason))


def write_off_invoice(app: System, *, invoice: str, why: str, tax_relief: bool = False) -> Iterator[Output]:
    """Give up what is due of an invoice."""
    told = _checked(WriteOff, reason=why, tax_relief=tax_relief)
    yield from _done(app, lambda connection, act: settling.mark_uncollectible(connection, act, invoice, told))


def show_credit(app: System, *, customer: str | None = None) -> Iterator[Output]:
    """What customers have in credit."""
    with app.database.connect() as connection:
        found = store.credit(connection, DEFAULT_TENANT, None if customer is None else [customer])
    rows = [[who, currency, _shown(minor, currency)] for who, currency, minor in found.rows()]
    yield Table(title="Customer credit", columns=("customer", "currency", "credit"), rows=rows, numbers=("credit",))


def refund_credit(
    app: System, *, customer: str, refund: str, amount: str, currency: str, on: str | None = None, payout: str = ""
) -> Iterator[Output]:
    """Pay a customer's credit back."""
    act = _act()
    minor = minor_of(amount, currency)[1]
    told = _checked(Refund, refund=refund, amount_minor=minor, currency=currency, paid_on=_day(on, act), payout=payout)
    with app.database.begin() as connection:
        new = settling.refund(connection, act, customer, told)
    yield Text(text=f"refund {refund}: {'posted' if new else 'posted before'}")


INVOICE_OPERATIONS = (
    list_invoices, finalize_invoice, pay_invoice, fail_invoice_payment, apply_credit, void_invoice, write_off_invoice,
    show_credit, refund_credit,
)  # fmt: skip


def _done(
    app: System, change: Callable[[sa.Connection, Act], dict[str, Any] | tuple[dict[str, Any], bool]]
) -> Iterator[Output]:
    with app.database.begin() as connection:
        done = change(connection, _act())
    after, new = done if isinstance(done, tuple) else (done, True)
    due = f"{_shown(due_of(after), after['currency'])} {after['currency']} due"
    before = "" if new else "; it was told before"
    yield Text(text=f"{after['number']}: {after['state']}, payment {after['payment_status']}, {due}{before}")


def _act() -> Act:
    return Act(DEFAULT_TENANT, BY, datetime.now(UTC))


def _money(connection: sa.Connection, invoice: str, amount: str) -> dict[str, Any]:
    """An amount in the currency of an invoice."""
    currency = invoice_of(connection, DEFAULT_TENANT, invoice)["currency"].item()
    named, minor = minor_of(amount, currency)
    return {"amount_minor": minor, "currency": named}


def _day(text: str | None, act: Act) -> date:
    return date.fromisoformat(text) if text else act.now.date()


def _checked(model: type[Told], **fields: Any) -> Told:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, "the command")) from None


def _shown(minor: int, currency: str) -> str:
    return f"{major(minor, MINOR_UNITS[currency]):,}"
