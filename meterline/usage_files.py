"""Usage from a file of one's own, to try prices on: NDJSON, CSV or Parquet, one row an event or an hour's total.

Decides what a legal row is, and says of each other one what is wrong. Numbers stay exact: a JSON number is read digit
by digit, and a column of floats is refused.
"""

import csv
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
_SHAPE = "customer, meter, quantity, at, and if wanted plan, value and dimensions"


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
    """Columns `rating.frames.USAGE` (subject: the customer) and `dimension.*`, in the order of the file."""
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
            checked = row if isinstance(row, _Row) else _decoded(row)
            rows.append((checked, _instant(checked.at)))
            _check(checked)
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
        for row in (reader := csv.DictReader(lines)):
            yield f"line {reader.line_num}", _nested(row)


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    frame = pl.read_parquet(file)
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    if floats:
        allowed = "allowed: a column of decimals, whole numbers or texts; a float has lost its digits already"
        raise ConfigurationError([Fault(str(file), name, "a column of floats", allowed) for name in floats])
    if "at" in frame.columns and isinstance(frame.schema["at"], pl.Datetime):
        at = pl.col("at") if frame.schema["at"].time_zone else pl.col("at").dt.replace_time_zone("UTC")
        frame = frame.with_columns(at.dt.convert_time_zone("UTC").dt.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    frame = frame.with_columns(pl.col("quantity").cast(pl.String)) if "quantity" in frame.columns else frame
    for number, row in enumerate(frame.iter_rows(named=True), 1):
        yield f"row {number}", _nested(row)


def _nested(row: dict[Any, Any]) -> dict[str, Any]:
    """A flat row with its `dimensions.*` columns as one mapping; an empty cell is none."""
    dimensions = {
        str(name).removeprefix(_DIMENSION): value
        for name, value in row.items()
        if str(name).startswith(_DIMENSION) and value is not None
    }
    given = dict(row.get("dimensions") or {})
    kept = {str(name): value for name, value in row.items() if not str(name).startswith("dimensions")}
    return {name: value for name, value in kept.items() if value not in {None, ""}} | {"dimensions": given | dimensions}


def _decoded(row: Any) -> _Row:
    try:
        if isinstance(row, bytes):
            return msgspec.json.decode(row, type=_Row)
        return msgspec.convert(row, _Row, strict=False)
    except msgspec.DecodeError as error:
        raise ValueError(f"{error}; allowed: a row with {_SHAPE}") from None


def _instant(text: str) -> datetime:
    allowed = "allowed: an instant such as 2026-01-31T10:00:00Z, or a date"
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"at: {text!r}; {allowed}") from None
    if instant.tzinfo is None:
        if len(text) > len("2026-01-31"):
            raise ValueError(f"at: {text!r} has no offset from UTC; {allowed}")
        return instant.replace(tzinfo=UTC)
    return instant.astimezone(UTC)


def _check(row: _Row) -> None:
    if (row.quantity is None) == (row.value is None):
        raise ValueError("allowed: either quantity, or value for a meter that counts different values")
    if row.quantity is not None:
        if not row.quantity.is_finite():
            raise ValueError(f"quantity: {row.quantity}; allowed: a number")
        whole, _, fraction = number_text(abs(row.quantity)).partition(".")
        if len(whole) > WHOLE_DIGITS_MAX or len(fraction) > 9:
            raise ValueError(
                f"allowed: a quantity of at most {WHOLE_DIGITS_MAX} digits before the point and 9 after it"
            )
    if not row.customer or not row.meter:
        raise ValueError("allowed: a customer and a meter that are not empty")


def _note_plan(plans: dict[str, str], row: _Row) -> None:
    if row.plan is not None and plans.setdefault(row.customer, row.plan) != row.plan:
        known = plans[row.customer]
        raise ValueError(f"plan {row.plan}, after {known}; allowed: one plan a customer; changes belong in --contracts")


def _frame(rows: list[tuple[_Row, datetime]]) -> pl.DataFrame:
    names = sorted({name for row, _ in rows for name in row.dimensions})
    columns: dict[str, pl.Series] = {
        "subject": pl.Series([row.customer for row, _ in rows], dtype=pl.String),
        "meter": pl.Series([row.meter for row, _ in rows], dtype=pl.String),
        "at": pl.Series([at for _, at in rows], dtype=pl.Datetime("us", "UTC")),
        "quantity": pl.Series([row.quantity for row, _ in rows], dtype=QUANTITY),
        "value": pl.Series([row.value for row, _ in rows], dtype=pl.String),
    }
    dimensions = {
        f"dimension.{name}": pl.Series([row.dimensions.get(name, "") for row, _ in rows], dtype=pl.String)
        for name in names
    }
    return pl.DataFrame(columns | dimensions)


def _shown(row: Any) -> str:
    text = row.decode(errors="replace").strip() if isinstance(row, bytes) else str(row)
    return text if len(text) <= 120 else text[:117] + "..."
