"""Laws of the journal, for any sequence of documents."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoicing.ledger import store
from invoicing.ledger.documents import POSTABLE, Document
from invoicing.ledger.store import OtherContentError
from invoicing.periods import store as periods
from meterline.ledger import posted, reverse
from meterline.verification import verified
from stores.postgres import tenant_transaction
from tests.simulation.documents import document

LAW_NOW = datetime(2026, 2, 1, tzinfo=UTC)

codes = st.sampled_from(sorted(POSTABLE))
moves = st.lists(
    st.tuples(st.sampled_from(("post", "again", "reverse", "close")), codes, st.integers(1, 5)), min_size=1, max_size=12
)


@given(moves)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_sequence_of_operations_leaves_books_in_balance(shared_database: sa.Engine, operations: list[Any]) -> None:
    """I1, I3, I14: balances sum to zero per currency, repeats change nothing, closed days stay as they were."""
    tenant = f"law {uuid4()}"  # each run has books of its own
    day, ids, closed = date(2026, 1, 1), list[str](), date(2000, 1, 1)
    frozen: list[Any] = []
    for operation, code, number in operations:
        given_document = Document.model_validate(document(code, f"{number}", effective_at=str(day)))
        if operation == "close":
            closed, day = day, day + timedelta(days=1)
            with tenant_transaction(shared_database, tenant) as connection:
                periods.close_period(connection, tenant, closed)
                frozen = store.balances(
                    connection, tenant, effective_through=closed, by=("customer", "dimension")
                ).rows()
        elif operation == "reverse" and ids:
            with suppress(sa.exc.IntegrityError, OtherContentError):  # of a reversal; on another day
                reverse(shared_database, tenant, ids[number % len(ids)], effective_at=day, why="law", now=LAW_NOW)
        else:
            with suppress(OtherContentError):  # the same document on another day
                posted_entries, _ = posted(shared_database, tenant, [given_document], now=LAW_NOW)
                ids += posted_entries.entries["id"].to_list()
                assert posted(shared_database, tenant, [given_document], now=LAW_NOW)[1] == 0
    if closed >= date(2026, 1, 1):
        late = Document.model_validate(document("P29", "late", effective_at=str(closed)))
        with pytest.raises(sa.exc.IntegrityError, match="are closed through"):
            posted(shared_database, tenant, [late], now=LAW_NOW)
    with tenant_transaction(shared_database, tenant) as connection:
        sums = store.balances(connection, tenant).group_by("currency").agg(pl.col("balance_minor").sum())
        if closed > date(2000, 1, 1):
            assert (
                store.balances(connection, tenant, effective_through=closed, by=("customer", "dimension")).rows()
                == frozen
            )
    assert set(sums["balance_minor"]) <= {0}
    assert [finding for whose, _, finding in verified(shared_database) if whose == tenant and finding] == []


@given(st.lists(st.tuples(codes, st.integers(1, 9)), unique=True, min_size=1, max_size=8))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_posting_in_other_batches_gives_the_same_balances_and_digests(
    shared_database: sa.Engine, events: list[Any]
) -> None:
    """I2: the same documents give the same entries and balances, however they were cut into transactions."""
    documents = [Document.model_validate(document(code, str(number))) for code, number in events]
    found = []
    for size in (1, len(documents)):
        tenant = f"replay {uuid4()}"
        for start in range(0, len(documents), size):
            posted(shared_database, tenant, documents[start : start + size], now=LAW_NOW)
        with tenant_transaction(shared_database, tenant) as connection:
            entries, postings = store.entries(connection, tenant)
            balances = store.balances(connection, tenant, by=("customer", "dimension")).rows()
        found.append(
            (balances, entries.select("sequence", "document_id", "template").rows(), postings.drop("entry_id").rows())
        )
    assert found[0] == found[1]
