"""Usage from a file of one's own, to try prices on: NDJSON, CSV or Parquet, one row an event or an hour's total.

Decides what a legal row is, and says of each other one what is wrong. Numbers stay exact: a JSON number is read digit
by digit, and a column of floats is refused.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from schemas.configuration import ConfigurationError, Fault
from schemas.event import number_text
from schemas.exact import WHOLE_DIGITS_MAX
from schemas.money import QUANTITY

FAULTS_SHOWN_MAX = 20
_DIMENSION = "dimensions."
_COLUMNS = ("customer", "plan", "meter", "quantity", "value", "at", "dimensions")
_NEEDED = ("customer", "meter", "at")
_SHAPE = "customer, meter, at, quantity or value, and if wanted plan and dimensions"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,512}")  # what a contract's customer may be called
_DIGITS = f"allowed: a quantity of at most {WHOLE_DIGITS_MAX} digits before the point and 9 after it"


class _Row(msgspec.Struct, forbid_unknown_fields=True):
    customer: str
    meter: str
    at: str
    quantity: Decimal | None = None
    value: str | None = None
    plan: str | None = None
    dimensions: dict[str, str] = {}


@dataclass(frozen=True)
class UsageFile:
    """Usage of customers, and the plans that they are on."""

    usage: pl.DataFrame
    """Columns customer, meter, at (UTC), quantity (QUANTITY), value, and `dimension.*`, in the order of the file."""
    plans: dict[str, str]
    """The plans of the customers that have one in the file."""


def read_usage(file: Path) -> UsageFile:
    """The usage of a file whose name ends in .ndjson, .jsonl, .csv or .parquet.

    A row has customer, meter and at (RFC 3339 with an offset, or a date, which is its midnight in UTC), and quantity,
    or value for a meter that counts different values. Raises one ConfigurationError with the first faults, at most
    FAULTS_SHOWN_MAX.
    """
    readers = {".ndjson": _ndjson, ".jsonl": _ndjson, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(file.suffix)
    if reader is None:
        allowed = f"allowed: a file whose name ends in {', '.join(readers)}"
        raise ConfigurationError([Fault(str(file), "", file.suffix or "no ending", allowed)])
    faults: list[Fault] = []
    rows: list[tuple[_Row, datetime]] = []
    plans: dict[str, str] = {}
    for place, row in reader(file):
        try:
            checked = _decoded(row)
            _check(checked)
            rows.append((checked, _instant(checked.at)))
            _note_plan(plans, checked)
        except ValueError as error:
            faults.append(Fault(str(file), place, _shown(row), str(error)))
            if len(faults) == FAULTS_SHOWN_MAX:
                break
    if faults:
        raise ConfigurationError(faults)
    return UsageFile(_frame(rows), plans)


def _ndjson(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield f"line {number}", line


def _csv(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            _check_header(file, header)
            for row in reader:
                if row:
                    yield f"line {reader.line_num}", _nested(header, row)
        except (UnicodeDecodeError, csv.Error) as error:
            why = error.reason if isinstance(error, UnicodeDecodeError) else str(error)
            allowed = "allowed: CSV in UTF-8, with commas, and quotes around what has a comma"
            raise ConfigurationError([Fault(str(file), f"after line {reader.line_num}", why, allowed)]) from error


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        frame = pl.read_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise ConfigurationError([Fault(str(file), "", str(error).partition("\n")[0], "allowed: Parquet")]) from error
    _check_header(file, frame.columns)
    float_ = "allowed: a column of decimals, whole numbers or texts; a float has lost its digits already"
    naive = "allowed: instants with a time zone, dates, or texts such as 2026-01-31T10:00:00Z"
    faults = [Fault(str(file), name, str(kind), float_) for name, kind in frame.schema.items() if kind.is_float()]
    if frame.schema["at"] == pl.Datetime and not getattr(frame.schema["at"], "time_zone", None):
        faults.append(Fault(str(file), "at", "instants without a time zone", naive))
    if faults:
        raise ConfigurationError(faults)
    if frame.schema["at"] == pl.Datetime:
        in_utc = pl.col("at").dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
        frame = frame.with_columns(in_utc.alias("at"))
    elif frame.schema["at"] == pl.Date:
        frame = frame.with_columns(pl.col("at").cast(pl.String))
    if "quantity" in frame.columns:
        frame = frame.with_columns(pl.col("quantity").cast(pl.String))
    for number, row in enumerate(frame.iter_rows(), 1):
        yield f"row {number}", _nested(frame.columns, row)


def _check_header(file: Path, header: list[str]) -> None:
    """Raises ConfigurationError for names that are not columns of usage, stand twice, or are missing."""
    known = [name for name in header if name in _COLUMNS or (name.startswith(_DIMENSION) and name != _DIMENSION)]
    allowed = f"allowed: columns {', '.join(_COLUMNS[:-1])}, and {_DIMENSION}NAME for each dimension"
    faults = [Fault(str(file), "header", name or "(empty)", allowed) for name in header if name not in known]
    twice = "allowed: a column once"
    faults += [Fault(str(file), "header", name, twice) for name, count in Counter(known).items() if count > 1]
    faults += [Fault(str(file), "header", f"{name} is missing", allowed) for name in _NEEDED if name not in header]
    if faults:
        raise ConfigurationError(faults)


def _nested(header: list[str], cells: Any) -> dict[str, Any]:
    """A flat row with its `dimensions.*` columns as one mapping; an empty cell is none."""
    if len(cells) != len(header):
        return {"cells": list(cells), "columns": len(header)}
    row = {name: cell for name, cell in zip(header, cells, strict=True) if cell is not None}
    dimensions = {name.removeprefix(_DIMENSION): cell for name, cell in row.items() if name.startswith(_DIMENSION)}
    nested = row.get("dimensions") or {}
    if isinstance(nested, dict):  # a column of structs: all rows have all fields
        dimensions = {name: cell for name, cell in nested.items() if cell is not None} | dimensions
    kept = {name: cell for name, cell in row.items() if not name.startswith("dimensions") and not _is_empty(name, cell)}
    return kept | {"dimensions": dimensions}


def _is_empty(name: str, cell: Any) -> bool:
    return cell == "" and name in {"plan", "quantity", "value"}


def _decoded(row: Any) -> _Row:
    if isinstance(row, dict) and "cells" in row:
        raise ValueError(f"{len(row['cells'])} cells; allowed: as many as the header has, {row['columns']}")
    try:
        if isinstance(row, bytes):
            return msgspec.json.decode(row, type=_Row)
        return msgspec.convert(row, _Row, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{error}; allowed: a row with {_SHAPE}") from None


def _instant(text: str) -> datetime:
    allowed = "allowed: an instant such as 2026-01-31T10:00:00Z, or a date"
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None and len(text) == len("2026-01-31"):
            return instant.replace(tzinfo=UTC)
        naive = instant.tzinfo is None
        instant = instant.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"at: {text!r}; {allowed}") from None
    if naive:
        raise ValueError(f"at: {text!r} has no offset from UTC; {allowed}")
    return instant


def _check(row: _Row) -> None:
    if (row.quantity is None) == (row.value is None):
        raise ValueError("allowed: either quantity, or value for a meter that counts different values")
    number = row.quantity
    if number is not None:
        if not number.is_finite():
            raise ValueError(f"quantity: {number}; allowed: a number")
        outside = number and not -9 <= number.adjusted() < WHOLE_DIGITS_MAX
        if outside or (number and len(number_text(number).partition(".")[2]) > 9):
            raise ValueError(_DIGITS)
    if not _NAME.fullmatch(row.customer) or not row.meter:
        raise ValueError("allowed: a customer of 1 to 512 characters without control characters, and a meter")
    if row.value is not None and "\0" in row.value:
        raise ValueError("value: a NUL character; allowed: any other")


def _note_plan(plans: dict[str, str], row: _Row) -> None:
    if row.plan is not None and plans.setdefault(row.customer, row.plan) != row.plan:
        known = plans[row.customer]
        raise ValueError(f"plan {row.plan}, after {known}; allowed: one plan a customer; changes belong in --contracts")


def _frame(rows: list[tuple[_Row, datetime]]) -> pl.DataFrame:
    names = sorted({name for row, _ in rows for name in row.dimensions})
    columns: dict[str, pl.Series] = {
        "customer": pl.Series([row.customer for row, _ in rows], dtype=pl.String),
        "meter": pl.Series([row.meter for row, _ in rows], dtype=pl.String),
        "at": pl.Series([at for _, at in rows], dtype=pl.Datetime("us", "UTC")),
        "quantity": pl.Series([_text(row.quantity) for row, _ in rows], dtype=pl.String).cast(QUANTITY),
        "value": pl.Series([row.value for row, _ in rows], dtype=pl.String),
    }
    dimensions = {
        f"dimension.{name}": pl.Series([row.dimensions.get(name, "") for row, _ in rows], dtype=pl.String)
        for name in names
    }
    return pl.DataFrame(columns | dimensions)


def _text(number: Decimal | None) -> str | None:
    return None if number is None else number_text(number or Decimal())


def _shown(row: Any) -> str:
    if isinstance(row, bytes):
        text = row.decode(errors="replace").strip()
    else:
        text = str(row.get("cells", {name: cell for name, cell in row.items() if cell != {}}))
    return text if len(text) <= 120 else text[:117] + "..."
