"""Price books as code, over real stores: plan, apply with an audit entry, diff, history; and contracts beside them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from meterline.cli import cli
from meterline.operations import checked_parameters, outputs_of
from meterline.output import Failure, Table, Text
from meterline.system import StoredProgress, System
from schemas.log import Limits, LogConfig
from schemas.meter import Meter
from stores.clickhouse import Client
from stores.postgres_log import open_log

BOOK = """
book: cloud
version: 1
effective_at: 2026-01-01
currency: USD
plans:
  - id: pro
    charges:
      - {id: base, model: flat, amount: 49}
      - {id: calls, model: standard, meter: calls, unit_price: 0.01}
"""
SECOND = BOOK.replace("version: 1", "version: 2").replace("2026-01-01", "2026-06-01").replace("49", "59")
CONTRACTS = "contracts: [{customer: acme, name: Acme, subjects: [a], plan: pro, starts_on: 2026-01-15, charges: {base: {amount: 40}}}]"


@pytest.fixture
def app(database: sa.Engine, clickhouse: Client) -> Iterator[System]:
    """An empty system with one meter."""
    log = open_log(database, 1)
    log.configure(LogConfig(limits=Limits(), meters=(Meter(slug="calls", event_type="call", aggregation="COUNT"),)))
    yield System(database, clickhouse, log, StoredProgress(clickhouse, log))
    log.close()


def text_of(app: System, operation: str, **parameters: Any) -> str:
    """What an operation says; its failure, too."""
    outputs = list(outputs_of(app, operation, checked_parameters(operation, parameters)))
    return "\n".join(each.text if isinstance(each, Text) else each.message if isinstance(each, Failure) else "" for each in outputs)  # fmt: skip


def test_a_book_is_planned_applied_and_remembered(app: System) -> None:
    """Each change has an entry with who, when, from and to; what is there already has none, and none ever changes."""
    assert "cloud: version 1, the first" in text_of(app, "plan_price_book", text=BOOK, file="book.yaml")
    assert text_of(app, "apply_price_book", text=BOOK, file="book.yaml", by="ada").startswith(
        "cloud version 1: stored,"
    )
    assert "stored before" in text_of(app, "apply_price_book", text=BOOK, file="book.yaml", by="eve")
    assert "nothing to apply" in text_of(app, "plan_price_book", text=BOOK, file="book.yaml")
    assert "1 contracts: stored" in text_of(app, "apply_contracts", text=CONTRACTS, file="contracts.yaml")
    plan = text_of(app, "plan_price_book", text=SECOND, file="book.yaml")
    assert "        ~ amount: 49 -> 59" in plan
    assert "  pro: 1 existing from 2026-06-01 on" in plan
    assert "allowed: the stored content" in text_of(
        app, "plan_price_book", text=BOOK.replace("49", "50"), file="b.yaml"
    )
    assert "cloud version 2: stored," in text_of(app, "apply_price_book", text=SECOND, file="book.yaml")
    (history,) = outputs_of(app, "price_history", {"book": "cloud"})
    assert isinstance(history, Table)
    assert [tuple(row[1:5]) for row in history.rows] == [("ada", "cloud", "", "1"), ("unknown", "cloud", "1", "2")]
    digests = text_of(app, "validate_price_books", files={"1": BOOK, "2": SECOND}).split("digest ")
    assert [row[5] for row in history.rows] == [digests[1].split()[0], digests[2]]
    for statement in ("UPDATE price_book_changes SET applied_by = 'eve'", "DELETE FROM price_book_changes"):
        with pytest.raises(sa.exc.IntegrityError, match="what was done stays written down"), app.database.begin() as connection:  # fmt: skip
            connection.execute(sa.text(statement))


def test_stored_versions_and_files_are_compared(app: System) -> None:
    """A name such as cloud@1 is a stored version; what is neither that nor a file is told with what there is."""
    text_of(app, "apply_price_book", text=BOOK, file="book.yaml")
    told = text_of(app, "diff_price_books", before="cloud@1", after="new.yaml", after_text=SECOND)
    assert told.splitlines()[0] == "cloud: version 1 -> 2"
    assert "~ amount: 49 -> 59" in told
    refused = text_of(app, "diff_price_books", before="cloud@1", after="cloud@2")
    assert refused == "no price book cloud@2; allowed: a file, or one of cloud@1"


def test_a_version_that_a_contract_could_not_be_rated_by_is_refused(app: System) -> None:
    """A plan that a contract is on cannot go without the contract; nor can a contract name what no version has."""
    text_of(app, "apply_price_book", text=BOOK, file="book.yaml")
    text_of(app, "apply_contracts", text=CONTRACTS, file="contracts.yaml")
    without = SECOND.replace("id: pro", "id: team")
    for operation in ("plan_price_book", "apply_price_book"):
        assert "contracts.acme.plan: 'pro': allowed: a plan of cloud version 2: team" in text_of(app, operation, text=without, file="b.yaml")  # fmt: skip
    wrong = CONTRACTS.replace("base:", "bass:")
    assert "contracts.acme.charges.bass" in text_of(app, "apply_contracts", text=wrong, file="contracts.yaml")


def test_files_are_checked_without_any_store(tmp_path: Path) -> None:
    """All faults of all files, and status 1; a right file is told with its digest."""
    right, wrong, meters = tmp_path / "right.yaml", tmp_path / "wrong.yaml", tmp_path / "meters.yaml"
    right.write_text(BOOK)
    wrong.write_text(BOOK.replace("meter: calls", "meter: calls, recurring: true").replace("49", "-49"))
    meters.write_text("meters: [{slug: calls, eventType: call, aggregation: COUNT}]")
    data = ("--data", str(tmp_path / "none"))
    done = CliRunner().invoke(cli, ["price", "validate", str(right), *data])
    assert (done.exit_code, done.output.split(",")[0]) == (0, f"{right}: cloud version 1")
    refused = CliRunner().invoke(cli, ["price", "validate", str(right), str(wrong), "--meters", str(meters), *data])
    assert "2 faults" in str(refused.exception)
    assert f"{wrong}: plans[0].charges[1].recurring: True: allowed: a meter that is a SUM; calls is COUNT" in str(refused.exception)  # fmt: skip
    assert not (tmp_path / "none").exists()
