"""Which way each difference of a billed period goes, and what an invoice that takes another's place has on it."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

from invoicing.late_usage.policies import (
    LATE,
    TAKEN_BACK,
    Decided,
    billed_again,
    decided,
    rebill_heads,
    with_document_ids,
    write_off_journal,
)
from schemas.invoice import BOOKED, CHARGED, DRAFTED, LINES, TAXED, Basis, LineKind, Revenue
from schemas.plan import LateUsage

BASIS = Basis(cut=9, book="b", book_version=1, book_digest="bd", contracts_digest="cd")
JANUARY, FEBRUARY, MARCH = "2026-01", "2026-02", "2026-03"


def line(customer: str, period: str, charge: str, minor: int, document: int = 0, **more: Any) -> dict[str, Any]:
    kind = LineKind.ADJUSTMENT if period < FEBRUARY else LineKind.USAGE
    return {
        "document": document, "kind": kind.value, "customer": customer, "currency": "EUR", "usage_period": period,
        "charge": charge, "description": charge, "model": "standard", "meter": charge, "quantity": Decimal(1),
        "amount": Decimal(minor) / 100, "amount_minor": minor, "tax_rule": None, "revenue": Revenue.USAGE.value,
        "service_start": date(2026, 1, 1), "service_end": date(2026, 2, 1), "explanation": "{}", **more,
    }  # fmt: skip


def late(*rows: tuple[str, str, LateUsage]) -> pl.DataFrame:
    return pl.DataFrame([(*row, ["calls"], 3) for row in rows], schema=LATE, orient="row")


def invoices(*rows: tuple[str, str, str]) -> pl.DataFrame:
    found = [(name, customer, "EUR", period, customer.upper(), "INV") for name, customer, period in rows]
    return pl.DataFrame(found, schema=TAKEN_BACK, orient="row")


def sorted_out(lines: list[dict[str, Any]], arrived: pl.DataFrame, known: pl.DataFrame | None = None) -> Decided:
    frame = pl.DataFrame(lines, schema=DRAFTED)
    return decided(frame, arrived, invoices() if known is None else known, run_period=FEBRUARY)


def charges(frame: pl.DataFrame) -> list[tuple[str, str, int]]:
    return frame.select("customer", "charge", "amount_minor").rows()


def test_a_period_is_written_off_as_a_whole_where_it_comes_to_more() -> None:
    """Usage that makes up for a minimum takes the minimum's shortfall with it; a period that comes to less is credited."""
    lines = [
        line("a", FEBRUARY, "calls", 7, 0), line("a", JANUARY, "calls", 100, 0), line("a", JANUARY, "minimum", -40, 0),
        line("b", FEBRUARY, "calls", 7, 1), line("b", JANUARY, "calls", 30, 1), line("b", JANUARY, "minimum", -40, 1),
        line("c", JANUARY, "calls", 5, 2),
    ]  # fmt: skip
    found = sorted_out(lines, late(*((name, JANUARY, LateUsage.WRITE_OFF) for name in "abc")))
    assert charges(found.written_off) == [("a", "calls", 100), ("a", "minimum", -40), ("c", "calls", 5)]
    assert found.written_off["document"].to_list() == [0, 0, 1]
    assert charges(found.lines) == [("a", "calls", 7), ("b", "calls", 7), ("b", "calls", 30), ("b", "minimum", -40)]
    assert found.late["customer"].to_list() == ["a", "b", "c"]
    assert found.rebilled.is_empty()


def test_only_what_is_late_and_changes_something_goes_another_way() -> None:
    """The run's own period, other periods, customers without late usage; what changes nothing is not told."""
    lines = [line("a", FEBRUARY, "calls", 7), line("a", JANUARY, "calls", 3), line("b", JANUARY, "calls", 4, 1)]
    arrived = late(
        ("a", FEBRUARY, LateUsage.WRITE_OFF), ("b", "2025-12", LateUsage.REBILL), ("d", JANUARY, LateUsage.REBILL)
    )
    found = sorted_out(lines, arrived, invoices(("d1", "d", JANUARY), ("b1", "b", JANUARY)))
    assert charges(found.lines) == [("a", "calls", 7), ("a", "calls", 3), ("b", "calls", 4)]
    assert (found.written_off.height, found.rebilled.height, found.late.height) == (0, 0, 0)


def test_a_period_without_an_invoice_to_take_back_is_adjusted() -> None:
    """Billed again is what has one; its differences leave the run's invoice, on which nothing may be left."""
    lines = [line("a", JANUARY, "calls", 3), line("a", FEBRUARY, "calls", 0), line("b", JANUARY, "calls", 4, 1)]
    arrived = late(("a", JANUARY, LateUsage.REBILL), ("b", JANUARY, LateUsage.REBILL))
    found = sorted_out(lines, arrived, invoices(("a1", "a", JANUARY)))
    assert found.rebilled["id"].to_list() == ["a1"]
    assert charges(found.lines) == [("b", "calls", 4)]


def charged(customer: str, charge: str, minor: int, period: str = JANUARY) -> dict[str, Any]:
    own = line(customer, period, charge, minor)
    told = {name: own[name] for name in CHARGED if name in own}
    return told | {"kind": LineKind.USAGE.value, "period": period, "slices": [], **vars(BASIS)}


def test_what_takes_an_invoices_place_is_rated_now_and_keeps_what_is_of_other_periods() -> None:
    """Less what other invoices have of its period; a fee in advance and an older adjustment move over as they are."""
    rated = pl.DataFrame(
        [charged("a", "calls", 150), charged("a", "words", 20), charged("z", "calls", 1)], schema=CHARGED
    )
    billed = line("a", JANUARY, "words", 5)
    elsewhere = pl.DataFrame([billed], schema=BOOKED)
    old = [
        line("a", JANUARY, "calls", 100), line("a", FEBRUARY, "fee", 1000, kind="advance", revenue="advance"),
        line("a", "2025-12", "calls", -7, kind="adjustment"),
    ]  # fmt: skip
    old_lines = pl.DataFrame(
        [
            row | {"id": f"l{place}", "tenant": "t", "invoice_id": "a1", "position": place, "net_minor": row["amount_minor"],
                   "tax_minor": 0, "taxes": None}
            for place, row in enumerate(old, start=1)
        ], schema=LINES,
    )  # fmt: skip
    taken = invoices(("a1", "a", JANUARY), ("b1", "b", JANUARY))
    bases = {JANUARY: BASIS}
    found = billed_again(taken, old_lines, rated, elsewhere, bases)
    assert found.select("document", "kind", "charge", "amount_minor").rows() == [
        (0, "usage", "calls", 150), (0, "remainder", "words", 15), (0, "advance", "fee", 1000),
        (0, "adjustment", "calls", -7),
    ]  # fmt: skip
    heads = rebill_heads(taken, found["document"], tenant="t", bases=bases)
    assert heads.select("document", "kind", "customer", "period", "cut").rows() == [(0, "rebill", "a", JANUARY, 9)]


def test_an_entry_shows_the_usage_and_that_nobody_pays_for_it() -> None:
    """One a customer and period, dated in it, or on the first open day, and then it names the period."""
    lines = [line("a", JANUARY, "calls", 100), line("a", JANUARY, "minimum", -40), line("b", JANUARY, "calls", 5, 1)]
    frame = pl.DataFrame(
        [row | {"net_minor": row["amount_minor"], "tax_minor": 0, "taxes": None} for row in lines], schema=TAXED
    )
    named = with_document_ids(frame, tenant="t", run_period=FEBRUARY)
    at = datetime(2026, 3, 1, tzinfo=UTC)
    open_books = write_off_journal(named, tenant="t", closed_through=None, booked_at=at)
    assert open_books.postings.select("account", "customer", "amount_minor").rows() == [
        (4090, "a", 60), (4010, "a", -60), (4090, "b", 5), (4010, "b", -5),
    ]  # fmt: skip
    assert open_books.entries.select("effective_at", "relates_to_period").rows() == [(date(2026, 1, 31), None)] * 2
    closed = write_off_journal(named, tenant="t", closed_through=date(2026, 2, 28), booked_at=at)
    assert closed.entries.select("effective_at", "relates_to_period").rows() == [(date(2026, 3, 1), JANUARY)] * 2
    assert MARCH not in closed.entries["relates_to_period"].to_list()
