"""Service days as instants, and months as documents."""

from datetime import date

import polars as pl
import pytest

from invoicing.recognition.rows import DUE, LINES, in_advance, recognitions, services


@pytest.mark.parametrize(
    ("zone", "day", "instant"),
    [
        ("UTC", date(2026, 6, 15), "2026-06-15 00:00"),
        ("Europe/Berlin", date(2026, 10, 25), "2026-10-24 22:00"),
        ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04 03:00"),  # midnight is skipped
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30 10:00"),  # the day is skipped
    ],
)
def test_a_day_begins_at_its_midnight_or_the_first_instant_after(zone: str, day: date, instant: str) -> None:
    """Whatever the clocks do, a line has its bounds."""
    row = ("default", "i", "l", "UA", "USD", 1, day, day, "")
    found = services(pl.DataFrame([row], schema=LINES, orient="row"), "day", zone)
    assert found.select(pl.col("starts_at", "ends_at").dt.to_string("%Y-%m-%d %H:%M")).row(0) == (instant, instant)


def test_months_are_named_by_line_and_month_and_closed_ones_come_late() -> None:
    """A line of many months has one document for each; one that is closed names its month in the first open one."""
    due = pl.DataFrame(
        [("l", 1, "UA", "USD", "seats", date(2026, month, 1), 10 * month) for month in (7, 8)], schema=DUE, orient="row"
    )
    documents, amounts = recognitions(due, tenant="default", closed_through=date(2026, 8, 15))
    assert documents.select("document_id", "effective_at", "relates_to_period").rows() == [
        ("l 2026-07", date(2026, 8, 16), "2026-07"), ("l 2026-08", date(2026, 8, 31), None),
    ]  # fmt: skip
    assert amounts.rows() == [(0, "recognised", "USD", "seats", 70), (1, "recognised", "USD", "seats", 80)]


def test_lines_of_service_to_come_are_what_is_scheduled() -> None:
    """Of an invoice's lines, those whose revenue is in advance, with the invoice's customer and currency."""
    invoices = pl.DataFrame([("i", "default", "UA", "USD")], ["id", "tenant", "customer", "currency"], orient="row")
    days = (date(2026, 2, 1), date(2026, 3, 1))
    lines = pl.DataFrame(
        [("a", "i", "subtotal", 5, *days), ("b", "i", "advance", 7, *days)], orient="row",
        schema=["id", "invoice_id", "revenue", "net_minor", "service_start", "service_end"],
    )  # fmt: skip
    assert in_advance(invoices, lines).rows() == [("default", "i", "b", "UA", "USD", 7, *days, "")]
