"""The templates: for each event that reaches the books, which accounts take which of its amounts, on which side.

Owns the invariant that nothing is posted in any other way: the database holds the same rows (a test compares them) and
refuses a posting whose account and side its template does not have.
"""

from dataclasses import dataclass

from schemas.journal import Account

A = Account


@dataclass(frozen=True)
class Leg:
    """One leg of a template: an amount of the document goes to an account, as debit (1) or credit (-1)."""

    account: Account
    amount: str
    """The name of the amount in the document."""
    side: int
    signed: bool = False
    """Whether the amount alone may be below zero, where the document's others are not. Then it takes the other side."""
    account_if_negative: Account | None = None
    """The account that takes the leg instead when the amount is below zero."""
    dimension: str = ""
    """What the posting is split by, as the document says: tax, payout, wallet, feature or pending; empty: nothing."""


@dataclass(frozen=True)
class Template:
    """How an event is posted. Its code is part of the id of its entries, so that an event is posted once."""

    code: str
    name: str
    legs: tuple[Leg, ...]
    takes_negative: bool = False
    """Whether the document may be below zero as a whole: then every leg takes the other side."""
    kind: str = "document"
    """What the document usually is."""

    @property
    def amounts(self) -> tuple[str, ...]:
        """The names of the amounts that a document has, each once.

        >>> TEMPLATES["P02"].amounts
        ('total', 'subtotal', 'fees', 'advance', 'commitment', 'sla', 'accrued', 'tax')
        """
        return tuple(dict.fromkeys(leg.amount for leg in self.legs))


def _debit(account: Account, amount: str, **more: bool | str | Account) -> Leg:
    return Leg(account, amount, 1, **more)  # type: ignore[arg-type]


def _credit(account: Account, amount: str, **more: bool | str | Account) -> Leg:
    return Leg(account, amount, -1, **more)  # type: ignore[arg-type]


_OWED = _debit(A.RECEIVABLE, "total", account_if_negative=A.CUSTOMER_CREDIT)
_TAX_OWED = _credit(A.TAX_PAYABLE, "tax", dimension="tax")
_TAX_BACK = _debit(A.TAX_PAYABLE, "tax", dimension="tax")
_REVENUE = (
    (A.USAGE_REVENUE, "subtotal"), (A.SUBSCRIPTION_REVENUE, "fees"), (A.UNEARNED_REVENUE, "advance"),
    (A.COMMITMENT_REVENUE, "commitment"), (A.SLA_CREDITS, "sla"),
)  # fmt: skip
"""What an invoice may be for, by the amounts of `schemas.invoice.Revenue`."""
_ACCRUED = (A.UNBILLED_RECEIVABLE, "accrued")
_EARNED = tuple(_credit(*each, signed=True, dimension="feature") for each in (*_REVENUE, _ACCRUED))
_TAXED = _credit(A.TAX_PAYABLE, "tax", signed=True, dimension="tax")
_TAKEN_BACK = tuple(_debit(*each, signed=True, dimension="feature") for each in _REVENUE)
_UNTAXED = _debit(A.TAX_PAYABLE, "tax", signed=True, dimension="tax")

_ALL = (
    Template("P01", "accrue usage", (
        *[_debit(A.UNBILLED_RECEIVABLE, name, signed=True, dimension="feature")
          for name in ("subtotal", "fees", "commitment")],
        _credit(A.USAGE_REVENUE, "subtotal", signed=True, dimension="feature"),
        _credit(A.SUBSCRIPTION_REVENUE, "fees", signed=True, dimension="feature"),
        _credit(A.COMMITMENT_REVENUE, "commitment", signed=True, dimension="feature"),
    ), takes_negative=True, kind="accrual"),
    Template("P02", "invoice in arrears", (_OWED, *_EARNED, _TAXED), takes_negative=True, kind="invoice"),
    Template("P03", "invoice in advance", (
        _OWED, _credit(A.UNEARNED_REVENUE, "advance", signed=True, dimension="feature"), _TAXED,
    ), takes_negative=True, kind="invoice"),
    Template("P04", "invoice, tax inclusive", (_OWED, *_EARNED, _TAXED), takes_negative=True, kind="invoice"),
    Template("P05", "discount", (
        _debit(A.DISCOUNTS, "discount", dimension="feature"), _TAX_BACK, _credit(A.RECEIVABLE, "total"),
    ), kind="discount"),
    Template("P06", "commitment true-up", (
        _OWED, _credit(A.COMMITMENT_REVENUE, "commitment", signed=True, dimension="feature"), _TAXED,
    ), takes_negative=True, kind="invoice"),
    Template("P07", "progressive invoice", (_OWED, *_EARNED, _TAXED), takes_negative=True, kind="invoice"),
    Template("P08", "payment authorised", (
        _debit(A.GATEWAY_CLEARING, "payment", dimension="pending"),
        _credit(A.RECEIVABLE, "payment", dimension="pending"),
    ), kind="authorisation"),
    Template("P09", "payment captured", (
        _debit(A.GATEWAY_CLEARING, "payment", dimension="payout"), _credit(A.RECEIVABLE, "payment"),
    ), kind="payment"),
    Template("P10", "settlement", (
        _debit(A.CASH, "net", signed=True), _debit(A.PAYMENT_FEES, "fee", signed=True),
        _credit(A.GATEWAY_CLEARING, "gross", signed=True, dimension="payout"),
    ), kind="payout"),
    Template("P11", "overpayment", (
        _debit(A.GATEWAY_CLEARING, "payment", dimension="payout"), _credit(A.RECEIVABLE, "due"),
        _credit(A.CUSTOMER_CREDIT, "excess"),
    ), kind="payment"),
    Template("P12", "credit note, unpaid invoice", (
        *_TAKEN_BACK, _UNTAXED, _credit(A.RECEIVABLE, "total"), _credit(A.CUSTOMER_CREDIT, "excess"),
    ), kind="credit note"),
    Template("P13", "credit note, paid invoice", (
        *_TAKEN_BACK, _UNTAXED, _credit(A.CUSTOMER_CREDIT, "total"),
    ), kind="credit note"),
    Template("P14", "credit applied", (
        _debit(A.CUSTOMER_CREDIT, "credit"), _credit(A.RECEIVABLE, "credit"),
    ), kind="application"),
    Template("P15", "refund", (
        _debit(A.CUSTOMER_CREDIT, "refund"), _credit(A.GATEWAY_CLEARING, "refund", dimension="payout"),
    ), kind="refund"),
    Template("P16", "revenue recognised", (
        _debit(A.UNEARNED_REVENUE, "recognised", dimension="feature"),
        _credit(A.SUBSCRIPTION_REVENUE, "recognised", dimension="feature"),
    ), takes_negative=True, kind="schedule row"),
    Template("P17", "plan change", (
        _debit(A.UNEARNED_REVENUE, "unused", dimension="feature"), _TAX_BACK, _credit(A.CUSTOMER_CREDIT, "total"),
    ), kind="plan change"),
    Template("P18", "bad debt provided", (
        _debit(A.BAD_DEBT, "provision"), _credit(A.BAD_DEBT_ALLOWANCE, "provision"),
    ), takes_negative=True, kind="provision"),
    Template("P19", "write-off", (
        _debit(A.BAD_DEBT_ALLOWANCE, "subtotal"), _UNTAXED, _credit(A.RECEIVABLE, "total"),
    ), kind="write-off"),
    Template("P20-open", "dispute opened", (
        _debit(A.DISPUTED_RECEIVABLE, "disputed"), _credit(A.RECEIVABLE, "unpaid"),
        _credit(A.GATEWAY_CLEARING, "withdrawn", dimension="payout"), _debit(A.PAYMENT_FEES, "fee"),
        _credit(A.GATEWAY_CLEARING, "fee", dimension="payout"),
    ), kind="dispute"),
    Template("P20-lost", "dispute lost", (
        _debit(A.CHARGEBACK_LOSS, "disputed"), _credit(A.DISPUTED_RECEIVABLE, "disputed"),
    ), kind="dispute"),
    Template("P20-won", "dispute won", (
        _debit(A.RECEIVABLE, "unpaid"), _debit(A.GATEWAY_CLEARING, "returned", dimension="payout"),
        _credit(A.DISPUTED_RECEIVABLE, "disputed"),
    ), kind="dispute"),
    Template("P21-expected", "SLA credit expected", (
        _debit(A.SLA_CREDITS, "expected"), _credit(A.REFUND_LIABILITY, "expected"),
    ), kind="SLA breach"),
    Template("P21", "SLA credit approved", (
        _debit(A.SLA_CREDITS, "subtotal", dimension="feature"), _debit(A.REFUND_LIABILITY, "expected"), _TAX_BACK,
        _credit(A.CUSTOMER_CREDIT, "credit"), _credit(A.RECEIVABLE, "unpaid"),
    ), kind="SLA breach"),
    Template("P22", "wallet top-up", (
        _debit(A.GATEWAY_CLEARING, "payment", dimension="payout"), _debit(A.RECEIVABLE, "invoiced"),
        _credit(A.PREPAID_CREDITS, "credits", dimension="wallet"), _TAX_OWED,
    ), kind="top-up"),
    Template("P23", "credits burned", (
        _debit(A.PREPAID_CREDITS, "burned", dimension="wallet"),
        _credit(A.USAGE_REVENUE, "subtotal", dimension="feature"), _credit(A.RECEIVABLE, "tender"),
    ), kind="wallet move"),
    Template("P24", "promotional credits burned", (
        _debit(A.DISCOUNTS, "burned", dimension="wallet"),
        _credit(A.USAGE_REVENUE, "subtotal", dimension="feature"), _credit(A.RECEIVABLE, "tender"),
    ), kind="wallet move"),
    Template("P25", "breakage", (
        _debit(A.PREPAID_CREDITS, "expired", dimension="wallet"), _credit(A.BREAKAGE, "expired"),
    ), kind="wallet move"),
    Template("P26", "foreign payment settled", (
        _debit(A.GATEWAY_CLEARING, "payment", dimension="payout"), _credit(A.RECEIVABLE, "payment"),
        _debit(A.CASH, "received"), _credit(A.RECEIVABLE, "booked"), _credit(A.FX_REALISED, "gain", signed=True),
    ), kind="payment"),
    Template("P27", "currency exchanged", (
        _credit(A.CASH, "sold"), _debit(A.FX_POSITION, "sold"), _debit(A.CASH, "bought"),
        _credit(A.FX_POSITION, "bought"), _debit(A.FX_REALISED, "spread"), _credit(A.CASH, "spread"),
    ), kind="exchange"),
    Template("P28", "rounding", (
        _debit(A.ROUNDING, "residue"), _credit(A.RECEIVABLE, "residue"),
    ), takes_negative=True, kind="conversion"),
    Template("P29", "late fee", (
        _debit(A.RECEIVABLE, "total"), _credit(A.LATE_FEES, "fee"), _TAX_OWED,
    ), kind="late fee"),
    Template("P30", "void", (
        _credit(A.RECEIVABLE, "total", account_if_negative=A.CUSTOMER_CREDIT), *_TAKEN_BACK,
        _debit(*_ACCRUED, signed=True, dimension="feature"), _UNTAXED,
    ), takes_negative=True, kind="void"),
    Template("P31", "period locked", (), kind="close"),
    Template("P32", "receivables revalued", (
        _debit(A.RECEIVABLE, "difference"), _credit(A.FX_UNREALISED, "difference"),
    ), takes_negative=True, kind="revaluation"),
    Template("P33", "late usage written off", (
        _debit(A.DISCOUNTS, "written_off", dimension="feature"),
        _credit(A.USAGE_REVENUE, "written_off", dimension="feature"),
    ), takes_negative=True, kind="late usage"),
)  # fmt: skip

TEMPLATES = {template.code: template for template in _ALL}
"""All templates by code. P31 posts nothing: it is the close itself, and adjusting entries name its period."""

PENDING = "pending"
"""The dimension that is a state: an authorised payment is pending until its entry is reversed."""
