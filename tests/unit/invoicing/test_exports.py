"""The ledger as other programs read it."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from invoicing.exports import FORMATS
from invoicing.ledger.chain import chained
from invoicing.ledger.documents import Document, frames_of
from invoicing.ledger.journal import entries_of
from schemas.journal import GENESIS
from tests.simulation.documents import EXAMPLES, document

BEAN_CHECK = Path(sys.executable).with_name("bean-check")


@pytest.fixture(scope="module")
def exported() -> dict[str, str]:
    """An entry of every template, with names that mean something to other programs."""
    given = [
        Document.model_validate(document(code, customer='A "b\\" ; c:  d', description="x | y ; z"))
        for code in EXAMPLES
    ]
    journal = entries_of(*frames_of(given, "default"), booked_at=datetime(2026, 2, 1, tzinfo=UTC))
    entries = chained(journal.entries, after=0, previous_hash=GENESIS, booked_from=None)
    return {name: text_of(entries, journal.postings) for name, text_of in FORMATS.items()}


def test_bean_check_finds_nothing_wrong_with_the_books(exported: dict[str, str], tmp_path: Path) -> None:
    """Another program's rules hold for all templates; and it does find one cent that is missing."""
    for text, status in ((exported["beancount"], 0), (exported["beancount"].replace("12.00 EUR", "12.01 EUR", 1), 1)):
        (tmp_path / "books.beancount").write_text(text)
        done = subprocess.run([BEAN_CHECK, tmp_path / "books.beancount"], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
    assert "does not balance" in done.stderr


def test_hledger_has_each_entry_with_its_postings(exported: dict[str, str]) -> None:
    """Two spaces end an account's name, a colon parts it, a semicolon starts a comment: none comes from a name."""
    entries = exported["hledger"].strip().split("\n\n")
    assert len(entries) == len(EXAMPLES)
    head, *lines = entries[8].splitlines()
    assert head.startswith("2026-01-31 * (9) x y z  ; id:")
    assert lines == [
        '    asset:1010 gateway clearing:A "b\\" c d  120.00 EUR  ; dimension:po_1',
        '    asset:1100 receivable:A "b\\" c d  -120.00 EUR',
    ]


def test_an_empty_ledger_is_an_empty_text(exported: dict[str, str]) -> None:
    """Nothing is made up where nothing was posted."""
    empty = entries_of(*frames_of([], "default"), booked_at=datetime(2026, 2, 1, tzinfo=UTC))
    entries = chained(empty.entries, after=0, previous_hash=GENESIS, booked_from=None)
    assert {name: text_of(entries, empty.postings) for name, text_of in FORMATS.items()} == dict.fromkeys(exported, "")
