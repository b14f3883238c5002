"""Usage that arrives after its period was billed, through `meterline bill`: each policy beside the others."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import METERS, Server
from tests.e2e.test_bill import lines
from tests.e2e.test_serve import event

BOOK = """
book: example
version: 1
effective_at: 2013-01-01
currency: EUR
tax: {mode: exclusive, name: VAT, rate_percent: 19}
default_plan: standard
plans:
  - id: standard
    charges:
      - {id: next, model: flat, amount: 10, pay: advance}
      - {id: calls, model: standard, meter: calls, unit_price: 0.1}
  - id: by-volume
    charges:
      - {id: calls, model: volume, meter: calls, tiers: [{up_to: 10, unit_price: 1}, {up_to: null, unit_price: 0.5}]}
"""
CUSTOMERS = {
    "adjusted": "plan: standard", "rebilled": "plan: standard, late_usage: rebill",
    "forgiven": "plan: standard, late_usage: rebill", "written": "plan: standard, late_usage: write_off",
    "lowered": "plan: by-volume, late_usage: write_off",
}  # fmt: skip
CONTRACTS = "contracts:\n" + "\n".join(
    f"  - {{customer: {name}, name: {name}, subjects: [{name}], starts_on: 2013-01-01, {terms}}}"
    for name, terms in CUSTOMERS.items()
)
RECEIVABLE, CREDIT, DISCOUNTS, USAGE = "1100", "2100", "4090", "4010"


class Used:
    """Sends calls of all customers."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.file, self.number = server, folder / "usage.ndjson", 0

    def send(self, calls: int, day: str, *customers: str) -> None:
        """So many calls of a day of each customer."""
        rows = []
        for name in customers or tuple(CUSTOMERS):
            for _ in range(calls):
                self.number += 1
                rows.append(json.dumps(event(self.number, subject=name, time=f"{day}T10:00:00Z")))
        self.file.write_text("\n".join(rows))
        self.server.run("import", str(self.file))


@pytest.fixture
def used(server: Server, tmp_path: Path) -> Used:
    """Ten calls of January of each customer, which are billed."""
    for name, text in (("meters", METERS), ("book", BOOK), ("contracts", CONTRACTS)):
        (tmp_path / f"{name}.yaml").write_text(text)
    server.start()
    server.run("meters", "apply", str(tmp_path / "meters.yaml"))
    server.run("price", "apply", str(tmp_path / "book.yaml"))
    server.run("contracts", "apply", str(tmp_path / "contracts.yaml"))
    made = Used(server, tmp_path)
    made.send(10, "2013-01-15")
    server.run("bill", "--period", "2013-01")
    return made


def subtotals(server: Server, period: str) -> Counter[tuple[str, str]]:
    """The net amounts of a period's invoices by customer, and how often each is there."""
    listed = [[cell.strip() for cell in row.strip("│").split("│")] for row in lines(
        server.run("invoices", "list", "--period", period))]  # fmt: skip
    return Counter((row[1], row[4]) for row in listed if row[1])


def notes(server: Server, customer: str | None = None) -> list[dict[str, Any]]:
    """The credit notes of a customer, or all."""
    asked = {"customer": customer} if customer else {}
    found: list[dict[str, Any]] = httpx.get(f"{server.url}/api/v1/billing/credit_notes", params=asked).json()["items"]
    return found


def told(server: Server, kind: str) -> list[dict[str, Any]]:
    """What was told of a kind, in its order."""
    items = httpx.get(f"{server.url}/api/v1/billing/events", params={"limit": 1000}).json()["items"]
    return [each["data"] for each in items if each["type"] == kind]


def balances(server: Server) -> dict[tuple[str, str], str]:
    """Balances by account and customer, credits below zero."""
    asked = httpx.get(f"{server.url}/api/v1/billing/ledger/balances", params={"by": "customer"}).json()["balances"]
    return {(str(each["account"]), each["customer"]): each["balance"] for each in asked}


def state(server: Server) -> tuple[Any, ...]:
    """All that a run could change."""
    periods = [subtotals(server, period) for period in ("2013-01", "2013-02", "2013-03")]
    return (*periods, notes(server), balances(server), len(told(server, "usage.late")))


def test_late_usage_is_adjusted_billed_again_or_written_off(server: Server, used: Used) -> None:
    """By each customer's policy, twice in a row; what is rated now is then booked, and a run again changes nothing."""
    names = ("adjusted", "written", "rebilled", "forgiven")
    january = {**{(name, "21.00"): 1 for name in names}, ("lowered", "10.00"): 1}
    assert subtotals(server, "2013-01") == january
    server.run("credit-notes", "create", "INV-000002", "--reason", "goodwill", "--net", "1.00")
    used.send(5, "2013-01-20")
    used.send(2, "2013-02-10")
    preview = server.run("bill", "--period", "2013-02", "--dry-run")
    assert "21.50" in preview
    assert subtotals(server, "2013-02") == {}
    assert told(server, "usage.late") == []
    said = server.run("bill", "--period", "2013-02")
    assert "1 invoices of earlier periods are credited and billed again" in said
    assert "late usage of 1 customers and periods is written off" in said
    assert subtotals(server, "2013-01") == january | {("rebilled", "21.50"): 1}
    february = {("adjusted", "10.70"): 1, ("written", "10.20"): 1, ("rebilled", "10.20"): 1, ("lowered", "-0.50"): 1}
    february |= {("forgiven", "10.70"): 1}  # to bill January again would bill what was given
    assert subtotals(server, "2013-02") == february
    (note,) = notes(server, "rebilled")
    amounts = (note["subtotal_minor"], note["tax_minor"], note["total_minor"], note["credited_minor"])
    assert (note["reason"], amounts) == ("rebill", (2100, 399, 2499, 0))
    late = {each["customer"]: each["policy"] for each in told(server, "usage.late")}
    assert late == {
        "adjusted": "adjust_next", "rebilled": "rebill", "forgiven": "rebill", "written": "write_off",
        "lowered": "write_off",
    }  # fmt: skip
    found = [(each["period"], each["events"], each["meters"]) for each in told(server, "usage.late")]
    assert found == [("2013-01", 5, ["calls"])] * 5
    books = balances(server)
    assert (books[DISCOUNTS, "written"], books[USAGE, "written"]) == ("0.50", "-1.70")
    assert books[RECEIVABLE, "rebilled"] == "37.73"  # 21.50 and 10.20, and 19 percent of each
    before = state(server)
    assert "was billed at cut" in server.run("bill", "--period", "2013-02")
    assert state(server) == before
    assert "faults" not in server.run("audit")
    # once more: what was written off is not billed, and the invoice that took the first one's place is credited itself
    used.send(4, "2013-01-21", "rebilled", "written", "adjusted")
    server.run("bill", "--period", "2013-03")
    assert subtotals(server, "2013-01") == january | {("rebilled", "21.50"): 1, ("rebilled", "21.90"): 1}
    march = {("adjusted", "10.40"): 1, **{(name, "10.00"): 1 for name in ("written", "rebilled", "forgiven")}}
    assert subtotals(server, "2013-03") == march
    assert balances(server)[DISCOUNTS, "written"] == "0.90"
    assert len(notes(server)) == 3
    assert "faults" not in server.run("audit")
