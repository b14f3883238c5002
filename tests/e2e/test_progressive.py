"""Progressive billing, dry runs and drafts against a live server: whatever is billed early, the sums are the same.

Each customer who is billed while the month runs has a twin with the same plan and usage who is not.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, server_in

BOOK = """
book: example
version: 1
effective_at: 2013-01-01
currency: EUR
currencies: [USD]
tax: {mode: exclusive, name: VAT, rate_percent: 19}
taxes: {reduced: {mode: exclusive, name: VAT, rate_percent: 7}}
plans:
  - id: standard
    progressive_billing: {thresholds: [{EUR: 2, USD: 2}, {EUR: 5, USD: 5}], then_every: {EUR: 5, USD: 5}}
    charges:
      - {id: base, model: flat, amount: {EUR: 10, USD: 10}}
      - {id: next, model: flat, amount: {EUR: 3, USD: 3}, pay: advance}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: 10, unit_price: {EUR: 0.137, USD: 0.137}}, {up_to: null, unit_price: {EUR: 0.0731, USD: 0.0731}}]}
      - {id: bytes, model: volume, meter: bytes, tax_code: reduced, tiers: [{up_to: 100, unit_price: {EUR: 0.05, USD: 0.05}}, {up_to: null, unit_price: {EUR: 0.01, USD: 0.01}}]}
    discounts: [{id: launch, percent: 10, charges: [calls]}]
    minimum_spend: {EUR: 20, USD: 20}
"""
CUSTOMERS = {"ann": "EUR", "bea": "EUR", "cem": "USD", "dan": "EUR"}
JANUARY, FEBRUARY = "2013-01", "2013-02"
IDENTITY = {"id", "number", "state", "payment_status", "due_on", "issued_at", "version", "content_digest", "cut"}
"""What a final invoice has and a dry run has not, or has of its own: ids of lines follow those of invoices."""


def contracts(**currencies: str) -> str:
    rows = []
    for name, currency in {**CUSTOMERS, **currencies}.items():
        setup = "lines: [{id: setup, description: Set-up, amount: 7, on: 2013-01-20}]"
        terms = f"plan: standard, starts_on: 2013-01-01, currency: {currency}, {setup}"
        rows.append(f"{{customer: {name}, name: {name}, subjects: [{name}], {terms}}}")
        rows.append(f"{{customer: {name}-twin, name: x, subjects: [{name}-twin], {terms}, progressive_billing: {{}}}}")
    return f"contracts: [{', '.join(rows)}]"


class Billing:
    """A server that bills, asked as the command line asks it."""

    def __init__(self, server: Server) -> None:
        self.server, self.sent = server, 0
        server.start()
        self.ask("apply_price_book", text=BOOK, file="book.yaml")
        self.ask("apply_contracts", text=contracts(), file="contracts.yaml")

    def ask(self, operation: str, **parameters: Any) -> str:
        """What an operation says last; its failure fails the test."""
        url = f"{self.server.url}/api/v1/operations/{operation}"
        answer = httpx.post(url, json=parameters, timeout=60)
        outputs = [json.loads(line) for line in answer.text.splitlines()]
        assert answer.is_success and outputs[-1]["kind"] != "failure", answer.text  # noqa: PT018
        return str(outputs[-1].get("text", ""))

    def invoices(self, operation: str, period: str = JANUARY, **parameters: Any) -> list[dict[str, Any]]:
        """The invoices that a run makes or shows, as JSON has them."""
        text = self.ask(operation, period=period, as_json=True, **parameters)
        return [json.loads(line) for line in text.splitlines()] if text.startswith("{") else []

    def use(self, period: str = JANUARY, **usage: int) -> None:
        """So many calls, of 10 bytes each, of customers and of their twins."""
        events = [
            {"specversion": "1.0", "source": "/s", "type": "call", "subject": subject, "id": f"{self.sent}-{subject}-{n}",
             "time": f"{period}-10T00:00:00Z", "data": {"bytes": "10"}}
            for customer, calls in usage.items() for subject in (customer, f"{customer}-twin") for n in range(calls)
        ]  # fmt: skip
        self.sent += 1
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        answer = httpx.post(f"{self.server.url}/api/v1/events", content=json.dumps(events), headers=headers, timeout=60)
        assert answer.status_code == 204, answer.text


@pytest.fixture
def billing(tmp_path: Path) -> Iterator[Billing]:
    """A server with prices, and contracts of customers and their twins."""
    with server_in(tmp_path) as server:
        yield Billing(server)


def totals(invoices: list[dict[str, Any]], twin: bool) -> dict[str, tuple[int, int]]:
    """What the invoices of customers, or of their twins, come to: net and tax."""
    net: Counter[str] = Counter()
    tax: Counter[str] = Counter()
    for each in invoices:
        name, _, rest = each["customer"].partition("-")
        if bool(rest) == twin:
            net[name] += each["subtotal_minor"]
            tax[name] += each["tax_minor"]
    return {name: (net[name], tax[name]) for name in net}


def without_identity(invoices: list[dict[str, Any]], *, with_ids: bool = False) -> list[dict[str, Any]]:
    """Invoices as they are billed, without what only an issued one has, and without the cut, an instant of the log."""
    dropped = IDENTITY - {"id"} if with_ids else IDENTITY
    return [
        {
            **{name: value for name, value in each.items() if name not in dropped},
            "lines": [
                {**{name: value for name, value in line.items() if name not in dropped},
                 "explanation": {name: value for name, value in line["explanation"].items() if name != "cut"}}
                for line in each["lines"]
            ],
        }
        for each in invoices
    ]  # fmt: skip


def kinds(invoice: dict[str, Any]) -> list[tuple[str, str]]:
    return [(line["charge"], line["kind"]) for line in invoice["lines"]]


def test_early_invoices_and_the_last_one_come_to_what_one_alone_would(billing: Billing) -> None:
    """Each threshold once, more usage as remainders; a bill that shrinks is credited; late usage is adjusted as ever."""
    issue = lambda **more: billing.invoices("bill_progressively", **more)  # noqa: E731
    billing.use(ann=1, bea=9, cem=2)
    [early] = issue()  # 9 calls are 1.11 and 90 bytes 4.50; nobody else has used for 2.00
    assert (early["customer"], early["kind"], early["state"], early["number"]) == ("bea", "progressive", "open", "INV-000001")  # fmt: skip
    assert kinds(early) == [("calls", "usage"), ("bytes", "usage")]
    assert [line["net_minor"] for line in early["lines"]] == [111, 450]
    [entry] = [
        json.loads(each) for each in billing.ask("list_entries", document=early["id"], as_json=True).splitlines()
    ]
    assert (entry["template"], entry["effective_at"]) == ("P07", early["issued_at"][:10])
    assert issue() == issue() == []
    billing.use(ann=9, bea=40, cem=4, dan=3)
    previewed = issue(how="preview")
    second = issue()
    assert without_identity(previewed) == without_identity(second)
    # 100 bytes are 5.00 and 490 are 4.90: bea's bytes are cheaper by now, and her calls have not come to 10.00
    assert [each["customer"] for each in second] == ["ann", "cem"]
    billing.use(bea=60)
    [third] = issue()
    assert (third["customer"], kinds(third)) == ("bea", [("calls", "remainder"), ("bytes", "remainder")])
    assert issue() == []
    billing.use(ann=2, dan=2)  # ann's bytes, billed at 0.05, are 0.01 from here on
    drafts = billing.invoices("bill", how="draft")
    assert without_identity(billing.invoices("bill", how="preview"), with_ids=True) == without_identity(
        drafts, with_ids=True
    )
    final = billing.invoices("bill")
    assert without_identity(final, with_ids=True) == without_identity(drafts, with_ids=True)
    own = {each["customer"]: each for each in final}
    assert ("bytes", "remainder") in kinds(own["ann"])
    assert next(line["net_minor"] for line in own["ann"]["lines"] if line["charge"] == "bytes") == 120 - 500
    assert ("calls", "usage") in kinds(own["dan"])
    everything = [early, *second, third, *final]
    early_net = totals(everything, twin=False)
    alone = totals(everything, twin=True)
    assert {name: net for name, (net, _) in early_net.items()} == {name: net for name, (net, _) in alone.items()}
    for name, (_, tax) in early_net.items():
        assert abs(tax - alone[name][1]) <= 3  # each invoice rounds its own tax, by the rate
    assert "was billed" in billing.ask("bill_progressively", period=JANUARY)
    billing.use(ann=100, bea=1)  # late
    billing.use(period=FEBRUARY, ann=1, bea=1, cem=1, dan=1)
    february = billing.invoices("bill", FEBRUARY)
    assert {line["kind"] for each in february for line in each["lines"]} >= {"usage", "fee", "advance", "adjustment"}
    assert all(("line.setup", "manual") in kinds(each) for each in final)
    assert not any(
        line["charge"] == "line.setup" for each in february for line in each["lines"]
    )  # billed once, for good
    assert totals(february, twin=False) == totals(february, twin=True)
    assert "faults" not in billing.server.run("audit")
    assert "not what was posted" not in billing.server.run("ledger", "verify")


def test_a_progressive_run_that_is_killed_issues_once(billing: Billing) -> None:
    """Kill -9 ever later in the run; the one that gets through issues what is to be issued, and the next one nothing."""
    billing.use(ann=40, bea=50)
    for step, done, after_s in (("cut", 0, 0), ("rate", 0, 0), ("rate", 1, 0), ("rate", 1, 0.02)):
        url = f"{billing.server.url}/api/v1/operations/bill_progressively"
        with httpx.stream("POST", url, json={"period": JANUARY}, timeout=60) as answer:
            told = (json.loads(line) for line in answer.iter_lines())
            next((each for each in told if (each.get("step"), each.get("done")) == (step, done)), None)
            time.sleep(after_s)  # there is no event within a step
            billing.server.kill()
        billing.server.start()
    issued = billing.invoices("bill_progressively")
    listed = billing.server.run("invoices", "list", "--period", JANUARY)
    assert listed.count("INV-") == 2
    assert {each["customer"] for each in issued} <= {"ann", "bea"}
    assert billing.invoices("bill_progressively") == []


def test_drafts_follow_usage_and_a_change_of_currency_is_an_invoice_in_each(billing: Billing) -> None:
    """A draft that is made again has the next version; what was billed in one currency is taken back in that one."""
    billing.use(ann=5)
    [first] = [each for each in billing.invoices("bill", how="draft") if each["customer"] == "ann"]
    billing.use(ann=200)
    [second] = [each for each in billing.invoices("bill", how="draft") if each["customer"] == "ann"]
    assert (first["id"], first["version"], second["version"]) == (second["id"], 1, 2)
    assert second["subtotal_minor"] > first["subtotal_minor"]
    final = billing.invoices("bill")
    assert [each["number"] for each in final] == [f"INV-{n:06}" for n in range(1, 9)]
    assert {each["customer"]: each["version"] for each in final}["ann"] == 3
    billing.ask("apply_contracts", text=contracts(ann="USD"), file="contracts.yaml")
    both = [each for each in billing.invoices("bill", FEBRUARY) if each["customer"] == "ann"]
    assert [each["currency"] for each in both] == ["EUR", "USD"]
    assert both[0]["subtotal_minor"] == -next(each["subtotal_minor"] for each in final if each["customer"] == "ann")
    assert "faults" not in billing.server.run("audit")
