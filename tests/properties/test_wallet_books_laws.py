"""Law I13 over whatever happens to wallets, in a real PostgreSQL."""

from datetime import UTC, datetime, timedelta
from itertools import count

import polars as pl
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.wallets import store
from tests.simulation.books import balances

NOW = datetime(2026, 1, 10, tzinfo=UTC)
steps = st.one_of(
    st.tuples(st.just("top up"), st.integers(1, 60), st.booleans(), st.integers(0, 2), st.none() | st.integers(1, 9)),
    st.tuples(st.just("burn"), st.integers(1, 80)),
    st.tuples(st.just("give back"), st.integers(0, 9), st.integers(1, 80)),
    st.tuples(st.just("expire")),
)
tenants = map("tenant {}".format, count())
RECEIVABLE, PREPAID = 1100, 2150


def step(connection: sa.Connection, tenant: str, number: int, what: tuple[object, ...], dues: dict[str, int]) -> None:
    """Do one thing, a day after the one before."""
    at = NOW + timedelta(days=number)
    name = f"{what[0]} {number}"
    if what[0] == "top up":
        _, minor, promotional, priority, days = what
        until = None if days is None else at + timedelta(days=days)  # type: ignore[arg-type]
        lot = store.Lot("UA", "USD", minor, name, promotional, priority, until)  # type: ignore[arg-type]
        store.top_up(connection, tenant, lot, at=at)
    elif what[0] == "burn":
        dues[name] = what[1]  # type: ignore[assignment]
        store.burn(connection, tenant, customer="UA", currency="USD", due_minor=dues[name], invoice_id=name, at=at)
    elif what[0] == "give back" and dues:
        _, which, wish = what
        invoice = list(dues)[which % len(dues)]  # type: ignore[operator]
        again = {"customer": "UA", "currency": "USD", "due_minor": dues[invoice], "invoice_id": invoice, "at": at}
        burned = store.burn(connection, tenant, **again)["burned_minor"].sum()  # type: ignore[arg-type]
        if burned:
            back = min(wish, burned)  # type: ignore[type-var]
            left = store.give_back(connection, tenant, invoice_id=invoice, amount_minor=back, reference=name, at=at)
            assert left["burned_minor"].sum() == burned - back
    elif what[0] == "expire":
        store.expire(connection, tenant, at=at)


@given(st.lists(steps, min_size=3, max_size=10))
@settings(max_examples=10)
def test_credits_are_never_below_zero_and_the_books_have_what_is_left(
    shared_database: sa.Engine, history: list[tuple[object, ...]]
) -> None:
    """After each step: lots within what was put in, the wallet their sum, 2150 the paid ones; no invoice paid above its due."""
    tenant, dues = next(tenants), dict[str, int]()
    with shared_database.begin() as connection:
        for number, what in enumerate(history):
            step(connection, tenant, number, what, dues)
            lots = store.lots_of(connection, tenant)
            assert (lots["balance_minor"] >= 0).all()
            assert (lots["balance_minor"] <= lots["granted_minor"]).all()
            query = "SELECT coalesce(sum(balance_minor), 0) FROM wallets WHERE tenant = %s"
            assert connection.exec_driver_sql(query, (tenant,)).scalar_one() == lots["balance_minor"].sum()
            paid = lots.filter(pl.col("kind") == "paid")["balance_minor"].sum()
            assert -sum(balances(connection, PREPAID, tenant=tenant).values()) == paid
            assert 0 <= -sum(balances(connection, RECEIVABLE, tenant=tenant).values()) <= sum(dues.values())
