"""The life of an invoice: which triggers a state takes, and what each of them comes to. Core.

Owns the state machine. Nothing else changes what is issued; whatever a state does not take is refused with what it
does take. A step says all that follows from a trigger: the invoice's next row, what settles it, what is posted, what is
taken back, and what is told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any

from schemas.domain_event import DomainEvent, EventType, InvoiceData, InvoiceVoidedData, PaymentFailedData
from schemas.identity import digest
from schemas.invoice import ApplicationKind, PaymentStatus, State
from schemas.payment import FailedPayment, Payment, WriteOff

Row = Mapping[str, Any]
"""An invoice: a row with the columns `schemas.invoice.INVOICES`."""


class Trigger(StrEnum):
    """What can happen to an invoice."""

    FINALIZE = "finalize"
    PAY = "pay"
    FAIL_PAYMENT = "fail_payment"
    APPLY_CREDIT = "apply_credit"
    VOID = "void"
    MARK_UNCOLLECTIBLE = "mark_uncollectible"
    RECOVER = "recover"


EDGES: dict[State, dict[Trigger, tuple[State, ...]]] = {
    State.DRAFT: {Trigger.FINALIZE: (State.OPEN, State.PAID)},
    State.OPEN: {
        Trigger.PAY: (State.OPEN, State.PAID),
        Trigger.FAIL_PAYMENT: (State.OPEN,),
        Trigger.APPLY_CREDIT: (State.OPEN, State.PAID),
        Trigger.VOID: (State.VOID,),
        Trigger.MARK_UNCOLLECTIBLE: (State.UNCOLLECTIBLE,),
    },
    State.UNCOLLECTIBLE: {Trigger.RECOVER: (State.OPEN, State.PAID)},
    State.PAID: {Trigger.PAY: (State.PAID,)},  # money that came in twice is the customer's, and is booked as such
    State.VOID: {},
}
"""Which triggers a state takes, and where each may lead."""


class NotTakenError(ValueError):
    """The invoice is in a state that does not take the trigger. Nothing was written."""

    def __init__(self, invoice: Row, trigger: Trigger, why: str = "") -> None:
        state = State(invoice["state"])
        self.allowed = tuple(EDGES[state])
        name, taken = invoice["number"] or invoice["id"], ", ".join(self.allowed) or "nothing"
        super().__init__(f"invoice {name} is {state} and does not take {trigger}{why}; allowed: {taken}")


_POSTED_BY = {ApplicationKind.CUSTOMER_CREDIT: "P14", ApplicationKind.WRITE_OFF: "P19"}
"""The templates of what can be taken back from an invoice."""


@dataclass(frozen=True)
class Booking:
    """The accounting day of an entry, and the closed period that it is for, or none."""

    effective_at: date
    relates_to_period: str | None = None


@dataclass(frozen=True)
class Application:
    """What settles a part of an invoice, or, below zero, takes that back."""

    kind: ApplicationKind
    amount_minor: int
    reference: str
    entry_id: str


@dataclass(frozen=True)
class Post:
    """A document that is posted by its template, with its amounts in minor units by name and dimension."""

    template: str
    kind: str
    document: str
    version: int
    booking: Booking
    description: str
    amounts: Sequence[tuple[str, str, int]]

    def entry_id(self, tenant: str) -> str:
        """The id of its journal entry."""
        return entry_id(tenant, self.template, self.document, self.version)


@dataclass(frozen=True)
class Step:
    """What a trigger comes to."""

    invoice: Row
    """The next row, which still has the version that it was read at."""
    applications: Sequence[Application] = ()
    posts: Sequence[Post] = ()
    reverses: Sequence[str] = ()
    """The ids of the entries that are taken back."""
    events: Sequence[DomainEvent] = field(default=())


def entry_id(tenant: str, template: str, document: str, version: int = 1) -> str:
    """The id of the journal entry of a document, as `invoicing.ledger.journal` makes it."""
    return digest(tenant, template, document, version, 1)


def reversal_id(tenant: str, template: str, entry: str) -> str:
    """The id of the entry that takes an entry back."""
    return entry_id(tenant, template, entry)


def due_of(invoice: Row) -> int:
    """What is left to be settled, in minor units; nothing of what is void.

    >>> due_of({"state": "open", "total_minor": 12000, "settled_minor": 5000})
    7000
    >>> due_of({"state": "paid", "total_minor": -700, "settled_minor": 0})
    0
    """
    if invoice["state"] == State.VOID:
        return 0
    return max(int(invoice["total_minor"]), 0) - int(invoice["settled_minor"])


def booked_on(day: date, closed_through: date | None) -> Booking:
    """The accounting day of something that happened on a day: the first open one where the books of it are closed.

    >>> booked_on(date(2026, 1, 30), closed_through=date(2026, 1, 31))
    Booking(effective_at=datetime.date(2026, 2, 1), relates_to_period='2026-01')
    """
    if closed_through is None or day > closed_through:
        return Booking(day)
    first_open = closed_through + timedelta(days=1)
    period = f"{day:%Y-%m}"
    return Booking(first_open, period if period < f"{first_open:%Y-%m}" else None)


def refuse(invoice: Row, trigger: Trigger) -> None:
    """Raises NotTakenError where the invoice's state does not take the trigger."""
    if trigger not in EDGES[State(invoice["state"])]:
        raise NotTakenError(invoice, trigger)


def pay(invoice: Row, payment: Payment, booking: Booking, *, now: datetime) -> Step:
    """A payment: P09, or P11 where it is more than is due. What is too much is the customer's credit.

    due 120.00, paid 130.00:   1010 gateway clearing  13000
                               1100 receivable       -12000
                               2100 customer credit   -1000
    """
    refuse(invoice, Trigger.PAY)
    due = due_of(invoice)
    applied = min(due, payment.amount_minor)
    excess = payment.amount_minor - applied
    amounts = [("payment", payment.payout, payment.amount_minor)]
    amounts += [("due", "", applied), ("excess", "", excess)] if excess else []
    post = Post(
        "P11" if excess else "P09", "payment", payment.payment, 1, booking,
        f"Payment {payment.payment} of invoice {invoice['number']}", amounts,
    )  # fmt: skip
    settles = Application(ApplicationKind.PAYMENT, applied, payment.payment, post.entry_id(invoice["tenant"]))
    after = settled(invoice, applied, otherwise=PaymentStatus.PARTIAL)
    return Step(after, (settles,) if applied else (), (post,), events=paid_events(invoice, after, now))


def recover(
    invoice: Row, payment: Payment, written_off: Application, provision: str | None, booking: Booking, *, now: datetime
) -> Step:
    """A payment of what was given up: the write-off and its provision are taken back, and then it is paid."""
    refuse(invoice, Trigger.RECOVER)
    tenant, amount = invoice["tenant"], written_off.amount_minor
    back = Application(
        ApplicationKind.WRITE_OFF, -amount, written_off.reference, reversal_id(tenant, "P19", written_off.entry_id)
    )
    opened = {**invoice, "state": State.OPEN.value, "settled_minor": invoice["settled_minor"] - amount}
    step = pay(opened, payment, booking, now=now)
    reverses = (written_off.entry_id, *([provision] if provision else []))
    return Step(step.invoice, (back, *step.applications), step.posts, reverses, step.events)


def apply_credit(invoice: Row, amount_minor: int, booking: Booking, *, now: datetime) -> Step:
    """Credit of the customer settles so much of the invoice: P14. `invoicing.settlement.credit` does many at once."""
    refuse(invoice, Trigger.APPLY_CREDIT)
    assert 0 < amount_minor <= due_of(invoice), "more credit than is due"
    post = Post(
        "P14", "application", invoice["id"], invoice["version"] + 1, booking,
        f"Credit applied to invoice {invoice['number']}", [("credit", "", amount_minor)],
    )  # fmt: skip
    entry = post.entry_id(invoice["tenant"])
    after = settled(invoice, amount_minor)
    application = Application(ApplicationKind.CUSTOMER_CREDIT, amount_minor, invoice["customer"], entry)
    return Step(after, [application], [post], events=paid_events(invoice, after, now))


def fail_payment(invoice: Row, payment: FailedPayment, *, now: datetime) -> Step:
    """A payment that failed: it is told, and nothing is posted."""
    refuse(invoice, Trigger.FAIL_PAYMENT)
    after = {**invoice, "payment_status": PaymentStatus.FAILED.value}
    said = PaymentFailedData(
        **_said(after), amount_minor=payment.amount_minor, decline_code=payment.decline_code or None
    )
    return Step(after, events=[_event(EventType.INVOICE_PAYMENT_FAILED, after, said, now)])


def void(invoice: Row, applied: Sequence[Application], reason: str, *, now: datetime) -> Step:
    """An invoice that is owed no more. Its entry's mirror is posted by the caller, who has its lines.

    Applied credit goes back to the customer first, and what was prepaid to the wallet, which the caller posts; what was
    settled by anything else is refused.
    """
    refuse(invoice, Trigger.VOID)
    if others := sorted({each.kind for each in applied} - {ApplicationKind.CUSTOMER_CREDIT, ApplicationKind.WALLET}):
        raise NotTakenError(invoice, Trigger.VOID, f", because {', '.join(others)} settled a part; make a credit note")
    tenant = invoice["tenant"]
    back = [
        Application(each.kind, -each.amount_minor, each.reference, reversal_id(tenant, _template(each), each.entry_id))
        for each in applied
    ]
    credit = [each.entry_id for each in applied if each.kind == ApplicationKind.CUSTOMER_CREDIT]
    after = {**invoice, "state": State.VOID.value, "settled_minor": 0}
    said = InvoiceVoidedData(**_said(after), reason=reason)
    events = [_event(EventType.INVOICE_VOIDED, after, said, now)]
    return Step(after, back, reverses=credit, events=events)


def _template(applied: Application) -> str:
    """What posted credit that was applied, or credits that were burned."""
    return _BURNED_BY[applied.reference] if applied.kind == ApplicationKind.WALLET else "P14"


def mark_uncollectible(
    invoice: Row,
    taxes: Sequence[tuple[str, int]],
    allowance_minor: int,
    why: WriteOff,
    booking: Booking,
    *,
    now: datetime,
) -> Step:
    """What is due is given up: P19, and P18 for what of it the customer's allowance does not cover.

    `taxes` are the invoice's, by the dimension of their postings. With tax relief, the tax of what is due is given up
    by the state, in proportion; without, all of it is our loss.
    """
    refuse(invoice, Trigger.MARK_UNCOLLECTIBLE)
    due, version, number = due_of(invoice), invoice["version"] + 1, invoice["number"]
    relief = shares([minor for _, minor in taxes], due, invoice["total_minor"]) if why.tax_relief else []
    net = due - sum(relief)
    dimensions = [dimension for dimension, _ in taxes][: len(relief)]
    written_off = Post(
        "P19", "write-off", invoice["id"], version, booking, f"Invoice {number} written off: {why.reason}",
        [("total", "", due), ("subtotal", "", net), *(("tax", *each) for each in zip(dimensions, relief, strict=True))],
    )  # fmt: skip
    posts = [written_off]
    if (missing := net - max(allowance_minor, 0)) > 0:
        described = f"Provision for invoice {number}"
        posts = [
            Post("P18", "provision", invoice["id"], version, booking, described, [("provision", "", missing)]),
            *posts,
        ]
    application = Application(ApplicationKind.WRITE_OFF, due, invoice["id"], written_off.entry_id(invoice["tenant"]))
    after = {**invoice, "state": State.UNCOLLECTIBLE.value, "settled_minor": invoice["total_minor"]}
    events = [_event(EventType.INVOICE_UNCOLLECTIBLE, after, InvoiceData(**_said(after)), now)]
    return Step(after, [application], posts, events=events)


def settled(invoice: Row, by: int, *, otherwise: PaymentStatus | None = None) -> dict[str, Any]:
    """The row of which so much more is settled; paid where nothing is left, `otherwise` where something is."""
    after = {**invoice, "settled_minor": invoice["settled_minor"] + by}
    if due_of(after) == 0:
        return {**after, "state": State.PAID.value, "payment_status": PaymentStatus.SUCCEEDED.value}
    return {**after, "payment_status": otherwise.value} if otherwise else after


def paid_events(before: Row, after: Row, now: datetime) -> list[DomainEvent]:
    """`invoice.paid`, where an invoice is paid now and was not before."""
    if after["state"] != State.PAID or before["state"] == State.PAID:
        return []
    return [_event(EventType.INVOICE_PAID, after, InvoiceData(**_said(after)), now)]


_BURNED_BY = {"paid credits": "P23", "promotional credits": "P24"}
"""The template of an application of prepaid credits, by its reference."""


def standing(applied: Sequence[Application], tenant: str) -> list[Application]:
    """What settles an invoice still: without what was taken back."""
    back = {each.entry_id for each in applied if each.amount_minor < 0}
    sums = {kind: sum(each.amount_minor for each in applied if each.kind == kind) for kind in ApplicationKind}
    return [
        each for each in applied
        if each.amount_minor > 0 and sums[each.kind] != 0
        and reversal_id(tenant, _POSTED_BY.get(each.kind, ""), each.entry_id) not in back
    ]  # fmt: skip


def shares(parts: Sequence[int], of: int, whole: int) -> list[int]:
    """What of each part belongs to a part of the whole, half away from zero. Sums are rounded, so nothing drifts.

    >>> shares([1900, 700], of=6000, whole=12000), shares([1, 1, 1], of=1, whole=2)
    ([950, 350], [1, 0, 1])
    """
    ends, total, before = [], 0, 0
    for part in parts:
        total += part
        numerator = 2 * abs(total) * of + whole
        end = (1 if total >= 0 else -1) * (numerator // (2 * whole))
        ends.append(end - before)
        before = end
    return ends


def _said(invoice: Row) -> dict[str, Any]:
    return {name: invoice[name] for name in InvoiceData.model_fields}


def _event(event_type: EventType, invoice: Row, data: InvoiceData, now: datetime) -> DomainEvent:
    return DomainEvent(event_type, invoice["id"], invoice["version"] + 1, now, data)
