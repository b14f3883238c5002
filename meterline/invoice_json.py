"""Invoices as JSON has them: the stored columns with their lines, money in whole minor units."""

from collections.abc import Iterator
from datetime import date, datetime
from typing import Any

import orjson
import polars as pl

from schemas.domain_event import instant_text
from schemas.event import number_text
from schemas.invoice import LINES

_JSON = {"taxes", "tax_rule", "explanation"}
_OF_ITS_INVOICE = {"tenant", "invoice_id", "customer"}


def invoice_documents(invoices: pl.DataFrame, lines: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Invoices (columns `schemas.invoice.INVOICES`) with their lines (columns `LINES`), in the invoices' order.

    What is JSON in a column is an `orjson.Fragment`: orjson writes it as it is.
    """
    shown = [name for name in LINES if name not in _OF_ITS_INVOICE]
    of_invoice = lines.partition_by("invoice_id", as_dict=True)
    for row in invoices.iter_rows(named=True):
        own = of_invoice.get((row["id"],), lines.clear()).select(shown)
        yield {**_plain(row), "lines": [_plain(line) for line in own.iter_rows(named=True)]}


def invoice_lines_text(invoices: pl.DataFrame, lines: pl.DataFrame) -> str:
    """The invoices as JSON, one a line."""
    return "\n".join(orjson.dumps(document).decode() for document in invoice_documents(invoices, lines))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in row.items()}


def _value(name: str, value: Any) -> Any:
    if value is None or isinstance(value, int | str):
        return orjson.Fragment(value) if name in _JSON and isinstance(value, str) else value
    if isinstance(value, datetime):
        return instant_text(value)
    return value.isoformat() if isinstance(value, date) else number_text(value)
