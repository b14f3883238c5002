"""Domain events: the closed list, and what each one says."""

import ast
import json
import re
import typing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.domain_event import (
    DATA,
    DomainEvent,
    EventType,
    InvoiceData,
    PeriodClosedData,
    StoredEvent,
    WalletData,
    event_id,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_every_type_says_something_and_no_float() -> None:
    """The list and its schemas are one; no field of any of them is a float."""
    assert set(DATA) == set(EventType)
    for data in DATA.values():
        assert data.__doc__
        for name, kind in typing.get_type_hints(data).items():
            assert float not in (kind, *typing.get_args(kind)), name


def test_an_event_has_the_data_of_its_type() -> None:
    """And a version, an object and an instant with a time zone; anything else is our own mistake."""
    closed = PeriodClosedData(through=date(2026, 1, 31))
    DomainEvent(EventType.PERIOD_CLOSED, "ledger", 1, NOW, closed)
    for broken in ((EventType.INVOICE_PAID, "x", 1, NOW), (EventType.PERIOD_CLOSED, "", 1, NOW), (EventType.PERIOD_CLOSED, "x", 0, NOW),
                   (EventType.PERIOD_CLOSED, "x" * 256, 1, NOW), (EventType.PERIOD_CLOSED, "x", 1, NOW.replace(tzinfo=None))):  # fmt: skip
        with pytest.raises(AssertionError):
            DomainEvent(*broken, closed)


def test_data_is_strict() -> None:
    """No text for a number, no float for money, nothing beyond 64 bits, no field that is not known."""
    right = {"id": "w", "customer": "c", "currency": "USD", "minorUnits": 2, "amountMinor": -5, "balanceMinor": 0}
    assert json.loads(WalletData.model_validate(right).text()) == right
    for name, value in (("amountMinor", 1.0), ("amountMinor", "1"), ("amountMinor", 2**63), ("extra", 1), ("id", None)):
        with pytest.raises(ValidationError):
            WalletData.model_validate({**right, name: value})


def test_ids_are_of_what_an_event_is_about() -> None:
    """Tenant, type, object and version, each of them, and nothing else."""
    known = event_id("a", "invoice.paid", "b", 1)
    others = [
        event_id("ab", "invoice.paid", "", 1),
        event_id("a", "invoice.voided", "b", 1),
        event_id("a", "invoice.paid", "b", 2),
        event_id("b", "invoice.paid", "b", 1),
    ]
    assert len({known, *others}) == 5


def test_a_body_is_json_with_the_data_as_it_was_stored() -> None:
    """Digit for digit; a thin one says where to read it."""
    data = '{"id":"x","totalMinor":9223372036854775807}'
    stored = StoredEvent("e", "acme", 7, "invoice.paid", "x", 3, NOW, data)
    assert data.encode() in stored.body()
    assert json.loads(stored.body())["sequence"] == 7
    thin = json.loads(stored.thin_body("/there"))
    assert (thin["data"], thin["link"], thin["id"]) == (None, "/there", "e")
    assert InvoiceData.model_fields["due_on"].alias == "dueOn"


def test_every_type_is_emitted_somewhere_and_documented() -> None:
    """A type that nothing emits would be waited for in vain; one that the docs lack, nobody would wait for."""
    root = Path(__file__).parents[3]
    sources = [path for package in ("invoicing", "meterline") for path in (root / package).rglob("*.py")]
    emitted = set()
    for path in sources:
        found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        emitted |= {node.attr for node in found if ast.unparse(node.value) == "EventType"}
    assert emitted == {each.name for each in EventType}
    table = (root / "docs/webhooks.md").read_text().partition("## The events")[2].partition("\n\nAn invoice has")[0]
    names = "".join(row.split("|")[1] for row in table.split("\n") if row.startswith("| `"))
    assert sorted(re.findall(r"`([a-z_]+\.[a-z_]+)`", names)) == sorted(EventType)
