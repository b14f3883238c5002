"""Chooses what happens next, from a seed: mostly what is allowed, sometimes what must be refused."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

from tests.simulation.billing.amounts import first_day, following, month_end, next_month, period_of
from tests.simulation.billing.auditor import Auditor, Invoice
from tests.simulation.billing.customers import COMMITMENT, RULES, SLA, Usage

Step = dict[str, Any]
KEYED = {"finalize", "apply_credit", "void", "uncollectible", "credit_note"}
"""What has no id of its own, and is asked for under an idempotency key."""
_WEIGHTS = {
    "use": 14, "late": 7, "draft": 3, "final": 14, "preview": 2, "progressive": 5, "accrue": 3, "finalize": 4, "pay": 20,
    "fail": 3, "apply_credit": 3, "void": 6, "uncollectible": 4, "refund": 4, "write": 8, "rewrite": 3, "delete": 2,
    "credit_note": 10, "top_up": 14, "expire": 3, "recognise": 4, "document": 3, "reverse": 2, "close": 4, "reopen": 2,
    "reconcile": 4,
}  # fmt: skip


class Workload:
    """Steps, one after the other, with the clock going on between them."""

    def __init__(self, chance: Random, begins: datetime) -> None:
        self.chance, self.now, self.count = chance, begins, 0
        self._written: list[Step] = []

    def next(self, auditor: Auditor) -> Step:
        """The next step."""
        before, closes = self.now, False
        self.now += timedelta(minutes=self.chance.randint(5, 60 * 30))
        if (
            before.date() == auditor.books.closed_through and self.chance.random() < 0.8
        ):  # more on the day that is closed
            self.now = before + timedelta(minutes=5)
        elif self.chance.random() < 0.08:  # on the last day of a month, which is sometimes closed before it is over
            self.now = max(self.now, datetime.combine(month_end(self.now.date()), self.now.time(), UTC))
            closes = self.chance.random() < 0.4
        while True:
            kind = "close" if closes else self.chance.choices([*_WEIGHTS], [*_WEIGHTS.values()])[0]
            closes = False
            choose: Callable[[Auditor], Step | None] = getattr(self, f"_{kind}")
            step = choose(auditor)
            if step is not None:
                self.count += 1
                return {"at": self.now, "key": f"key {self.count}", **step}

    def pair(self, auditor: Auditor) -> tuple[Step, Step] | None:
        """Two steps that get into each other's way, at one instant."""
        one = self._pick(auditor, "open", "paid")
        makers: list[Callable[[Auditor], Step | None]]
        if one is not None and self.chance.random() < 0.7:
            makers = [
                lambda _: self._note_of(one), lambda _: self._payment_of(one), lambda _: {"do": "void", "invoice": one.id},
                lambda _: {"do": "uncollectible", "invoice": one.id, "relief": True}, lambda _: self._note_of(one),
                lambda _: {"do": "apply_credit", "invoice": one.id, "at_most": 2**40},
            ]  # fmt: skip
        else:
            makers = [
                self._final,
                self._top_up,
                self._close,
                self._draft_finalized,
                self._refund,
                self._expire,
                self._recognise,
            ]
        first, second = self.chance.choice(makers)(auditor), self.chance.choice(makers)(auditor)
        if first is None or second is None:
            return None
        self.count += 2
        return (
            {"at": self.now, "key": f"key {self.count - 1}", **first}, {"at": self.now, "key": f"key {self.count}", **second}
        )  # fmt: skip

    def _pick(self, auditor: Auditor, *states: str) -> Invoice | None:
        found = [each for each in auditor.invoices.values() if each.state in states]
        return self.chance.choice(sorted(found, key=lambda each: each.id)) if found else None

    def _any(self, auditor: Auditor, state: str) -> Invoice | None:
        """Mostly an invoice of a state, sometimes any."""
        usual = self._pick(auditor, state) if self.chance.random() < 0.85 else None
        return usual or self._pick(auditor, "draft", "open", "paid", "void", "uncollectible")

    def _amount(self) -> int:
        return (
            self.chance.choice((1, 7, 99, 100, 101, 1_000))
            if self.chance.random() < 0.2
            else self.chance.randint(1, 40_000)
        )

    def _usage_of(self, usage: Usage, period: str) -> Step:
        customer = usage.customers[self.chance.choice(sorted(usage.customers))]
        terms = self.chance.choice(customer.charges)
        minor = 0 if self.chance.random() < 0.08 else self._amount()
        if terms.revenue == SLA:
            minor = -minor // 8
        if terms.revenue == COMMITMENT:
            minor //= 4
        if terms.revenue == "advance" and period_of(self.now.date()) == period:
            period = following(period)
        return {"do": "use", "customer": customer.name, "period": period, "charge": terms.charge, "minor": minor}

    def _use(self, auditor: Auditor) -> Step:
        return self._usage_of(auditor.usage, period_of(self.now.date()))

    def _late(self, auditor: Auditor) -> Step | None:
        return self._usage_of(auditor.usage, self.chance.choice(auditor.posted)) if auditor.posted else None

    def _run(self, auditor: Auditor, how: str) -> Step | None:
        begun = following(auditor.posted[-1]) if auditor.posted else "2031-01"
        if month_end(first_day(begun)) >= self.now.date():
            if how == "final" and auditor.posted and self.chance.random() < 0.1:
                begun = auditor.posted[-1]  # again
            else:
                return None
        return {"do": "bill", "period": begun, "how": how, "cut": self.count + 1}

    def _final(self, auditor: Auditor) -> Step | None:
        return self._run(auditor, "final")

    def _draft(self, auditor: Auditor) -> Step | None:
        return self._run(auditor, "draft")

    def _preview(self, auditor: Auditor) -> Step | None:
        return self._run(auditor, "preview")

    def _progressive(self, auditor: Auditor) -> Step:
        names = sorted(auditor.usage.customers)
        wanted = sorted(self.chance.sample(names, self.chance.randint(1, min(3, len(names)))))
        return {"do": "progressive", "period": period_of(self.now.date()), "customers": wanted, "cut": self.count + 1}

    def _accrue(self, _: Auditor) -> Step:
        ended = period_of(first_day(period_of(self.now.date())) - timedelta(days=1))
        return {"do": "accrue", "period": ended, "cut": self.count + 1}

    def _finalize(self, auditor: Auditor) -> Step | None:
        one = self._any(auditor, "draft")
        return one and {"do": "finalize", "invoice": one.id}

    def _draft_finalized(self, auditor: Auditor) -> Step | None:
        one = self._pick(auditor, "draft")
        return one and {"do": "finalize", "invoice": one.id}

    def _pay(self, auditor: Auditor) -> Step | None:
        if self.chance.random() < 0.1 and auditor.payments:  # an id that is known, with another amount
            (_, payment), said = self.chance.choice(sorted(auditor.payments.items(), key=lambda each: each[0]))
            one = auditor.invoices[said[0]]
            return self._payment_of(one) | {"payment": payment}
        one = self._pick(auditor, "uncollectible") if self.chance.random() < 0.2 else self._any(auditor, "open")
        return one and self._payment_of(one)

    def _payment_of(self, one: Invoice) -> Step:
        due = max(one.due, 1)
        minor = self.chance.choice((due, due, max(due // 2, 1), due + self._amount(), self._amount()))
        return {
            "do": "pay", "invoice": one.id, "payment": f"pay {self.count}-{self.chance.randint(0, 10**6)}", "minor": minor,
            "currency": one.currency, "day": self.now.date() - timedelta(days=self.chance.choice((0, 0, 1, 20, 40))),
            "payout": self.chance.choice(("", "po_1", f"po {period_of(self.now.date())}")),
        }  # fmt: skip

    def _fail(self, auditor: Auditor) -> Step | None:
        one = self._any(auditor, "open")
        return one and {
            "do": "fail", "invoice": one.id, "payment": f"pay {self.count}", "minor": max(one.due, 1), "currency": one.currency,
            "day": self.now.date(),
        }  # fmt: skip

    def _apply_credit(self, auditor: Auditor) -> Step | None:
        having = [each for each in auditor.invoices.values()
                  if each.state == "open" and auditor.credit(each.customer, each.currency)]  # fmt: skip
        one = self.chance.choice(sorted(having, key=lambda each: each.id)) if having else self._any(auditor, "open")
        at_most = self.chance.choice((1, 500, 2**40))
        return one and {"do": "apply_credit", "invoice": one.id, "at_most": at_most}

    def _void(self, auditor: Auditor) -> Step | None:
        whole = [each for each in auditor.invoices.values() if each.state == "open"
                 and not {part.kind for part in each.applied} - {"customer_credit", "wallet"}]  # fmt: skip
        usual = whole and self.chance.random() < 0.8
        one = self.chance.choice(sorted(whole, key=lambda each: each.id)) if usual else self._any(auditor, "open")
        return one and {"do": "void", "invoice": one.id}

    def _uncollectible(self, auditor: Auditor) -> Step | None:
        one = self._any(auditor, "open")
        return one and {"do": "uncollectible", "invoice": one.id, "relief": self.chance.random() < 0.5}

    def _refund(self, auditor: Auditor) -> Step | None:
        owners = sorted({(each.customer, each.currency) for each in auditor.invoices.values()})
        having = [owner for owner in owners if auditor.credit(*owner)]
        if not owners:
            return None
        customer, currency = self.chance.choice(having or owners)
        has = auditor.credit(customer, currency)
        minor = self.chance.choice((has, has // 2, has + 1)) or 1
        return {"do": "refund", "customer": customer, "currency": currency, "refund": f"re {self.count}", "minor": minor,
                "day": self.now.date(), "payout": self.chance.choice(("", "po_1"))}  # fmt: skip

    def _write(self, auditor: Auditor) -> Step:
        lines = [
            {"minor": self._amount() * self.chance.choice((1, 1, 1, 1, -1)), "rule": self.chance.choice(RULES),
             "revenue": self.chance.choice(("subtotal", "fees", "advance", "commitment"))}
            for _ in range(self.chance.randint(1, 4))
        ]  # fmt: skip
        step = {
            "do": "write", "reference": f"m{self.count}", "customer": self.chance.choice(sorted(auditor.usage.customers)),
            "currency": self.chance.choice(("EUR", "USD", "JPY", "KWD")), "lines": lines,
            "period": self.chance.choice((period_of(self.now.date()), following(period_of(self.now.date())))),
            "finalize": self.chance.random() < 0.6,
        }  # fmt: skip
        self._written.append(step)
        return step

    def _rewrite(self, auditor: Auditor) -> Step | None:
        if not self._written:
            return None
        fresh = self._write(auditor)
        self._written.pop()
        return {**self.chance.choice(self._written), "lines": fresh["lines"], "finalize": fresh["finalize"]}

    def _delete(self, auditor: Auditor) -> Step | None:
        found = [each for each in auditor.invoices.values() if each.kind == "manual"]
        drafts = [each for each in found if each.state == "draft"]
        one = self.chance.choice(sorted(drafts or found, key=lambda each: each.id)) if found else None
        return one and {"do": "delete", "invoice": one.id}

    def _credit_note(self, auditor: Auditor) -> Step | None:
        one = self._pick(auditor, "open", "paid") if self.chance.random() < 0.9 else self._any(auditor, "open")
        return one and self._note_of(one)

    def _note_of(self, one: Invoice) -> Step:
        left = sum(line.left[0] for line in one.lines)
        tax_left = sum(sum(line.left[1]) for line in one.lines)
        wanted: dict[str, Any] = {"reason": "goodwill"}
        way = self.chance.choice(("whole", "net", "gross", "line", "lines", "part of a line"))
        if way in {"net", "gross"}:
            most = left + (tax_left if way == "gross" else 0)
            minor = self.chance.choice((most, most // 2, most // 3, most + 1, 1))
            wanted[f"{way}_minor"] = max(minor, 1)
        elif way != "whole":
            places = self.chance.sample(range(len(one.lines)), 1 if way != "lines" else min(2, len(one.lines)))
            lines: list[dict[str, int]] = [{"position": place + 1} for place in places]
            if way == "part of a line":
                net, taxes = one.lines[places[0]].left
                unit = self.chance.choice(("net_minor", "gross_minor"))
                lines[0][unit] = (net + (sum(taxes) if unit == "gross_minor" else 0)) // self.chance.choice((1, 2, 3))
            wanted["lines"] = lines
        return {"do": "credit_note", "invoice": one.id, "wanted": wanted}

    def _top_up(self, auditor: Auditor) -> Step:
        customer = auditor.usage.customers[self.chance.choice(sorted(auditor.usage.customers)[:2])]  # several lots each
        promotional = self.chance.random() < 0.4
        days = self.chance.choice((None, 10, 40, 90))
        return {
            "do": "top_up", "customer": customer.name, "currency": customer.currency, "minor": 1 + self._amount() // 4,
            "reference": f"top-up {self.count}", "promotional": promotional, "priority": self.chance.choice((10, 50, 50, 90)),
            "expires_at": days and self.now + timedelta(days=days),
            "invoiced": not promotional and self.chance.random() < 0.2,
        }  # fmt: skip

    def _expire(self, _: Auditor) -> Step:
        return {"do": "expire"}

    def _recognise(self, _: Auditor) -> Step:
        today = self.now.date()
        ended = first_day(period_of(today)) - timedelta(days=1)
        return {"do": "recognise", "through": self.chance.choice((ended, today, month_end(next_month(today))))}

    def _document(self, auditor: Auditor) -> Step:
        customer = auditor.usage.customers[self.chance.choice(sorted(auditor.usage.customers))]
        return {
            "do": "document", "template": self.chance.choice(("P29", "P18", "P08")), "document": f"doc {self.count}",
            "customer": customer.name, "currency": customer.currency, "minor": self._amount(),
            "day": self._day(auditor),
        }  # fmt: skip

    def _day(self, auditor: Auditor) -> date:
        """Mostly today; also a closed one, but not where it was open for a time: the database looks at a real clock."""
        day, books = self.now.date() - timedelta(days=self.chance.choice((0, 0, 15, 40))), auditor.books
        period = min((each for each in books.closings if each >= day), default=None)
        past = period in books.opened and not books.takes(day, self.now)
        return books.open_day(day) if past else day

    def _reverse(self, auditor: Auditor) -> Step | None:
        mine = [key for key in auditor.books.known if key[1].startswith("doc ")]
        if not mine:
            return None
        template, document, _ = self.chance.choice(mine)
        return {"do": "reverse", "template": template, "document": document, "day": self._day(auditor)}

    def _close(self, auditor: Auditor) -> Step | None:
        today = self.now.date()
        through = first_day(period_of(today)) - timedelta(days=1)
        if today == month_end(today):  # before the day is over
            through = today
        last = auditor.books.closed_through
        return {"do": "close", "through": through} if last is None or through >= last else None

    def _reopen(self, auditor: Auditor) -> Step | None:
        if not auditor.books.closings:
            return None
        return {
            "do": "reopen",
            "through": self.chance.choice(auditor.books.closings),
            "until": self.now + timedelta(days=2),
        }

    def _reconcile(self, auditor: Auditor) -> Step | None:
        payout, books, rows = self.chance.choice(("po_1", f"po {period_of(self.now.date())}")), auditor.books, []
        for key, entry in books.known.items():
            clearing = [leg for leg in entry.legs if leg[0] == 1010 and leg[2] in {"", payout}]
            fit = (
                entry.kind in {"payment", "refund", "top-up"}
                and key not in auditor.settled
                and key not in books.reversed
            )
            if clearing and fit and self.chance.random() < 0.7 and entry.day <= self.now.date():
                [(_, currency, _, gross)] = clearing
                rows.append({"entry": key, "reference": entry.document, "currency": currency, "gross": gross,
                             "fee": gross // 50})  # fmt: skip
        return {"do": "reconcile", "payout": payout, "rows": rows, "day": self.now.date()} if rows else None
