"""What the auditor says of bill runs: lines, late usage by policy, and what issuing an invoice comes to."""

from datetime import datetime
from typing import Any

from schemas.identity import digest
from tests.simulation.billing.amounts import by_days, first_day, following, month_end
from tests.simulation.billing.auditor import Application, Auditor, Invoice, Line, Schedule, line_id, periodic_id
from tests.simulation.billing.customers import TENANT, Rated
from tests.simulation.billing.notes import write_note

Owner = tuple[str, str]
Booked = dict[tuple[str, str, str, str], tuple[int, str, Any]]


def rerated(auditor: Auditor, period: str) -> list[str]:
    """The periods that a run rates: billed ones that changed, and its own."""
    changed = {period for _, period in auditor.usage.changed}
    earlier = [each for each in auditor.posted if each < period and (each in auditor.to_rate or each in changed)]
    return [*sorted(earlier), period]


def lines(
    auditor: Auditor, rated: list[Rated], booked: Booked, period: str, bases: set[str]
) -> dict[Owner, list[Line]]:
    """What is compared: own charges of the period that are not booked, and the differences of all others."""
    found: dict[Owner, list[tuple[Any, ...]]] = {}
    known = {key: value for key, value in booked.items() if key[2] in bases}
    places = {}
    for place, each in enumerate(rated):
        key = (each.customer, auditor.usage.customers[each.customer].currency, each.period, each.charge)
        places[key] = (place, each)
    for key in sorted({*places, *known}):
        customer, currency, usage_period, charge = key
        place, each = places.get(key, (len(rated), None))
        before = known.get(key)
        own = usage_period >= period and before is None
        minor = (each.minor if each else 0) - (before[0] if before else 0)
        if not own and minor == 0:
            continue
        revenue = before[1] if before else each.revenue if each else ""
        rule = each.rule if each else before[2] if before else None
        remainder = usage_period == period and revenue == "subtotal"
        kind = each.kind if own and each else "remainder" if remainder else "adjustment"
        first = first_day(usage_period)
        line = Line("", kind, usage_period, charge, revenue, rule, (first, first_day(following(usage_period))), minor)
        order = (kind in {"remainder", "adjustment"}, usage_period, place, charge)
        found.setdefault((customer, currency), []).append((*order, line))
    sorted_out = {owner: [row[-1] for row in sorted(rows, key=lambda row: row[:4])] for owner, rows in found.items()}
    return {owner: own for owner, own in sorted(sorted_out.items()) if any(line.minor for line in own)}


def made(auditor: Auditor, key: str, kind: str, owner: Owner, period: str, own: list[Line]) -> Invoice:
    """A draft of lines."""
    for line in own:
        line.id = line_id(key, line.kind, line.usage_period, line.charge)
    groups = auditor.lines_taxed(own)
    return Invoice(key, kind, *owner, period, own, groups)


def bill(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """A run of a period: drafts, or invoices."""
    period, how = step["period"], step["how"]
    if period in auditor.posted:
        return "known"
    periods = rerated(auditor, period)
    rated = [each for name in periods for each in auditor.usage.rated(name, advance=name == period)]
    bases = {*periods, *(each.period for each in rated)}
    found = lines(auditor, rated, auditor.booked(), period, bases)
    early = {(each.customer, each.currency) for each in auditor.invoices.values()
             if each.kind == "periodic" and each.period == period and each.state != "draft"}  # fmt: skip
    found = {owner: own for owner, own in found.items() if owner not in early}
    if how == "preview":
        return "done"
    before = _drafts_removed(auditor, period)
    if how == "final":
        auditor.posted.append(period)
        auditor.to_rate -= {name for name in periods if name != period}
    found, written_off, again, late = _by_policy(auditor, found, period, periods)
    drafts = [made(auditor, periodic_id(*_first(owner, period)), "periodic", owner, period, own)
              for owner, own in found.items()]  # fmt: skip
    for each in drafts:
        each.version = before.get(each.id, 0) + 1
    if how == "draft":
        for each in drafts:
            auditor.invoices[each.id] = each
            if each.version == 1:
                auditor.tell_of_draft(each.id)
        return "done"
    _settle_late(auditor, written_off, again, rated, period, at)
    issue(auditor, drafts, at)
    auditor.events["usage.late"] += len(late)
    for key in sorted(auditor.accrued, key=lambda key: key[1:]):
        if key[0] == period:
            accrue(auditor, key, {}, at)
    auditor.usage.changed = {key: count for key, count in auditor.usage.changed.items() if key[1] not in periods}
    return "done"


def _first(owner: Owner, period: str) -> tuple[str, str, str]:
    return owner[0], period, owner[1]


def _drafts_removed(auditor: Auditor, period: str) -> dict[str, int]:
    gone = {each.id: each.version for each in auditor.invoices.values()
            if each.kind == "periodic" and each.period == period and each.state == "draft"}  # fmt: skip
    for key in gone:
        del auditor.invoices[key]
    return gone


def _by_policy(
    auditor: Auditor, found: dict[Owner, list[Line]], period: str, periods: list[str]
) -> tuple[dict[Owner, list[Line]], dict[tuple[str, str, str], list[Line]], list[Invoice], set[tuple[str, str]]]:
    """Lines of the run's invoices, what is written off, the invoices that are billed again, and what arrived late."""
    late = {key for key in auditor.usage.changed if key[1] in periods and key[1] < period}
    rest: dict[Owner, list[Line]] = {}
    written_off: dict[tuple[str, str, str], list[Line]] = {}
    again: list[Invoice] = []
    touched = set()
    for (customer, currency), own in found.items():
        policy = auditor.usage.customers[customer].policy
        moved = []
        for name in sorted({line.usage_period for line in own if (customer, line.usage_period) in late}):
            of_period = [line for line in own if line.usage_period == name]
            touched.add((customer, name))
            old = [each for each in auditor.invoices.values()
                   if (each.customer, each.currency, each.period) == (customer, currency, name)
                   and each.kind in {"periodic", "rebill"} and each.state in {"open", "paid"} and each.total > 0
                   and not each.notes]  # fmt: skip
            if policy == "rebill" and old:
                again += old
                moved += of_period
            elif policy == "write_off" and sum(line.minor for line in of_period) > 0:
                written_off[customer, currency, name] = of_period
                moved += of_period
        left = [line for line in own if not any(line is each for each in moved)]
        if any(line.minor for line in left):
            rest[customer, currency] = left
    again.sort(key=lambda each: (each.period, each.customer, each.currency))
    return rest, written_off, again, touched


def _settle_late(
    auditor: Auditor, written_off: dict[tuple[str, str, str], list[Line]], again: list[Invoice], rated: list[Rated],
    run_period: str, at: datetime,
) -> None:  # fmt: skip
    for (customer, currency, period), own in sorted(written_off.items()):
        auditor.lines_taxed(own)
        net = sum(line.net for line in own)
        day = auditor.books.open_day(month_end(first_day(period)))
        document = digest("late usage", TENANT, customer, currency, period, run_period)
        auditor.books.post("P33", "late usage", document, 1, customer, day, at,
                           [(4090, currency, "", net), (4010, currency, "", -net)])  # fmt: skip
        auditor.write_offs += [
            (customer, currency, period, line.charge, line.revenue, line.rule, line.minor) for line in own
        ]
    booked = auditor.booked(without=[each.id for each in again])
    drafts = []
    for old in again:
        owner = (old.customer, old.currency)
        charges = [each for each in rated if each.customer == old.customer and each.period == old.period
                   and each.revenue != "advance"]  # fmt: skip
        others = {key: value for key, value in booked.items() if (key[0], key[1], key[2]) == (*owner, old.period)}
        fresh = lines(auditor, charges, others, old.period, {old.period}).get(owner, [])
        fresh += [
            Line("", line.kind, line.usage_period, line.charge, line.revenue, line.rule, line.service, line.minor)
            for line in old.lines
            if line.usage_period != old.period
        ]
        if any(line.minor for line in fresh):
            key = digest("rebill", TENANT, old.id)
            drafts.append(made(auditor, key, "rebill", owner, old.period, fresh))
    for old in again:
        write_note(auditor, old, {"reason": "rebill"}, at)
    issue(auditor, drafts, at)
    for old in again:
        old.rebilled = True


def issue(auditor: Auditor, drafts: list[Invoice], at: datetime, *, stored: bool = False) -> None:
    """Number, settle and post drafts, in their order; `stored` ones get their next version."""
    books, today = auditor.books, at.date()
    credit: dict[Owner, int] = {}
    applied: dict[str, int] = {}
    for each in drafts:
        each.version += stored
        owner = (each.customer, each.currency)
        left = credit.setdefault(owner, auditor.credit(*owner))
        applied[each.id] = min(each.due, left)
        credit[owner] = left - applied[each.id]
        each.settled += applied[each.id]
    burned = burn(auditor, drafts, at)
    for each in drafts:
        auditor.invoices[each.id] = each
        auditor.numbers[each.series] += 1
        each.number = f"{each.series}-{auditor.numbers[each.series]:06d}"
        each.state = "paid" if each.due <= 0 else "open"
        each.status = "succeeded" if each.due <= 0 else "pending"
        day = month_end(first_day(each.period)) if each.kind in {"periodic", "rebill"} else today
        by_revenue = [(line.revenue, line.net) for line in each.lines]
        template = _template(each)
        if books.post(
            template, "invoice", each.id, 1, each.customer, books.open_day(day), at, _added(each, by_revenue)
        ):
            each.entry = (template, each.id, 1)
    for each in drafts:
        if applied[each.id]:
            minor = applied[each.id]
            key = ("P14", each.id, each.version)
            books.post(key[0], "application", each.id, each.version, each.customer, books.open_day(today), at,
                       [(2100, each.currency, "", minor), (1100, each.currency, "", -minor)])  # fmt: skip
            each.applied.append(Application("customer_credit", minor, key))
        each.applied += burned.get(each.id, [])
        auditor.events["invoice.finalized"] += 1
        auditor.events["invoice.paid"] += each.state == "paid"
        schedule(auditor, each)
    periods = dict.fromkeys(each.period for each in drafts if each.kind == "periodic")
    for period in periods:
        for each in sorted(drafts, key=lambda each: (each.customer, each.currency)):
            key = (period, each.customer, each.currency)
            if each.kind == "periodic" and each.period == period and key in auditor.accrued:
                accrue(auditor, key, {}, at)


def _added(invoice: Invoice, by_revenue: list[tuple[str, int]]) -> list[tuple[int, str, str, int]]:
    """Legs whose amounts are those of the kinds of revenue: what cancels within one is not posted."""
    sums: dict[str, int] = {}
    for name, minor in by_revenue:
        sums[name] = sums.get(name, 0) + minor
    return invoice.legs(sums.items())


def _template(invoice: Invoice) -> str:
    revenues = {line.revenue for line in invoice.lines}
    if invoice.kind == "progressive":
        return "P07"
    if any(mode == "inclusive" for _, _, mode in invoice.groups):
        return "P04"
    return "P03" if revenues == {"advance"} else "P06" if revenues == {"commitment"} else "P02"


def schedule(auditor: Auditor, invoice: Invoice) -> None:
    """The months of what is billed in advance, by days."""
    for line in invoice.lines:
        if line.revenue == "advance" and line.net:
            months = by_days(line.net, *line.service)
            auditor.schedules[line.id] = Schedule(line.id, invoice.customer, invoice.currency, months)


def burn(auditor: Auditor, drafts: list[Invoice], at: datetime) -> dict[str, list[Application]]:
    """Prepaid credits pay for what is due, the invoices of a customer by their ids."""
    parts: dict[tuple[str, bool], int] = {}
    owners = sorted({(each.customer, each.currency) for each in drafts})
    touched = []
    for owner in owners:
        lots = [lot for lot in auditor.lots.values() if (lot.customer, lot.currency) == owner and lot.burns_at(at)]
        for each in sorted(drafts, key=lambda each: each.id):
            if (each.customer, each.currency) != owner:
                continue
            for lot in sorted(lots, key=lambda lot: lot.order):
                minor = min(each.due, lot.left)
                if minor > 0:
                    lot.left -= minor
                    lot.moves += 1
                    each.settled += minor
                    touched.append(lot)
                    parts[each.id, lot.paid] = parts.get((each.id, lot.paid), 0) + minor
                    auditor.burned.setdefault(each.id, []).append((lot.id, minor))
    by_id = {each.id: each for each in drafts}
    found: dict[str, list[Application]] = {}
    for (key, paid), minor in sorted(parts.items(), key=lambda part: (part[0][0], not part[0][1])):
        invoice, template = by_id[key], "P23" if paid else "P24"
        wallet = digest("wallet", TENANT, invoice.customer, invoice.currency)
        auditor.books.post(
            template, "wallet burn", key, 1, invoice.customer, auditor.books.open_day(at.date()), at,
            [(2150 if paid else 4090, invoice.currency, wallet, minor), (1100, invoice.currency, "", -minor)],
        )  # fmt: skip
        found.setdefault(key, []).append(Application("wallet", minor, (template, key, 1)))
    if touched:
        auditor.moved(touched, "debited", at, down=True)
    return found


def accrue(auditor: Auditor, key: tuple[str, str, str], owed: dict[str, int], at: datetime) -> None:
    """What is accrued of a period becomes what is owed and not billed, by an entry of the difference."""
    period, customer, currency = key
    version, before = auditor.accrued.get(key, (0, {}))
    changes = {name: owed.get(name, 0) - before.get(name, 0) for name in {*owed, *before}}
    changes = {name: minor for name, minor in changes.items() if minor}
    if not changes:
        return
    legs = []
    for name, minor in changes.items():
        legs += [(1150, currency, "", minor), (
            {"subtotal": 4010, "fees": 4000, "commitment": 4020}[name], currency, "", -minor)]  # fmt: skip
    day = auditor.books.open_day(month_end(first_day(period)))
    document = f"{period} {customer} {currency}"
    auditor.books.post("P01", "accrual", document, version + 1, customer, day, at, legs)
    after = {name: minor for name, minor in owed.items() if minor}
    auditor.accrued[key] = (version + 1, after)


def accruals(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """The month's end: what is rated and not billed is accrued."""
    period = step["period"]
    owed: dict[Owner, dict[str, int]] = {}
    if period not in auditor.posted:
        rated = auditor.usage.rated(period, advance=False)
        for owner, own in lines(auditor, rated, auditor.booked(), period, {period}).items():
            auditor.lines_taxed(own)
            for line in own:
                if line.revenue in {"subtotal", "fees", "commitment"}:
                    sums = owed.setdefault(owner, {})
                    sums[line.revenue] = sums.get(line.revenue, 0) + line.net
    owners = {*owed, *(key[1:] for key in auditor.accrued if key[0] == period)}
    for owner in sorted(owners):
        accrue(auditor, (period, *owner), {name: minor for name, minor in owed.get(owner, {}).items() if minor}, at)
    return "done"


def progressive(auditor: Auditor, step: dict[str, Any], at: datetime) -> str:
    """Usage to date of some customers, less what was billed of it."""
    period = step["period"]
    if period in auditor.posted:
        return "known"
    wanted = set(step["customers"])
    rated = [each for each in auditor.usage.rated(period, advance=False)
             if each.revenue == "subtotal" and each.customer in wanted]  # fmt: skip
    booked = {key: value for key, value in auditor.booked().items()
              if key[2] == period and value[1] == "subtotal" and key[0] in wanted}  # fmt: skip
    early = {(each.customer, each.currency) for each in auditor.invoices.values()
             if each.kind == "periodic" and each.period == period and each.state != "draft"}  # fmt: skip
    drafts = []
    for owner, own in lines(auditor, rated, booked, period, {period}).items():
        if owner in early:
            continue
        ordinal = 1 + sum(
            (each.customer, each.currency, each.period, each.kind) == (*owner, period, "progressive")
            for each in auditor.invoices.values()
        )
        key = digest("invoice", TENANT, "progressive", owner[0], period, owner[1], ordinal)
        drafts.append(made(auditor, key, "progressive", owner, period, own))
    issue(auditor, drafts, at)
    return "done" if drafts else "nothing"
