"""The law of a few entries: rows give what frames give, to the last digest, and refuse what these refuse."""

from datetime import UTC, datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from invoicing.ledger.documents import Document, frames_of
from invoicing.ledger.journal import AMOUNTS, Journal, bulk_entries_of, entries_of
from tests.simulation.documents import EXAMPLES, document

NOW = datetime(2026, 2, 1, tzinfo=UTC)

codes = st.lists(
    st.tuples(st.sampled_from(sorted(EXAMPLES)), st.integers(1, 10**6)), min_size=1, max_size=6, unique=True
)
changes = st.lists(st.tuples(st.integers(0, 30), st.sampled_from((0, 1, -1, -7, 10**9))), max_size=3)


def outcome(documents: pl.DataFrame, amounts: pl.DataFrame, *, bulk: bool) -> Journal | str:
    make = bulk_entries_of if bulk else entries_of
    try:
        return make(documents, amounts, booked_at=NOW)
    except ValueError as error:
        return str(error)


@given(codes, changes, st.booleans())
def test_a_few_documents_are_posted_as_many_are(
    codes: list[tuple[str, int]], changes: list[tuple[int, int]], upside: bool
) -> None:
    """Any templates, below zero too, with amounts that cancel or do not: the same entries and postings, or words."""
    given_documents = [
        Document.model_validate(document(code, f"ünï {number}", description=f"{code}: {number}"))
        for code, number in codes
    ]
    documents, amounts = frames_of(given_documents, "default")
    minor = amounts["amount_minor"].to_list()
    for place, value in changes:
        minor[place % len(minor)] = value
    sign = -1 if upside else 1
    amounts = amounts.with_columns(pl.Series("amount_minor", [sign * each for each in minor], AMOUNTS["amount_minor"]))
    few, many = (outcome(documents, amounts, bulk=bulk) for bulk in (False, True))
    if isinstance(few, str) or isinstance(many, str):
        assert few == many
        return
    assert few.entries.equals(many.entries)
    assert few.postings.equals(many.postings)
