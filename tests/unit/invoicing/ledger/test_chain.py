"""The texts that digests and hashes are of, written by hand, and the chain over them."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from invoicing.ledger.chain import chained
from invoicing.ledger.documents import documents_of, frames_of, minor_of
from invoicing.ledger.journal import Journal, entries_of, reversal
from invoicing.ledger.verify import Place, end_of, first_finding
from schemas.journal import GENESIS
from tests.simulation.documents import document

NOW = datetime(2026, 2, 1, 12, 0, 0, 5, tzinfo=UTC)


def posted(*given: dict[str, Any]) -> Journal:
    return entries_of(*frames_of(documents_of(list(given), "test"), "default"), booked_at=NOW)


def test_digest_and_hash_are_of_texts_that_anybody_can_make() -> None:
    """As docs/ledger.md says: lengths in bytes before free texts, one line a posting, and the hash before in front."""
    journal = posted(document("P09", "zahlung-ü", relates_to="a" * 32, description="1|2\n".strip()))
    text = (
        f"P09|1|1|2026-01-31|{'a' * 32}||7:default7:payment10:zahlung-ü3:1|2\n"
        "1|1010|12000|EUR|2:UA4:po_1\n"
        "2|1100|-12000|EUR|2:UA0:\n"
    )
    content = hashlib.sha256(text.encode()).hexdigest()
    assert journal.entries["content_digest"].item() == content
    [entry] = chained(journal.entries, after=0, previous_hash=GENESIS, booked_from=None).rows(named=True)
    assert entry["hash"] == hashlib.sha256(f"{GENESIS}{content}1|1769947200000005".encode()).hexdigest()


def test_an_entry_is_booked_no_earlier_than_the_one_before() -> None:
    """A clock that is behind makes an entry later, not the chain wrong; the content's digest is not of the instant."""
    journal = posted(document("P09"), document("P29"))
    later = NOW + timedelta(minutes=1)
    placed = chained(journal.entries, after=7, previous_hash="b" * 64, booked_from=later)
    assert placed["booked_at"].to_list() == [later, later]
    assert placed["sequence"].to_list() == [8, 9]
    assert placed["previous_hash"].to_list() == ["b" * 64, placed["hash"][0]]


def test_a_chain_is_verified_in_any_stretches() -> None:
    """Where one stretch ends the next begins, and an entry that was changed is found in whichever it stands."""
    journal = posted(*[document("P29", str(number)) for number in range(5)])
    placed = chained(journal.entries, after=0, previous_hash=GENESIS, booked_from=None)
    lines = journal.postings.join(placed.select("sequence", entry_id="id"), on="entry_id", maintain_order="left")
    for size in (1, 2, 5):
        place = Place()
        for start in range(0, 5, size):
            part = placed[start : start + size]
            own = lines.filter(pl.col("sequence").is_in(part["sequence"].to_list()))
            assert first_finding(part, own, place) is None
            place = end_of(part)
    other = lines.with_columns(pl.when(pl.col("sequence") == 4).then(1000).otherwise("account").alias("account"))
    found = first_finding(placed, other, Place())
    assert found
    assert (found.sequence, found.what) == (4, "its content is not what its digest says")


def test_a_reversal_is_the_mirror() -> None:
    """The same accounts, customers and dimensions, on their other sides; it relates to its entry."""
    journal = posted(document("P10"))
    mirror = reversal(journal.entries, journal.postings, effective_at=NOW.date(), reason="twice", booked_at=NOW)
    same = ["position", "account", "customer", "currency", "dimension"]
    assert mirror.postings.select(same).equals(journal.postings.select(same))
    assert mirror.postings["amount_minor"].to_list() == [-minor for minor in journal.postings["amount_minor"]]
    assert mirror.entries["relates_to"].item() == journal.entries["id"].item()


@pytest.mark.parametrize(("written", "minor"), [("1", 100), ("-0.01", -1), ("12.5", 1250), (7, 700)])
def test_amounts_are_exact(written: Any, minor: int) -> None:
    """Texts and whole numbers become minor units without a float between."""
    assert minor_of(written, "EUR") == ("EUR", minor)


@pytest.mark.parametrize("written", ["", "NaN", "Infinity", "1,5", "0.001", "1e30", "1.5 JPY", "1 XXX", "1 EUR USD"])
def test_what_is_no_amount_is_refused(written: str) -> None:
    """Not a number, too fine, too large, or of no currency."""
    with pytest.raises(ValueError, match="allowed: "):
        minor_of(written, "EUR")
