"""Laws of invoices and the journal, for any charges and whatever was booked before."""

from collections import Counter
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import polars as pl
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invoicing.assemble import Assembled, assemble
from invoicing.ledger import store
from invoicing.ledger.documents import POSTABLE, Document
from invoicing.ledger.journal import journal
from invoicing.ledger.store import OtherContentError
from meterline.ledger import posted, reverse
from meterline.verification import verified
from schemas.invoice import BOOKED, CHARGED, Basis, Tax
from stores.postgres import tenant_transaction
from tests.simulation.documents import document

NOW = datetime(2013, 4, 1, tzinfo=UTC)
LAW_NOW = datetime(2026, 2, 1, tzinfo=UTC)
PERIODS = ("2013-01", "2013-02", "2013-03")
BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book", contracts_digest="contracts")
KEY = ("customer", "usage_period", "charge", "currency")

keys = st.tuples(
    st.sampled_from(("AA", "B6", "UA")),
    st.sampled_from(PERIODS),
    st.sampled_from(("turns", "gates")),
    st.sampled_from(("USD", "JPY")),
)
rated = st.dictionaries(
    keys, st.tuples(st.integers(-(10**12), 10**12), st.decimals(-1000, 1000, places=9)), max_size=20
)
taxes = st.none() | st.decimals(0, 100, places=3).map(lambda rate: Tax("VAT", rate))
Rated = dict[tuple[str, str, str, str], tuple[int, Decimal]]


def charges_of(state: Rated) -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "customer": customer, "period": period, "charge": charge, "currency": currency, "description": charge,
            "model": "standard", "quantity": quantity, "slices": [], "amount": quantity, "amount_minor": minor,
            **vars(BASIS),
        }
        for (customer, period, charge, currency), (minor, quantity) in state.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=CHARGED)


def booked_of(*parts: Assembled) -> pl.DataFrame:
    lines = pl.concat(
        part.lines.join(part.invoices.select("id", "currency"), left_on="invoice_id", right_on="id") for part in parts
    )
    sums = [pl.col(name).sum() for name in ("quantity", "amount", "amount_minor")]
    words = [pl.col(name).first() for name in ("description", "model", "meter")]
    return lines.group_by(*KEY).agg(*words, *sums).select(*BOOKED)


def run(state: Rated, booked: pl.DataFrame, tax: Tax | None = None) -> Assembled:
    return assemble(
        charges_of(state),
        booked,
        tenant="default",
        run_period="2013-03",
        bases=dict.fromkeys(PERIODS, BASIS),
        customer_names={},
        tax=tax,
        next_number=1,
        issued_at=NOW,
    )


NOTHING = pl.DataFrame(schema=BOOKED)


@given(rated, taxes)
def test_the_books_balance(state: Rated, tax: Tax | None) -> None:
    """The postings of an entry sum to zero, per currency; an entry has two at least, none of them zero."""
    posted = journal(run(state, NOTHING, tax).invoices, booked_at=NOW)
    sums = posted.postings.group_by("entry_id", "currency").agg(pl.col("amount_minor").sum(), pl.len())
    assert sums["amount_minor"].to_list() == [0] * posted.entries.height
    assert (sums["len"] >= 2).all()
    assert (posted.postings["amount_minor"] != 0).all()


@given(rated, taxes)
def test_lines_and_tax_add_up_to_the_total(state: Rated, tax: Tax | None) -> None:
    """The subtotal is the sum of the rounded lines, and nothing but tax comes on top."""
    assembled = run(state, NOTHING, tax)
    sums: Counter[str] = Counter()
    for invoice_id, minor in assembled.lines.select("invoice_id", "amount_minor").iter_rows():
        sums[invoice_id] += minor
    for head in assembled.invoices.iter_rows(named=True):
        exact = Decimal(head["subtotal_minor"]) * (tax.rate_percent if tax else 0) / 100
        assert head["subtotal_minor"] == sums[head["id"]]
        assert head["total_minor"] == head["subtotal_minor"] + head["tax_minor"]
        assert abs(head["tax_minor"] - exact) <= Decimal("0.5")
    assert set(sums) == set(assembled.invoices["id"])


@given(rated)
def test_a_second_run_changes_nothing(state: Rated) -> None:
    """What is booked as rated gives no lines and no invoices when it is rated again."""
    again = run(state, booked_of(run(state, NOTHING)))
    assert again.lines.is_empty()
    assert again.invoices.is_empty()


@given(rated, rated)
def test_booked_and_adjustment_are_what_is_rated_now(before: Rated, after: Rated) -> None:
    """After a run the posted lines of every customer, period and charge add up to what it is rated at now."""
    first = run(before, NOTHING)
    second = run(after, booked_of(first))
    posted = {tuple(row[:4]): row[4] for row in booked_of(first, second).select(*KEY, "amount_minor").iter_rows()}
    for key in {*before, *after, *posted}:
        assert posted.get(key, 0) == after.get(key, (0, Decimal(0)))[0]


@given(rated)
def test_the_order_of_charges_does_not_change_the_money(state: Rated) -> None:
    """Invoices differ in the order of their lines alone when charges come in another order."""
    turned = dict(reversed(state.items()))
    sums = ("id", "number", "subtotal_minor", "total_minor")
    assert run(state, NOTHING).invoices.select(*sums).equals(run(turned, NOTHING).invoices.select(*sums))


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
                store.close_period(connection, tenant, closed)
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
