"""What an archive says of itself, to the byte."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.archive.manifest import ArchivedFile, Manifest, Month, Run, Stretch, by_month, debits, manifest_of
from invoicing.ledger.documents import Document, frames_of
from invoicing.ledger.journal import entries_of
from tests.simulation.documents import document

MANIFEST = Manifest(
    number=1,
    runs=[Run(tenant="acme", through="2026-01-31", made_at="2026-02-05T00:00:00Z", open_months_allowed=False)],
    stretches=[Stretch(tenant="acme", first_sequence=1, last_sequence=2, previous_hash="0" * 64, hash="1" * 64)],
    months=[
        Month(tenant="acme", month="2026-01", closed=True, retain_until="2033-01-31", entries=2, postings=5, invoices=1,
              invoice_lines=3, debit_minor={"EUR": 120, "USD": 1}),
    ],
    files=[
        ArchivedFile(path="tenant=acme/month=2026-01/invoices-0001-0001.parquet", table="invoices", tenant="acme",
                     month="2026-01", rows=1, bytes=9, sha256="2" * 64),
    ],
).signed()  # fmt: skip
TEXT = MANIFEST.text()


def test_a_manifest_is_read_back_from_its_text_alone() -> None:
    """From the very text; another form of the same JSON is another text."""
    assert manifest_of(TEXT) == MANIFEST
    for other in (TEXT.replace(b"  ", b" "), TEXT + b"\n", TEXT.rstrip()):
        with pytest.raises(ValueError, match="not the text that was written"):
            manifest_of(other)
    with pytest.raises(ValueError, match="its hash is not its own"):
        manifest_of(MANIFEST.model_copy(update={"number": 2}).text())
    with pytest.raises(ValueError, match="no manifest: number: Field required"):
        manifest_of(b"{}")


@given(st.integers(0, len(TEXT) - 1), st.integers(1, 255))
def test_no_byte_of_a_manifest_changes_unseen(at: int, bits: int) -> None:
    """Whatever the byte becomes."""
    with pytest.raises(ValueError, match=r"no manifest|not the text|not its own"):
        manifest_of(TEXT[:at] + bytes([TEXT[at] ^ bits]) + TEXT[at + 1 :])


def test_entries_are_filed_under_the_month_of_their_accounting_day() -> None:
    """With their postings, and debits by currency; what does not balance is refused."""
    days = ("2026-01-31", "2026-02-01", "2026-01-01")
    given_documents = [document("P26", str(n), effective_at=day) for n, day in enumerate(days)]
    frames = frames_of([Document.model_validate(each) for each in given_documents], "acme")
    journal = entries_of(*frames, booked_at=datetime(2026, 2, 5, tzinfo=UTC))
    entries = journal.entries.with_row_index("sequence", offset=1)
    entries = entries.with_columns(previous_hash=entries["id"], hash=entries["id"])
    lines = journal.postings.join(entries.select("sequence", entry_id="id"), on="entry_id", maintain_order="left")
    months = by_month(entries, lines)
    assert {month: own["document_id"].to_list() for month, (own, _) in months.items()} == {
        "2026-01": ["0", "2"], "2026-02": ["1"],
    }  # fmt: skip
    assert debits(months["2026-01"][1]) == {"EUR": 20_000, "USD": 21_824}
    with pytest.raises(ValueError, match="does not balance in EUR"):
        debits(lines.filter(lines["position"] > 1))
