"""What the auditor says of credit notes, and of what was billed in advance: unearned before earned."""

from datetime import date, datetime, timedelta
from fractions import Fraction
from typing import Any

from schemas.identity import digest
from tests.simulation.billing.amounts import in_proportion, next_month, rounded
from tests.simulation.billing.auditor import REVENUES, Application, Auditor, Invoice, Line, Schedule
from tests.simulation.billing.books import RefusedError
from tests.simulation.billing.customers import TENANT

Taken = dict[int, tuple[int, list[int]]]
"""Net amount and taxes that are taken of lines, by their places from 0."""


def credit_note(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A credit note is written, or only shown."""
    invoice = auditor.invoice(step["invoice"])
    if step.get("dry_run"):
        return "done"
    write_note(auditor, invoice, step["wanted"], at)
    return "done"


def write_note(auditor: Auditor, invoice: Invoice, wanted: dict[str, Any], at: datetime) -> None:
    """Take something of an invoice: off what is due first, and what is more becomes credit."""
    if invoice.state not in {"open", "paid"}:
        raise RefusedError("not creditable")
    taken = _taken(invoice, wanted)
    left = sum(line.left[0] + sum(line.left[1]) for line in invoice.lines)
    taken = {place: (net, taxes) for place, (net, taxes) in taken.items() if net or any(taxes)}
    total = sum(net + sum(taxes) for net, taxes in taken.values())
    if not taken or not 0 <= total <= left:
        raise RefusedError("not creditable")
    document = digest("credit note", TENANT, invoice.id, invoice.notes + 1)
    applied = min(total, invoice.due)
    legs = _legs(auditor, invoice, taken, at)
    legs += [(1100, invoice.currency, "", -applied), (2100, invoice.currency, "", applied - total)]
    day = auditor.books.open_day(at.date())
    template = "P12" if applied else "P13"
    auditor.books.post(template, "credit note", document, 1, invoice.customer, day, at, legs)
    auditor.numbers["CN"] += 1
    net = sum(net for net, _ in taken.values())
    number = f"CN-{auditor.numbers['CN']:06d}"
    auditor.notes[number] = (invoice.id, net, total - net, applied, total - applied)
    for place, (own, taxes) in taken.items():
        line = invoice.lines[place]
        line.taken += own
        line.taken_taxes = [before + tax for before, tax in zip(line.taken_taxes, taxes, strict=True)]
    invoice.notes += 1
    invoice.version += 1
    invoice.settled += applied
    auditor.events["credit_note.created"] += 1
    if applied:
        invoice.applied.append(Application("credit_note", applied, (template, document, 1)))
        if invoice.settled == invoice.total:
            auditor.events["invoice.paid"] += invoice.state != "paid"
            invoice.state, invoice.status = "paid", "succeeded"
        elif invoice.status == "pending":
            invoice.status = "partial"


def _legs(auditor: Auditor, invoice: Invoice, taken: Taken, at: datetime) -> list[tuple[int, str, str, int]]:
    sums: dict[tuple[int, str], int] = {}
    for place, (net, taxes) in taken.items():
        line = invoice.lines[place]
        unearned = net
        if line.revenue == "advance" and net:
            unearned = take_off(auditor, auditor.schedules[line.id], net, at.date())
            sums[4000, ""] = sums.get((4000, ""), 0) + net - unearned
        account = (REVENUES[line.revenue], "")
        sums[account] = sums.get(account, 0) + unearned
        for (name, percent), minor in zip(line.rule[1] if line.rule else (), taxes, strict=True):
            tax = (2000, f"{name} {percent}%")
            sums[tax] = sums.get(tax, 0) + minor
    return [(account, invoice.currency, dimension, minor) for (account, dimension), minor in sums.items()]


def _taken(invoice: Invoice, wanted: dict[str, Any]) -> Taken:
    if "lines" in wanted:
        return {each["position"] - 1: _of_line(invoice, each) for each in wanted["lines"]}
    if "net_minor" in wanted:
        weights = [line.left[0] for line in invoice.lines]
        shares = _spread(wanted["net_minor"], weights)
        return {place: _net(line, share) for place, (line, share) in enumerate(zip(invoice.lines, shares, strict=True))}
    if "gross_minor" in wanted:
        weights = [line.left[0] + sum(line.left[1]) for line in invoice.lines]
        shares = _spread(wanted["gross_minor"], weights)
        return {
            place: _gross(line, share) for place, (line, share) in enumerate(zip(invoice.lines, shares, strict=True))
        }
    return {place: line.left for place, line in enumerate(invoice.lines)}


def _of_line(invoice: Invoice, wanted: dict[str, int]) -> tuple[int, list[int]]:
    if not 0 < wanted["position"] <= len(invoice.lines):
        raise RefusedError("not creditable")
    line = invoice.lines[wanted["position"] - 1]
    net, taxes = line.left
    if "net_minor" in wanted:
        return _net(line, _within(wanted["net_minor"], net))
    if "gross_minor" in wanted:
        return _gross(line, _within(wanted["gross_minor"], net + sum(taxes)))
    return line.left


def _spread(amount: int, weights: list[int]) -> list[int]:
    if sum(weights) <= 0:
        raise RefusedError("not creditable")
    return in_proportion(_within(amount, sum(weights)), weights)


def _within(amount: int, left: int) -> int:
    if not min(left, 0) <= amount <= max(left, 0):
        raise RefusedError("not creditable")
    return amount


def _net(line: Line, net: int) -> tuple[int, list[int]]:
    """All taxes so far are in proportion to all net amounts so far, within what was billed."""
    after = line.taken + net
    if after == line.net:
        upto = line.taxes if net else line.taken_taxes
    else:
        upto = [
            _between(rounded(Fraction(after * billed, line.net)), taken, billed)
            for billed, taken in zip(line.taxes, line.taken_taxes, strict=True)
        ]
    return net, [new - old for new, old in zip(upto, line.taken_taxes, strict=True)]


def _gross(line: Line, gross: int) -> tuple[int, list[int]]:
    """The net amount is in proportion, and what is left of the gross amount is tax, within what is left of both."""
    billed, taken = line.net + sum(line.taxes), line.taken + sum(line.taken_taxes)
    after = taken + gross
    tax, tax_taken = sum(line.taxes), sum(line.taken_taxes)
    low = max(min(line.taken, line.net), after - max(tax_taken, tax))
    high = min(max(line.taken, line.net), after - min(tax_taken, tax))
    net = rounded(Fraction(after * line.net, billed)) if billed else line.net
    net = min(max(net, low), high) - line.taken
    return net, _signed_shares(gross - net, line.left[1])


def _signed_shares(amount: int, weights: list[int]) -> list[int]:
    return in_proportion(amount, weights) if amount else [0] * len(weights)


def _between(amount: int, one: int, other: int) -> int:
    return min(max(amount, min(one, other)), max(one, other))


def opens(auditor: Auditor, schedule: Schedule, as_of: date) -> date:
    """The first month that a change may still rewrite: neither past, nor recognised, nor closed."""
    months = [as_of.replace(day=1), *(next_month(each) for each in schedule.recognised)]
    if auditor.books.closed_through:
        months.append((auditor.books.closed_through + timedelta(days=1)).replace(day=1))
    return max(months)


def take_off(auditor: Auditor, schedule: Schedule, amount: int, as_of: date) -> int:
    """Take an amount off a line: of the months to come first, in proportion; returns what of it was unearned."""
    first = opens(auditor, schedule, as_of)
    future = {month: minor for month, minor in sorted(schedule.months.items()) if month >= first}
    whole = sum(future.values())
    past = sum(schedule.months.values()) - whole - schedule.credited
    side = 1 if whole + past > 0 else -1
    unearned = side * min(amount * side, max(whole * side, 0))
    assert 0 <= amount * side <= abs(whole + past), "more is taken off a line than is left of it"
    if unearned:
        before = total = 0
        for month, minor in future.items():
            total += minor
            upto = rounded(Fraction(total * (whole - unearned), whole))
            schedule.months[month] = upto - before
            before = upto
        schedule.months = {month: minor for month, minor in schedule.months.items() if minor}
    schedule.credited += amount - unearned
    return unearned


def left_of(schedule: Schedule) -> int:
    """What credits have left of a line."""
    return sum(schedule.months.values()) - schedule.credited
