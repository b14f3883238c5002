"""What the auditor says of wallets, recognition, documents, payouts, and of closing the books."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from schemas.identity import digest
from tests.simulation.billing import bills, lives, notes
from tests.simulation.billing.amounts import month_end
from tests.simulation.billing.auditor import Auditor, Lot
from tests.simulation.billing.books import RefusedError
from tests.simulation.billing.customers import TENANT


def top_up(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Credits are put into a wallet, for money or for nothing."""
    customer, currency, paid = step["customer"], step["currency"], not step["promotional"]
    wallet = digest("wallet", TENANT, customer, currency)
    key = digest("wallet lot", TENANT, wallet, step["reference"], int(step["promotional"]))
    said = (step["minor"], step["priority"], step["expires_at"], step["invoiced"])
    if key in auditor.lots:
        if auditor.lots[key].said != said:
            raise RefusedError("other content")
        return "known"
    if paid and ("P22", step["reference"], 1) in auditor.books.known:
        raise RefusedError("other content")  # one payment is not two customers'
    if paid:
        source = 1100 if step["invoiced"] else 1010
        auditor.books.post("P22", "top-up", step["reference"], 1, customer, auditor.books.open_day(at.date()), at,
                           [(source, currency, "", step["minor"]), (2150, currency, wallet, -step["minor"])])  # fmt: skip
    auditor.wallets.setdefault(wallet, (customer, currency, 0))
    lot = Lot(key, wallet, customer, currency, paid, step["priority"], step["minor"], step["expires_at"],
              step["reference"], said, step["minor"])  # fmt: skip
    auditor.lots[key] = lot
    auditor.moved([lot], "credited", at, down=False)
    return "done"


def expire(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """What has expired is taken away, and what was paid of it is breakage."""
    del step
    gone = [lot for lot in auditor.lots.values() if lot.left and lot.expires_at and lot.expires_at <= at]
    for lot in sorted(gone, key=lambda lot: lot.id):
        if lot.paid:
            assert lot.expires_at
            day = auditor.books.open_day(lot.expires_at.date())
            auditor.books.post("P25", "wallet move", lot.id, lot.moves + 1, lot.customer, day, at,
                               [(2150, lot.currency, lot.wallet, lot.left), (4900, lot.currency, "", -lot.left)])  # fmt: skip
    for lot in gone:
        lot.left = 0
        lot.moves += 1
    auditor.moved(gone, "expired", at, down=True)
    return "done" if gone else "nothing"


def recognise(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Months that have ended are earned."""
    due = sorted(
        (month, line) for line, schedule in auditor.schedules.items() for month in schedule.months
        if month not in schedule.recognised and month_end(month) <= step["through"]
    )  # fmt: skip
    for month, line in due:
        schedule = auditor.schedules[line]
        minor, day = schedule.months[month], auditor.books.open_day(month_end(month))
        auditor.books.post("P16", "schedule row", f"{line} {month:%Y-%m}", 1, schedule.customer, day, at,
                           [(2200, schedule.currency, "", minor), (4000, schedule.currency, "", -minor)])  # fmt: skip
        schedule.recognised.add(month)
    return "done" if due else "nothing"


DOCUMENTS = {
    "P29": (1100, 4910), "P18": (6100, 1190), "P08": (1010, 1100),
}  # fmt: skip
"""The accounts that documents of a template take the amount to, and from."""


def document(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Somebody posts a document: a late fee, a provision, an authorised payment."""
    key = (step["template"], step["document"], 1)
    known = auditor.books.known.get(key)
    debit, credit = DOCUMENTS[step["template"]]
    pending = "pending" if step["template"] == "P08" else ""
    legs = [(debit, step["currency"], pending, step["minor"]), (credit, step["currency"], pending, -step["minor"])]
    if known:
        if (known.legs, known.day, known.customer) != (legs, step["day"], step["customer"]):
            raise RefusedError("other content")
        return "known"
    kind = {"P29": "late fee", "P18": "provision", "P08": "authorisation"}[step["template"]]
    auditor.books.post(key[0], kind, key[1], 1, step["customer"], step["day"], at, legs)
    return "done"


def reverse(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Somebody takes a document back."""
    key = (step["template"], step["document"], 1)
    if key in auditor.books.reversed:
        mirror = next(each for each in auditor.books.entries if each.kind == "reversal"
                      and (each.template, each.document) == (key[0], "of " + key[1]))  # fmt: skip
        if mirror.day != step["day"]:
            raise RefusedError("other content")
        return "known"
    auditor.books.reverse(key, step["day"], at)
    return "done"


def close(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """The books are closed through a day."""
    del at
    if step["through"] in auditor.books.closings:
        return "known"
    auditor.books.closings.append(step["through"])
    auditor.events["ledger.period_closed"] += 1
    return "done"


def reopen(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A closed period takes entries again for some hours."""
    if (step["through"], at) in auditor.books.openings:
        return "known"
    auditor.books.openings.add((step["through"], at))
    auditor.books.opened[step["through"]] = step["until"]
    auditor.events["ledger.period_reopened"] += 1
    return "done"


def reconcile(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A payout pays what its rows name: cash, fees, and the clearing account."""
    new = [row for row in step["rows"] if tuple(row["entry"]) not in auditor.settled]
    day = auditor.books.open_day(step["day"])
    for row in new:
        entry = auditor.books.known[tuple(row["entry"])]
        [(_, currency, dimension, gross)] = [leg for leg in entry.legs if leg[0] == 1010]
        auditor.books.post(
            "P10", "payout row", f"{step['payout']} {entry.document}", 1, entry.customer, day, at,
            [(1000, currency, "", gross - row["fee"]), (6200, currency, "", row["fee"]),
             (1010, currency, dimension, -gross)],
        )  # fmt: skip
        auditor.settled.add(tuple(row["entry"]))
    return "done" if new else "known"


def use(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Usage arrives, and a charge comes to another amount."""
    del at
    auditor.usage.use(step["customer"], step["period"], step["charge"], step["minor"])
    return "done"


RULES: dict[str, Callable[[Auditor, dict[str, Any], datetime], str]] = {
    "use": use, "bill": bills.bill, "progressive": bills.progressive, "accrue": bills.accruals,
    "finalize": lives.finalize, "pay": lives.pay, "fail": lives.fail_payment, "apply_credit": lives.apply_credit,
    "void": lives.void, "uncollectible": lives.uncollectible, "refund": lives.refund, "write": lives.write_manual,
    "delete": lives.delete_manual, "credit_note": notes.credit_note, "top_up": top_up, "expire": expire,
    "recognise": recognise, "document": document, "reverse": reverse, "close": close, "reopen": reopen,
    "reconcile": reconcile,
}  # fmt: skip
"""What each step comes to."""


def apply(auditor: Auditor, step: dict[str, Any]) -> str:
    """What a step comes to: done, known, nothing; raises RefusedError with another word for what is refused."""
    return RULES[step["do"]](auditor, step, step["at"])
