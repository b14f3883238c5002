"""The ledger's exports, over a real PostgreSQL and as the documents show them."""

import base64
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from invoicing.ledger.documents import Document
from meterline.ledger import posted
from meterline.operations import outputs_of
from meterline.output import Failure, File, Output, Table, Text
from tests.conftest import fresh_database
from tests.servers.compose import ROOT
from tests.simulation.documents import document

MAPPING = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "exports.md").read_text(), re.DOTALL)[0]


@pytest.fixture(scope="module")
def books(postgres_url: str) -> Iterator[sa.Engine]:
    """A ledger of two months, with entries of two currencies and a customer whose name would compute."""
    with fresh_database(postgres_url) as database:
        given = [
            *[document("P02", f"inv-{n}", customer=("UA", "AA", "=B6")[n % 3], effective_at=f"2026-0{1 + n % 2}-15")
              for n in range(9)],
            *[document(code, code) for code in ("P09", "P26", "P27")],
        ]  # fmt: skip
        now = datetime(2026, 2, 20, tzinfo=UTC)
        assert posted(database, "default", [Document.model_validate(each) for each in given], now=now)[1] == 12
        yield database


def exported(database: sa.Engine, operation: str = "export_ledger", **parameters: Any) -> list[Output]:
    system: Any = SimpleNamespace(database=database)
    return [*outputs_of(system, operation, parameters)]


def files_of(outputs: list[Output]) -> dict[str, str]:
    return {each.name: base64.b64decode(each.content).decode() for each in outputs if isinstance(each, File)}


def test_the_documented_mapping_exports_the_ledger_with_its_control_totals(books: sa.Engine) -> None:
    """Files of whole journals; totals beside them, which the trial balance and whoever adds up the files find too."""
    outputs = exported(
        books, form="quickbooks", mapping=MAPPING + "lines_max: 8\n", since="2026-01-01", through="2026-01-31",
        name="books.csv",
    )  # fmt: skip
    files = files_of(outputs)
    totals = orjson.loads(files.pop("books.totals.json"))
    assert [each["name"] for each in totals["files"]] == [*files] == [f"books-000{n}.csv" for n in range(1, 6)]
    assert [each["lines"] for each in totals["files"]] == [text.count("\r\n") - 1 for text in files.values()]
    sums: Counter[tuple[str, str, str]] = Counter()
    for text in files.values():
        for row in csv.DictReader(io.StringIO(text)):
            sums[row["Currency"], row["AccountName"], "debit"] += Decimal(row["Debits"] or 0)
            sums[row["Currency"], row["AccountName"], "credit"] += Decimal(row["Credits"] or 0)
    wanted: Counter[tuple[str, str, str]] = Counter()
    for row in totals["accounts"]:
        for side in ("debit", "credit"):
            wanted[row["currency"], row["name"], side] += Decimal(row[side])
    assert sums == wanted
    balances = exported(books, "trial_balance", as_of="2026-01-31", as_json=True)
    [shown] = [each.text for each in balances if isinstance(each, Text)]
    net: Counter[tuple[str, int]] = Counter()
    for row in totals["accounts"]:
        net[row["currency"], row["account"]] += Decimal(row["debit"]) - Decimal(row["credit"])
    assert {key: value for key, value in net.items() if value} == {
        (row["currency"], row["account"]): Decimal(row["balance"]) for row in map(orjson.loads, shown.splitlines())
    }
    assert (totals["entries"], totals["first_sequence"], totals["last_sequence"]) == (8, 1, 12)
    assert totals["head"] == {"sequence": 12, "hash": totals["last_hash"]}
    assert "Sales:Usage" in str(wanted)
    assert "'=B6" in str(files)
    assert isinstance(outputs[-1], Table)
    assert "8 entries" in outputs[-1].title


def test_a_text_of_all_files_goes_to_standard_output(books: sa.Engine) -> None:
    """One header; a month that is summed says the same twice, byte for byte."""
    asked = {"form": "netsuite", "mapping": MAPPING.replace("quickbooks", "netsuite") + "lines_max: 12\n"}
    [*texts] = [each.text for each in exported(books, **asked, summary="month") if isinstance(each, Text)]
    lines = "\n".join(texts).splitlines()
    assert [line.startswith("External ID,") for line in lines] == [True] + [False] * (len(lines) - 1)
    assert len(texts) > 1
    assert {line.partition(",")[0] for line in lines[1:]} >= {"ML-20260131-EUR", "ML-20260131-USD", "ML-20260228-EUR"}
    assert texts == [each.text for each in exported(books, **asked, summary="month") if isinstance(each, Text)]
    assert exported(books, **asked, since="2027-01-01") == []


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"form": "xero"}, "allowed: beancount, hledger, quickbooks, netsuite"),
        ({"form": "netsuite"}, "needs --mapping"),
        ({"form": "hledger", "summary": "day"}, "takes no mapping and no summary"),
        ({"form": "netsuite", "mapping": MAPPING}, "mapping: system: quickbooks: allowed: netsuite"),
        ({"form": "quickbooks", "mapping": "{system: quickbooks, accounts: [{account: 1100, customer: UA, name: A/R}]}"},
         "not exported; accounts without a rule in the mapping: 1000 cash, 1010 gateway clearing, 1150 unbilled receivable, 2000 tax payable, 4010 usage revenue, 7000 FX realised, 9000 FX position, 1100 receivable in EUR"),
        ({"form": "quickbooks", "mapping": MAPPING, "summary": "year"}, "allowed: entry, day, month"),
    ],
)  # fmt: skip
def test_what_cannot_be_exported_is_told_before_anything_is_written(
    books: sa.Engine, asked: dict[str, Any], told: str
) -> None:
    """In one message, with what is allowed."""
    [failure] = exported(books, name="books.csv", **asked)
    assert isinstance(failure, Failure)
    assert told in failure.message


def test_books_as_text_are_of_the_days_that_are_asked_for(books: sa.Engine) -> None:
    """Beancount and hledger take days too."""
    [text] = exported(books, form="hledger", since="2026-02-01")
    assert isinstance(text, Text)
    assert {line[:7] for line in text.text.splitlines() if line.startswith("20")} == {"2026-02"}
