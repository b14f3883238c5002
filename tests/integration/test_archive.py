"""Books and invoices of a real PostgreSQL in an archive: added to and never changed, and proven from its files alone."""

import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoicing.archive import app as archiving
from invoicing.archive import store as archive
from invoicing.archive.manifest import Manifest
from invoicing.invoices import store as books
from invoicing.ledger import store as ledger
from invoicing.ledger.documents import Document
from invoicing.periods import store as periods
from meterline.archive_verification import verified, verify_archive
from meterline.ledger import posted
from meterline.operations import outputs_of
from meterline.output import Failure, Text
from schemas.invoice import INVOICES, LINES
from tests.conftest import fresh_database
from tests.integration.test_rendered_invoices import app  # noqa: F401  a fixture: two invoices of March
from tests.simulation.documents import document

NOW = datetime(2026, 4, 1, tzinfo=UTC)
MARCH = date(2026, 3, 31)


def post(database: sa.Engine, *given_documents: tuple[str, str, str], now: datetime = NOW) -> None:
    documents = [document(code, name, effective_at=day) for code, name, day in given_documents]
    posted(database, "default", [Document.model_validate(each) for each in documents], now=now)


def close(database: sa.Engine, through: date) -> None:
    with database.begin() as connection:
        periods.close_period(connection, "default", through)


def said(database: sa.Engine, folder: Path, through: date, **more: Any) -> str:
    """What the operation ends with."""
    system: Any = SimpleNamespace(database=database)
    *_, last = outputs_of(system, "create_archive", {"path": str(folder), "through": str(through), **more})
    assert isinstance(last, Text | Failure)
    return last.text if isinstance(last, Text) else f"failed: {last.message}"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest_in(folder: Path) -> Manifest:
    manifest = archive.newest(folder)
    assert manifest
    return manifest


def test_an_archive_is_added_to_and_never_changed(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month that is closed goes in once; later entries, also such of an archived month, come in files of their own."""
    database: sa.Engine = request.getfixturevalue("app").database
    monkeypatch.setattr(archiving, "STRETCH_ENTRIES", 3)
    folder = tmp_path / "archive"
    post(
        database,
        ("P26", "1", "2026-03-02"),
        ("P09", "2", "2026-04-01"),
        ("P29", "3", "2026-02-28"),
        ("P29", "4", "2026-04-01"),
    )
    assert "not closed through 2026-03-31" in said(database, folder, MARCH)
    assert "allowed: the last day of a month" in said(database, folder, date(2026, 3, 30))
    assert not folder.exists()
    close(database, MARCH)
    first = said(database, folder, MARCH)
    assert first.startswith(f"{folder}: 5 entries, 16 postings, 2 invoices in ")  # the last of April is not wanted yet
    manifest = manifest_in(folder)
    assert [(each.month, each.closed, each.entries, each.retain_until) for each in manifest.months] == [
        ("2026-02", True, 1, "2033-02-28"), ("2026-03", True, 3, "2033-03-31"), ("2026-04", False, 1, "2033-04-30"),
    ]  # fmt: skip
    assert [(each.first_sequence, each.last_sequence) for each in manifest.stretches] == [(1, 3), (4, 5)]
    assert verified(folder).faults == []
    before = files_of(folder)
    assert said(database, folder, MARCH) == first
    assert files_of(folder) == before

    late = datetime.now(UTC) + timedelta(hours=1)
    with database.begin() as connection:
        periods.reopen_period(
            connection, "default", MARCH, by="Ada", why="late", opened_at=datetime.now(UTC), until=late
        )
    post(database, ("P29", "5", "2026-03-31"), now=datetime.now(UTC))
    assert "or open again" in said(database, folder, MARCH)
    assert "7 entries" in said(database, folder, MARCH, open_months=True)
    manifest = manifest_in(folder)
    assert [each.closed for each in manifest.months] == [False, False, False]
    assert manifest.runs[-1].open_months_allowed
    assert (manifest.number, verified(folder).faults) == (2, [])
    after = files_of(folder)
    assert {name: after[name] for name in before if name != archive.NEWEST} == {
        name: content for name, content in before.items() if name != archive.NEWEST
    }
    assert after["manifest-0001.json"] == before[archive.NEWEST]
    assert {name.partition("journal_entries-")[2] for name in {*after} - {*before} if "journal_entries" in name} == {
        "000000000006-000000000007.parquet"
    }


def test_an_archive_holds_the_rows_of_the_tables(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Entries, postings, invoices and lines are read back as the stores give them, each value of its type."""
    database: sa.Engine = request.getfixturevalue("app").database
    post(database, ("P26", "1", "2026-03-02"), ("P09", "2", "2026-03-03"))
    close(database, MARCH)
    said(database, tmp_path, MARCH)
    place = tmp_path / "tenant=default" / "month=2026-03"
    table = {each: pl.read_parquet(place / f"{each}-*.parquet", hive_partitioning=False)
             for each in ("journal_entries", "postings", "invoices", "invoice_lines")}  # fmt: skip
    with database.connect() as connection:
        entries, postings = ledger.entries(connection, "default")
        invoices = books.invoices_of(connection, "default", "2026-03").sort("id")
        lines = pl.concat(books.lines_of(connection, each) for each in invoices["id"])
    assert table["journal_entries"].equals(entries, null_equal=True)
    assert table["postings"].drop("sequence").equals(postings.drop("entry_id"))
    assert table["invoices"].equals(invoices)
    assert table["invoice_lines"].equals(lines)
    assert (dict(table["invoices"].schema), dict(table["invoice_lines"].schema)) == (INVOICES, LINES)


@pytest.fixture(scope="module")
def kept(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two runs, over two months."""
    folder = tmp_path_factory.mktemp("kept") / "archive"
    with fresh_database(postgres_url) as database:
        for month in (1, 2):
            post(
                database,
                *[("P09", f"{month} {n}", f"2026-0{month}-1{n}") for n in range(3)],
                ("P26", f"{month}", f"2026-0{month}-28"),
            )
            close(database, date(2026, month + 1, 1) - timedelta(days=1))
            said(database, folder, date(2026, month + 1, 1) - timedelta(days=1))
    assert verified(folder).faults == []
    return folder


def changed(folder: Path, place: Path, content: bytes | None) -> list[str]:
    """What verifying finds while a file is another one, or is missing."""
    before = place.read_bytes() if place.exists() else None
    place.unlink(missing_ok=True)
    if content is not None:
        place.write_bytes(content)
    try:
        return verified(folder).faults
    finally:
        place.unlink(missing_ok=True)
        if before is not None:
            place.write_bytes(before)


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_change_of_any_byte_is_found(kept: Path, data: st.DataObject) -> None:
    """In the tables, in the manifest, in those before it; also a byte more or less, and a file more or less."""
    places = sorted(path for path in kept.rglob("*") if path.is_file())
    place = data.draw(st.sampled_from(places))
    content = place.read_bytes()
    at, bits = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(1, 255))
    flipped = content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
    other = data.draw(st.sampled_from([flipped, content[:at], content + b"\n", b"", None]))
    assert changed(kept, place, other)
    assert verified(kept).faults == []


def test_what_is_in_no_manifest_is_found(kept: Path) -> None:
    """A file that somebody put there, and a manifest without its archive."""
    assert changed(kept, kept / "tenant=default" / "more.parquet", b"x") == [
        "tenant=default/more.parquet is in no manifest"
    ]
    assert verified(kept / "tenant=default").faults == [f"{kept / 'tenant=default' / 'manifest.json'} is missing"]


def resign(folder: Path, **forged: Any) -> None:
    """Make an archive's manifest anew, as if it were its first."""
    again = manifest_in(folder).model_copy(update={"number": 1, "previous_sha256": "0" * 64, **forged}).signed()
    for place in folder.glob("manifest*.json"):
        place.unlink()
    (folder / archive.NEWEST).write_bytes(again.text())


def test_totals_and_stretches_that_were_forged_with_their_hash_are_found(kept: Path, tmp_path: Path) -> None:
    """What a manifest says is computed again from the files, whatever its hash is."""
    manifest = manifest_in(kept)
    first, second = manifest.months
    more = first.model_copy(update={"debit_minor": {**first.debit_minor, "EUR": 1}})
    short = manifest.stretches[:1]
    swapped = [
        each.model_copy(update={"month": second.month}) if each.table == "postings" else each for each in manifest.files
    ]
    for number, (forged, told) in enumerate(
        [
            ({"months": [more, second]}, f"default {first.month}: the files hold"),
            ({"months": [second]}, f"default {first.month}: the files hold"),
            ({"stretches": short}, f"default {second.month}: the files hold"),
            ({"stretches": manifest.stretches[1:]}, "default: entry 5 "),
            ({"files": swapped}, f"default {first.month}: rows of it are in the files of another month"),
            ({"files": manifest.files[1:]}, "is in no manifest"),
        ]
    ):
        folder = tmp_path / str(number)
        shutil.copytree(kept, folder)
        resign(folder, **forged)
        assert told in verified(folder).faults[0]


@pytest.mark.parametrize(
    ("table", "forge", "told"),
    [
        ("postings", pl.col("amount_minor") * 2, "its content is not what its digest says"),
        ("postings", pl.lit("AA").alias("customer"), "its content is not what its digest says"),
        ("journal_entries", pl.lit("0" * 64).alias("hash"), "its hash is not its own"),
        ("journal_entries", pl.col("effective_at").dt.offset_by("1d"), "its content is not what its digest says"),
        ("journal_entries", pl.col("sequence") + 1, "its sequence is"),
    ],
)  # fmt: skip
def test_books_that_were_forged_with_their_hashes_are_found(
    kept: Path, tmp_path: Path, table: str, forge: pl.Expr, told: str
) -> None:
    """Whoever makes files, hashes and manifests anew still has to make the chain anew; and then its last hash is another."""
    folder = tmp_path / "forged"
    shutil.copytree(kept, folder)
    manifest = manifest_in(folder)
    own = next(each for each in manifest.files if each.table == table)
    writing = archive.Writing(tmp_path / "made")
    frame = pl.read_parquet(folder / own.path, hive_partitioning=False).with_columns(forge)
    writing.add(frame, own.tenant, own.month, own.table, own.path.partition(f"{table}-")[2].removesuffix(".parquet"))
    (folder / own.path).unlink()
    shutil.copy(tmp_path / "made" / ".partial" / own.path, folder / own.path)
    [made] = writing.files
    sequences = {"first_sequence": own.first_sequence, "last_sequence": own.last_sequence}
    forged = made.model_copy(update=sequences)
    resign(folder, files=[forged if each == own else each for each in manifest.files])
    [fault] = verified(folder).faults
    assert told in fault
    [failure] = verify_archive(folder, manifest.sha256)
    assert isinstance(failure, Failure)
    assert f"and not {manifest.sha256}" in failure.message


def test_an_archive_is_of_one_ledger(kept: Path, database: sa.Engine, tmp_path: Path) -> None:
    """Another ledger does not go on where this one ended, and a file that is lost is told before anything is added."""
    post(database, *[("P29", str(n), "2026-01-05") for n in range(9)])
    close(database, MARCH)
    folder = tmp_path / "copy"
    shutil.copytree(kept, folder)
    before = files_of(folder)
    assert "it is the archive of another ledger" in said(database, folder, MARCH)
    assert files_of(folder) == before
    (folder / manifest_in(folder).files[0].path).unlink()
    assert "is missing; meterline archive verify" in said(database, folder, MARCH)


def test_a_run_that_was_killed_leaves_nothing_in_the_way(database: sa.Engine, tmp_path: Path) -> None:
    """What it wrote aside goes; files at their places without a manifest count where they are the same, else they stop it."""
    post(database, ("P09", "1", "2026-03-02"), ("P29", "2", "2026-03-02"))
    close(database, MARCH)
    said(database, tmp_path, MARCH)
    (tmp_path / archive.NEWEST).rename(tmp_path / "elsewhere.json")
    (tmp_path / ".partial").mkdir()
    assert "elsewhere.json is in no manifest" in said(database, tmp_path, MARCH)
    (tmp_path / "elsewhere.json").unlink()
    assert "2 entries" in said(database, tmp_path, MARCH)
    assert verified(tmp_path).faults == []
    (tmp_path / archive.NEWEST).unlink()
    [place] = tmp_path.rglob("postings-*.parquet")
    place.chmod(0o644)
    place.write_bytes(b"other")
    assert "is there with other content; nothing was archived" in said(database, tmp_path, MARCH)


def test_books_that_were_changed_are_not_archived(database: sa.Engine, tmp_path: Path) -> None:
    """What is no more what was posted goes into no archive."""
    post(database, ("P09", "1", "2026-03-02"))
    close(database, MARCH)
    with database.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica; UPDATE postings SET customer = 'AA'")
    assert "its content is not what its digest says; nothing was archived" in said(database, tmp_path / "a", MARCH)
    assert files_of(tmp_path / "a") == {}
