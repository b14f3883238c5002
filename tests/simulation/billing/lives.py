"""What the auditor says of invoices that go on: paid, credited, voided, written off, recovered; and of refunds."""

from datetime import datetime
from typing import Any

from schemas.identity import digest
from tests.simulation.billing.amounts import cumulative, first_day, next_month
from tests.simulation.billing.auditor import Application, Auditor, Invoice, Line
from tests.simulation.billing.bills import issue, made
from tests.simulation.billing.books import RefusedError
from tests.simulation.billing.customers import TENANT
from tests.simulation.billing.notes import left_of, take_off


def finalize(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A stored draft is issued."""
    invoice = auditor.invoice(step["invoice"])
    if invoice.state != "draft":
        raise RefusedError("not taken")
    if invoice.kind == "periodic" and invoice.period not in auditor.posted:
        auditor.to_rate.add(invoice.period)
    issue(auditor, [invoice], at, stored=True)
    return "done"


def pay(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A payment: of what is due, and what is more becomes credit."""
    invoice = auditor.invoice(step["invoice"])
    said = (invoice.id, step["minor"], step["day"], step["payout"])
    known = auditor.payments.get(("succeeded", step["payment"]))
    if known:
        if known != said:
            raise RefusedError("other content")
        return "known"
    if invoice.state not in {"open", "paid", "uncollectible"}:
        raise RefusedError("not taken")
    day = auditor.books.open_day(step["day"])
    was_paid = invoice.state == "paid"
    if invoice.state == "uncollectible":
        _recovered(auditor, invoice, at)
    minor, applied = step["minor"], min(invoice.due, step["minor"])
    excess = minor - applied
    key = ("P11" if excess else "P09", step["payment"], 1)
    auditor.books.post(
        key[0], "payment", key[1], 1, invoice.customer, day, at,
        [(1010, invoice.currency, step["payout"], minor), (1100, invoice.currency, "", -applied),
         (2100, invoice.currency, "", -excess)],
    )  # fmt: skip
    if applied:
        invoice.applied.append(Application("payment", applied, key))
    invoice.settled += applied
    invoice.version += 1
    if invoice.due == 0:
        invoice.state, invoice.status = "paid", "succeeded"
        auditor.events["invoice.paid"] += not was_paid
    else:
        invoice.state, invoice.status = "open", "partial"
    auditor.payments["succeeded", step["payment"]] = said
    return "done"


def _recovered(auditor: Auditor, invoice: Invoice, at: datetime) -> None:
    """A write-off is taken back, and what was provided for it."""
    [off] = [each for each in invoice.applied if each.kind == "write_off" and each.stands]
    today = auditor.books.open_day(at.date())
    auditor.books.reverse(off.entry, today, at)
    provision = ("P18", invoice.id, off.entry[2])
    if provision in auditor.books.known:
        auditor.books.reverse(provision, today, at)
    off.stands = False
    invoice.settled -= off.minor
    invoice.state = "open"


def fail_payment(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A payment that failed is told."""
    invoice = auditor.invoice(step["invoice"])
    said = (invoice.id, step["minor"], step["day"], "")
    known = auditor.payments.get(("failed", step["payment"]))
    if known:
        if known != said:
            raise RefusedError("other content")
        return "known"
    if invoice.state != "open":
        raise RefusedError("not taken")
    invoice.status = "failed"
    invoice.version += 1
    auditor.events["invoice.payment_failed"] += 1
    auditor.payments["failed", step["payment"]] = said
    return "done"


def apply_credit(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Credit settles an invoice, as far as it reaches."""
    invoice = auditor.invoice(step["invoice"])
    if invoice.state != "open":
        raise RefusedError("not taken")
    minor = min(auditor.credit(invoice.customer, invoice.currency), invoice.due, step["at_most"])
    if not minor:
        return "nothing"
    invoice.version += 1
    key = ("P14", invoice.id, invoice.version)
    auditor.books.post(key[0], "application", *key[1:], invoice.customer, auditor.books.open_day(at.date()), at,
                       [(2100, invoice.currency, "", minor), (1100, invoice.currency, "", -minor)])  # fmt: skip
    invoice.applied.append(Application("customer_credit", minor, key))
    invoice.settled += minor
    if invoice.due == 0:
        invoice.state, invoice.status = "paid", "succeeded"
        auditor.events["invoice.paid"] += 1
    return "done"


def _given_back(auditor: Auditor, invoice: Invoice, at: datetime) -> dict[str, int]:
    """What a void takes of each kind of revenue; what was earned of lines in advance is fees by now."""
    sums: dict[str, int] = {}
    for line in invoice.lines:
        unearned = line.net
        if line.revenue == "advance" and line.net:
            schedule = auditor.schedules[line.id]
            unearned = take_off(auditor, schedule, left_of(schedule), at.date())
            sums["fees"] = sums.get("fees", 0) + line.net - unearned
        sums[line.revenue] = sums.get(line.revenue, 0) + unearned
    return sums


def void(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """An open invoice is owed no more: its entry is mirrored on its day, and what settled it is given back."""
    invoice = auditor.invoice(step["invoice"])
    standing = [each for each in invoice.applied if each.stands]
    if invoice.state != "open" or {each.kind for each in standing} - {"customer_credit", "wallet"}:
        raise RefusedError("not taken")
    assert invoice.entry, "an open invoice is posted"
    day = auditor.books.known[invoice.entry].day
    if not auditor.books.takes(day, at):
        raise RefusedError("closed")
    sums = _given_back(auditor, invoice, at)
    today = auditor.books.open_day(at.date())
    prepaid = [each for each in standing if each.kind == "wallet"]
    for each in prepaid:
        auditor.books.reverse(each.entry, today, at)
    if prepaid:
        lots = auditor.burned.pop(invoice.id)
        for lot, minor in lots:
            auditor.lots[lot].left += minor
            auditor.lots[lot].moves += 1
        auditor.moved([auditor.lots[lot] for lot, _ in lots], "credited", at, down=False)
    for each in standing:
        if each.kind == "customer_credit":
            auditor.books.reverse(each.entry, today, at)
        each.stands = False
    auditor.books.post("P30", "void", invoice.id, 1, invoice.customer, day, at, invoice.legs(sums.items(), -1))
    invoice.state, invoice.settled = "void", 0
    invoice.version += 1
    if invoice.kind != "manual":
        auditor.to_rate |= {line.usage_period for line in invoice.lines}
    auditor.events["invoice.voided"] += 1
    return "done"


def uncollectible(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """What is due is given up: against what is provided, and what is missing is provided now."""
    invoice = auditor.invoice(step["invoice"])
    if invoice.state != "open":
        raise RefusedError("not taken")
    books, due, version, currency = auditor.books, invoice.due, invoice.version + 1, invoice.currency
    relief = cumulative([*invoice.groups.values()], due, invoice.total) if step["relief"] else []
    names = [f"{name} {percent}%" for name, percent, _ in invoice.groups]
    net, day = due - sum(relief), books.open_day(at.date())
    missing = net - max(-books.balance(1190, invoice.customer, currency), 0)
    if missing > 0:
        books.post("P18", "provision", invoice.id, version, invoice.customer, day, at,
                   [(6100, currency, "", missing), (1190, currency, "", -missing)])  # fmt: skip
    taxes = [(2000, currency, name, minor) for name, minor in zip(names, relief, strict=False)]
    books.post("P19", "write-off", invoice.id, version, invoice.customer, day, at,
               [(1190, currency, "", net), *taxes, (1100, currency, "", -due)])  # fmt: skip
    invoice.applied.append(Application("write_off", due, ("P19", invoice.id, version)))
    invoice.state, invoice.settled, invoice.version = "uncollectible", invoice.total, version
    auditor.events["invoice.uncollectible"] += 1
    return "done"


def refund(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Credit is paid back."""
    said = (step["customer"], step["currency"], step["minor"], step["day"], step["payout"])
    known = auditor.refunds.get(step["refund"])
    if known:
        if known != said:
            raise RefusedError("other content")
        return "known"
    if step["minor"] > auditor.credit(step["customer"], step["currency"]):
        raise RefusedError("no credit")
    auditor.books.post(
        "P15", "refund", step["refund"], 1, step["customer"], auditor.books.open_day(step["day"]), at,
        [(2100, step["currency"], "", step["minor"]), (1010, step["currency"], step["payout"], -step["minor"])],
    )  # fmt: skip
    auditor.refunds[step["refund"]] = said
    return "done"


def write_manual(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Somebody writes an invoice: a draft that follows what is written, until it is issued."""
    key = digest("invoice", TENANT, "manual", step["reference"])
    content = (step["customer"], step["currency"], step["period"], repr(step["lines"]))
    before = auditor.invoices.get(key)
    if before and before.state != "draft":
        if auditor.manual[step["reference"]] != content:
            raise RefusedError("other content")
        return "known"
    if before and auditor.manual[step["reference"]] == content and not step["finalize"]:
        return "known"
    first = first_day(step["period"])
    own = [
        Line("", "manual", step["period"], f"line {place}", *_manual(line), (first, next_month(first)), line["minor"])
        for place, line in enumerate(step["lines"], 1)
    ]
    invoice = made(auditor, key, "manual", (step["customer"], step["currency"]), step["period"], own)
    if before:
        invoice.version = before.version + (auditor.manual[step["reference"]] != content)
    else:
        auditor.tell_of_draft(key)
    auditor.manual[step["reference"]] = content
    auditor.invoices[key] = invoice
    if step["finalize"]:
        issue(auditor, [invoice], at, stored=True)
    return "done"


def delete_manual(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A draft that somebody wrote goes."""
    del at
    invoice = auditor.invoices.get(step["invoice"])
    if invoice is None:
        raise RefusedError("unknown")
    if invoice.state != "draft" or invoice.kind != "manual":
        raise RefusedError("not a draft")
    del auditor.invoices[invoice.id]
    return "done"


def _manual(line: dict[str, Any]) -> tuple[str, Any]:
    return line["revenue"], line["rule"]
