"""`meterline rate` as a command of its own: no data directory, no server, three formats, and each fault told."""

import csv
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from meterline.cli import cli

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pricing"
DAYS = ("--from", "2026-01-01", "--to", "2026-02-01")
FILES = ("--book", EXAMPLE / "book.yaml", "--contracts", EXAMPLE / "contracts.yaml", "--usage", EXAMPLE / "usage.csv")
BOOK = (EXAMPLE / "book.yaml").read_text()
CONTRACTS = (EXAMPLE / "contracts.yaml").read_text()
USAGE = (EXAMPLE / "usage.csv").read_text()
LEFT_OUT = [
    f"1 row of {EXAMPLE / 'usage.csv'} not rated: of periods that end after 2026-02-01",
    "no charge uses meter downloads: 1 row of sam",
]


def rate(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command in an empty directory, without any variable that names a server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("METERLINE")}
    return subprocess.run(
        [sys.executable, "-m", "meterline", "rate", *map(str, arguments)],
        cwd=directory, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_three_formats_tell_the_same_and_nothing_is_stored(tmp_path: Path) -> None:
    """Table, JSON and CSV agree; slices add up to the gross amount; nothing is left behind in the directory."""
    table, told, charges = (
        rate(tmp_path, *FILES, *DAYS, *more) for more in ((), ("--format", "json", "--explain"), ("--format", "csv"))
    )
    assert [each.returncode for each in (table, told, charges)] == [0] * 3
    slices = CliRunner().invoke(cli, ["rate", *map(str, FILES), *DAYS, "--format", "csv", "--explain"])
    assert not list(tmp_path.iterdir())
    answer = json.loads(told.stdout)
    assert answer["notes"] == LEFT_OUT
    assert table.stdout.splitlines()[-2:] == [f"Note: {note}" for note in LEFT_OUT]
    assert charges.stderr.splitlines() == [f"Note: {note}" for note in LEFT_OUT]
    rows = list(csv.DictReader(charges.stdout.splitlines()))
    plain = [
        {name: "" if charge[name] is None else str(charge[name]) for name in rows[0]} for charge in answer["charges"]
    ]
    assert rows == plain
    parts = list(csv.DictReader(slices.stdout.splitlines()))
    for charge in answer["charges"]:
        own = [part["amount"] for part in parts if part["charge_id"] == charge["id"]]
        assert own == [part["amount"] for part in charge["slices"]]
        if own:
            assert sum(map(Decimal, own)) == Decimal(charge["gross"])
    (euros, dollars) = answer["totals"]
    assert (euros["currency"], euros["due_minor"], dollars["due_minor"]) == ("EUR", 3619, 23788)
    assert (
        "Total of 3 customers in USD: amount 198.68, shared 0.00, prepaid 0.00, net 198.68, tax 39.20, due 237.88"
        in table.stdout
    )
    assert dollars["due_minor"] == sum(bill["due_minor"] for bill in answer["bills"] if bill["currency"] == "USD")


def test_a_fault_ends_the_command_with_status_1(tmp_path: Path) -> None:
    """What is wrong stands in standard error, without a traceback, of all files at once."""
    (tmp_path / "book.yaml").write_text(BOOK.replace("{USD: 49.00, EUR: 45.00}", "49.00"))
    (tmp_path / "usage.csv").write_text(USAGE.replace("2026-01-10T09:00:00Z", "2026-01-10T09:00:00"))
    done = rate(tmp_path, "--book", "book.yaml", "--usage", "usage.csv", *DAYS)
    assert (done.returncode, done.stdout) == (1, "")
    message = " ".join(done.stderr.split())
    assert message.startswith(
        "2 faults in the configuration; nothing was applied: book.yaml: plans[1].charges[0].amount: 49: allowed: a price in EUR too"
    )
    assert "usage.csv: line 2:" in message
    assert "has no offset from UTC" in message
    assert "Traceback" not in message


def told(
    tmp_path: Path,
    *arguments: str,
    book: str = BOOK,
    contracts: str = CONTRACTS,
    usage: str = USAGE,
    days: tuple[str, ...] = DAYS,
) -> str:
    """What the command says of texts, in this process: its output, or its message."""
    for name, text in (("book.yaml", book), ("contracts.yaml", contracts), ("usage.csv", usage)):
        (tmp_path / name).write_text(text)
    files = [part for name in ("book", "contracts") for part in (f"--{name}", str(tmp_path / f"{name}.yaml"))]
    done = CliRunner().invoke(
        cli, ["rate", *files, "--usage", str(tmp_path / "usage.csv"), *days, *arguments], standalone_mode=False
    )
    return (done.output if done.exception is None else str(getattr(done.exception, "message", done.exception))).replace(
        f"{tmp_path}/", ""
    )


@pytest.mark.parametrize(
    ("changed", "arguments", "said"),
    [
        ({"usage": USAGE.replace("zoe,pro", "zoe,team")}, (), "usage.csv: plan: team: allowed: a plan of a book: free, pro"),
        ({}, ("--plan", "team"), "--plan: (the file): team: allowed: a plan of a book: free, pro"),
        ({"contracts": CONTRACTS.replace("plan: pro", "plan: team", 1)}, (), "contracts.yaml: contracts.acme.plan: 'team': allowed: a plan of cloud version 1: free, pro"),
        ({"contracts": CONTRACTS.replace("currency: EUR", "currency: CHF")}, (), "contracts.yaml: contracts.nordwind.currency: 'CHF': allowed: a currency of cloud version 1: USD, EUR"),
        ({"usage": USAGE.replace(",dimensions.region", ",plan2")}, (), "usage.csv: header: plan2: allowed: columns customer, plan, meter"),
        ({"usage": USAGE.replace(",dimensions.region", ",value")}, (), "usage.csv: line 6: {"),
        ({"usage": "\n".join(line.rpartition(",")[0] for line in USAGE.splitlines())}, (), "usage.csv: dimensions.region: missing in all rows: allowed: a value in rows of traffic_gb, as charge traffic asks for it"),
        ({}, ("--prepaid", "acme"), "--prepaid: (the file): acme: allowed: CUSTOMER=AMOUNT"),
        ({}, ("--prepaid", "acme=0.001"), "--prepaid: acme: 0.001: allowed: an amount of USD, 0 or above, with at most 2 decimals"),
        ({}, ("--prepaid", "acme=-1"), "--prepaid: acme: -1: allowed: an amount of USD"),
        ({}, ("--prepaid", "nobody=1"), "--prepaid: nobody: 1: allowed: a customer with a contract or a plan of its own, and a billing period: acme, nordwind, zoe"),
        ({"usage": USAGE.replace("1500,", "99999999999999999,"), "book": BOOK.replace("included: 1000, unit_price: {USD: 0.001", "unit_price: {USD: 2000")}, (), "more than 17 whole digits: overflow in decimal multiplication"),
        ({"days": ("--from", "2026-02-01", "--to", "2026-01-01")}, (), "--to: (the file): 2026-01-01: allowed: a day after --from, 2026-02-01"),
        ({"days": ("--from", "2025-11-01", "--to", "2026-01-01")}, (), "contract of zoe: no version of its price book is in force at"),
    ],
)  # fmt: skip
def test_each_fault_says_where_what_and_what_is_allowed(
    tmp_path: Path, changed: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    """One message a fault, with the file or the option, the value and what is allowed."""
    assert said in told(tmp_path, *arguments, **changed)  # type: ignore[arg-type]


def test_a_version_stands_once_and_meters_are_known(tmp_path: Path) -> None:
    """Two files of one version, usage of a meter that there is not, and values where numbers are wanted are faults."""
    (tmp_path / "again.yaml").write_text(BOOK)
    assert "again.yaml: version: cloud version 1: allowed: a version once; book.yaml has it too" in told(tmp_path, "--book", str(tmp_path / "again.yaml"))  # fmt: skip
    slugs = {
        "api_calls": "SUM",
        "storage_gb": "SUM",
        "traffic_gb": "SUM",
        "build_minutes": "MAX",
        "payments": "UNIQUE_COUNT",
    }
    meters = [
        f"{{slug: {slug}, eventType: e, aggregation: {kind}, valueProperty: $.v, groupBy: {{region: $.region}}}}"
        for slug, kind in slugs.items()
    ]
    (tmp_path / "meters.yaml").write_text("meters: [" + ", ".join(meters) + "]")
    # the book's own faults with these meters come first: a percentage is of sums
    said = told(tmp_path, "--meters", str(tmp_path / "meters.yaml"), book="\n".join(line for line in BOOK.splitlines() if "payments" not in line), contracts=CONTRACTS.replace("    remove: [payments]\n", ""))  # fmt: skip
    assert "usage.csv: meter: downloads: allowed: a meter of --meters: api_calls, build_minutes, payments" in said
    assert "usage.csv: quantity: payments: allowed: value instead, as the meter counts different values" in said


def test_who_pays_and_what_is_left_out(tmp_path: Path) -> None:
    """A contract's customer is its first subject; --plan is for the rest; each left-out row is told with its reason."""
    usage = [
        "customer,plan,meter,quantity,at",
        "acme,,api_calls,20000,2026-01-02T00:00:00Z", "acme,free,api_calls,1,2026-01-02", "acme,,api_calls,5,2025-12-31",
        "nordwind,,api_calls,7,2026-01-14T22:59:59Z", "joe,,api_calls,10,2026-01-05", "kim,,api_calls,10,2026-03-05",
        "gone,,api_calls,8,2026-01-21", "late,,api_calls,9,2026-01-21",
    ]  # fmt: skip
    contracts = (
        CONTRACTS
        + """  - {customer: gone, name: Gone, subjects: [gone], plan: pro, starts_on: 2026-01-01, ends_on: 2026-01-20}
  - {customer: late, name: Late, subjects: [late], plan: pro, starts_on: 2026-02-01}
"""
    )
    said = told(tmp_path, "--plan", "pro", "--format", "json", usage="\n".join(usage), contracts=contracts)
    answer = json.loads(said)
    calls = {charge["customer"]: charge["quantity"] for charge in answer["charges"] if charge["charge"] == "calls"}
    assert calls == {"acme": "20001", "joe": "10"}
    assert answer["notes"] == [
        "the plan of acme in the usage says nothing: a contract names another",
        "1 row of usage.csv not rated: from after a contract has ended",
        "1 row of usage.csv not rated: of customers without a billing period that ends after 2026-01-01 and by 2026-02-01",
        "1 row of usage.csv not rated: of periods that end after 2026-02-01",
        "2 rows of usage.csv not rated: of periods that end by 2026-01-01, or from before a contract begins",
    ]
    without = told(
        tmp_path,
        "--format",
        "json",
        usage="\n".join(usage),
        contracts=contracts,
        book=BOOK.replace("default_plan: free", ""),
    )
    assert "10 of api_calls by joe: no contract in force names the subject, and there is no default plan for it" in json.loads(without)["notes"]  # fmt: skip


def test_a_column_of_floats_is_refused_by_the_command(tmp_path: Path) -> None:
    """The fault names the file and the column."""
    file = tmp_path / "u.parquet"
    pl.DataFrame({"customer": ["a"], "meter": ["m"], "quantity": [0.1], "at": ["2026-01-01"]}).write_parquet(file)
    done = CliRunner().invoke(cli, ["rate", "--book", str(EXAMPLE / "book.yaml"), "--usage", str(file), *DAYS])
    assert f"{file}: quantity: Float64: allowed: a column of decimals" in str(done.exception)


def test_different_values_averages_and_the_latest_are_combined(tmp_path: Path) -> None:
    """With --meters, rows are events of each aggregation: users counted once, a mean of all, the last of an instant."""
    (tmp_path / "m.yaml").write_text("meters: [" + ", ".join(f"{{slug: {slug}, eventType: e, aggregation: {kind}, valueProperty: $.v}}" for slug, kind in (("users", "UNIQUE_COUNT"), ("load", "AVG"), ("seats", "LATEST"), ("peak", "MAX"))) + "]")  # fmt: skip
    charges = ", ".join(
        f"{{id: {slug}, model: standard, meter: {slug}, unit_price: 1}}" for slug in ("users", "load", "seats", "peak")
    )
    (tmp_path / "b.yaml").write_text(
        f"{{book: b, version: 1, effective_at: 2026-01-01, currency: USD, default_plan: p, plans: [{{id: p, charges: [{charges}]}}]}}"
    )
    rows = [("users", "u1", None), ("users", "u2", None), ("users", "u1", None), ("load", None, 1), ("load", None, 2), ("seats", None, 9), ("seats", None, 4), ("peak", None, 3), ("peak", None, 8)]  # fmt: skip
    lines = [
        json.dumps(
            {
                "customer": "a",
                "meter": meter,
                "at": "2026-01-05",
                **({"value": value} if value else {"quantity": number}),
            }
        )
        for meter, value, number in rows
    ]
    (tmp_path / "u.jsonl").write_text("\n".join(lines))
    files = [
        part
        for option, name in (("book", "b.yaml"), ("meters", "m.yaml"), ("usage", "u.jsonl"))
        for part in (f"--{option}", str(tmp_path / name))
    ]
    done = CliRunner().invoke(cli, ["rate", *files, *DAYS, "--format", "json"])
    assert done.exception is None, done.exception
    assert {charge["charge"]: charge["quantity"] for charge in json.loads(done.output)["charges"]} == {"users": "2", "load": "1.5", "seats": "4", "peak": "8"}  # fmt: skip
