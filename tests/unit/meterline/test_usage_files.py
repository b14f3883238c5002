"""Usage of files: what is read, and what each fault says."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterline.offline import Question, rate_offline
from meterline.usage_files import FAULTS_SHOWN_MAX, UsageFile, read_usage
from schemas.configuration import ConfigurationError
from schemas.contract import Contracts
from schemas.price_book import parse_price_book

ROW = {"customer": "acme", "meter": "calls", "quantity": 1, "at": "2026-01-31"}
BOOK = """
book: b
version: 1
effective_at: 2020-01-01
currency: USD
default_plan: free
plans:
  - {id: free, charges: [{id: calls, model: graduated, meter: calls, group_by: [region], tiers: [{up_to: 10, unit_price: 0.001}, {up_to: null, unit_price: 0.5}]}]}
  - {id: pro, charges: [{id: calls, model: matrix, meter: calls, dimensions: [region], cells: [{when: {region: [eu, ""]}, unit_price: 0.7}], default_price: 2}]}
"""


def read(tmp_path: Path, text: str | bytes, name: str = "usage.ndjson") -> UsageFile:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_usage(file)


def refused(tmp_path: Path, text: str | bytes, name: str = "usage.ndjson") -> list[tuple[str, str, str]]:
    """The faults: where, what, what is allowed. All name the file."""
    with pytest.raises(ConfigurationError) as error:
        read(tmp_path, text, name)
    assert {fault.file for fault in error.value.faults} == {str(tmp_path / name)}
    return [(fault.key, fault.value, fault.allowed) for fault in error.value.faults]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"at": "2026-01-31T10:00:00"},
            "at: '2026-01-31T10:00:00' has no offset from UTC; allowed: an instant such as",
        ),
        ({"at": "31.01.2026"}, "at: '31.01.2026'; allowed: an instant such as 2026-01-31T10:00:00Z, or a date"),
        ({"at": "0001-01-01T00:00:00+23:00"}, "at: '0001-01-01T00:00:00+23:00'; allowed"),
        ({"at": 5}, "Expected `str`, got `int` - at `$.at`; allowed: a row with customer, meter, at"),
        ({"quantity": "NaN"}, "quantity: NaN; allowed: a number"),
        ({"quantity": "1e999999"}, "allowed: a quantity of at most 17 digits before the point and 9 after it"),
        ({"quantity": "123456789012345678"}, "allowed: a quantity of at most 17 digits"),
        ({"quantity": "0.0000000001"}, "allowed: a quantity of at most 17 digits"),
        ({"quantity": "1.0000000001"}, "allowed: a quantity of at most 17 digits"),
        ({"quantity": "many"}, "Invalid decimal"),
        ({"quantity": None}, "allowed: either quantity, or value"),
        ({"value": "u1"}, "allowed: either quantity, or value"),
        ({"quantity": None, "value": "a\0"}, "value: a NUL character"),
        ({"qty": 5}, "Object contains unknown field `qty`; allowed: a row with customer, meter, at, quantity or value"),
        ({"dimensions": {"region": 5}}, "Expected `str`, got `int` - at `$.dimensions[...]`"),
        ({"customer": ""}, "allowed: a customer of 1 to 512 characters"),
        ({"customer": "a\nb"}, "allowed: a customer of 1 to 512 characters"),
    ],
)
def test_a_row_that_is_none_is_told(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """The fault names the file, the line, the row, and what is allowed."""
    row = json.dumps(ROW | changed)
    ((where, what, allowed),) = refused(tmp_path, f"{json.dumps(ROW)}\n\n{row}\n")
    assert where == "line 3"
    assert row.startswith(what.removesuffix("..."))
    assert allowed.startswith(said)


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("u.csv", "customer,meter,qty,at\na,b,1,2026-01-01\n", [("header", "qty")]),
        ("u.csv", "customer,meter,quantity,quantity\n", [("header", "quantity"), ("header", "at is missing")]),
        ("u.csv", "", [("header", "customer is missing"), ("header", "meter is missing"), ("header", "at is missing")]),
        ("u.csv", "customer,meter,quantity,at,dimensions.\n", [("header", "dimensions.")]),
        ("u.csv", "customer,meter,quantity,at\na,b,1,2026-01-01,eu\na,b,1\n", [("line 2", "['a', 'b', '1', '2026-01-01', 'eu']"), ("line 3", "['a', 'b', '1']")]),
        ("u.csv", b"customer,meter,quantity,at\n\xff,b,1,2026-01-01\n", [("after line 0", "invalid start byte")]),
        ("u.csv", 'customer,meter,quantity,at\n"a"b,c,1,2026-01-01\n', [("after line 2", "',' expected after '\"'")]),
        ("u.ndjson", b'{"customer": "\xff"}', [("line 1", '{"customer": "\ufffd"}')]),
        ("u.xlsx", "", [("", ".xlsx")]),
        ("u.parquet", "no", [("", None)]),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_told(
    tmp_path: Path, name: str, text: str | bytes, faults: list[tuple[str, str | None]]
) -> None:
    """A header is told once, not for each row; a row has as many cells as it; what cannot be read at all is told."""
    told = refused(tmp_path, text, name)
    assert [(where, None if faults[at][1] is None else what) for at, (where, what, _) in enumerate(told)] == faults
    assert all("allowed: " in allowed for _, _, allowed in told)


def test_columns_of_floats_and_of_naive_instants_are_refused(tmp_path: Path) -> None:
    """Parquet has types: a float has lost its digits, and an instant without a time zone is anyone's."""
    frame = pl.DataFrame({"customer": ["a"], "meter": ["m"], "quantity": [0.1], "at": [datetime(2026, 1, 1)]})  # noqa: DTZ001
    frame.write_parquet(tmp_path / "u.parquet")
    with pytest.raises(ConfigurationError) as error:
        read_usage(tmp_path / "u.parquet")
    assert [(fault.key, fault.value) for fault in error.value.faults] == [("quantity", "Float64"), ("at", "instants without a time zone")]  # fmt: skip


def test_a_customer_has_one_plan_and_faults_are_bounded(tmp_path: Path) -> None:
    """A second plan is a fault; of many faults the first are told."""
    rows = [ROW | {"plan": "free"}, ROW, *[ROW | {"plan": "pro"}] * 30]
    told = refused(tmp_path, "\n".join(json.dumps(row) for row in rows))
    assert len(told) == FAULTS_SHOWN_MAX
    assert told[0][2] == "plan pro, after free; allowed: one plan a customer; changes belong in --contracts"
    assert read(tmp_path, "\n".join(json.dumps(row) for row in rows[:2])).plans == {"acme": "free"}


def test_times_and_numbers_are_read_exactly(tmp_path: Path) -> None:
    """A date is its midnight in UTC, an offset is counted, and no digit is lost on the way."""
    lines = [
        '{"customer": "a", "meter": "m", "quantity": 12345678901234567.123456789, "at": "2026-01-31"}',
        '{"customer": "a", "meter": "m", "quantity": -1e-9, "at": "2026-01-31T01:00:00.000001+02:00", "dimensions": {"r": "x"}}',
        '{"customer": "a", "meter": "m", "quantity": 0e-500, "at": "2026-01-31T01:00:00Z"}',
    ]
    usage = read(tmp_path, "\n".join(lines)).usage
    assert usage["quantity"].to_list() == [Decimal("12345678901234567.123456789"), Decimal("-1e-9"), 0]
    assert usage["at"].to_list()[:2] == [
        datetime(2026, 1, 31, tzinfo=UTC),
        datetime(2026, 1, 30, 23, 0, 0, 1, tzinfo=UTC),
    ]
    assert usage["dimension.r"].to_list() == ["", "x", ""]


written = st.fixed_dictionaries(
    {
        "customer": st.sampled_from(["acme", "zoe", 'é,"x"']),
        "meter": st.just("calls"),
        "quantity": st.decimals(-5, 100_000, places=9).map(lambda number: Decimal(f"{number:f}")),
        "at": st.datetimes(datetime(2025, 12, 20), datetime(2026, 2, 10)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001
        "region": st.sampled_from(["eu", "us", "", None]),
    }
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(written, max_size=8), pro=st.booleans())
def test_the_three_formats_give_the_same_charges(tmp_path: Path, rows: list[dict[str, Any]], pro: bool) -> None:
    """NDJSON, CSV and Parquet of the same rows are the same usage, to the last digit."""
    rows.append(
        {
            "customer": "zoe",
            "meter": "calls",
            "quantity": Decimal(1),
            "at": datetime(2026, 1, 1, tzinfo=UTC),
            "region": "eu",
        }
    )
    plans = {"zoe": "pro"} if pro else {}
    lines = []
    for row in rows:
        number = f"{row['quantity']:f}"
        told = {"customer": row["customer"], "meter": "calls", "at": row["at"].isoformat(), "quantity": "#"}
        told |= {"dimensions": {"region": row["region"]}} if row["region"] is not None else {}
        told |= {"plan": plans[row["customer"]]} if row["customer"] in plans else {}
        lines.append(json.dumps(told, ensure_ascii=False).replace('"#"', number))
    (tmp_path / "u.ndjson").write_text("\n".join(lines))
    flat = pl.DataFrame(
        [
            (row["customer"], plans.get(row["customer"]), "calls", row["quantity"], row["at"], row["region"])
            for row in rows
        ],
        schema={
            "customer": pl.String,
            "plan": pl.String,
            "meter": pl.String,
            "quantity": pl.Decimal(38, 9),
            "at": pl.Datetime("us", "UTC"),
            "dimensions.region": pl.String,
        },
        orient="row",
    )
    flat.write_parquet(tmp_path / "u.parquet")
    flat.with_columns(pl.col("at").dt.to_string("iso:strict")).write_csv(tmp_path / "u.csv")
    book = parse_price_book(BOOK, "book.yaml", None)
    answers = []
    for name in ("u.ndjson", "u.csv", "u.parquet"):
        usage = read_usage(tmp_path / name)
        question = Question(
            {"b": book}, Contracts(contracts=()), "", None, usage, "usage", date(2025, 12, 15), date(2026, 2, 1)
        )
        answer = rate_offline(question)
        answers.append(
            (usage.usage.rows(), usage.plans, answer.rated.charges.rows(), answer.rated.slices.rows(), answer.notes)
        )
    assert answers[0] == answers[1] == answers[2]
