"""The templates as the migration 0008 stores them. Later ones change legs; `schemas.templates` has what is in force.

A test compares the two.

A leg is written `+1100/2100 total~ tax`: the side, the account, the account that takes it when it is below zero, the
amount, `~` where the amount alone may be below zero, and what the posting is split by.
"""

TEMPLATES = (
    ("P01", "accrue usage", "accrual", True, "+1150 subtotal feature, -4010 subtotal feature"),
    ("P02", "invoice in arrears", "invoice", True,
     "+1100/2100 total, -4010 subtotal~ feature, -1150 accrued~ feature, -2000 tax tax"),
    ("P03", "invoice in advance", "invoice", True, "+1100/2100 total, -2200 advance feature, -2000 tax tax"),
    ("P04", "invoice, tax inclusive", "invoice", True,
     "+1100/2100 total, -4010 subtotal~ feature, -2200 advance feature, -2000 tax tax"),
    ("P05", "discount", "discount", False, "+4090 discount feature, +2000 tax tax, -1100 total"),
    ("P06", "commitment true-up", "invoice", False, "+1100 total, -4020 subtotal feature, -2000 tax tax"),
    ("P07", "progressive invoice", "invoice", True, "+1100/2100 total, -4010 subtotal~ feature, -2000 tax tax"),
    ("P08", "payment authorised", "authorisation", False, "+1010 payment pending, -1100 payment pending"),
    ("P09", "payment captured", "payment", False, "+1010 payment payout, -1100 payment"),
    ("P10", "settlement", "payout", False, "+1000 net~, +6200 fee~, -1010 gross~ payout"),
    ("P11", "overpayment", "payment", False, "+1010 payment payout, -1100 due, -2100 excess"),
    ("P12", "credit note, unpaid invoice", "credit note", False,
     "+4010 subtotal feature, +2200 advance feature, +2000 tax tax, -1100 total"),
    ("P13", "credit note, paid invoice", "credit note", False,
     "+4010 subtotal feature, +2200 advance feature, +2000 tax tax, -2100 total"),
    ("P14", "credit applied", "application", False, "+2100 credit, -1100 credit"),
    ("P15", "refund", "refund", False, "+2100 refund, -1010 refund payout"),
    ("P16", "revenue recognised", "schedule row", True, "+2200 recognised feature, -4000 recognised feature"),
    ("P17", "plan change", "plan change", False, "+2200 unused feature, +2000 tax tax, -2100 total"),
    ("P18", "bad debt provided", "provision", True, "+6100 provision, -1190 provision"),
    ("P19", "write-off", "write-off", False, "+1190 subtotal, +2000 tax tax, -1100 total"),
    ("P20-open", "dispute opened", "dispute", False,
     "+1120 disputed, -1100 unpaid, -1010 withdrawn payout, +6200 fee, -1010 fee payout"),
    ("P20-lost", "dispute lost", "dispute", False, "+6300 disputed, -1120 disputed"),
    ("P20-won", "dispute won", "dispute", False, "+1100 unpaid, +1010 returned payout, -1120 disputed"),
    ("P21-expected", "SLA credit expected", "SLA breach", False, "+4095 expected, -2300 expected"),
    ("P21", "SLA credit approved", "SLA breach", False,
     "+4095 subtotal feature, +2300 expected, +2000 tax tax, -2100 credit, -1100 unpaid"),
    ("P22", "wallet top-up", "top-up", False,
     "+1010 payment payout, +1100 invoiced, -2150 credits wallet, -2000 tax tax"),
    ("P23", "credits burned", "wallet move", False, "+2150 burned wallet, -4010 subtotal feature, -1100 tender"),
    ("P24", "promotional credits burned", "wallet move", False, "+4090 burned wallet, -4010 burned feature"),
    ("P25", "breakage", "wallet move", False, "+2150 expired wallet, -4900 expired"),
    ("P26", "foreign payment settled", "payment", False,
     "+1010 payment payout, -1100 payment, +1000 received, -1100 booked, -7000 gain~"),
    ("P27", "currency exchanged", "exchange", False,
     "-1000 sold, +9000 sold, +1000 bought, -9000 bought, +7000 spread, -1000 spread"),
    ("P28", "rounding", "conversion", True, "+7090 residue, -1100 residue"),
    ("P29", "late fee", "late fee", False, "+1100 total, -4910 fee, -2000 tax tax"),
    ("P30", "void", "void", True,
     "-1100/2100 total, +4010 subtotal~ feature, +1150 accrued~ feature, +2200 advance feature, +2000 tax tax"),
    ("P31", "period locked", "close", False, ""),
    ("P32", "receivables revalued", "revaluation", True, "+1100 difference, -7010 difference"),
)  # fmt: skip

_REVENUE = ("4010 subtotal~ feature", "4000 fees~ feature", "2200 advance~ feature", "4020 commitment~ feature",
            "4095 sla~ feature")  # fmt: skip


def _all_of(side: str, *more: str) -> str:
    return ", ".join(side + leg for leg in (*_REVENUE, *more))


LATE_USAGE = ("P33", "late usage written off", "late usage", True,
              "+4090 written_off feature, -4010 written_off feature")  # fmt: skip
"""The template of late usage that is not billed, since 0017."""

LEGS_OF_INVOICES = {
    **dict.fromkeys(
        ("P02", "P04", "P07"), "+1100/2100 total, " + _all_of("-", "1150 accrued~ feature", "2000 tax~ tax")
    ),
    "P03": "+1100/2100 total, -2200 advance~ feature, -2000 tax~ tax",
    "P06": "+1100/2100 total, -4020 commitment~ feature, -2000 tax~ tax",
    "P12": _all_of("+", "2000 tax~ tax") + ", -1100 total, -2100 excess",
    "P13": _all_of("+", "2000 tax~ tax") + ", -2100 total",
    "P30": "-1100/2100 total, " + _all_of("+", "1150 accrued~ feature", "2000 tax~ tax"),
}
"""The legs of invoices, credit notes and voids since 0011: one entry has every kind of revenue."""
LEGS_OF_WRITE_OFFS = {"P19": "+1190 subtotal, +2000 tax~ tax, -1100 total"}
"""The legs of write-offs since 0018: of an invoice with several taxes, one may be below zero."""
TAKE_NEGATIVE = ("P06",)
"""Which templates take documents below zero since 0011."""


def leg_of(written: str) -> dict[str, str | int | bool | None]:
    """A leg as a row of template_legs.

    >>> leg_of("+1100/2100 total~ tax")["account_if_negative"]
    2100
    """
    accounts, amount, *split = written.split(" ")
    account, _, other = accounts[1:].partition("/")
    return {
        "side": 1 if accounts[0] == "+" else -1, "account": int(account),
        "account_if_negative": int(other) if other else None,
        "amount": amount.removesuffix("~"), "signed": amount.endswith("~"), "dimension": split[0] if split else "",
    }  # fmt: skip
